"""The bytes of a checkpoint and of the index beside it. No schedule (`checkpoint_schedule`), and no
recovery.
"""
