"""Limits of a run: memory, failures, deadline, stalled and slow jobs. Pure.

Memory: a worker over `--memory-limit` is killed and its job charged. Below `--keep-free` no job is handed out.
Below half of that the youngest job is stopped and queued again without a charge, but never the last one: if
that uses too much, the kernel kills it, and the run goes on. Each of several nodes is judged by itself.
`--deadline` and `--max-failures` begin a drain.
Stalled (`--stall`) and slow jobs are only reported.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.core.dispatch.dispatcher import Dispatcher
from supervisor.core.dispatch.turn import Turn
from supervisor.core.scheduling.drain import Drain
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.worker_state import DOOMED, READY, STOPPING, WorkerState
from supervisor.core.terms.events import ClockJumped, LogStack, MemoryMeasured, Tell, UsageSampled
from supervisor.core.terms.jobs import COMPLETED
from supervisor.core.terms.records import LOW_MEMORY, Noted, Paused, Unpaused
from supervisor.core.terms.settings import failures_allowed, sized
from supervisor.core.terms.wording import one_line

_CRITICAL = 0.5  # of --keep-free

_RELAXED = 1.1  # of --keep-free: hand-out begins again

_SETTLES_WITHIN = 2.0  # seconds until the memory of a stopped job is surely free

_WORTH_A_WORKER = 0.05  # of the limit: if earlier jobs left less than this, a fresh worker would not help

_HARMLESS = 0.25  # of the limit, that a worker holds itself or that was left in it

_SPARED_AT_MOST = 10  # times for each job

_IDLE = 1.0  # percent of a core: a job that uses less counts as idle

_SAMPLE = 20  # jobs that ended, before a share of failures means anything


class Limits:
    """`blocked`: since when nothing is handed out, by reason; shared with the scheduler."""

    def __init__(self, dispatcher: Dispatcher, drain: Drain, blocked: dict[str, float]) -> None:
        self._dispatcher = dispatcher
        self._drain = drain
        self._blocked = blocked
        self._ledger = dispatcher.ledger
        self._table = dispatcher.table
        self._settings = dispatcher.settings
        self._allowed = failures_allowed(self._settings.max_failures)
        self._completed_before = 0
        self._failures_seen = 0
        self._no_stop_before: dict[int, float] = {}  # by place
        self._spared: dict[int, int] = {}  # job -> how often it was not blamed for being over its limit
        self._slowness = StragglerDetector(self._table)
        self._slow_told = False
        self._reason = ""
        self.drain_at: float | None = None  # early enough for the grace time before the deadline

    def begin(self, drain_at: float | None, reason: str) -> None:
        """The run begins. `drain_at`: when a drain begins, on the run's clock; `reason`: for the user."""
        self._completed_before = self._table.state.count(COMPLETED)
        self.drain_at, self._reason = drain_at, reason

    def next_deadline(self) -> float | None:
        return None if self._drain.begun else self.drain_at

    # --------------------------------------------------------------- an early end

    def drain_if_due(self, turn: Turn) -> None:
        """Begin a drain at the deadline or after too many failures."""
        if self._drain.begun:
            return
        if self.drain_at is not None and turn.now >= self.drain_at:
            self._drain.begin_without_signal(
                turn, self._reason, {"deadline": self._settings.deadline}, asked=True
            )
        elif self._allowed is not None and self._ledger.failures > self._failures_seen:
            self._failures_seen = self._ledger.failures
            self._count_failures(turn)

    def _count_failures(self, turn: Turn) -> None:
        assert self._allowed is not None
        failed, (number, share) = self._ledger.failures, self._allowed
        option = f"--max-failures {self._settings.max_failures}"
        if share is None:
            if failed < number:
                return
            reason = f"{failed} {'job has' if failed == 1 else 'jobs have'} failed ({option})"
        else:
            ended = failed + max(0, self._table.state.count(COMPLETED) - self._completed_before)
            if ended < _SAMPLE or failed < share * ended:
                return
            reason = f"{failed} of {ended} jobs have failed ({option})"
        self._drain.begin_without_signal(
            turn, reason, {"max_failures": self._settings.max_failures}, asked=False
        )

    def on_clock_jumped(self, event: ClockJumped) -> None:
        """The run's clock stood still while wall-clock time passed: the deadline comes earlier."""
        if self.drain_at is not None:
            self.drain_at -= event.seconds

    # ------------------------------------------------------------------- memory

    def on_memory_measured(self, event: MemoryMeasured, turn: Turn) -> None:
        workers = self._dispatcher.workers
        for incarnation, used in event.used.items():
            worker = workers.get(incarnation)
            if worker is None or not worker.leases or worker.status not in (READY, STOPPING):
                continue
            if (limit := self._limit_of(worker)) is not None:
                self._hold_to_limit(turn, worker, used, limit, event.left.get(incarnation))
        if (keep := self._settings.keep_free) is None:
            return
        if event.places is not None:
            self._keep_free_on_each(turn, event.places, keep)
        elif event.available is not None:
            self._keep_free(turn, event.available, keep)

    def own_memory_limits(self) -> dict[int, int]:
        """Bytes that the jobs of workers may use, by incarnation."""
        limits = {
            worker.incarnation: self._limit_of(worker)
            for worker in self._dispatcher.workers.values()
            if worker.leases
        }
        return {incarnation: limit for incarnation, limit in limits.items() if limit is not None}

    def _hold_to_limit(
        self, turn: Turn, worker: WorkerState, used: int, limit: int, left: tuple[int, int] | None
    ) -> None:
        """`left`: (lease, bytes that earlier jobs had left in the worker before it)."""
        lease, job = worker.leases[0]
        if used <= limit:
            if worker.seen is None or worker.seen[0] != lease:
                worker.seen = lease, used
        elif worker.finished and self._may_be_innocent(worker, job, used, limit, left):
            self._give_a_fresh_worker(turn, worker, job, used)
        else:
            worker.memory = used
            of_its_own = limit != self._settings.memory_limit and limit == self._asked(worker)
            bound = f"the {sized(limit)} of memory that it asked for" if of_its_own else ""
            bound = bound or f"its memory limit of {sized(limit)}"
            message = f"stopped at {sized(used)}: more than {bound}"
            self._dispatcher.kill(turn, worker, "over_memory", message)

    def _may_be_innocent(
        self, worker: WorkerState, job: int, used: int, limit: int, left: tuple[int, int] | None
    ) -> bool:
        """Whether the job would be within the limit without the memory that earlier jobs left in its worker."""
        lease, spared = worker.leases[0][0], self._spared.get(job, 0)
        if left is not None and left[0] == lease:
            return left[1] > _WORTH_A_WORKER * limit and used - left[1] <= limit and spared < _SPARED_AT_MOST
        # It followed other jobs without a pause, so what they left is unknown, but it is at most what the
        # first measurement during this job showed. Next time it has a lease of its own, and it is known.
        if worker.seen is not None and worker.seen[0] == lease and worker.seen[1] < _HARMLESS * limit:
            return False
        return spared < 1

    def _give_a_fresh_worker(self, turn: Turn, worker: WorkerState, job: int, used: int) -> None:
        job_id = self._table.ids[job]
        detail = {"job": job_id, "worker": worker.slot, "used": used}
        turn.effects.records.append(Noted("memory_left_behind", turn.at, detail))
        if not self._spared:
            text = f"{job_id} runs again in a fresh worker: jobs before it may have left a part of the"
            text += f" {sized(used)} that its worker holds (--max-jobs-per-worker 1 gives each a fresh one)"
            turn.effects.commands.append(Tell("warning", text))
        self._spared[job] = self._spared.get(job, 0) + 1
        self._dispatcher.queue.mark_single(job)
        self._dispatcher.kill(turn, worker, "interrupted")

    def _limit_of(self, worker: WorkerState) -> int | None:
        """Bytes that the job of a worker may use: the smaller of what it asked for and `--memory-limit`.

        A retry over memory, with `--retry-over-memory`, may use what all workers may use together; but a job
        that runs alone for another reason gets no more.
        """
        limit, placement, asked = self._settings.memory_limit, self._dispatcher.placement, self._asked(worker)
        charges = self._table.charges.get(worker.leases[0][1])
        again = self._settings.retry_over_memory and charges is not None and charges.over_memory
        shares = self._dispatcher.alone.memory_shares(worker) if again else 1
        if asked and placement is not None and again and self._dispatcher.alone.is_of(worker):
            return placement.memory_for_one(worker) or shares * min(limit or asked, asked)
        limits = [bound for bound in (limit, asked) if bound]
        return shares * min(limits) if limits else None

    def _asked(self, worker: WorkerState) -> int:
        """Bytes that its job asked for; 0 if it did not say."""
        placement = self._dispatcher.placement
        return placement.memory_of(worker) if placement is not None else 0

    def _keep_free(self, turn: Turn, available: int, keep: int) -> None:
        since = self._blocked.get(LOW_MEMORY)
        if available < keep and since is None:
            self._blocked[LOW_MEMORY] = turn.now
            text = f"{sized(available)} of memory is available, less than {sized(keep)} (--keep-free)"
            turn.effects.records.append(Paused(LOW_MEMORY, turn.at, text))
            turn.effects.commands.append(Tell("warning", f"no new jobs are started: {text}"))
        elif since is not None and available >= keep * _RELAXED:
            del self._blocked[LOW_MEMORY]
            turn.effects.records.append(Unpaused(LOW_MEMORY, turn.at, round(turn.now - since, 3)))
            turn.effects.commands.append(
                Tell("info", "enough memory is available again: jobs are started again")
            )
        if available < keep * _CRITICAL:
            self._stop_youngest(turn, available, 0)

    def _keep_free_on_each(self, turn: Turn, places: Mapping[int, int], keep: int) -> None:
        """`places`: what is available on each. A node that is short gets nothing more; the others go on."""
        short = self._dispatcher.short_places
        for place in short - places.keys():  # it has ended
            short.discard(place)
        for place, available in places.items():
            where = f"on {one_line(self._dispatcher.name_of_place(place))}"
            if available < keep and place not in short:
                short.add(place)
                text = (
                    f"{sized(available)} of memory is available there, less than {sized(keep)} (--keep-free)"
                )
                turn.effects.commands.append(Tell("warning", f"no new jobs are started {where}: {text}"))
            elif place in short and available >= keep * _RELAXED:
                short.discard(place)
                text = f"enough memory is available again {where}: jobs are started there again"
                turn.effects.commands.append(Tell("info", text))
            if available < keep * _CRITICAL:
                self._stop_youngest(turn, available, place)

    def _stop_youngest(self, turn: Turn, available: int, place: int) -> None:
        """Of those in this place."""
        if turn.now < self._no_stop_before.get(place, 0.0):
            return
        if any(w.status == DOOMED and w.place == place for w in self._dispatcher.workers.values()):
            return  # its memory will be free soon
        running = [pair for pair in self._dispatcher.running() if pair[0].place == place]
        if len(running) < 2:
            return
        worker, job = max(running, key=lambda pair: (pair[0].since, pair[0].incarnation))
        self._no_stop_before[place] = turn.now + _SETTLES_WITHIN
        job_id = self._table.ids[job]
        detail = {"job": job_id, "worker": worker.slot, "available": available}
        turn.effects.records.append(Noted("stopped_for_memory", turn.at, detail))
        text = f"only {sized(available)} of memory is available: {job_id} is stopped, and runs again later"
        turn.effects.commands.append(Tell("warning", text))
        self._dispatcher.kill(turn, worker, "interrupted")

    # -------------------------------------------------------- stalled and slow jobs

    def on_usage_sampled(self, event: UsageSampled, turn: Turn) -> None:
        for worker, job in self._dispatcher.running():
            cpu = event.cpu_percent.get(worker.incarnation)
            if cpu is None or worker.status not in (READY, STOPPING):
                continue
            if cpu >= _IDLE:
                worker.busy_at = turn.now
            if self._settings.stall is not None:
                self._watch_stall(turn, worker, job, self._settings.stall)
            self._watch_slowness(turn, worker, job)

    def _watch_stall(self, turn: Turn, worker: WorkerState, job: int, stall: float) -> None:
        report = worker.report()
        alive = max(worker.since, worker.busy_at, 0.0 if report is None else report.at)
        lease = worker.leases[0][0]
        if turn.now - alive < stall or worker.stall_reported_lease == lease:
            return
        worker.stall_reported_lease = lease
        seconds = round(turn.now - alive, 1)
        job_id = self._table.ids[job]
        detail = {"job": job_id, "worker": worker.slot, "seconds": seconds}
        turn.effects.records.append(Noted("stalled", turn.at, detail))
        text = f"{job_id} has used no CPU for {seconds:.0f} s (--stall); its stack follows"
        turn.effects.commands.append(Tell("warning", text))
        turn.effects.commands.append(LogStack(worker.incarnation))

    def _watch_slowness(self, turn: Turn, worker: WorkerState, job: int) -> None:
        seconds = turn.now - worker.since
        usual = self._slowness.usual(job, seconds, turn.now)
        worker.slow = worker.leases[0][0] if usual is not None else 0
        if usual is None or self._slow_told or self._dispatcher.timeout(worker) is not None:
            return
        self._slow_told = True
        text = f"{self._table.ids[job]} has been running for {seconds:.0f} s; half of its domain took"
        turn.effects.commands.append(
            Tell("info", f"{text} less than {usual:.1f} s. --timeout TIME would end such jobs")
        )


TIMES_SLOWER = 5.0

NOT_BEFORE = 10.0  # seconds; shorter jobs are never called slow

_LEAST = 5  # completed jobs that make a median worth comparing with

_NEAR = 10_000  # jobs before and after it in the plan that are compared

_KEPT = 30.0  # seconds that a median is good for


class StragglerDetector:
    """Finds jobs that take much longer than others of their domain. Medians are cached for half a minute."""

    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._known: dict[int, tuple[float, float | None]] = {}  # domain -> when, median

    def usual(self, job: int, seconds: float, now: float) -> float | None:
        """The median of its domain in seconds, if this job has run for five times as long."""
        if seconds < NOT_BEFORE:
            return None
        domain = self._table.domain_of[job]
        at, found = self._known.get(domain, (float("-inf"), None))
        if now - at >= _KEPT:
            found = self._median(domain, job)
            self._known[domain] = (now, found)
        return found if found is not None and seconds >= TIMES_SLOWER * found else None

    def _median(self, domain: int, near: int) -> float | None:
        table = self._table
        part = slice(max(0, near - _NEAR), near + _NEAR)
        rows = zip(table.state[part], table.domain_of[part], table.seconds[part], strict=True)
        durations = [seconds for state, its, seconds in rows if state == COMPLETED and its == domain]
        if len(durations) < _LEAST:
            return None
        from statistics import median  # imports fractions and decimal

        return median(durations)
