"""The engine of one run: started as soon as it is certain that there is something to run, and always ended.

It starts before the rest of the run is put together, so that the zygote imports the user's code meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from supervisor.core.state.columns import any_in_both
from supervisor.core.terms.errors import LonghaulError, UsageError
from supervisor.core.terms.events import PlaceFacts
from supervisor.core.terms.file_owner import FileOwner
from supervisor.core.terms.jobs import INTERRUPTED, PENDING
from supervisor.core.terms.settings import Settings, option_of
from supervisor.engines.engine import Engine
from supervisor.engines.local_engine import LocalEngine
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.experiment.code_files import modules_now
from supervisor.experiment.fitting.machine_totals import THIS_MACHINE, Machine, slots_of, totals_of
from supervisor.experiment.opening import OpenedExperiment
from supervisor.options.request import Request
from supervisor.system.capacity.cpu_limits import thread_caps
from supervisor.system.capacity.gpu_devices import GpuDevices
from supervisor.system.process_cleanup import end_recorded, survivors, sweep
from workers.isolation.output_files import leftovers
from workers.script.callables import CannotSend, describe
from workers.transport.messages import FunctionSpec, WorkerSpec

if TYPE_CHECKING:
    from supervisor.nodes.carrier import Carrier
    from supervisor.nodes.ray.driver_process import DriverProcess
    from supervisor.nodes.ray.driver_protocol import ClusterNode
    from supervisor.nodes.ray.ray_connection import RayConnection
    from supervisor.storage.shipped_files import ShippedFiles

RAY = "ray"  # the engine
_WAITING = bytes(state in (PENDING, INTERRUPTED) for state in range(256))  # 1: to be handed out


def end_survivors(opened: OpenedExperiment, tag: str) -> list[str]:
    """Kill processes that an earlier run left: those in its records, and those with the experiment's `tag`.
    Returns warnings for the user."""
    ended = end_recorded(opened.survivors)
    ended += sweep(tag, ended)
    opened.store.states.clear_temporaries()
    if opened.layout.from_nodes.exists():  # a run with nodes was killed
        import shutil

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
    if engine in ("local", RAY):
        return "" if engine == "local" else RAY
    from supervisor.nodes.carriers import carrier_names

    if engine not in carrier_names():
        raise UsageError(f"--engine {engine}: expected local or ray")
    return engine


def _machine_of(nodes: Sequence[ClusterNode], settings: Settings) -> Machine:
    """What a cluster has. What its nodes have of memory is known when their agents say so."""
    per_job = settings.job_cpus or 1.0
    largest = sorted((node.cpus for node in nodes), reverse=True)[: settings.nodes]
    gpus = max(node.gpus for node in nodes)
    devices = GpuDevices(tuple(map(str, range(gpus))), False, "the Ray cluster has so many on one node")
    return Machine(
        cores=lambda: max(1, sum(int(cpus / per_job) for cpus in largest)),
        memory=lambda: None,
        devices=lambda: devices,
        listed=lambda: None,
        largest=largest[0],
    )


class EngineLifecycle:
    """Raises UsageError for functions that workers cannot be given: before anything is on disk.

    slots: how many workers there may be. tag: in the environment of all their processes.
    """

    def __init__(self, request: Request, prestarted: PrestartedZygote | DriverProcess | None) -> None:
        try:
            self._function: FunctionSpec = describe(request.function)
            self._setup: FunctionSpec | None = None if request.setup is None else describe(request.setup)
        except CannotSend as error:
            raise UsageError(str(error)) from None
        self._prestarted = prestarted if isinstance(prestarted, PrestartedZygote) else None
        self._driver = None if isinstance(prestarted, PrestartedZygote) else prestarted
        self._asked = request.settings_now
        self._outputs = request.directory
        self._carrier = ""
        self._ray: RayConnection | None = None
        self._machine = THIS_MACHINE
        self._shipped: ShippedFiles | None = None
        self.owner_of: Callable[[int, int | None], FileOwner | None] | None = (
            None  # of a lease; known with the scheduler
        )
        self._engine: Engine | None = None
        self._failure: LonghaulError | OSError | None = None
        if request.resume is None:  # it takes a while, in which the script may make its jobs
            self._connect(request.settings())

    def _connect(self, settings: Settings) -> None:
        """Begin to connect to a cluster, if one is asked for. Raises WorkersError."""
        if settings.engine == RAY and self._ray is None:
            from supervisor.nodes.ray.ray_connection import RayConnection

            driver, self._driver = self._driver, None
            outputs = str(self._outputs)
            self._ray = RayConnection(settings.address, settings.ship, driver, outputs=outputs)

    def machine_for(self, settings: Settings, *, needed: bool) -> Machine:
        """What there is for the jobs. Waits until a cluster is connected. `needed`: False if no job is left: then it
        is not asked for. Raises UsageError for an engine or a cluster that is not there, WorkersError if it fails."""
        self._carrier = _carrier_name(settings.engine)
        if not self._carrier:
            for key in ("address", "nodes", "files", "ship", "node_timeout"):
                if self._asked.get(key) is not None:
                    raise UsageError(f"{option_of(key)} needs --engine ray: this machine alone has no nodes")
        if not needed:
            return self._machine
        self._connect(settings)
        if self._ray is not None:
            self._machine = _machine_of(self._ray.nodes(settings), settings)
        return self._machine

    def begin(self, opened: OpenedExperiment) -> None:
        """Start the engine of a new experiment. To be called when nothing can be refused any more, before or
        after the first record.

        On a resume `engine` starts it: processes of earlier runs have to be ended first.
        """
        self._opened = opened
        self.slots = slots_of(opened.settings, self._machine)
        self.tag = f"{opened.layout.experiment_id}:{opened.store.uuid}"
        self._caps = thread_caps(self.slots)
        if not opened.resumed and self.anything_to_do():
            self._start()

    def anything_to_do(self) -> bool:
        waiting = self._opened.table.state.translate(_WAITING)
        return bool(self._opened.retry) or any_in_both(waiting, self._opened.mask)

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
        from supervisor.nodes.node_code import libraries_now
        from supervisor.nodes.nodes_engine import NodesEngine
        from supervisor.nodes.seats import Seat, seats_of
        from supervisor.nodes.shipping.file_receipt import FileReceipt
        from supervisor.storage.shipped_files import ShippedFiles

        if self._prestarted is not None:
            self._prestarted.discard()
        offer, settings = self._opened.offer, self._opened.settings
        totals = totals_of(settings) if offer is None else offer.totals
        gpus = offer is not None and offer.gpu_jobs
        directory = str(self._opened.layout.output_directory)
        seats: list[Seat] = []
        carrier: Carrier
        if self._ray is not None:
            carrier = self._ray.carrier(settings, self.tag, directory, gpus=gpus)
        else:
            from supervisor.nodes.carriers import CarrierSurroundings, carrier_of

            seats = seats_of(self.slots, totals, settings.nodes or 1)
            carrier = carrier_of(self._carrier, CarrierSurroundings(self.tag, directory, len(seats)))
        store = self._shipped = ShippedFiles(
            self._opened.layout, self._spec(0, 0).output_limit, self._opened.store.notices.append
        )
        mode = settings.files
        token = store.make_token() if mode == "auto" else ""
        return NodesEngine(
            self._spec,
            carrier,
            seats=seats,
            start_method=settings.start_method,
            gpus=gpus,
            gpus_by_driver=totals.by_driver,
            timeout=settings.node_timeout,
            files=FileReceipt(store, self._owner, mode=mode, token=token),
            resumed=self._opened.resumed,
            code=dict(modules_now("").values()),
            libraries=libraries_now(),
            shipped="" if self._ray is None else self._ray.shipped,
            keep_free=settings.keep_free or 0,
        )

    def _owner(self, incarnation: int, lease: int | None) -> FileOwner | None:
        return None if self.owner_of is None else self.owner_of(incarnation, lease)

    def close(self) -> None:
        """End all processes of this run; does nothing the second time."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        if self._shipped is not None:
            self._shipped.close()
        if self._ray is not None:  # nothing, if the engine has used it
            self._ray.discard()

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
