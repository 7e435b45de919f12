"""The event loop of a run, the only place where it waits: wait, decide, record, perform.

A turn: wait for whatever comes first (a message of a worker, a death, a signal, a finished sync, a deadline);
pass the events to the core; write the records that it returns; then carry out its commands. The loop decides
nothing and never waits for a worker or a disk.
"""

from __future__ import annotations

import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from supervisor.control.control_server import ControlServer
from supervisor.core.scheduling.progress import ProgressObserver
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.snapshot import FailureSnapshot, NodeSnapshot, RunSnapshot, failure_of
from supervisor.core.state.worker_state import WorkerState
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import (
    AnswerControl,
    AnswerWithStacks,
    Command,
    Effects,
    Event,
    KillWorker,
    LogStack,
    RevokeJobs,
    SignalWorker,
    StartJobs,
    StartWorker,
    StopWorker,
    Tell,
)
from supervisor.core.terms.records import Completions, Ended
from supervisor.engines.engine import Engine, HostSeen
from supervisor.engines.resource_monitor import ResourceMonitor, Sampler
from supervisor.engines.stack_dump import StackDump
from supervisor.storage.plan.plan_file import PlanFile
from supervisor.storage.store import Store
from supervisor.system.capacity.free_memory import machine_memory
from supervisor.system.clock import RunClock, utc_now
from supervisor.system.signals import Signals
from supervisor.views.view import View
from workers.transport.messages import Run

# The longest wait: a suspension of the machine is noticed within this time.
LONGEST_WAIT = 30.0
# Seconds within which two signals of one kind are one keystroke that was forwarded as well.
SAME_KEYSTROKE = 0.005
MAX_EMPTY_POLLS = 3  # that find nothing, before the loop waits to be woken by an event
# How long a checkpoint may hold up the loop at a time.
SLICE = 0.004
PROGRESS_EVERY = 1.0
RECENT_FAILURES = 20
# Seconds until modules are imported that only the end of a run needs: a thirtieth of a second of work, by
# then a thousandth of what the workers had. A shorter run imports them at its end.
DEFERRED_IMPORTS_AFTER = 20.0
RETRIED_CRASHES = 1000  # that are kept for the summary
# Attempts that end for no fault of the job are not shown as failures.
_NOBODYS_FAULT = ("completed", "interrupted", "lost", "cancelled")


class ProgressSink(Protocol):
    """Where the progress file is written; see `reports.progress_file`."""

    def write(self, snapshot: RunSnapshot, failures: Sequence[FailureSnapshot]) -> bool: ...


class Loop:
    """Runs one scheduler until it is finished."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        store: Store,
        plan: PlanFile,
        engine: Engine,
        signals: Signals,
        view: View,
        observer: ProgressObserver,
        progress: ProgressSink | None,
        clock: RunClock,
        resume_hint: str,
        output_directory: str,
        with_option_names: Callable[[str], str] = str,
        control: ControlServer | None = None,
        deferred: Sequence[Callable[[], object]] = (),
    ) -> None:
        self.scheduler = scheduler
        self.store = store
        self.plan = plan
        self.engine = engine
        self.signals = signals
        self.view = view
        self.observer = observer
        self.progress = progress
        self.clock = clock
        self._with_option_names = with_option_names  # as they are called in this script
        self.resume_hint = resume_hint
        self.output_directory = output_directory
        self.control = control
        self.retried_crashes: deque[FailureSnapshot] = deque(maxlen=RETRIED_CRASHES)
        self.recent_failures: deque[FailureSnapshot] = deque(maxlen=RECENT_FAILURES)
        self._selector = selectors.DefaultSelector()
        for source in (engine, signals, store):
            self._selector.register(source.fileno(), selectors.EVENT_READ)
        self._free: tuple[int | None, int | None, int | None] = None, None, None
        if control is not None:
            self._selector.register(control.fileno(), selectors.EVENT_READ)
        self._deferred = deque(deferred)  # functions to call once the workers are busy
        self._stacks: StackDump | None = None  # being collected
        self._stacks_for: list[AnswerWithStacks] = []  # orders that are to be answered with them
        self._checkpointing = False
        self._completions = 0  # since the last checkpoint was begun
        now = clock.now()
        self._deferred_until = now + DEFERRED_IMPORTS_AFTER
        self._next_view = now
        self._next_progress = now
        self._monitor = ResourceMonitor(engine, scheduler.settings, now, scheduler.own_memory_limits())
        self._sampler = Sampler(scheduler.workers, now)

    def run(self, effects: Effects) -> None:
        """Carry out `effects` (of the beginning), then turn until the run is over."""
        self._carry_out(effects)
        self._turn([facts.TimePassed()])
        while not self.scheduler.finished:
            self._turn(self._wait())
        self._selector.close()
        self._show(force=True)

    # ------------------------------------------------------------------------- wait

    def _wait(self) -> list[Event]:
        timeout = self._timeout()
        ready = self._select(timeout)
        stood_still = self.clock.tick(timeout)
        now = self.clock.now()
        events: list[Event] = []
        if stood_still:
            events.append(facts.ClockJumped(stood_still))
        woken = {key.fd for key, _ in ready}
        events.extend(self.store.poll(now, woken=self.store.fileno() in woken))
        # First what the workers have written: a result that is in the pipe already counts before a deadline
        # or a signal.
        events.extend(self.engine.poll(now))
        if self.signals.fileno() in woken:
            events.extend(self._signal_events())
        if now >= self._monitor.due:
            events.extend(self._measure_workers(now))
        if self.control is not None:
            due = self.control.next_deadline()
            if self.control.fileno() in woken or (due is not None and now >= due):
                events.extend(self.control.poll(now))
        return events

    def _measure_workers(self, now: float) -> list[Event]:
        before = self._monitor.usage
        events = self._monitor.measure(now)
        if self._monitor.usage is not before:
            self._free = self.store.free_space(), *machine_memory()
        return events

    def _select(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events. While the workers have enough to do, then sleep a little longer, so that more
        outcomes gather: a write to a process that waits in select costs the writer a wake-up, a write to one
        that sleeps does not. Views and measurements wait for the end of the sleep."""
        delay = self.scheduler.dispatcher.coalescing_delay()
        if self._deferred and timeout > 0.0 and self._has_time(delay):
            self._deferred.popleft()()
            return self._selector.select(0)
        if timeout > 0.0 and delay > 0.0 and not self.engine.pressing():
            delay = min(delay, self._until(self._deadlines()))
            for _ in range(MAX_EMPTY_POLLS):
                time.sleep(delay)
                timeout -= delay
                if (ready := self._selector.select(0)) or timeout <= 0.0:
                    return ready
        return self._selector.select(max(0.0, timeout))

    def _has_time(self, delay: float) -> bool:
        """Whether the workers are busy, so that this process has time for other work."""
        return self.clock.now() >= self._deferred_until and (delay > 0.0 or not self._selector.select(0))

    def _timeout(self) -> float:
        if self._checkpointing:
            return 0.0
        times = [*self._deadlines(), self._next_view, self._monitor.due]
        if self.progress is not None:
            times.append(self._next_progress)
        if (due := self.store.next_deadline()) is not None:
            times.append(due)
        return self._until(times)

    def _deadlines(self) -> list[float]:
        """Times at which an answer or a kill is due: coalescing of reads must not delay these."""
        deadlines = [self.scheduler.next_deadline(), self.engine.next_deadline()]
        if self.control is not None:
            deadlines.append(self.control.next_deadline())
        if self._stacks is not None:
            deadlines.append(self._stacks.due)
        return [time for time in deadlines if time is not None]

    def _until(self, times: list[float]) -> float:
        """Seconds until the first of these."""
        now = self.clock.now()
        return max(0.0, min([now + LONGEST_WAIT, *times]) - now)

    def _signal_events(self) -> list[Event]:
        events: list[Event] = []
        for signum in self._signals():
            if signum == signal.SIGTSTP:
                self._suspend()
            elif signum == signal.SIGQUIT:
                self.view.message("info", "SIGQUIT: the stacks of all workers follow")
                self._dump_stacks()
            else:
                events.append(facts.SignalReceived(signum))
        return events

    def _signals(self) -> list[int]:
        """Signals that have come. Wrappers that forward signals (timeout, package runners)
        make two of one Ctrl+C: two within SAME_KEYSTROKE before the drain count as one."""
        signums = self.signals.read()
        if signums and not self.scheduler.draining:
            time.sleep(SAME_KEYSTROKE)
            signums = list(dict.fromkeys(signums + self.signals.read()))
        return signums

    def _suspend(self) -> None:
        """Ctrl+Z: the workers stop and continue with us. The clock notices the time."""
        self.engine.stop_workers(suspend=True)
        self.view.suspend()
        self.signals.stop_self()
        self.engine.stop_workers(suspend=False)
        self.view.resume()

    def _dump_stacks(self) -> None:
        """Each worker writes its Python stacks where it prints to."""
        self._stacks = None
        self._ask_for_stacks(list(self.scheduler.workers.values()))

    def _log_stack(self, incarnation: int) -> None:
        worker = self.scheduler.workers.get(incarnation)
        if worker is not None:
            self._ask_for_stacks([worker])

    def _ask_for_stacks(self, workers: list[WorkerState]) -> None:
        if self._stacks is None:
            self._stacks = StackDump(self.output_directory, self.clock.now())
        self._stacks.expect(workers)
        for worker in workers:
            self.engine.signal_worker(worker.incarnation, signal.SIGQUIT)

    def _tell_stacks(self) -> None:
        if self._stacks is None or self.clock.now() < self._stacks.due:
            return
        texts = self._stacks.read()
        self._stacks = None
        for text in texts:
            self.view.message("info", text)
        for asked in self._stacks_for:
            self._answer(asked.ticket, True, asked.text, texts)
        self._stacks_for.clear()

    def _answer(self, ticket: int, done: bool, text: str, stacks: Sequence[str] = ()) -> None:
        if self.control is not None:
            self.control.answer(ticket, done, text, stacks)

    # ------------------------------------------------------------------------- turn

    def _turn(self, events: list[Event]) -> None:
        was_draining = self.scheduler.draining
        effects = self.scheduler.handle(events, self.clock.now(), utc_now(), self.store.next_n)
        self._carry_out(effects)
        if self.scheduler.draining and (
            not was_draining or any(isinstance(event, facts.SignalReceived) for event in events)
        ):
            self.view.message("info", self.resume_hint)
        while self.store.notices:
            self.view.message("warning", self.store.notices.pop(0))
        self._tell_stacks()
        self._checkpoint()
        self._show()

    def _carry_out(self, effects: Effects) -> None:
        """Write-ahead: first the records, then the commands."""
        if effects.records:
            self.store.append(effects.records, urgent=effects.urgent)
        for command in effects.commands:
            self._perform(command)
        for record in effects.records:
            if isinstance(record, Completions):
                self._completed(record)
            elif isinstance(record, Ended):
                self._ended(record)

    def _perform(self, command: Command) -> None:
        engine = self.engine
        match command:
            case StartJobs(incarnation, first_lease, jobs, attempts, cpus):
                engine.lease_jobs(incarnation, Run(first_lease, attempts, self.plan.lines(jobs), cpus))
            case RevokeJobs(incarnation, leases):
                engine.revoke(incarnation, leases)
            case StartWorker(slot, incarnation, devices, place, local_slot):
                engine.start_worker(slot, incarnation, devices, place=place, local_slot=local_slot)
            case StopWorker(incarnation):
                engine.stop_worker(incarnation)
            case KillWorker(incarnation, stack):
                engine.kill_worker(incarnation, stack=stack)
            case SignalWorker(incarnation, signum):
                engine.signal_worker(incarnation, signum)
            case Tell(level, text):
                self.view.message(level, self._with_option_names(text))
            case AnswerControl(ticket, done, text):
                self._answer(ticket, done, self._with_option_names(text))
            case AnswerWithStacks():
                self._stacks_for.append(command)
                if self._stacks is None:
                    self._dump_stacks()
            case LogStack(incarnation):
                self._log_stack(incarnation)

    def _completed(self, batch: Completions) -> None:
        self._completions += len(batch)
        for place, outcome in batch.more.items():
            if outcome.output:
                self.view.printed(batch.ids[place])
        self.view.completed()

    def _ended(self, record: Ended) -> None:
        self._completions += record.outcome == "completed"
        if record.output:
            self.view.printed(record.job)
        if record.outcome not in _NOBODYS_FAULT:
            table = self.scheduler.table
            domain = table.domains[table.domain_of[table.number_of(record.job)]] or None
            failure = failure_of(record, domain)
            self.recent_failures.append(failure)
            if failure.outcome == "crashed" and not failure.final:
                self.retried_crashes.append(failure)
            self.view.failed(failure)
        elif record.outcome == "completed":
            self.view.completed()

    # -------------------------------------------------------------- what is due now

    def _checkpoint(self) -> None:
        if self._checkpointing:
            self._checkpointing = self.store.work(SLICE)
        elif self.store.checkpoint_due(self._completions, self.clock.now()):
            self._completions = 0
            self.store.begin_checkpoint(self.scheduler.position(), self.clock.now())
            self._checkpointing = True

    def _show(self, *, force: bool = False) -> None:
        now = self.clock.now()
        view_due = force or now >= self._next_view
        progress_due = self.progress is not None and (force or now >= self._next_progress)
        self._sample(now)
        if not (view_due or progress_due):
            return
        snapshot = self.observer.snapshot(now, checkpoint_age=self.store.checkpoint_age(now))
        snapshot.disk_free, snapshot.memory_free, snapshot.memory_total = self._free
        for worker in snapshot.workers:
            usage = self._monitor.usage.get(worker.incarnation)
            if usage is not None:
                worker.rss_bytes, worker.cpu_percent = usage.rss_bytes, usage.cpu_percent
        if snapshot.nodes:
            _with_hosts(snapshot.nodes, self.engine.hosts())
        if progress_due and self.progress is not None:
            self._next_progress = now + PROGRESS_EVERY
            self.progress.write(snapshot, list(self.recent_failures))
        if view_due:
            self.view.update(snapshot)
            self._next_view = now + self.view.interval

    def _sample(self, now: float) -> None:
        usage = self._monitor.usage
        if self._sampler.is_due(usage, now):
            self.store.append([self._sampler.sample(usage, now, utc_now(), self._free[1])])


def _with_hosts(nodes: Sequence[NodeSnapshot], hosts: Mapping[int, HostSeen]) -> None:
    """Add what the nodes have said of themselves."""
    for node in nodes:
        if (seen := hosts.get(node.place)) is not None:
            node.load, node.cpu_percent = seen.use.load, seen.use.cpu_percent
            node.memory_used, node.memory_total = seen.use.memory_used, seen.use.memory_total
            node.heard_age = round(seen.age, 1)
