"""What is known of one experiment while somebody looks at it: states of jobs, timeline, groups of failures.

Read once, then followed from journal line to journal line, in a thread of its own, as long as there are requests. A
request takes what is known by then, and waits only a moment for what is new.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from supervisor.core.state.domain_counts import DomainCounts
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.snapshot import failure_of
from supervisor.core.terms.errors import LonghaulError
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, PENDING, Counts
from supervisor.core.terms.records import Ended
from supervisor.experiment.experiment_status import is_running
from supervisor.page.failure_groups import FailureGroups
from supervisor.page.timeline import Timeline
from supervisor.reports.failed_attempts import NOBODYS_FAULT
from supervisor.reports.result_reader import Results
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_follower import FollowedLines, JournalFollower
from supervisor.storage.journal.journal_format import LineHead, decode_record
from supervisor.storage.recovery.survey import survey
from supervisor.web.job_pages import JobChoices
from supervisor.web.time_documents import TimePicture

_PAUSE = 0.5  # seconds between two looks at the journal
_SHARE = 10  # looks that take long are rarer: at most a tenth of the time
_PATIENCE = 0.4  # seconds that a request waits for what is new
_RECENT = 3.0  # seconds that results may be old
_FIRST_PATIENCE = 5.0  # and for the states of the jobs, when nothing is known yet
_SMALL = 1 << 20  # bytes of a journal that is read in some hundredths of a second

_STATE_OF = {"completed": COMPLETED, "failed": FAILED, "in_progress": INTERRUPTED, "pending": PENDING}
# Records after which the plan or the states of many jobs may be others.
_ANEW = frozenset(("opened", "run_started", "reset", "carried", "carried_run"))


class ExperimentWatch:
    """Hold `lock` while using what is here.

    Attributes
    ----------
    table: None until it has been read. version: rises with each change of it. surveys: how often it was read.
    behind: the journal has not been read to its end yet. trouble: why it cannot be; "" if nothing is wrong.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.lock = threading.RLock()
        self.results: Results | None = None
        self.version = 0
        self.behind = True
        self.trouble = ""
        self.choices = JobChoices()
        self.surveys = 0
        self._survey_at = self._survey_took = 0.0
        self._surveyed = 0  # number of the last line that the table has
        self._stale = True
        self._written = True  # while it was surveyed
        self._forget()
        self._follower = JournalFollower(layout)
        self._anew = 0
        self._waiting = 0
        self._look: Future[None] | None = None
        self._began = self._looked_at = self._took = 0.0
        self._have_table = threading.Event()
        self._domains: tuple[int, float, float, dict[str, Counts]] = (0, -1.0, 0.0, {})
        self._picture: tuple[tuple[Any, ...], float, float, TimePicture | None] = ((), 0.0, 0.0, None)
        self._pool = ThreadPoolExecutor(1, f"watch-{layout.experiment_id}")

    def _forget(self) -> None:
        self.timeline = Timeline()
        self.groups = FailureGroups()

    @property
    def table(self) -> JobTable | None:
        return None if self.results is None else self.results.table

    @property
    def _is_read(self) -> bool:
        """Whether the states of the jobs are known, or why they cannot be."""
        return self.results is not None or bool(self.trouble)

    @property
    def takes_long(self) -> bool:
        """Whether a request would have to wait for the states of the jobs."""
        if self._is_read:
            return False
        try:
            return os.stat(self.layout.journal).st_size > _SMALL
        except OSError:
            return False

    def begin(self) -> None:
        """Have the journal read, without waiting for it."""
        self.refresh(0.0, 0.0)

    @property
    def table_behind(self) -> bool:
        """Whether jobs may have ended that the table does not know of. Nothing is added where nobody runs it."""
        return self.behind and (self._written or is_running(self.layout))

    def refresh(self, patience: float = _PATIENCE, first: float = _FIRST_PATIENCE) -> None:
        """Have the journal looked at, if it is time, and wait a little for it. first: seconds to wait for the states
        of the jobs as long as nothing is known."""
        with self.lock:
            idle = self._look is None or self._look.done()
            pause = max(_PAUSE, _SHARE * self._took)
            if idle and (self._look is None or time.monotonic() - self._looked_at >= pause):
                self._look = self._pool.submit(self._read_on)
                self._began = time.monotonic()
            look = self._look
            patience -= time.monotonic() - self._began  # a look that takes long is waited for once
        if not self._is_read:
            end = time.monotonic() + first
            while look is not None and not look.done() and time.monotonic() < end:
                if self._have_table.wait(0.02):
                    break
        elif look is not None and patience > 0:
            wait([look], patience)

    def freshen_results(self) -> None:
        """Have `results` know the jobs that have ended by now: of a run that goes on they may be some seconds old, and
        older if it takes long to read them. Raises LonghaulError."""
        with self.lock:
            age = time.monotonic() - self._survey_at
            grown = self._follower.number > self._surveyed
            due = self.results is None or (grown and age >= max(_RECENT, _SHARE * self._survey_took))
        if due:
            self._pool.submit(self._survey).result()

    def counts(self) -> Counts | None:
        """By the journal; None if it has not been read."""
        with self.lock:
            return None if self.table is None else self.table.counts()

    def domain_counts(self) -> dict[str, Counts]:
        """Jobs by state, of each domain. Counted anew at most every second, and rarely if that takes long."""
        with self.lock:
            known_version, at, took, found = self._domains
            now = time.monotonic()
            old = self.version != known_version and now - at >= max(1.0, 50 * took)
            if self.table is not None and old:
                found = DomainCounts(self.table).counted([], to_the_end=True)
                self._domains = self.version, now, time.monotonic() - now, found
            return found

    def picture(self, now: float | None) -> TimePicture:
        """The timeline as it stands; if that takes long, as it stood a moment ago. Hold the lock."""
        stamp = id(self.timeline), self.timeline.ended, now is None, len(self.timeline.marks), self.behind
        known, at, took, picture = self._picture
        began = time.monotonic()
        if (
            picture is None
            or known[0] != stamp[0]
            or ((known != stamp or now is not None) and began - at >= max(0.2, _SHARE * took))
        ):
            picture = TimePicture(self.timeline, now)
            self._picture = stamp, time.monotonic(), time.monotonic() - began, picture
        return picture

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    # ----------------------------------------------------------------------- in the thread

    def _read_on(self) -> None:
        began = time.monotonic()
        first = self._follower.number == 0
        try:
            if self._stale:
                self._survey()
            self._follow()
            self.trouble = ""
        except LonghaulError as error:
            self.trouble = str(error)
        except OSError as error:
            self.trouble = (
                f"the files of {self.layout.experiment_id} cannot be read: {error.strerror or error}"
            )
        finally:
            self._looked_at = time.monotonic()
            self._took = 0.0 if first else self._looked_at - began  # the whole journal is read once
            self._have_table.set()

    def _survey(self) -> None:
        self._stale = False
        began = time.monotonic()
        found = survey(self.layout)
        written = is_running(self.layout)
        if not written:
            for job in found.running():
                if found.table.state[job] == PENDING:
                    found.table.state[job] = INTERRUPTED
        with self.lock:
            before, self.results = self.results, Results.of(found)
            self._surveyed = found.last_n
            self._written = written
            self.surveys += 1
            self._survey_at = time.monotonic()
            self._survey_took = self._survey_at - began
            self.version += 1
        self._have_table.set()
        if before is not None:
            before.close()

    def _follow(self) -> None:
        for group in self._follower.read():
            with self.lock:
                if self._follower.started_anew != self._anew:
                    self._anew = self._follower.started_anew
                    self._forget()
                    self._stale, self._surveyed = True, 0
                self.timeline.take(group.heads, group.lines, decode_record, self._bad_end)
                if self._follower.number > self._surveyed:
                    self._apply(group)
            time.sleep(0)  # a request may have its turn
        with self.lock:
            self.timeline.finish()
            self.behind = self._stale
        if self._stale:
            self._survey()
            self.behind = False

    def _apply(self, group: FollowedLines) -> None:
        table = self.table
        if table is None:
            return
        for head in group.heads:
            if head is None:
                continue
            if head.type == "ended" and head.state:
                job = table.numbers.get(head.job)
                if job is None:
                    self._stale = True
                    continue
                table.state[job] = _STATE_OF.get(head.state, PENDING)
                table.attempts[job] = max(table.attempts[job], head.attempt)
                table.seconds[job] = head.seconds
                if head.outcome == "completed":
                    table.outcome.pop(job, None)
                else:
                    table.outcome[job] = head.outcome
            elif head.type in _ANEW:
                self._stale = True
        self.version += 1

    def _bad_end(self, head: LineHead, line: bytes) -> None:
        if not head.state or head.outcome in NOBODYS_FAULT:
            return
        record = decode_record(line)
        if isinstance(record, Ended):
            self.groups.add(failure_of(record, None))
