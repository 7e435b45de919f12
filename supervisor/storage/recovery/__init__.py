"""Reads and repairs the files of an earlier run. `survey` reads and judges, only `repair` writes. Nothing here
belongs to a running experiment.
"""
