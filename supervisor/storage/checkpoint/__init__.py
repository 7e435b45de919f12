"""The bytes of a checkpoint, of the index beside it, and of the index of a journal that grows. No schedule
(`checkpoint_schedule`), and no recovery.
"""
