"""The plainest carrier: each agent is a child process on this machine, at the other ends of two pipes.

For tests, and as an example of a carrier (`--engine pipes --nodes N`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from supervisor.core.terms.needs import Totals
from supervisor.nodes.carrier import Arrival
from supervisor.nodes.link import Link
from supervisor.system.interpreter import has_ended, interpreter
from supervisor.system.script_start import child_environment, start_directory
from workers.isolation.output_files import move
from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION, NOBODY

AGAIN_AFTER = 1.0  # seconds from the start of an agent to that of its successor, at least
FAILURES_IN_A_ROW = 3  # agents of one seat that ended before they had said Hello
LOG_LIMIT = 10_000_000  # bytes


class _AgentProcess:
    def __init__(self, seat: int, process: subprocess.Popen[bytes], scratch: str) -> None:
        self.seat = seat
        self.process = process
        self.scratch = scratch  # the file that it prints to


class PipeCarrier:
    """Starts `seats` agents, and another one for each that ends.

    tag: of the experiment. directory: where what agents print is kept.
    """

    def __init__(self, seats: int, tag: str, directory: str) -> None:
        self._seats = seats
        self._tag = tag
        self._directory = directory
        self._agents: dict[int, _AgentProcess] = {}
        self._due: dict[int, float] = {}  # seat -> when to start its next agent; 0.0: now
        self._failures = [0] * seats
        self._error = ""
        self._next_key = 0
        self._token = os.urandom(4).hex()  # other runs of the experiment have nodes as well
        self._began: dict[int, float] = {}  # seat -> when its last agent was started
        self._greeted: set[int] = set()  # keys of agents that have said Hello
        self._dying: list[subprocess.Popen[bytes]] = []  # killed, not reaped yet
        self._now = 0.0

    def start(self) -> None:
        os.makedirs(self._directory, exist_ok=True)
        self._due = dict.fromkeys(range(self._seats), 0.0)

    def fileno(self) -> None:
        return None

    def poll(self, now: float) -> list[Arrival]:
        self._now = now
        self._dying = [process for process in self._dying if process.poll() is None]
        arrivals = []
        for seat in [seat for seat, due in self._due.items() if due <= now]:
            del self._due[seat]
            try:
                arrivals.append(self._launch(seat))
            except OSError as error:
                self._failed(seat, f"cannot start the agent of a node: {error}")
        return arrivals

    def next_deadline(self) -> float | None:
        return min(self._due.values(), default=None)

    def _launch(self, seat: int) -> Arrival:
        key = self._next_key
        self._next_key += 1
        self._began[seat] = self._now
        tag = f"{self._tag}/{self._token}-{key}"
        scratch = os.path.join(self._directory, f".worker-node{seat}-{key}.part")
        orders, ours = os.pipe()
        theirs, reports = os.pipe()
        try:
            with open(scratch, "ab") as output:
                process = _agent_process(orders, reports, tag, output.fileno())
        except BaseException:
            os.close(ours)
            os.close(theirs)
            raise
        finally:
            os.close(orders)
            os.close(reports)
        self._agents[key] = _AgentProcess(seat, process, scratch)
        return Arrival(key, f"node{seat}", seat, tag, Link(theirs, ours))

    def greeted(self, key: int) -> None:
        self._failures[self._agents[key].seat] = 0
        self._greeted.add(key)

    def end(self, key: int) -> None:
        agent = self._agents.pop(key, None)
        if agent is None:
            return
        agent.process.kill()
        if not has_ended(agent.process, 0.1):
            self._dying.append(agent.process)
        printed = _keep_output(agent)
        if key in self._greeted:
            self._again(agent.seat)
        else:
            code = agent.process.poll()
            self._failed(
                agent.seat, f"the agent of a node ended before it was ready (exit code {code}){printed}"
            )

    def _failed(self, seat: int, error: str) -> None:
        self._failures[seat] += 1
        self._error = error
        if self._failures[seat] < FAILURES_IN_A_ROW:
            self._again(seat)

    def _again(self, seat: int) -> None:
        self._due[seat] = max(self._now, self._began.get(seat, self._now) + AGAIN_AFTER)

    def expected(self) -> list[Totals]:
        return []

    def why_ended(self, key: int) -> str:
        return ""

    def notices(self) -> list[tuple[str, str]]:
        return []

    def why_none(self) -> str:
        return "" if self._agents or self._due else self._error

    def close(self, deadline: float) -> None:
        self._due.clear()
        for agent in self._agents.values():
            if not has_ended(agent.process, deadline - time.monotonic()):
                agent.process.kill()
                has_ended(agent.process, 0.5)
            _keep_output(agent)
        for process in self._dying:
            has_ended(process, max(0.1, deadline - time.monotonic()))
        self._agents.clear()


def _agent_process(orders: int, reports: int, tag: str, output: int) -> subprocess.Popen[bytes]:
    """Start the interpreter of an agent. Raises OSError."""
    environment = {INCARNATION: NOBODY, EXPERIMENT_TAG: tag}
    # Blocked so that Ctrl+C does not kill the child before it has left our session.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(
            interpreter("supervisor.nodes.node_agent:run", orders, reports),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=child_environment(environment),
            cwd=start_directory(),
            pass_fds=(orders, reports),
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _keep_output(agent: _AgentProcess) -> str:
    """Store what an agent has printed; where, as the end of a sentence, "" if it was nothing."""
    log = os.path.join(os.path.dirname(agent.scratch), "%node.log")
    with contextlib.suppress(OSError):
        if move(agent.scratch, log, "--- another agent ---", LOG_LIMIT):
            return f"; what it has printed is in {log}"
    return ""
