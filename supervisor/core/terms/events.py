"""Events and commands of the core, as data.

Events say what has happened and come in batches. Commands say what is to be done. `Effects` holds the records,
which are written first, and the commands, which are carried out only after that (write-ahead logging).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from supervisor.core.terms.needs import Totals
from supervisor.core.terms.records import AnyRecord, Completions
from workers.transport.messages import Failure, ModuleText, Outcome

# ------------------------------------------------------------------------------ events

# Causes of a worker's death that are no fault of its job: its place was lost; its place ended as it had been told to,
# or because this process was silent.
NODE_LOST, NODE_ENDED = "node_lost", "node_ended"


class WorkerLaunched(msgspec.Struct, frozen=True):
    """The process exists; it is not ready yet. boot_id, outlives: as of `records.WorkerStarted`."""

    incarnation: int
    pid: int
    process_start: float  # seconds since the epoch
    boot_id: str = ""
    outlives: float = 0.0


class WorkerStartFailed(msgspec.Struct, frozen=True):
    """No process could be made (EAGAIN, EMFILE, deleted cwd ...)."""

    incarnation: int
    error: str


class WorkerReady(msgspec.Struct, frozen=True):
    incarnation: int


class WorkerNotReady(msgspec.Struct, frozen=True):
    """Import or setup failed, as the worker reports; its death follows."""

    incarnation: int
    failure: Failure


class JobsFinished(msgspec.Struct, frozen=True):
    """Attempts that ended, in the order in which the worker ran them.

    more: its pipe holds more than was read: what it is at now is not known.
    """

    incarnation: int
    outcomes: list[Outcome]
    more: bool = False


class LeasesDropped(msgspec.Struct, frozen=True):
    incarnation: int
    leases: list[int]


class OutcomesHeld(msgspec.Struct, frozen=True):
    """These jobs have ended; their outcomes follow when their files are on the supervisor's disk. Of nodes that
    share no file system with it."""

    incarnation: int
    leases: list[int]


class HeldOutcomesLost(msgspec.Struct, frozen=True):
    """These outcomes will not come any more: their place has ended. `cause`: as of `WorkerDied`."""

    leases: list[int]
    cause: str = NODE_LOST


class LeasesWithdrawn(msgspec.Struct, frozen=True):
    """Of the leases that were revoked, these will certainly not start: their worker will read so before it could. Its
    LeasesDropped follows. Told where `PlaceFacts.elsewhere`."""

    incarnation: int
    leases: list[int]


class JobReported(msgspec.Struct, frozen=True):
    """The running job reports its progress, or a notice for the user."""

    incarnation: int
    job: str  # id
    fraction: float | None
    metrics: dict[str, Any]
    notice: str = ""


class CodeImported(msgspec.Struct, frozen=True):
    """A worker has imported these modules of the user's."""

    incarnation: int
    modules: list[ModuleText]


class FilesShared(msgspec.Struct, frozen=True):
    """Workers share the position of these files, which the script has opened; each with the reason in
    parentheses."""

    files: list[str]


class WorkerDied(msgspec.Struct, frozen=True):
    """The process is dead, all its messages have been delivered, and its descendants have been killed. Unknown
    values are None."""

    incarnation: int
    exit_code: int | None = None
    signal: int | None = None
    peak_rss: int | None = None  # bytes, since its current job began
    output: str = ""  # the last lines that the running job had printed
    output_bytes: int = 0
    log: str = ""  # the file with its output, if that is no job's
    where: str = ""  # "script.py:12", its position in the user's code
    function: str = ""  # the function of that position
    traceback: str = ""  # its stack; "" if the output has it
    peak_is_shared: bool = False  # `peak_rss` may be that of an earlier job
    earlier_peak_rss: int = 0  # bytes, before that job
    earlier_peak_lease: int | None = None  # of the job that had so much
    cause: str = ""  # NODE_LOST, NODE_ENDED: its place has ended; "": the process itself has


class WorkerGivenUp(msgspec.Struct, frozen=True):
    """Killed, but does not die (frozen, D state): its slot is free, its job is not."""

    incarnation: int


class SignalReceived(msgspec.Struct, frozen=True):
    """SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 sent to the supervisor."""

    signum: int


class TimePassed(msgspec.Struct, frozen=True):
    """Only time has passed; deadlines are checked."""


class Synced(msgspec.Struct, frozen=True):
    """All records up to and including number `n` are on the disk."""

    n: int


class HandOutBlocked(msgspec.Struct, frozen=True):
    """Nothing new may be handed out for the reason `why`: no_space, disk_stalled."""

    why: str
    detail: str = ""


class HandOutUnblocked(msgspec.Struct, frozen=True):
    why: str


class ControlAsked(msgspec.Struct, frozen=True):
    """An order of `longhaul ctl`; see `orders`.

    ticket: identifies the client that waits for the answer. uid: of the client's user. number: of workers.
    jobs: ids, or patterns of ids. by: "page" if it was given in a browser.
    """

    ticket: int
    uid: int
    order: str  # pause, resume, drain, stop, workers, retry, cancel, stacks
    number: int = 0
    jobs: list[str] = []
    by: str = ""


class MemoryMeasured(msgspec.Struct, frozen=True):
    """Bytes of memory used by workers with their descendants, and available on this machine (None: unknown), or with
    several nodes on each of the `places` of which it is known."""

    used: dict[int, int]  # by incarnation
    available: int | None = None
    left: dict[int, tuple[int, int]] = {}  # the lease before which it was idle, what was left by then
    places: dict[int, int] | None = None


class UsageSampled(msgspec.Struct, frozen=True):
    """CPU use of workers with their descendants since the last sample, in percent of a core."""

    cpu_percent: dict[int, float]  # by incarnation


class ClockJumped(msgspec.Struct, frozen=True):
    """The supervisor was stopped or the machine suspended for so many seconds, which `now` does not include."""

    seconds: float


# The longest time, in seconds, for which outcomes of short jobs may gather in a place elsewhere before they are told.
GATHER_ELSEWHERE = 0.2


class PlaceFacts(msgspec.Struct, frozen=True):
    """A place where workers may run.

    place: its number, never used for another one. name: for people. slots: how many workers it has room for.
    totals: what their jobs may take together. cleared: where nothing that an earlier run had started is left, as of
    `records.WorkerStarted.boot_id`; "" if that is not known. elsewhere: an order is under way for an unknown time: a
    lease that was revoked may start meanwhile, until LeasesWithdrawn or LeasesDropped.
    """

    place: int
    name: str
    slots: int
    totals: Totals
    cleared: str = ""
    elsewhere: bool = False


class PlaceEnd(msgspec.Struct, frozen=True):
    """`why` a place is no more, in words. `blameless`: its end was announced, or the supervisor itself was silent."""

    place: int
    why: str
    blameless: bool = False


class PlacesChanged(msgspec.Struct, frozen=True):
    """All places that there are now, by number; one that is missing has ended. Comes before the first worker can
    be started. An engine of this machine alone never says it.

    ended: how those ended that are missing since the last time. expected: what places offer that may join soon: a job
    that fits in one of these waits for it.
    """

    places: list[PlaceFacts]
    ended: list[PlaceEnd] = []
    expected: list[Totals] = []


class PlaceFenced(msgspec.Struct, frozen=True):
    """Nothing of a place that had ended computes any more: what ran there may run elsewhere. Told if that was not
    certain when its end was; the deaths of its workers follow. `confirmed`: an agent found it so; else its own has
    ended them by now."""

    place: int
    confirmed: bool


class CarrierNotice(msgspec.Struct, frozen=True):
    """What brings the supervisor in touch with other places has something to say to the user. `level`: as of `Tell`."""

    level: str
    text: str


Event = (
    WorkerLaunched
    | WorkerStartFailed
    | WorkerReady
    | WorkerNotReady
    | JobsFinished
    | LeasesDropped
    | LeasesWithdrawn
    | OutcomesHeld
    | HeldOutcomesLost
    | JobReported
    | CodeImported
    | FilesShared
    | MemoryMeasured
    | UsageSampled
    | WorkerDied
    | WorkerGivenUp
    | SignalReceived
    | TimePassed
    | Synced
    | HandOutBlocked
    | HandOutUnblocked
    | ControlAsked
    | ClockJumped
    | PlacesChanged
    | PlaceFenced
    | CarrierNotice
)

# ---------------------------------------------------------------------------- commands


class StartWorker(msgspec.Struct, frozen=True):
    """`devices`: the GPUs that its code may see, as CUDA_VISIBLE_DEVICES names them; () none, None: as the
    environment of the script says. `place`: where it runs (`PlaceFacts`). `local_slot`: its number among the workers
    of that place; -1: that is `slot`."""

    slot: int
    incarnation: int
    devices: tuple[str, ...] | None = None
    place: int = 0
    local_slot: int = -1


class StartJobs(msgspec.Struct, frozen=True):
    """Hand these jobs (numbers in the plan) to a worker; lease i is `first_lease + i`.

    cpus: thousandths of a core that each of them was given; 0 if they did not say what they need.
    """

    incarnation: int
    first_lease: int
    jobs: Sequence[int]
    attempts: list[int]
    cpus: int = 0


class RevokeJobs(msgspec.Struct, frozen=True):
    incarnation: int
    leases: list[int]


class StopWorker(msgspec.Struct, frozen=True):
    """Let a worker finish its leases and exit."""

    incarnation: int


class KillWorker(msgspec.Struct, frozen=True):
    """Kill the process, its group and its descendants (SIGKILL). `stack`: first it gets a fraction of a second to
    write its Python stack."""

    incarnation: int
    stack: bool = False


class SignalWorker(msgspec.Struct, frozen=True):
    """Forward a signal to the worker process itself, not to its group."""

    incarnation: int
    signum: int


class Tell(msgspec.Struct, frozen=True):
    """A message to the user, in view and log. `level`: info, warning, error."""

    level: str
    text: str


class AnswerControl(msgspec.Struct, frozen=True):
    """Answer an order (ControlAsked.ticket): whether it was carried out, and a sentence."""

    ticket: int
    done: bool
    text: str


class AnswerWithStacks(msgspec.Struct, frozen=True):
    """Let every worker write its Python stack, for the log and the answer to the order."""

    ticket: int
    text: str


class LogStack(msgspec.Struct, frozen=True):
    """Let one worker write its Python stack to the log, without disturbing its job."""

    incarnation: int


Command = (
    StartWorker
    | StartJobs
    | RevokeJobs
    | StopWorker
    | KillWorker
    | SignalWorker
    | Tell
    | AnswerControl
    | AnswerWithStacks
    | LogStack
)


class Effects(msgspec.Struct):
    """What follows from a batch of events: write `records`, then perform `commands`.

    `urgent` asks for a sync at once, because something waits for it (a charge that must be durable
    before its job is handed out again).
    """

    records: list[AnyRecord | Completions]
    commands: list[Command]
    urgent: bool = False
