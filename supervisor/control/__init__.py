"""The supervisor's end of `longhaul ctl`: where the socket is, and the messages. No decision
about an order: that is `supervisor.core.scheduling.orders`. The other end is `supervisor.commands.ctl`.
"""
