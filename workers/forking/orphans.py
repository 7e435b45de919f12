"""Children of the zygote that are no workers: what it adopts, and what the import has started.

Of each it is known whose it is (`workers.forking.process_owner`). Those of a worker end with it, but for
resource trackers, which get a moment to clean up. What nobody owns, and what the user's import has
started, lives as long as the zygote.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping

from workers.forking.process_owner import TRACKER_GRACE, owner_of, trackers_among, with_descendants
from workers.process.linux import children_of

_LOOK_EVERY = 0.001  # seconds between looks at whether what was killed is dead
_OF_IMPORT = 0


class Orphans:
    """To be made when the user's code is imported and no worker is forked yet."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._owners: dict[int, int | None] = {}  # by pid
        self._trackers: dict[int, float] = {}  # of dead workers, and until when they may clean up
        # The script has started them itself: its exit functions may want to wait for them.
        self._of_script: frozenset[int] = frozenset()
        with contextlib.suppress(OSError):
            self._of_script = frozenset(children_of(os.getpid()))
        self._owners = dict.fromkeys(self._of_script, _OF_IMPORT)

    def reap(self, workers: Mapping[int, int], dead: Collection[int]) -> set[int]:
        """Reap what has died, and end what belonged to workers that have.

        `workers`: incarnations by pid, dead ones that are not reaped included. `dead`: of
        those, pids. Returns the incarnations of which something is not dead yet.
        """
        while True:
            try:
                self._look(workers, dead)
                killed, left = self._kill_orphans_of_dead(workers, dead)
            except OSError:  # too many open files, for now
                return {workers[pid] for pid in dead}
            # What the killed had started comes to us when they are gone.
            if not killed or not all(map(_is_reaped, killed)):
                return left

    def _look(self, workers: Mapping[int, int], dead: Collection[int]) -> None:
        """Note who is there, and whose it is."""
        present = set(children_of(os.getpid())).difference(workers)
        present -= {pid for pid in present - self._of_script if _is_reaped(pid)}
        for gone in self._owners.keys() - present:
            del self._owners[gone]
        for pid in sorted(present - self._owners.keys()):
            owner = owner_of(pid, self._tag, workers, self._owners)
            if owner is None and dead:  # the kernel gives us a worker's children when it dies
                owner = workers[next(iter(dead))]
            self._owners[pid] = owner

    def _kill_orphans_of_dead(
        self, workers: Mapping[int, int], dead: Collection[int]
    ) -> tuple[list[int], set[int]]:
        """Kill what belonged to workers that are no more; the children of ours among it, and
        the incarnations that had any."""
        living = {incarnation for pid, incarnation in workers.items() if pid not in dead}
        doomed = [pid for pid, owner in self._owners.items() if owner and owner not in living]
        family = with_descendants(doomed)
        spared = self._within_grace(trackers_among(family))
        if not spared:  # at once, so that nobody can start another one meanwhile
            for pid in dead:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
        _kill(pid for pid in family if pid not in spared)
        killed = [pid for pid in doomed if pid not in spared]
        return killed, {owner for pid in killed if (owner := self._owners[pid]) is not None}

    def _within_grace(self, trackers: set[int]) -> set[int]:
        """Those that still have time."""
        now = time.monotonic()
        self._trackers = {
            pid: self._trackers.get(pid, now + TRACKER_GRACE)
            for pid in {*trackers, *(self._trackers.keys() & self._owners.keys())}
        }
        return {pid for pid in trackers if now < self._trackers[pid]}

    def next_deadline(self) -> float | None:
        """When a tracker that has not ended by itself is to be killed."""
        return min(self._trackers.values(), default=None)

    def kill_those_of_workers(self, deadline: float) -> None:
        """The supervisor has gone. Trackers have until the zygote's end."""
        of_the_import = {pid for pid, owner in self._owners.items() if owner == _OF_IMPORT}
        self._end_children(of_the_import | self._of_script, deadline)

    def kill_all(self, deadline: float) -> None:
        """What is left; trackers first get the time to clean up.

        A tracker waits until nobody could write to its pipe any more, and those of the
        import were inherited by this process: it has to have closed its files.
        """
        self._end_children(set(), deadline)
        trackers_until = min(deadline, time.monotonic() + TRACKER_GRACE)
        with contextlib.suppress(OSError):
            while children := [pid for pid in children_of(os.getpid()) if not _is_reaped(pid)]:
                if time.monotonic() > trackers_until:
                    _kill(with_descendants(children))
                if time.monotonic() > deadline:
                    return
                time.sleep(_LOOK_EVERY)

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
            time.sleep(_LOOK_EVERY)


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
