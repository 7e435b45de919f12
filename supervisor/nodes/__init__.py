"""Places: local engines behind a wire, many under one supervisor. What goes over the wire, the agent that runs an
engine on a node, and the engine that drives several of them. A run on this machine alone never imports this
room. No decision about jobs, no storage, no view, and nothing of a cluster's software but in a carrier.
"""
