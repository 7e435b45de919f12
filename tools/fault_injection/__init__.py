"""The faults of tools/torture.py, and the program that they are injected into. Judges nothing."""
