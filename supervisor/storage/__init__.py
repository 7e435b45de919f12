"""The only writer of an experiment on disk: append, sync, checkpoint, close. Formats and recovery have
rooms of their own in it. No worker, no signal and no terminal; nothing about jobs is decided here.
All file operations that durability rests on go through `files.disk.Disk`, so that a simulated disk
can take its place.
"""
