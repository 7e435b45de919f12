"""What jobs need, what each place has for them, and whether one fits there. No queue, no worker's life and no event:
who gets what, and when, is decided by core/dispatch.
"""
