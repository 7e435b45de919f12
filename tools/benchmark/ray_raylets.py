"""A Ray cluster on this machine for the benchmark, in a process of its own: raylets with one CPU each.

    python tools/benchmark/ray_raylets.py 2

It prints the address and ends, with all of its raylets, when its input is closed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

MEMORY = 100_000_000  # bytes of each object store


def run(number: int) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": MEMORY, "num_cpus": 1}
    cluster: Any = Cluster(
        initialize_head=True, connect=False, head_node_args={**store, "include_dashboard": False}
    )
    for _ in range(number - 1):
        cluster.add_node(**store)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    run(int(sys.argv[1]))
