"""All decisions, as pure functions of events: no I/O and no clock. Nothing but the standard library's
pure modules, msgspec and `workers.transport.messages` may be imported. What the core needs to know
comes in as a field of an event.
"""
