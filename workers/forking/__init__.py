"""What a fork inherits and what processes leave behind: shared descriptors, orphans, resource
trackers. Linux only. No job, and no code of the user's.
"""
