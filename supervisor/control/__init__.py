"""Orders to a run over its control socket: where that is, the messages, the run's end and the client's end. No decision
about an order: that is `supervisor.core.scheduling.orders`.
"""
