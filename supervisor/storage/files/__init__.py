"""Durable file operations: atomic replacement, sync, lock, and the paths of one experiment. No file format
must be known here.
"""
