"""The engine of one run: begun as soon as it is certain that there is something to run, ended
whatever happens.

It begins before the rest of the run is put together, so that the zygote imports the user's
code meanwhile.
"""

from __future__ import annotations

from supervisor.core.errors import LonghaulError, UsageError
from supervisor.core.jobs import INTERRUPTED, PENDING
from supervisor.cores import thread_caps, usable_cores
from supervisor.engines.forerunner import Forerunner
from supervisor.engines.local import LocalEngine
from supervisor.opening import Opened
from supervisor.request import Request
from workers.callables import CannotSend, describe
from workers.messages import FunctionSpec, WorkerSpec


class Workforce:
    """Raises UsageError for functions that workers cannot be given: before anything is on disk.

    slots: how many workers there may be. mark: what all their processes carry.
    """

    def __init__(self, request: Request, forerunner: Forerunner | None) -> None:
        try:
            self._function: FunctionSpec = describe(request.function)
            self._setup: FunctionSpec | None = None if request.setup is None else describe(request.setup)
        except CannotSend as error:
            raise UsageError(str(error)) from None
        self._forerunner = forerunner
        self._engine: LocalEngine | None = None
        self._failure: LonghaulError | OSError | None = None

    def begin(self, opened: Opened) -> None:
        """Nothing can be refused any more; the first record need not be written yet.

        Where processes of an earlier run may be left, these have to be ended first, and
        `engine` begins what is not begun here.
        """
        self._opened = opened
        wanted = opened.settings.workers
        self.slots = usable_cores() if wanted == "auto" else int(wanted)
        self.mark = f"{opened.layout.experiment_id}:{opened.store.uuid}"
        self._caps = thread_caps(self.slots)
        if not opened.resumed and self.anything_to_do():
            self._start()

    def anything_to_do(self) -> bool:
        table, selected = self._opened.table, self._opened.selected
        return bool(self._opened.retry) or any(
            state in (PENDING, INTERRUPTED) and chosen
            for state, chosen in zip(table.state, selected, strict=True)
        )

    def engine(self) -> LocalEngine:
        """The engine at work. Raises LonghaulError or OSError if it could not be started."""
        if self._engine is None and self._failure is None:
            self._start()
        if self._failure is not None:
            raise self._failure
        assert self._engine is not None
        return self._engine

    def _start(self) -> None:
        """A failure is told when somebody asks for the engine: the run is announced by then."""
        method = self._opened.settings.start_method
        try:
            self._engine = LocalEngine(self._spec, start_method=method, forerunner=self._forerunner)
            self._engine.start()
        except (LonghaulError, OSError) as problem:
            self._failure = problem

    def close(self) -> None:
        """End all processes of this run; does nothing the second time."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _spec(self, worker: int, incarnation: int) -> WorkerSpec:
        layout, settings = self._opened.layout, self._opened.settings
        return WorkerSpec(
            experiment_id=layout.experiment_id,
            mark=self.mark,
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
