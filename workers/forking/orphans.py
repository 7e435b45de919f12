"""Children of the zygote that are not workers: adopted orphans, and processes that the import has started.

`workers.forking.process_owner` tells which worker an orphan comes from. It is killed when that worker has died;
resource trackers first get a moment to clean up. Orphans without an owner, and processes that the user's import
has started, live as long as the zygote.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping

from workers.forking.process_owner import TRACKER_GRACE, owner_of, trackers_among, with_descendants
from workers.process.linux import children_of

_POLL_EVERY = 0.001  # seconds between checks whether a killed process is dead
_OF_IMPORT = 0


class Orphans:
    """Reaps and kills them. To be created after the import of the user's code, before the first fork."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._owners: dict[int, int | None] = {}  # by pid
        self._trackers: dict[int, float] = {}  # pids of dead workers' trackers, and their deadlines
        # Children of the script itself: its exit functions may wait for them.
        self._of_script: frozenset[int] = frozenset()
        with contextlib.suppress(OSError):
            self._of_script = frozenset(children_of(os.getpid()))
        self._owners = dict.fromkeys(self._of_script, _OF_IMPORT)

    def reap(self, workers: Mapping[int, int], dead: Collection[int]) -> set[int]:
        """Reap dead orphans, and kill those of dead workers.

        workers: incarnations by pid, with dead workers that are not reaped. dead: pids of those.
        Returns the incarnations that have orphans which are not dead yet.
        """
        while True:
            try:
                self._update(workers, dead)
                killed, left = self._kill_orphans_of_dead(workers, dead)
            except OSError:  # too many open files, for now
                return {workers[pid] for pid in dead}
            # Their children become ours when they are gone.
            if not killed or not all(map(_is_reaped, killed)):
                return left

    def _update(self, workers: Mapping[int, int], dead: Collection[int]) -> None:
        """Update which orphans there are, and their owners."""
        present = set(children_of(os.getpid())).difference(workers)
        present -= {pid for pid in present - self._of_script if _is_reaped(pid)}
        for gone in self._owners.keys() - present:
            del self._owners[gone]
        for pid in sorted(present - self._owners.keys()):
            owner = owner_of(pid, self._tag, workers, self._owners)
            if owner is None and dead:  # adopted at this death: a child of that worker
                owner = workers[next(iter(dead))]
            self._owners[pid] = owner

    def _kill_orphans_of_dead(
        self, workers: Mapping[int, int], dead: Collection[int]
    ) -> tuple[list[int], set[int]]:
        """Kill the orphans of dead workers. Returns our children among them, and their incarnations."""
        living = {incarnation for pid, incarnation in workers.items() if pid not in dead}
        doomed = [pid for pid, owner in self._owners.items() if owner and owner not in living]
        family = with_descendants(doomed)
        spared = self._within_grace(trackers_among(family))
        if not spared:  # the group at once, so that it cannot start more meanwhile
            for pid in dead:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
        _kill(pid for pid in family if pid not in spared)
        killed = [pid for pid in doomed if pid not in spared]
        return killed, {owner for pid in killed if (owner := self._owners[pid]) is not None}

    def _within_grace(self, trackers: set[int]) -> set[int]:
        """The trackers that may still clean up."""
        now = time.monotonic()
        self._trackers = {
            pid: self._trackers.get(pid, now + TRACKER_GRACE)
            for pid in {*trackers, *(self._trackers.keys() & self._owners.keys())}
        }
        return {pid for pid in trackers if now < self._trackers[pid]}

    def next_deadline(self) -> float | None:
        """When the next tracker that has not ended by itself is killed."""
        return min(self._trackers.values(), default=None)

    def kill_those_of_workers(self, deadline: float) -> None:
        """The supervisor has died: kill all orphans of workers. Trackers may live until `kill_all`."""
        of_the_import = {pid for pid, owner in self._owners.items() if owner == _OF_IMPORT}
        self._end_children(of_the_import | self._of_script, deadline)

    def kill_all(self, deadline: float) -> None:
        """Kill what is left. Trackers first get TRACKER_GRACE to clean up.

        A tracker ends when all writers of its pipe are closed. This process has inherited those of the import,
        so it must have closed its files before.
        """
        self._end_children(set(), deadline)
        trackers_until = min(deadline, time.monotonic() + TRACKER_GRACE)
        with contextlib.suppress(OSError):
            while children := [pid for pid in children_of(os.getpid()) if not _is_reaped(pid)]:
                if time.monotonic() > trackers_until:
                    _kill(with_descendants(children))
                if time.monotonic() > deadline:
                    return
                time.sleep(_POLL_EVERY)

    def _end_children(self, spared: set[int], deadline: float) -> None:
        """All but the spared ones, and trackers."""
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                children = set(children_of(os.getpid())) - spared
                family = with_descendants(pid for pid in children if not _is_reaped(pid))
                trackers = trackers_among(family)
                victims = [pid for pid in family if pid not in trackers]
                if not victims:
                    return
                _kill(victims)
            time.sleep(_POLL_EVERY)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _is_reaped(pid: int) -> bool:
    """Reap a child of ours if it is dead; true if it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except OSError:
        return True
