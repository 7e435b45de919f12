"""From a request to an opened experiment: which one, which jobs, made by which code. No worker, no
engine, and nothing that goes on while jobs run.
"""
