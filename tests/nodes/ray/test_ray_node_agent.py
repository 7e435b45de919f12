"""The agent of a Ray node starts the interpreter of its zygote before it has heard anything. Ray is not needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from supervisor.nodes import pipe_carrier
from supervisor.nodes.pipe_carrier import PipeCarrier
from supervisor.nodes.wire import HelloAgent, Order
from supervisor.system.interpreter import interpreter
from tests.experiment_fixture import wait_for
from tests.nodes.test_node_agent import Held, is_alive, tagged

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there are no zygotes")


@pytest.fixture(autouse=True)
def _as_on_a_ray_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_ray(_: str, orders: int, reports: int) -> list[str]:
        words = interpreter("supervisor.nodes.ray.ray_node_agent:run", orders, reports)
        return [*words, "-1", "-1"]

    monkeypatch.setattr(pipe_carrier, "interpreter", of_ray)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "engines"))


def agent_of(carrier: PipeCarrier) -> psutil.Process:
    (agent,) = carrier._agents.values()
    return psutil.Process(agent.process.pid)


def zygote_of(agent: psutil.Process) -> psutil.Process:
    """Once there is one."""

    def found() -> psutil.Process | None:
        for child in agent.children():
            if is_alive(child) and any("workers.zygote" in word for word in child.cmdline()):
                return child
        return None

    return wait_for(found, "the zygote")  # type: ignore[no-any-return]


class Late(Held):
    """It says Hello when there is a zygote."""

    def tell(self, *orders: Order) -> None:
        if isinstance(orders[0], HelloAgent):
            self.zygote = zygote_of(agent_of(self.carrier))
        super().tell(*orders)


def test_its_workers_are_forked_by_the_zygote_that_was_there_before_the_hello(tmp_path: Path) -> None:
    node = Late(tmp_path)
    assert psutil.Process(node.worker()).ppid() == node.zygote.pid
    assert node.zygote.pid in tagged(node.tag)  # by now: so it is found as all others are
    node.link.close()
    node.carrier.close(time.monotonic() + 10.0)
    wait_for(lambda: not tagged(node.tag) and not is_alive(node.zygote), "all of them to end")


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[PipeCarrier, psutil.Process, psutil.Process]]:
    """Carrier, agent and zygote, without a Hello."""
    (tmp_path / "output").mkdir()
    carrier = PipeCarrier(1, f"test:{tmp_path}", str(tmp_path / "output"))
    carrier.start()
    (arrival,) = carrier.poll(0.0)
    agent = agent_of(carrier)
    yield carrier, agent, zygote_of(agent)
    arrival.link.close()
    carrier.close(time.monotonic() + 10.0)


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_it_ends_with_an_agent_that_never_heard_a_hello(
    waiting: tuple[PipeCarrier, psutil.Process, psutil.Process], how: str
) -> None:
    _, agent, zygote = waiting
    getattr(agent, how)()
    wait_for(lambda: not is_alive(agent) and not is_alive(zygote), "both to end")
