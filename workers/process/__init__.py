"""The process itself, before and beneath everything else: how its interpreter starts, its own
descriptors, thin wrappers of system calls. No message, no job; nothing else of the project is
imported.
"""
