"""Nobody runs twice: the timers of both sides, and whole histories of simulated hosts under the real code."""

from __future__ import annotations

import pytest

from supervisor.nodes.fencing import FENCE, HELLO_WITHIN, Heartbeat, Watchdog, shows_end, stand_still
from tests.conftest import some
from tools.simulation.nodes.node_history import play_nodes
from tools.simulation.nodes.node_mutants import NODE_MUTANTS, caught_on_hosts

pytestmark = pytest.mark.slow

TIMEOUT = 30.0


@pytest.mark.parametrize("seeds", some([range(20), range(20, 200)], 1))
def test_no_job_runs_in_two_places_whatever_happens_between_the_hosts(seeds: range) -> None:
    """More of them: python tools/simulate.py --hosts --seeds 2000"""
    for seed in seeds:
        play_nodes(seed)


# Those that are caught within a few histories; all: python tools/simulate.py --hosts --mutants
QUICK = (
    "an agent never ends by itself",
    "the jobs of a lost node are free at once",
    "a new agent is believed without having looked",
    "leases that were taken back are given to others at once",
    "what an earlier run left elsewhere runs again at once",
)


@pytest.mark.parametrize("name", some(QUICK, 3))
def test_the_simulation_of_hosts_notices_a_fault(name: str) -> None:
    assert caught_on_hosts(NODE_MUTANTS[name], seeds=60)


def test_a_seed_of_hosts_replays() -> None:
    first, second = play_nodes(5), play_nodes(5)
    assert first.records == second.records and len(first.records) > 10
    assert first.network.now == second.network.now


def test_an_agent_counts_from_the_pong_that_a_ping_names() -> None:
    watchdog = Watchdog(0.0)
    assert not watchdog.over(HELLO_WITHIN) and watchdog.over(HELLO_WITHIN + 0.1)
    watchdog.begin(TIMEOUT, 100.0)
    watchdog.ping(1, 0, 110.0)
    assert watchdog.over(130.1)  # it came at 110, but may have been sent at 100
    watchdog.ping(2, 1, 115.0)
    assert not watchdog.over(140.0) and watchdog.over(140.1)
    watchdog.ping(3, 0, 120.0)  # out of order
    assert not watchdog.over(140.0) and watchdog.over(140.1)


def test_the_supervisor_waits_from_the_last_pong() -> None:
    heartbeat = Heartbeat(TIMEOUT, 100.0)
    heartbeat.greet(101.0)
    assert heartbeat.due(101.0) == "" and heartbeat.next_time() == 106.0
    assert heartbeat.due(106.0) == "ping" and heartbeat.ping(106.0) == (1, 0)
    heartbeat.pong(2, 107.0)  # nobody has sent a second Ping
    assert heartbeat.known == 101.0
    heartbeat.pong(1, 108.0)
    heartbeat.hear(108.0)
    assert heartbeat.ping(112.0) == (2, 1)
    assert heartbeat.due(137.9) == "ping" and heartbeat.due(138.0) == "silent"
    heartbeat.give_up()
    assert heartbeat.due(138.0) == "" and heartbeat.next_time() == 108.0 + TIMEOUT + FENCE
    assert heartbeat.due(108.0 + TIMEOUT + FENCE) == "ended"
    heartbeat.confirm()
    assert heartbeat.due(138.0) == "ended"


def test_our_own_silence_begins_the_time_of_a_node_again_and_frees_nothing_later() -> None:
    heartbeat = Heartbeat(TIMEOUT, 100.0)
    heartbeat.greet(100.0)
    assert stand_still(105.0, 115.0, 5.0) == 0.0
    heartbeat.stood_still(stand_still(105.0, 145.0, 5.0))
    assert heartbeat.due(169.9) == "ping" and heartbeat.due(170.0) == "silent"
    assert heartbeat.missed_us and heartbeat.free_at == 100.0 + TIMEOUT + FENCE


@pytest.mark.parametrize(
    ("cleared", "kernel", "lost_kernel", "shown"),
    [(True, "a", "a", True), (False, "a", "a", False), (True, "b", "a", False), (True, "", "", False)],
)
def test_whose_hello_shows_the_end_of_another(
    cleared: bool, kernel: str, lost_kernel: str, shown: bool
) -> None:
    assert shows_end(cleared, kernel, lost_kernel) is shown
