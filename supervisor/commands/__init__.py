"""The commands of `longhaul`, one module each; they read, and only `rm` removes."""
