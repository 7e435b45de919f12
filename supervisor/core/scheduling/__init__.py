"""The run as a whole: events in, records and commands out; drain, limits, orders, progress. Entered by
run/ alone (and by the simulator).
"""
