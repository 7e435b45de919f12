"""Files of nodes that share no file system with the supervisor: on the agent's side what workers write is read and
sent, on the supervisor's side it is taken in. Nothing of agents, links and processes enters (of engines only the leases
that a worker was sent), and the experiment's directory is written by whoever implements `FileStore` alone.
"""
