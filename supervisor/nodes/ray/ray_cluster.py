"""What the driver asks of Ray: to be connected, which nodes there are, an actor on one of them.

Everything here may wait for the cluster's head. The share of a node is what its actor takes of Ray, so that others
on the cluster see it taken.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import re
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from supervisor.nodes.ray import agent_launch
from supervisor.nodes.ray.driver_protocol import Bring, ClusterNode, Reserve, in_one_line
from supervisor.nodes.ray.later_imports import import_later
from supervisor.nodes.ray.ray_state import draining_nodes, free_resources, too_old

PROBE = 5.0  # seconds for a connection to an address
WAIT_FOR_CPUS = 3.0  # seconds without an agent, before it is said what is waited for
FAILURES_IN_A_ROW = 3  # agents of one node that ended before they were ready
FREED_WITHIN = 2.0  # seconds until Ray knows what an actor has left
START_WITHIN = 60.0
LEAVE_BEFORE = 10.0  # seconds before a node is taken away
WANT_AFTER = 5.0  # seconds for which CPUs are lacking, before an autoscaler is asked for them
MOST_WANTED = 100  # actors that wait for CPUs at a time
LOOK_SOON, LOOK_SOON_FOR = 0.3, 5.0  # seconds between looks, when one of these has got some
PAUSE = 1.0  # seconds after an agent has ended in order
AGAIN_AFTER = 1.0  # seconds from the start of an agent to that of its successor, at least


_TOO_LARGE = re.compile(r"Package size .*? exceeds the maximum size of [0-9.]+ *[A-Za-z]+")


class CannotConnect(Exception):
    """wrong: what was asked for, else something failed."""

    def __init__(self, text: str, *, wrong: bool = True) -> None:
        super().__init__(text)
        self.text, self.wrong = text, wrong


class Share(NamedTuple):
    """What is taken of a node: its Ray id, its name, CPUs, workers at most, GPUs. direct: its agent is meant to have a
    connection of its own."""

    node: str
    name: str
    cpus: int
    slots: int
    gpus: int
    began: float
    direct: bool = False


class Listener(Protocol):
    """Whom `RayCluster.watch` tells; see `supervisor.nodes.ray.ray_driver`."""

    def start(self, share: Share, actor: Any) -> None: ...

    def overdue(self, share: Share) -> None: ...

    def leave(self, share: Share) -> None: ...

    def notice(self, level: str, text: str) -> None: ...

    def none_left(self, why: str) -> None: ...

    def expected(self, nodes: list[ClusterNode]) -> None: ...


class RayCluster:
    """One connection. `watch` runs in a thread of its own, `began` and `ended` may be called from another."""

    def __init__(self, ray: Any, address: str) -> None:
        self._ray = ray
        self.address = address
        self._taken: dict[str, Share] = {}  # by node: agents that run or are being started
        self._starting: set[Share] = set()
        self._leaving: set[Share] = set()  # their agents were told to end
        self._greeted: set[Share] = set()
        self._expected: list[ClusterNode] | None = None  # as it was told last
        self._failures: Counter[str] = Counter()
        self._errors: dict[str, str] = {}
        self._not_before: dict[str, float] = {}
        self._freed: dict[str, tuple[Share, float]] = {}  # of agents that have just ended, until when
        self._gone: set[str] = set()  # nodes that have said so, of which Ray does not know it yet
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle_since = time.monotonic()
        self._said: set[str] = set()
        self._none_left = ""
        self._waiting: list[Any] = []  # actors that wait for CPUs
        self._lacking_since: float | None = None
        self._soon_until = 0.0
        self._direct = False
        self._left = False
        self._wanted: Reserve | Bring | None = None
        self._wanted_since = 0.0

    @classmethod
    def connect(cls, ray: Any, address: str, ship: str = "", outputs: str = "") -> RayCluster:
        """ray: the module. `ship`, `outputs`: as of `Connect`. Raises CannotConnect."""
        told_by = ""
        if address == "auto" and os.environ.get("RAY_ADDRESS"):
            address, told_by = os.environ["RAY_ADDRESS"], "RAY_ADDRESS="
        if address not in ("auto", "local"):
            _probe(address, told_by)
        more: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        if ship:
            more["runtime_env"] = {"working_dir": ship, "excludes": _left_out(ship, outputs)}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", **more)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise CannotConnect(_why_not(error, told_by + address)) from None
        except Exception as error:
            if ship and (too_large := _TOO_LARGE.search(str(error))):
                raise CannotConnect(
                    f"--ship {ship}: Ray cannot copy it to the nodes: {too_large.group()}. Name large files in its "
                    ".gitignore, or ship a directory that has only the code"
                ) from None
            raise CannotConnect(f"Ray failed: {words_of(error)}", wrong=False) from None
        cluster = cls(ray, ray.get_runtime_context().gcs_address)
        ray.cloudpickle.register_pickle_by_value(agent_launch)  # longhaul need not be importable there
        once = ray.remote(max_restarts=0, max_task_retries=0)
        cluster._actor, cluster._holder = once(agent_launch.AgentActor), once(agent_launch.PlaceHolder)
        cluster._calls_actor = ray.remote(
            max_restarts=0, max_task_retries=0, concurrency_groups={"down": 1, "up": 1}
        )(agent_launch.AgentActor)
        return cluster

    _actor: Any
    _calls_actor: Any
    _holder: Any

    @property
    def here(self) -> str:
        """The address of this machine in the cluster."""
        return str(self._ray.util.get_node_ip_address())

    def nodes(self) -> list[ClusterNode]:
        return [_facts_of(node) for node in self._alive()]

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"] and _whole(node, "CPU") > 0]

    def leave(self) -> None:
        self._left = True
        self._ray.shutdown()

    # ---------------------------------------------------------------------- agents

    def want(self, wanted: Reserve | Bring, listener: Listener, *, direct: bool) -> bool:
        """What is wanted from now on, and whom to tell; whether something was wanted before. direct: agents are meant
        to have connections of their own."""
        before, self._wanted = self._wanted, wanted
        self._listener, self._direct, self._wanted_since = listener, direct, time.monotonic()
        if before is not None:
            self._asked.put(lambda: None)  # `watch` looks at once
        return before is not None

    def greeted(self, share: Share) -> None:
        """Its agent has said Hello."""
        self._greeted.add(share)

    def began(self, share: Share) -> None:
        """Its actor is there."""
        self._starting.discard(share)

    def through_calls(self, share: Share, actor: Any) -> None:
        """No connection of its own comes to be from this actor: another one takes its place."""
        self._asked.put(lambda: self._replace(share, actor))

    def ended(self, share: Share, actor: Any, why: str, how: str, *, greeted: bool) -> None:
        """Its agent is over: end the actor, and look for another one. `how`: see `AgentActor`; `greeted`: it was
        ready once."""
        self._asked.put(lambda: self._end(share, actor, why, how, greeted))

    def watch(self, every: float) -> None:
        """Start an agent on each node that has room, for ever."""
        due = 0.0
        while not self._left:
            with contextlib.suppress(queue.Empty):
                self._try(self._asked.get(timeout=max(0.0, due - time.monotonic())))
                while not self._asked.empty():
                    self._try(self._asked.get())
            now = time.monotonic()
            soon = LOOK_SOON if now < self._soon_until else every
            due = min([now + soon, *self._not_before.values()])
            self._try(self._look)

    def _try(self, step: Callable[[], None]) -> None:
        """The head may be away for a while: the next look does what is left to do."""
        if self._left:
            return
        try:
            step()
        except Exception:
            traceback.print_exc()

    def _end(self, share: Share, actor: Any, why: str, how: str, greeted: bool) -> None:
        now = time.monotonic()
        self._taken.pop(share.node, None)
        self._starting.discard(share)
        self._greeted.discard(share)
        self._leaving.discard(share)
        self._expected = None
        if how == "no node":
            self._gone.add(share.node)
        self._failures[share.node] = 0 if greeted else self._failures[share.node] + 1
        if not greeted:
            self._errors[share.node] = f"{share.name}: {why}"
        pause = PAUSE if how == "in order" else 0.0  # the run may be over: then this process is about to end
        self._not_before[share.node] = max(now + pause, share.began + AGAIN_AFTER)
        self._freed[share.node] = share, now + FREED_WITHIN
        if not self._taken:
            self._idle_since = now
        self._ray.kill(actor)

    def _look(self) -> None:
        from ray._private import state

        now, wanted = time.monotonic(), self._wanted
        assert wanted is not None
        gpus_wanted = isinstance(wanted, Bring) and wanted.gpus
        alive = self._alive()
        names = {node["NodeID"] for node in alive}
        self._gone &= names
        self._not_before = {node: at for node, at in self._not_before.items() if node in names and at > now}
        draining = draining_nodes(state.state)
        self._leave(draining)
        told = free_resources(state.state)
        free = {node["NodeID"]: self._free(node["NodeID"], told) for node in alive}
        able = [
            node
            for node in alive
            if node["NodeID"] not in self._taken
            and node["NodeID"] not in self._gone
            and node["NodeID"] not in draining
            and self._failures[node["NodeID"]] < FAILURES_IN_A_ROW
        ]
        if isinstance(wanted, Reserve) and any(_whole(node, "GPU") for node in alive):
            return
        able.sort(key=lambda node: -free[node["NodeID"]][0])
        least = max(1, math.ceil(wanted.per_job))
        for node in able:
            if wanted.nodes is not None and len(self._taken) >= wanted.nodes:
                break
            key = node["NodeID"]
            if gpus_wanted and _whole(node, "GPU") and not free[key][1]:
                # A share without GPUs would stay so, and the jobs that ask for some would never run.
                self._say_once("gpus", f"waiting for free GPUs: others have taken those of {_name_of(node)}")
                continue
            rest = (
                math.inf if wanted.cpus is None else wanted.cpus - sum(s.cpus for s in self._taken.values())
            )
            cpus = int(min(free[key][0], rest))
            if cpus >= least and key not in self._not_before:
                gpus = free[key][1] if gpus_wanted else 0
                slots = max(1, int(cpus / wanted.per_job))
                self._take(Share(key, _name_of(node), cpus, slots, gpus, now, self._direct))
        if isinstance(wanted, Reserve):  # no agent is started yet
            return
        for share in [s for s in self._starting if now - max(s.began, self._wanted_since) > START_WITHIN]:
            self._starting.discard(share)
            self._listener.overdue(share)
        self._want_more(now, wanted)
        self._tell(alive, able, now)
        self._tell_expected(alive, able, wanted)

    def _want_more(self, now: float, bring: Bring) -> None:
        """Let actors wait for the CPUs that are lacking: an autoscaler adds nodes for them. They end with this
        process, and so does the demand."""
        least = max(1, math.ceil(bring.per_job))
        lacking = 0 if bring.cpus is None else bring.cpus - sum(share.cpus for share in self._taken.values())
        if lacking < least or (bring.nodes is not None and len(self._taken) >= bring.nodes):
            self._lacking_since = None
        elif self._lacking_since is None:
            self._lacking_since = now
        wanted = 0
        if self._lacking_since is not None and now - self._lacking_since >= WANT_AFTER:
            wanted = min(lacking // least, MOST_WANTED)
        while len(self._waiting) > wanted:
            self._ray.kill(self._waiting.pop())
        while len(self._waiting) < wanted:
            options = self._holder.options(
                num_cpus=least, num_gpus=int(bring.gpus), scheduling_strategy="SPREAD"
            )
            actor = options.remote()
            self._waiting.append(actor)
            self._when_placed(actor)

    def _when_placed(self, actor: Any) -> None:
        placed = actor.placed.remote().future()
        placed.add_done_callback(lambda _: self._asked.put(lambda: self._found_room(actor)))

    def _found_room(self, actor: Any) -> None:
        """It makes room for an agent."""
        if actor in self._waiting:
            self._waiting.remove(actor)
            self._lacking_since = None
            self._soon_until = time.monotonic() + LOOK_SOON_FOR
            self._ray.kill(actor)

    def _take(self, share: Share) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._taken[share.node] = share
        self._starting.add(share)
        here = NodeAffinitySchedulingStrategy(share.node, soft=False)
        kind = self._actor if share.direct else self._calls_actor
        options = kind.options(num_cpus=share.cpus, num_gpus=share.gpus, scheduling_strategy=here)
        self._listener.start(share, options.remote())

    def _replace(self, share: Share, actor: Any) -> None:
        self._starting.discard(share)
        self._ray.kill(actor)
        self._take(share._replace(direct=False, began=time.monotonic()))

    def _leave(self, draining: Mapping[str, float]) -> None:
        for node, at in draining.items():
            share = self._taken.get(node)
            if share is not None and share not in self._leaving and time.time() > at - LEAVE_BEFORE:
                self._leaving.add(share)
                self._listener.notice("info", f"Ray takes {share.name} away: its jobs run again elsewhere")
                self._listener.leave(share)

    def _free(self, node: str, told: Mapping[str, Mapping[str, float]]) -> tuple[int, int]:
        """CPUs and GPUs that nobody has taken there. Ray takes a moment to see that an actor has ended."""
        has = told.get(node, {})
        cpus, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0))
        freed = self._freed.get(node)
        if freed is not None and time.monotonic() < freed[1]:
            cpus, gpus = max(cpus, freed[0].cpus), max(gpus, freed[0].gpus)
        return cpus, gpus

    def _tell_expected(self, alive: list[dict[str, Any]], able: list[dict[str, Any]], bring: Bring) -> None:
        coming = {share.node for share in self._taken.values() if share not in self._greeted}
        most = math.inf if bring.nodes is None else bring.nodes
        rest = math.inf if bring.cpus is None else bring.cpus - sum(s.cpus for s in self._taken.values())
        if len(self._taken) < most and rest >= max(1, math.ceil(bring.per_job)):
            coming |= {node["NodeID"] for node in able}
        expected = [_facts_of(node) for node in alive if node["NodeID"] in coming]
        if expected != self._expected:
            self._expected = expected
            self._listener.expected(expected)

    def _tell(self, alive: list[dict[str, Any]], able: list[dict[str, Any]], now: float) -> None:
        """What the user should know if there is nothing to run on."""
        none_left = ""
        if not self._taken and not able and self._errors and not self._gone:
            none_left = next(reversed(self._errors.values()))
        if none_left != self._none_left:
            self._none_left = none_left
            self._listener.none_left(none_left)
        if not self._taken and able and now - self._idle_since > WAIT_FOR_CPUS:
            total = sum(_whole(node, "CPU") for node in alive)
            text = f"waiting for free CPUs: others have taken those of the Ray cluster ({total} in all)"
            self._say_once("cpus", text)

    def _say_once(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._listener.notice("info", text)


def imported_ray() -> Any:
    """The module. Raises CannotConnect."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call after the end would connect again
    import_later()
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name == "ray":
            raise CannotConnect("Ray is not installed: pip install 'longhaul[ray]'") from None
        raise CannotConnect(f"Ray cannot be imported: {error}") from None
    if why := too_old(str(getattr(ray, "__version__", ""))):
        raise CannotConnect(why)
    return ray


def words_of(error: BaseException) -> str:
    """What Ray says of the end of an actor, in a line."""
    name = type(error).__name__
    text = str(error)
    if is_memory_monitor(error):
        return (
            "Ray's memory monitor killed its agent, because its jobs took the memory of the node: give jobs "
            "--memory-limit, keep some free (--keep-free), or start Ray with RAY_memory_monitor_refresh_ms=0"
        )
    if name in ("ActorDiedError", "RayActorError", "ActorUnavailableError"):
        return "the Ray actor of its agent died"
    if name == "ActorUnschedulableError":
        return "the Ray node is gone"
    return f"{name}: {in_one_line(text)}"


def is_memory_monitor(error: BaseException) -> bool:
    """Whether it is Ray's memory monitor that has ended an actor."""
    return type(error).__name__ == "OutOfMemoryError" and "memory" in str(error)


def _left_out(ship: str, outputs: str) -> list[str]:
    """What Ray does not copy of a directory, in the words of a .gitignore: experiments, whose journals grow meanwhile.
    Of the usual place for experiments it is all of it."""
    place = Path(outputs)
    if place.parts[-3:-1] == ("data", "outputs"):
        place = place.parent
    within = os.path.relpath(os.path.realpath(place), os.path.realpath(ship))
    if not outputs or within == os.curdir or within.split(os.sep)[0] == os.pardir:
        return []
    return ["/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", within)]


def _probe(address: str, told_by: str = "") -> None:
    """Ray itself takes 40 seconds to say that nobody answers. told_by: what stands before the address, where the user
    has it. Raises CannotConnect."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        its = " (that of `ray start`, not of its dashboard or of Ray Client)" if "://" in address else ""
        raise CannotConnect(
            f"{told_by}{address}: expected auto, local or HOST:PORT, such as 10.0.0.1:6379{its}"
            + (", or --address beside it" if told_by else "")
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise CannotConnect(
            f"no Ray cluster answers at {told_by}{address} ({why}): `ray status` there says whether one runs"
        ) from None


def _why_not(error: Exception, address: str) -> str:
    text = str(error)
    if "Could not find any running Ray" in text:
        return (
            "no Ray cluster runs here: start one with `ray start --head`, and `ray start --address=HOST:6379` on "
            "each further machine; or give --address HOST:PORT, or --address local"
        )
    if "ersion mismatch" in text:
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        return f"the cluster at {address} has other versions than this process: {' '.join(lines)[:600]}"
    why = f"cannot join the Ray cluster at {address}: {in_one_line(text)}"
    if "ailed to connect" in text and os.environ.get("RAY_AUTH_MODE") != "token":
        why += (  # a cluster with tokens does not say that one is missing (2.60)
            "; something answers there: if `ray start` has said that token authentication is enabled, set "
            "RAY_AUTH_MODE=token here as well"
        )
    return why


def _facts_of(node: dict[str, Any]) -> ClusterNode:
    return ClusterNode(_name_of(node), _whole(node, "CPU"), _whole(node, "GPU"), int(_has(node, "memory")))


def _has(node: dict[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0.0))


def _whole(node: dict[str, Any], resource: str) -> int:
    return int(_has(node, resource))


def _name_of(node: dict[str, Any]) -> str:
    """Of one raylet: several may run on a machine, or in containers that share its address."""
    return f"{node['NodeName']}#{node['NodeID'][:6]}"
