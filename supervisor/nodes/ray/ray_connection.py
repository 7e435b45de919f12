"""What a run needs of Ray, in the order in which it needs it: a connection before anything is on disk, what there is
for its jobs, and then the carrier of its agents.
"""

from __future__ import annotations

import math
import os
import sys

from supervisor.core.terms.errors import UsageError, WorkersError
from supervisor.core.terms.settings import Settings
from supervisor.nodes.ray.driver_process import DriverProcess
from supervisor.nodes.ray.driver_protocol import ClusterNode, Connect, Reserve
from supervisor.nodes.ray.ray_carrier import RayCarrier
from supervisor.system.interpreter import interpreter
from supervisor.system.script_start import interpreter_options, start_directory

HEAD_PATIENCE = 4  # node timeouts, for a head of the cluster that may come back


class RayConnection:
    """Begins to connect. `ship`: as of the settings. driver: one that was started ahead, which is the connection's now.
    outputs: where the experiment is. Raises UsageError or WorkersError."""

    def __init__(
        self, address: str, ship: str | None = None, driver: DriverProcess | None = None, *, outputs: str = ""
    ) -> None:
        self.shipped = "" if ship is None else _shippable(ship)  # an absolute path
        if not sys.platform.startswith("linux"):
            raise UsageError(f"--engine ray: supported on Linux, not on {sys.platform}; use --engine local")
        try:
            self._driver: DriverProcess | None = DriverProcess() if driver is None else driver
        except OSError as error:
            raise WorkersError(
                f"--engine ray: the Ray driver cannot be started: {error}. Fix this, then start again."
            ) from error
        self._connect = Connect(address, self.shipped, outputs)
        self._driver.connect(self._connect)

    def nodes(self, settings: Settings) -> list[ClusterNode]:
        """Of the cluster, once it is connected. It then begins to start what these settings ask for, while the
        experiment's files are made: nobody waits for Ray twice. Raises UsageError if there is none, WorkersError if Ray
        fails."""
        assert self._driver is not None
        self._driver.send(Reserve(_cpus(settings), settings.job_cpus or 1.0, settings.nodes))
        connected = self._driver.wait_connected()
        if not connected.nodes:
            raise UsageError(
                f"--engine ray: no node of the cluster at {connected.address} has a CPU for jobs: "
                "start one with `ray start --address=HOST:PORT`, without --num-cpus=0"
            )
        return connected.nodes

    def carrier(self, settings: Settings, tag: str, directory: str, *, gpus: bool) -> RayCarrier:
        """To be called once; the driver is the carrier's then."""
        driver, self._driver = self._driver, None
        assert driver is not None
        per_job = settings.job_cpus or 1.0
        line = interpreter("")
        return RayCarrier(
            driver,
            tag,
            directory,
            cpus=_cpus(settings),
            per_job=per_job,
            nodes=settings.nodes,
            gpus=gpus,
            patience=HEAD_PATIENCE * settings.node_timeout,
            bootstrap=line[-3],
            library=line[-1],
            options=interpreter_options(),
            start_directory=start_directory() or os.getcwd(),
            connect=self._connect,
        )

    def discard(self) -> None:
        """End it, unless it is a carrier's."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.discard()


def _cpus(settings: Settings) -> int | None:
    """That its jobs may take together; None: all."""
    per_job = settings.job_cpus or 1.0
    return None if settings.workers == "auto" else math.ceil(int(settings.workers) * per_job)


def _shippable(directory: str) -> str:
    """Its absolute path, as that of the script is spelled. Raises UsageError if it is none, or the script is not in
    it."""
    if not os.path.isdir(directory):
        raise UsageError(f"--ship {directory}: there is no such directory")
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(script, str) or not os.path.isfile(script):
        return os.path.abspath(directory)
    for absolute in (os.path.abspath, os.path.realpath):
        if os.path.commonpath([absolute(directory), absolute(script)]) == absolute(directory):
            return absolute(directory)
    raise UsageError(f"--ship {directory}: the script is not in it: {script}")
