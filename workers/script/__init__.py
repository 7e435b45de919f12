"""How the user's code gets into a worker: the script as `__main__`, functions by name or by value, the
user's modules by file. No message loop and no lease.
"""
