"""How an actor starts its agent; what Ray sets for its workers and is not for jobs: put right, or told. Ray is not
needed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from supervisor.nodes.link import Link
from supervisor.nodes.ray.agent_launch import AgentActor
from supervisor.nodes.ray.driver_protocol import Leave, Notice
from supervisor.nodes.ray.ray_carrier import RayCarrier
from supervisor.nodes.wire import Close, MessageJoiner, decode_orders
from supervisor.system.interpreter import interpreter

CHILD = """
import json, os, sys
import encodings.ascii  # nobody may not read where Python is
from supervisor.nodes.ray import agent_launch

def score():
    with open("/proc/self/oom_score_adj") as file:
        return int(file.read())

os.setpriority(os.PRIO_PROCESS, 0, 15)
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("1000")
if sys.argv[1] == "nobody" and os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
notices = agent_launch._undo_what_ray_has_set(os.getppid())
print(json.dumps([notices, os.getpriority(os.PRIO_PROCESS, 0), score()]))
"""


def child(who: str) -> tuple[list[str], int, int]:
    """Notices, niceness and OOM score of a process that Ray might have started, after all was undone."""
    command = [sys.executable, "-c", CHILD, who]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    notices, niceness, score = json.loads(run.stdout)
    return notices, niceness, score


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take a lower niceness")
def test_niceness_and_oom_score_are_those_of_the_raylet() -> None:
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        mine = int(file.read())
    assert child("root") == ([], os.getpriority(os.PRIO_PROCESS, 0), mine)


def test_without_privileges_both_are_told_with_what_helps() -> None:
    notices, niceness, score = child("nobody")
    assert (niceness, score) == (15, 1000)
    memory, nice = notices
    assert "oom_score_adj 1000" in memory and "--keep-free" in memory
    assert "niceness 15" in nice and "RAY_worker_niceness=0" in nice


def test_what_is_true_of_many_nodes_is_told_once() -> None:
    carrier = RayCarrier.__new__(RayCarrier)
    carrier._notices, carrier._told_of_nodes = [], set()
    for name in ("a", "b", "a"):
        carrier._on_report(Notice("info", "it is nice", name), None)
    carrier._on_report(Notice("info", "for all"), None)
    assert carrier.notices() == [("info", "a: it is nice"), ("info", "for all")]


def test_no_agent_is_started_where_no_connection_comes_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another actor does that, which has threads for calls."""
    monkeypatch.setattr("supervisor.nodes.ray.agent_launch._undo_what_ray_has_set", lambda _: [])
    line = interpreter("")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        launch: dict[str, Any] = {
            "bootstrap": line[-3],
            "library": line[-1],
            "directory": None,
            "environment": {},
            "gpus": False,
            "shipped": b"SHIPPED",
            "direct": (*closed.getsockname(), b"word", b"answer"),
        }
        actor = AgentActor()
        got = actor.begin(launch)
    assert got["direct"] is False and not got["error"]
    assert "all messages go through Ray" in got["notices"][0]
    assert not hasattr(actor, "_agent")


def test_an_agent_whose_node_is_taken_away_is_told_to_end() -> None:
    here, there = socket.socketpair()
    carrier = RayCarrier.__new__(RayCarrier)
    carrier._links = {3: Link(here.fileno(), here.fileno())}
    with here, there:
        carrier._on_report(Leave(3), None)
        carrier._on_report(Leave(4), None)  # it has ended meanwhile
        (message,) = MessageJoiner().feed(there.recv(1000))
    assert decode_orders(message) == [Close()]
