"""The commands of `longhaul`, one module each, and what several of them share. They read and print;
only `remove` deletes. Nothing that a run needs may stand here.
"""
