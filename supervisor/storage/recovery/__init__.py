"""What an earlier run left, read and repaired. `survey` reads and judges, `repair` alone writes.
Nothing of a run that goes on.
"""
