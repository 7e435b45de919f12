"""Which job goes to which worker, and what becomes of it: queue, leases, retries, pacing. Entered by
core/scheduling; nothing that concerns the run as a whole.
"""
