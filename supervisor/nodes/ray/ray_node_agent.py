"""The process of an agent on a node of a Ray cluster: `supervisor.nodes.node_agent`, and the interpreter of its zygote
beside it from the beginning.

The zygote needs nothing of the Hello before it imports the user's code. So it starts while the agent imports its own
modules, which takes as long: its workers are ready a tenth of a second earlier. (Without it the agent starts one when
it has its Hello: `LocalEngine`.) It carries no tag yet, and ends with the agent, however that ends.
"""

from __future__ import annotations

from supervisor.engines.zygote_process import PrestartedZygote


def run(orders: int, reports: int, host: int, direct: int) -> None:
    """As `node_agent.run`."""
    zygote = PrestartedZygote.start()
    try:
        from supervisor.nodes import node_agent  # while the zygote starts

        node_agent.run(orders, reports, host, direct, zygote=zygote)
    finally:
        if zygote is not None:
            zygote.discard()  # nothing, if the engine has taken it
