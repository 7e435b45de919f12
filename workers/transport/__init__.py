"""What goes between processes: messages, frames, pipes. No file, and no code of the user's. Below it
is workers/process alone.
"""
