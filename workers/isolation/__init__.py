"""What one job may not do to the next, and what it prints: state of process and interpreter put back,
output caught by descriptor. No message and no lease.
"""
