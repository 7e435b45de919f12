"""The messages between the supervisor and its workers.

Each is a msgpack-encoded tagged struct in one frame (`workers.transport.frames`). None is unpickled. A lease is
one hand-out of a job to a worker. Lease numbers rise over the whole experiment. Every message about a job names
its lease, so an answer that comes too late is recognised.

Bytes fields named `lines` and `result` hold JSON exactly as it is on disk; the supervisor does not parse them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from workers.process.surrogates import received, sendable


class FunctionSpec(msgspec.Struct, array_like=True, frozen=True):
    """How a worker finds a callable: by module and qualified name, or by value.

    module: "__mp_main__" for the user's script.
    pickled: by cloudpickle, for callables that cannot be imported (notebooks, `python -c`, closures).
    referring: the same with references to the script's classes, for a worker that has imported the script.
    files: modules that an import by name does not find, with their paths (`sendable`).
    constants: the first arguments of the callable, plain values of JSON (`functools.partial`).
    """

    module: str
    qualname: str
    pickled: bytes | None = None
    referring: bytes | None = None
    files: dict[str, str] = {}
    constants: list[Any] = []


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has to know, unchanged for its whole life."""

    experiment_id: str
    tag: str  # value of LONGHAUL_EXPERIMENT: "<experiment id>:<uuid>"
    worker: int  # slot, 0 ... N-1, reused by replacements
    incarnation: int  # rises with every worker process ever started in the experiment
    function: FunctionSpec
    setup: FunctionSpec | None
    seed: int  # the experiment's seed
    output_directory: str  # absolute; <id>/output
    jobs_directory: str  # absolute; <id>/jobs, one folder a job, made on first use
    states_directory: str = ""  # absolute; <id>/states, made on first use
    output_limit: int = 10_000_000  # bytes of a job's output that are kept
    nice: int = 0  # added to the niceness of this process
    environment: dict[str, str] = {}  # set before user code is imported (thread caps)
    visible_gpus: dict[str, str] = {}  # variables as well; what user code changes in them is put back
    devices: tuple[str, ...] = ()  # the GPUs of its jobs, as CUDA_VISIBLE_DEVICES names them
    # Pid of the supervisor, and its ends of inbox and outbox: where to open them again.
    ends: tuple[int, int, int] | None = None
    local_worker: int = -1  # its slot on this machine; -1: that is `worker`

    def packed(self) -> WorkerSpec:
        """A copy whose directories are `sendable`."""
        return self._with_directories(sendable)

    def unpacked(self) -> WorkerSpec:
        """Undo `packed`."""
        return self._with_directories(received)

    def _with_directories(self, form: Callable[[str], str]) -> WorkerSpec:
        return msgspec.structs.replace(
            self,
            output_directory=form(self.output_directory),
            jobs_directory=form(self.jobs_directory),
            states_directory=form(self.states_directory),
        )


# ---------------------------------------------------------------- supervisor -> worker


class Run(msgspec.Struct, tag=1, array_like=True):
    """Run these jobs, in order. Lease i has the number `first_lease + i`.

    `lines` is a run of lines of the plan file, one `PlanLine` per job, joined by newlines. `cpus`: thousandths of a
    core that each of them was given; 0 if they do not say what they need.
    """

    first_lease: int
    attempts: list[int]
    lines: bytes
    cpus: int = 0


class PlanLine(msgspec.Struct, gc=False):
    """A job's line of the plan, as far as a worker needs it: JSON, other fields are skipped."""

    id: str
    domain: str | None = None
    params: dict[str, Any] = {}


class Revoke(msgspec.Struct, tag=2, array_like=True):
    """Drop these leases unless they have started. Answered by `Dropped`."""

    leases: list[int]


class Finish(msgspec.Struct, tag=3, array_like=True):
    """No more jobs will come: run what is queued, then exit."""


ToWorker = Run | Revoke | Finish

# ---------------------------------------------------------------- worker -> supervisor


class Failure(msgspec.Struct, array_like=True):
    """An exception as text; nothing of it is ever unpickled.

    `where` is "file.py:88" of the innermost frame in the user's code, "" if unknown.
    `value_repr` (at most 64 KB) is kept for results that cannot be encoded. `exit_code`, `signal`: of a program that
    the job was.
    """

    type: str
    message: str
    traceback: str = ""
    where: str = ""
    errno: int | None = None  # of an OSError
    value_repr: str = ""
    exit_code: int | None = None
    signal: int | None = None


class Ready(msgspec.Struct, tag=10, array_like=True):
    """Main module imported, `setup()` done: jobs may come."""


class NeverReady(msgspec.Struct, tag=11, array_like=True):
    """The import of the user's code or `setup()` failed; the worker exits after this."""

    failure: Failure


class Completed(msgspec.Struct, tag=12, array_like=True, gc=False):
    """The job has returned, and only its result is to be reported, as for nearly all jobs. `result` is JSON."""

    lease: int
    seconds: float
    result: bytes


class CompletedWith(msgspec.Struct, tag=16, array_like=True):
    """The job has returned, with further facts beside the result.

    `nonfinite` are JSON pointers to values that were NaN or infinite and were written
    as null: [["/loss", "nan"], ["/bounds/1", "-inf"]]. `converted` names what kinds of
    values were given a JSON form ("tuple", "numpy.float64", ...). `output` counts the bytes
    that the job printed.
    """

    lease: int
    seconds: float
    result: bytes
    output: int = 0
    nonfinite: list[tuple[str, str]] = []
    converted: list[str] = []


class Failed(msgspec.Struct, tag=13, array_like=True):
    """The job has ended without a result that can be recorded."""

    lease: int
    seconds: float
    outcome: Literal["raised", "unencodable", "interrupted", "crashed"]  # crashed: a program that it has run
    failure: Failure
    output: int = 0
    wish: Literal["", "retry", "give_up"] = ""
    after: float | None = None  # seconds to wait before that attempt
    most: int = 0  # limit of retries that this job may ask for


class Dropped(msgspec.Struct, tag=14, array_like=True):
    """These leases were waiting in the worker and will not be run: revoked, or draining."""

    leases: list[int]


class Reported(msgspec.Struct, tag=15, array_like=True):
    """Progress of the running job, sent by any thread or forked child of it.

    It names the job and no lease: the sender may outlive the job, and the supervisor knows the worker's current
    lease. metrics: numbers, short texts, booleans, None. notice: a text for the user. A frame of it is never
    larger than PIPE_BUF.
    """

    job: str
    fraction: float | None = None
    metrics: dict[str, float | int | str | bool | None] = {}
    notice: str = ""


class ModuleText(msgspec.Struct, array_like=True, frozen=True):
    """name: as in `sys.modules`. file: sendable. sha256: of its bytes, "" if it cannot be read."""

    name: str
    file: str
    sha256: str


class Imported(msgspec.Struct, tag=17, array_like=True):
    """The user's modules that this process has imported since the last such message."""

    modules: list[ModuleText]


class Peak(msgspec.Struct, tag=18, array_like=True):
    """The memory that jobs before the next one have taken, in bytes.

    `before`: the high-water mark of this process before it was reset; 0 if it was not reset. `lasting`: the
    highest mark that cannot be reset, such as that of children. `inherited`: the mark of another program that
    `getrusage` reports as ours, 0 if there is none. `own`: if there is one, our own mark now.
    """

    before: int
    lasting: int
    inherited: int = 0
    own: int = 0


Outcome = Completed | CompletedWith | Failed
FromWorker = Ready | NeverReady | Completed | CompletedWith | Failed | Dropped | Reported | Imported | Peak
