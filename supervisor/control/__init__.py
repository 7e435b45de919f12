"""The supervisor's end of `longhaul ctl`: where the socket is, and what goes over it. No decision
about an order: that is `supervisor.core.scheduling.orders`. The other end is `supervisor.commands.ctl`.
"""
