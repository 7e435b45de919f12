"""Work that waits for the disk, in a thread of its own: neither the agent nor the supervisor may wait with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue


class BackgroundWork:
    """Does one thing after the other. A disk that does not answer does not hold up the end of the process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[tuple[Future[None], Callable[[], None]]] | None = None

    def submit(self, work: Callable[[], None]) -> Future[None]:
        if self._queue is None:
            self._queue = SimpleQueue()
            threading.Thread(target=_do_all, args=(self._queue,), name=self._name, daemon=True).start()
        future: Future[None] = Future()
        self._queue.put((future, work))
        return future


def _do_all(queue: SimpleQueue[tuple[Future[None], Callable[[], None]]]) -> None:
    while True:
        future, work = queue.get()
        try:
            work()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(None)
