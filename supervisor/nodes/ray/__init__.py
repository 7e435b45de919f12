"""A Ray cluster as the carrier of agents: the driver, a process of its own that is Ray's client, the actor that it
starts on each node, and the supervisor's end. Ray is imported by the driver's process alone, in `ray_cluster`; nothing
else in this project may import it. No decision about jobs; what goes through here are bytes.
"""
