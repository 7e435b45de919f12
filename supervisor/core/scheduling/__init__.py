"""The run as a whole: events in, records and commands out; drain, limits, orders, progress. Only `session` and
the simulation may import it.
"""
