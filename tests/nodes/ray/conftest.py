"""A real Ray cluster of three raylets with one CPU each, on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.experiment_fixture import Experiment, experiment, wait_for
from tests.nodes.hosts import Host

__all__ = ["experiment"]
HAS_RAY = importlib.util.find_spec("ray") is not None
GPUS = 2  # of each node but the first, as far as Ray knows
MEMORY = 80_000_000  # bytes of each object store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(
        reason="Ray is not installed (pip install 'longhaul[ray]'): no test of the cluster"
    )
    for item in items:
        if not HAS_RAY and item.get_closest_marker("needs_ray") is not None:
            item.add_marker(skip)


class RayNodes:
    """The cluster. `node` is of Ray (`ray._private.node.Node`)."""

    def __init__(self, number: int = 3, storage: Path | None = None) -> None:
        """storage: a folder in which the head keeps what it knows."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ray.cluster_utils import Cluster

            head: dict[str, Any] = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
            if storage is not None:
                kept = {"gcs_storage": "rocksdb", "gcs_storage_path": str(storage)}
                head["_system_config"] = kept
            self._cluster: Any = Cluster(initialize_head=True, connect=False, head_node_args=head)
        self.address: str = self._cluster.address
        self.nodes: list[Any] = [self._cluster.head_node]
        for _ in range(number - 1):
            self.add()

    @property
    def options(self) -> tuple[str, ...]:
        """For a script."""
        return ("--engine", "ray", "--address", self.address)

    def add(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            node = self._cluster.add_node(num_cpus=1, num_gpus=GPUS, object_store_memory=MEMORY)
            self.nodes.append(node)

    def free(self, resource: str) -> float:
        """What nobody on the cluster has taken."""
        return float(self._cluster.global_state.available_resources().get(resource, 0.0))

    def waiting_actors(self) -> int:
        """How many have no CPU yet."""
        return len(self._cluster.global_state.actor_table(None, actor_state_name="PENDING_CREATION"))

    def raylet(self, node: Any) -> psutil.Process:
        return psutil.Process(node.all_processes["raylet"][0].process.pid)

    def kill(self, node: Any) -> None:
        """SIGKILL its raylet."""
        node.kill_raylet(check_alive=False)

    def drain(self, node: Any, seconds: int) -> None:
        """Tell Ray that it is taken away in so many seconds; it stays."""
        words = [
            "drain-node",
            "--address",
            self.address,
            "--node-id",
            node.node_id,
            "--reason-message",
            "spot",
        ]
        words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", str(seconds)]
        script = Path(sys.executable).with_name("ray")
        subprocess.run([script, *words], check=True, capture_output=True, timeout=60)

    def kill_head(self) -> None:
        """SIGKILL the server that knows of the cluster; its raylets stay."""
        self._cluster.head_node.kill_gcs_server(check_alive=False)

    def restart_head(self) -> None:
        self._cluster.head_node.start_gcs_server()

    def complete(self) -> None:
        """Three nodes again."""
        for node in list(self.nodes):
            if not node.all_processes.get("raylet"):
                self.nodes.remove(node)
                self._cluster.remove_node(node)
        while len(self.nodes) > 3:
            self._cluster.remove_node(self.nodes.pop())
        while len(self.nodes) < 3:
            self.add()

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def ray_nodes() -> Iterator[RayNodes]:
    nodes = RayNodes()
    yield nodes
    nodes.shutdown()


@pytest.fixture
def cluster(ray_nodes: RayNodes) -> RayNodes:
    """With three nodes."""
    ray_nodes.complete()
    return ray_nodes


def start_ray(host: Host, *options: str, **environment: str) -> None:
    """On a host of its own (`tests.nodes.hosts`)."""
    # Ray asks the network for its own address. What it keeps on a disk is of one host.
    # A token that the user of this machine has would be asked for by the head, and not be shown by the others.
    script = (
        "ip route add default via 10.99.0.254 && mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray"
        ' && exec env RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled "$@"'
    )
    ray = str(Path(sys.executable).with_name("ray"))
    words = ["sh", "-c", script, "-", ray, "start", f"--node-ip-address={host.address}", *options]
    subprocess.run(
        [*host.entered(Path("/")), *words],
        check=True,
        capture_output=True,
        timeout=90,
        env={**os.environ, **environment},
    )


def driver_of(experiment: Experiment, supervisor: int) -> psutil.Process:
    """The Ray driver of this supervisor."""

    def found() -> psutil.Process | None:
        return next(iter(running("ray_driver", psutil.Process(supervisor).children())), None)

    process: psutil.Process = wait_for(found, "the driver")
    return process


def agents_of(experiment: Experiment) -> list[psutil.Process]:
    """The agents of all nodes."""
    found = []
    for pid in experiment.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return running("node_agent", found)


def running(entry: str, processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that run this module of ours; some may be gone by now."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # ZombieProcess as well
            if any(entry in word for word in process.cmdline()):
                found.append(process)
    return found
