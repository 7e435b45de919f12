"""What the operating system tells and does: processes, memory, signals, clock, encodings. It knows
pids and no jobs. Below it is workers/process alone, and what tells orphans apart (workers/forking).
"""
