"""A process beside an agent, which ends the workers of that node if the agent does not: it was stopped, or waits for a
disk that does not answer. Then nobody looks at the time there, and others get the jobs.

The agent says until when it may have workers, each time that it hears of the supervisor. The guard does not carry the
tag of the node, and ends with the agent. Its process is one more interpreter at the start of each node: what only the
agent needs is imported by its functions, which halves what it takes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct

from supervisor.nodes.fencing import GUARD_LOOKS_EVERY, guard_is_due
from supervisor.system.clock import boot_time

_TIME = struct.Struct("<d")
_END_WITHIN = 0.5


class AgentGuard:
    """The agent's side. tag: of its node. Raises OSError if no process can be started."""

    def __init__(self, tag: str) -> None:
        from supervisor.system.interpreter import PrivateDescriptors

        self._tag = tag
        self._private = PrivateDescriptors()
        self._until = 0.0
        self._start()

    def _start(self) -> None:
        import subprocess

        from supervisor.system.interpreter import interpreter
        from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION

        reader, self._writer = os.pipe()
        self._private.numbers.add(self._writer)
        os.set_blocking(self._writer, False)
        environment = {
            k: v for k, v in os.environb.items() if k.decode() not in (EXPERIMENT_TAG, INCARNATION)
        }
        try:
            self._process = subprocess.Popen(
                interpreter("supervisor.nodes.agent_guard:run", reader),
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(reader,),
                start_new_session=True,
            )
        finally:
            os.close(reader)
        tag = os.fsencode(self._tag)
        os.write(self._writer, _TIME.pack(len(tag)) + tag)

    def feed(self, until: float) -> None:
        """The workers may live until then, on the clock of `boot_time`."""
        if self._process.poll() is not None:  # somebody has killed it
            self._stop()
            self._start()
        elif until == self._until:
            return
        self._until = until
        with contextlib.suppress(OSError):  # it is stopped, or just dying
            os.write(self._writer, _TIME.pack(until))

    def close(self) -> None:
        """All workers are dead."""
        from supervisor.system.interpreter import has_ended

        self._stop()
        if not has_ended(self._process, _END_WITHIN):
            self._process.kill()
            self._process.wait()

    def _stop(self) -> None:
        self._private.numbers.clear()
        with contextlib.suppress(OSError):
            os.close(self._writer)


def run(reader: int) -> None:
    """The guard's process."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # it ends with its agent
    data, until = b"", 0.0
    while len(data) < _TIME.size:
        data += os.read(reader, _TIME.size - len(data)) or _gone()
    length = int(_TIME.unpack(data)[0])
    data = b""
    while len(data) < length:
        data += os.read(reader, length - len(data)) or _gone()
    tag, data = os.fsdecode(data), b""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while True:
        if poll.poll(GUARD_LOOKS_EVERY * 1000):
            data += os.read(reader, 4096) or _gone()
            whole = len(data) // _TIME.size * _TIME.size
            for (each,) in _TIME.iter_unpack(data[:whole]):
                until = max(until, each)
            data = data[whole:]
        elif until and guard_is_due(until, boot_time()):
            from supervisor.system.process_cleanup import sweep

            sweep(tag)  # not the agent, which has started this process; it finds that its time is over
            _gone()


def _gone() -> bytes:
    """The agent has ended, or there is nothing more to do."""
    os._exit(0)
