"""The way in for orders from another terminal: where the socket is, what goes over it, and the
supervisor's end of it. What an order does is decided in `core.control`; the other end is
`commands.ctl`.
"""
