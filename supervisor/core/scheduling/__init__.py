"""The run as a whole: events in, records and commands out; drain, limits, orders, progress. Only `run` and the
simulation may import it.
"""
