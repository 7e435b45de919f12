"""The engine of one run: started as soon as it is certain that there is something to run, and always ended.

It starts before the rest of the run is put together, so that the zygote imports the user's code meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from supervisor.core.terms.errors import LonghaulError, UsageError
from supervisor.core.terms.events import PlaceFacts
from supervisor.core.terms.file_owner import FileOwner
from supervisor.core.terms.jobs import INTERRUPTED, PENDING
from supervisor.engines.engine import Engine
from supervisor.engines.local_engine import LocalEngine
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.experiment.fitting.machine_totals import slots_of, totals_of
from supervisor.experiment.opening import OpenedExperiment
from supervisor.options.request import Request
from supervisor.system.capacity.cpu_limits import thread_caps
from supervisor.system.process_cleanup import end_recorded, survivors, sweep
from workers.isolation.output_files import leftovers
from workers.script.callables import CannotSend, describe
from workers.transport.messages import FunctionSpec, WorkerSpec

if TYPE_CHECKING:
    from supervisor.storage.shipped_files import ShippedFiles


def end_survivors(opened: OpenedExperiment, tag: str) -> list[str]:
    """Kill processes that an earlier run left: those in its records, and those with the experiment's `tag`.
    Returns warnings for the user."""
    ended = end_recorded(opened.survivors)
    ended += sweep(tag, ended)
    opened.store.states.clear_temporaries()
    if opened.layout.from_nodes.exists():  # a run with nodes was killed
        shutil.rmtree(opened.layout.from_nodes, ignore_errors=True)
    stuck = survivors(ended)
    leftovers(str(opened.layout.output_directory))
    warnings = []
    if gone := [str(pid) for pid in ended if pid not in stuck]:
        warnings.append(f"ended processes of an earlier run that were still alive: {', '.join(gone)}")
    if stuck:
        pids = ", ".join(map(str, stuck))
        warnings.append(
            f"processes of an earlier run do not die of SIGKILL (frozen, or stuck in the kernel): {pids}; "
            f"they compute no more, their jobs run again"
        )
    return warnings


def _carrier_name(engine: str) -> str:
    """ "": this machine alone. Raises UsageError."""
    if engine == "local":
        return ""
    from supervisor.nodes.carriers import carrier_names

    if engine not in (known := carrier_names()):
        raise UsageError(f"--engine {engine}: expected local or {' or '.join(known)}")
    return engine


class EngineLifecycle:
    """Raises UsageError for an unknown engine and for functions that workers cannot be given: before anything is
    on disk.

    slots: how many workers there may be. tag: in the environment of all their processes.
    """

    def __init__(self, request: Request, prestarted: PrestartedZygote | None) -> None:
        try:
            self._function: FunctionSpec = describe(request.function)
            self._setup: FunctionSpec | None = None if request.setup is None else describe(request.setup)
        except CannotSend as error:
            raise UsageError(str(error)) from None
        self._prestarted = prestarted
        self._carrier = _carrier_name(request.engine)
        self._nodes = request.nodes
        self._node_timeout = request.node_timeout
        self._files = request.files
        self._shipped: ShippedFiles | None = None
        self.owner_of: Callable[[int, int], FileOwner | None] | None = (
            None  # of a lease; known with the scheduler
        )
        self._engine: Engine | None = None
        self._failure: LonghaulError | OSError | None = None

    def begin(self, opened: OpenedExperiment) -> None:
        """Start the engine of a new experiment. To be called when nothing can be refused any more, before or
        after the first record.

        On a resume `engine` starts it: processes of earlier runs have to be ended first.
        """
        self._opened = opened
        self.slots = slots_of(opened.settings)
        self.tag = f"{opened.layout.experiment_id}:{opened.store.uuid}"
        self._caps = thread_caps(self.slots)
        if not opened.resumed and self.anything_to_do():
            self._start()

    def anything_to_do(self) -> bool:
        table, mask = self._opened.table, self._opened.mask
        return bool(self._opened.retry) or any(
            state in (PENDING, INTERRUPTED) and chosen
            for state, chosen in zip(table.state, mask, strict=True)
        )

    @property
    def places(self) -> list[PlaceFacts] | None:
        """The places that there are before the first has said what it has; None: this machine is the only one."""
        return [] if self._carrier else None

    def engine(self) -> Engine:
        """The engine at work. Raises LonghaulError or OSError if it could not be started."""
        if self._engine is None and self._failure is None:
            self._start()
        if self._failure is not None:
            raise self._failure
        assert self._engine is not None
        return self._engine

    def _start(self) -> None:
        """Start the engine. A failure is raised later, by `engine()`, when the run's first line has been
        shown."""
        try:
            self._engine = self._engine_of_nodes() if self._carrier else self._local_engine()
            self._engine.start()
        except (LonghaulError, OSError) as problem:
            self._failure = problem

    def _local_engine(self) -> Engine:
        offer = self._opened.offer
        return LocalEngine(
            self._spec,
            start_method=self._opened.settings.start_method,
            prestarted=self._prestarted,
            gpus=offer is not None and offer.gpu_jobs,
            gpus_by_driver=offer is not None and offer.totals.by_driver,
        )

    def _engine_of_nodes(self) -> Engine:
        from supervisor.nodes.carriers import CarrierSurroundings, carrier_of
        from supervisor.nodes.nodes_engine import NodesEngine
        from supervisor.nodes.seats import seats_of
        from supervisor.nodes.shipping.file_receipt import FileReceipt
        from supervisor.storage.shipped_files import ShippedFiles

        if self._prestarted is not None:
            self._prestarted.discard()
        offer, settings = self._opened.offer, self._opened.settings
        totals = totals_of(settings) if offer is None else offer.totals
        seats = seats_of(self.slots, totals, self._nodes)
        around = CarrierSurroundings(self.tag, str(self._opened.layout.output_directory), len(seats))
        store = self._shipped = ShippedFiles(
            self._opened.layout, self._spec(0, 0).output_limit, self._opened.store.notices.append
        )
        mode = self._files
        token = store.make_token() if mode == "auto" else ""
        return NodesEngine(
            self._spec,
            carrier_of(self._carrier, around),
            seats=seats,
            start_method=settings.start_method,
            gpus=offer is not None and offer.gpu_jobs,
            gpus_by_driver=totals.by_driver,
            timeout=self._node_timeout,
            files=FileReceipt(store, self._owner, mode=mode, token=token),
            resumed=self._opened.resumed,
        )

    def _owner(self, incarnation: int, lease: int) -> FileOwner | None:
        return None if self.owner_of is None else self.owner_of(incarnation, lease)

    def close(self) -> None:
        """End all processes of this run; does nothing the second time."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        if self._shipped is not None:
            self._shipped.close()

    def _spec(self, worker: int, incarnation: int) -> WorkerSpec:
        layout, settings = self._opened.layout, self._opened.settings
        return WorkerSpec(
            experiment_id=layout.experiment_id,
            tag=self.tag,
            worker=worker,
            incarnation=incarnation,
            function=self._function,
            setup=self._setup,
            seed=settings.seed,
            output_directory=str(layout.output_directory),
            jobs_directory=str(layout.jobs_directory),
            states_directory=str(layout.states_directory),
            nice=settings.nice,
            environment=self._caps,
        )
