"""What the machine has, and what of it this process may use: cores, memory, GPUs; limits of control groups
and schedulers counted. It measures nothing that changes while jobs run, but for the memory that is free.
"""
