"""Run one job and turn whatever happens into an outcome.

Whatever the user's function raises, SystemExit and KeyboardInterrupt included, is an
outcome of the job, not an end of the worker. The path of a job that simply returns is kept
short: it runs half a million times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import msgspec

from workers.current import CURRENT
from workers.failures import describe, safe_repr
from workers.messages import Completed, Failed, Failure
from workers.queues import MAX_FRAME
from workers.values import Unencodable, encode_result

Outcome = Completed | Failed


class _PlanLine(msgspec.Struct):
    id: str
    domain: str | None = None
    params: dict[str, Any] = {}


_decode_line = msgspec.json.Decoder(_PlanLine).decode


class Runner:
    """Calls the user's function for one plan line after the other."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def run(self, lease: int, attempt: int, line: bytes) -> Outcome:
        """One attempt. Never raises because of the user's code."""
        start = perf_counter()
        try:
            planned = _decode_line(line)
            CURRENT.become(planned.id, planned.domain, attempt)
            start = perf_counter()
            value = self._function(**planned.params)
            seconds = perf_counter() - start
        except BaseException as error:
            return _failed(lease, perf_counter() - start, error)
        try:
            encoded = encode_result(value)
        except BaseException as error:
            return _unencodable(lease, seconds, value, error)
        if len(encoded.json) > MAX_FRAME // 2:
            message = f"the result is {len(encoded.json)} bytes of JSON, more than {MAX_FRAME // 2}"
            return Failed(lease, seconds, "unencodable", Failure("ValueError", message))
        return Completed(lease, seconds, encoded.json, 0, encoded.nonfinite, encoded.converted)


def _failed(lease: int, seconds: float, error: BaseException) -> Failed:
    stopped = CURRENT.stopping and isinstance(error, KeyboardInterrupt | SystemExit)
    return Failed(lease, seconds, "interrupted" if stopped else "raised", describe(error))


def _unencodable(lease: int, seconds: float, value: object, error: BaseException) -> Failed:
    # Anything but Unencodable was raised by a property or an iterator of the value itself.
    known = isinstance(error, Unencodable)
    failure = Failure("Unencodable", str(error)) if known else describe(error)
    failure.value_repr = safe_repr(value)
    return Failed(lease, seconds, "unencodable", failure)
