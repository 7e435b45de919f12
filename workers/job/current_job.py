"""`current_job()`: the running job, as the user's code sees it.

Process-global, so that threads of a job see it. The runner sets the fields before each job;
user code only reads them. Nothing heavy may be imported here: every experiment imports it.
"""

from __future__ import annotations

import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from workers.job.file_names import file_name
from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION, incarnation_text

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from workers.job.job_reports import Reporter
    from workers.job.saved_state import StateFiles, StatesInMemory


REPORT_EVERY = 1.0  # seconds between two reports of a job that are sent

FIRST_REPORT_AFTER = 0.05  # the first one of a job may come so soon after one of another job

# Set in each worker, and in the programs that it starts.
WORKER_VARIABLES = ("LONGHAUL_WORKER", "LONGHAUL_LOCAL_WORKER", INCARNATION, EXPERIMENT_TAG)


class CurrentJob:
    """The job that runs in this process.

    Attributes
    ----------
    id: as in the list of jobs; "" when no job runs.
    domain: as in the list of jobs; None if it has none.
    attempt: 1 for the first start of the job, one more for each further start.
    worker: the slot of the worker, 0 to N-1; a replacement takes over the slot.
    local_worker: its number among the workers of this machine; the same as `worker` if there is only one.
    cpus: the cores that the job was given, as it has asked for them (`Job(cpus=4)`, `--job-cpus`): 4, 0.5.
        1 if it has asked for none.
    gpus: the names of the GPUs that the job was given, as they stand in CUDA_VISIBLE_DEVICES: ("0",). () if it
        was given none. A library counts them from 0 on, whatever their names: `cuda:0` is the first of them.
    context: what `setup()` returned in this worker; None without a `setup`.
    stopping: true once a stop has been asked for. A long job may look at it, `save` its state and
        raise `workers.JobInterrupted`.
    """

    __slots__ = (
        "_directory",
        "_experiment_seed",
        "_jobs_directory",
        "_next_report",
        "_reported_for",
        "_reporter",
        "_seed",
        "_states",
        "_states_directory",
        "attempt",
        "context",
        "cpus",
        "domain",
        "gpus",
        "id",
        "local_worker",
        "stopping",
        "worker",
    )

    def __init__(self) -> None:
        self.id = ""
        self.domain: str | None = None
        self.attempt = 1
        self.worker = 0
        self.local_worker = 0
        self.cpus: float = 1
        self.gpus: tuple[str, ...] = ()
        self.context: Any = None
        self.stopping = False
        self._experiment_seed = 0
        self._seed: int | None = None
        self._jobs_directory: str | None = None
        self._directory: Path | None = None
        self._states_directory: str | None = None
        self._states: StateFiles | StatesInMemory | None = None
        self._reporter: Reporter | None = None
        self._next_report = 0.0
        self._reported_for: str | None = None

    @property
    def seed(self) -> int:
        """0 to 2**32 - 1, from the experiment's seed and the job's id alone: the same in every
        attempt, worker and resume."""
        if self._seed is None:
            self._seed = job_seed(self._experiment_seed, self.id)
        return self._seed

    @property
    def directory(self) -> Path:
        """A folder for the files of this job, absolute, made on first use; raises OSError if it
        cannot be made. Outside a worker it is a temporary one."""
        if self._directory is None:
            from pathlib import Path

            if self._jobs_directory is None:
                from tempfile import mkdtemp

                self._directory = Path(mkdtemp(prefix="longhaul-"))
            else:
                self._directory = Path(self._jobs_directory, file_name(self.id))
                self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    @property
    def jobs_directory(self) -> str:
        """Where the folders of all jobs are; "" outside a worker."""
        return self._jobs_directory or ""

    @property
    def states_directory(self) -> str:
        """Where the saved states of all jobs are; "" where nothing is recorded. It is made at the first save."""
        return self._states_directory or ""

    def save(self, state: Any) -> None:
        """Keep `state` for the next attempt of this job, in place of what was saved before. Returns
        when it is on the disk.

        `state` is what parameters may be (None, booleans, numbers, text, lists, dicts with
        text as keys), NaN and infinities allowed; up to 64 MB of JSON. It is dropped when the
        job is completed, or made to start anew by --rerun or --changed rerun.

        Raises ValueError (Unencodable, StateTooLarge) for a state that cannot be kept, OSError
        if the disk refuses; what was saved before is then still there.
        """
        self._state_files().save(self.id, self.attempt, state)

    def load(self) -> Any:
        """The state that the last `save` of this job has kept, in whatever attempt; None if there is
        none. Tuples have become lists. If it is damaged, the state before it is returned, and the user
        is told. Raises OSError if it cannot be read."""
        state, notice = self._state_files().load(self.id)
        if notice:
            print(f"longhaul: {notice}", file=sys.stderr)
            if self._reporter is not None:
                self._reporter.notice(self.id, notice)
        return state

    def _state_files(self) -> StateFiles | StatesInMemory:
        if self._states is None:
            from workers.job import saved_state

            where = self._states_directory
            self._states = saved_state.StateFiles(where) if where else saved_state.StatesInMemory()
        return self._states

    def report(self, fraction: float | None = None, /, **metrics: Any) -> None:
        """Report the progress of the job, for the live view and the progress file. Nothing is recorded.

        Call it as often as you like, from any thread: one report in a second is sent, the others cost
        a fraction of a microsecond and are dropped.

        Parameters
        ----------
        fraction: how much is done, 0 to 1; None: not known.
        metrics: numbers, booleans, None or texts of up to 200 characters; 2 KB in all.

        Raises TypeError for a fraction that is no number, and for a metric that is neither a number
        nor text; ValueError for metrics that are too large.
        """
        now = monotonic()
        if now < self._next_report and (
            self.id is self._reported_for or now < self._next_report - REPORT_EVERY + FIRST_REPORT_AFTER
        ):
            return
        self._next_report = now + REPORT_EVERY
        self._reported_for = self.id
        from workers.job.job_reports import checked

        known, plain = checked(fraction, metrics)
        if self._reporter is not None:
            self._reporter.report(self.id, known, plain)

    def report_to(self, reporter: Reporter) -> None:
        """Where reports go from now on."""
        self._reporter = reporter

    def configure(
        self,
        worker: int,
        experiment_seed: int,
        jobs_directory: str,
        states_directory: str = "",
        gpus: tuple[str, ...] = (),
        local_worker: int = -1,
    ) -> None:
        """Set what is the same for all jobs of this process. Without `states_directory`, states are kept in
        memory."""
        self.worker = worker
        self.local_worker = worker if local_worker < 0 else local_worker
        self.gpus = gpus
        self._experiment_seed = experiment_seed
        self._jobs_directory = jobs_directory
        self._states_directory = states_directory
        self._states = None

    def start_job(self, job_id: str, domain: str | None, attempt: int) -> None:
        """Set the fields for a job that is about to start."""
        self.id = job_id
        self.domain = domain
        self.attempt = attempt
        self._seed = None
        self._directory = None


class _Process:
    """Facts about this process."""

    inside_worker = False
    worker = 0  # pid of the worker that this process is, or that has forked it; 0: neither
    importing_main = False
    called_at_import = False  # whether the script has called `main` or `run` meanwhile
    imported_main: ModuleType | None = None  # the user's script, where it is `__main__`


CURRENT = CurrentJob()

PROCESS = _Process()


def current_job() -> CurrentJob:
    """The job that runs in this process. Outside a worker, in a test or a notebook, it is a stand-in:
    `id` is "", `attempt` 1, and nothing is recorded."""
    return CURRENT


def inside_worker() -> bool:
    """Whether this process is a worker, or the one that workers are forked from."""
    return PROCESS.inside_worker


def importing_main() -> bool:
    """Whether the user's script is being imported by a worker right now, not run."""
    PROCESS.called_at_import |= PROCESS.importing_main
    return PROCESS.importing_main


def job_seed(experiment_seed: int, job_id: str) -> int:
    """A seed of 32 bits from the experiment's seed and a job's id."""
    import hashlib  # loads OpenSSL

    text = f"{experiment_seed}\n{job_id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def tag_environment(worker: int, tag: str, incarnation: int, local_worker: int = -1) -> None:
    """Set the variables that name the experiment and the worker, for programs that a job starts."""
    local = str(worker if local_worker < 0 else local_worker)
    values = (str(worker), local, incarnation_text(incarnation), tag)
    os.environ.update(zip(WORKER_VARIABLES, values, strict=True))
