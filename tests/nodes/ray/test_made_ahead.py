"""What is started before it is certain that it is needed. Ray is not needed."""

from __future__ import annotations

import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from supervisor.api import _needs_driver
from supervisor.nodes.ray.driver_process import DriverProcess
from supervisor.nodes.ray.driver_protocol import Bring, ClusterNode, Reserve
from supervisor.nodes.ray.ray_cluster import START_WITHIN, RayCluster, Share

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="--engine ray needs Linux")


@linux
@pytest.mark.parametrize(
    ("line", "settings", "needed"),
    [
        ("", {"engine": "ray"}, True),
        ("--engine ray", {}, True),
        ("--workers 3 --longhaul-engine=ray", {"engine": "local"}, True),
        ("", {}, False),
        ("--engine local", {"engine": "ray"}, False),
        ("--engine", {"engine": "ray"}, False),
        ("--resume latest", {"engine": "ray"}, False),
        ("", {"engine": "ray", "resume": "auto"}, False),
        ("", {"engine": "ray", "debug": "*"}, False),
        ("--help", {"engine": "ray"}, False),
        ("--debug=one", {"engine": "ray"}, False),
    ],
)
def test_a_driver_is_started_ahead_for_a_new_experiment_on_a_cluster(
    line: str, settings: dict[str, str], needed: bool
) -> None:
    assert _needs_driver(line.split(), settings) == needed


@linux
def test_a_driver_that_is_not_needed_ends_at_once() -> None:
    driver = DriverProcess()
    driver.discard()
    assert not psutil.pid_exists(driver.pid)
    driver.discard()


class Listener:
    def __init__(self) -> None:
        self.started: list[Share] = []
        self.late: list[Share] = []
        self.told: list[list[ClusterNode]] = []

    def start(self, share: Share, actor: Any) -> None:
        self.started.append(share)

    def overdue(self, share: Share) -> None:
        self.late.append(share)

    def leave(self, share: Share) -> None: ...

    def notice(self, level: str, text: str) -> None: ...

    def none_left(self, why: str) -> None: ...

    def expected(self, nodes: list[ClusterNode]) -> None:
        self.told.append(nodes)


def played_cluster(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> RayCluster:
    """Of nodes with these resources, all free."""
    names = [f"node{number}" for number in range(len(nodes))]
    known = SimpleNamespace(available_resources_per_node=lambda: dict(zip(names, nodes, strict=True)))
    strategies = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: node  # type: ignore[attr-defined]
    private = ModuleType("ray._private")
    private.state = SimpleNamespace(state=known)  # type: ignore[attr-defined]
    for module in (ModuleType("ray"), ModuleType("ray.util"), private, strategies):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    found = [
        {"NodeID": name, "NodeName": name, "Alive": True, "Resources": resources}
        for name, resources in zip(names, nodes, strict=True)
    ]
    cluster = RayCluster(SimpleNamespace(nodes=lambda: found), "there:1")
    cluster._actor = cluster._calls_actor = SimpleNamespace(
        options=lambda **_: SimpleNamespace(remote=lambda: "actor")
    )
    return cluster


def bring(*, gpus: bool = False) -> Bring:
    return Bring("x:1", "token", 0, 2, 1.0, None, gpus, "lib", "bootstrap.py", [], None)


def test_actors_are_made_ahead_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, listener = played_cluster(monkeypatch, {"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0}), Listener()
    assert not cluster.want(Reserve(2, 1.0, None), listener, direct=True)
    cluster._look()
    assert [share.node for share in listener.started] == ["node0", "node1"] and not listener.told
    assert cluster.want(bring(), listener, direct=True)
    cluster._look()
    assert len(listener.started) == 2 and [len(nodes) for nodes in listener.told] == [2]


def test_none_is_made_ahead_where_the_jobs_may_need_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPUs on the first node none would be left for those jobs."""
    cluster, listener = played_cluster(monkeypatch, {"CPU": 2.0}, {"CPU": 1.0, "GPU": 2.0}), Listener()
    cluster.want(Reserve(2, 1.0, None), listener, direct=True)
    cluster._look()
    assert listener.started == []
    cluster.want(bring(gpus=True), listener, direct=True)
    cluster._look()
    assert listener.started[0].node == "node0"


def test_the_time_for_a_start_counts_from_its_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, listener = played_cluster(monkeypatch, {"CPU": 2.0}), Listener()
    cluster.want(Reserve(2, 1.0, None), listener, direct=True)
    cluster._look()
    (share,) = listener.started
    late, now = time.monotonic, START_WITHIN + 1.0
    monkeypatch.setattr(time, "monotonic", lambda: late() + now)
    cluster.want(bring(), listener, direct=True)
    cluster._look()
    assert listener.late == []
    now += START_WITHIN + 1.0
    cluster._look()
    assert listener.late == [share]
