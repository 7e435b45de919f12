"""`longhaul ctl`: sends an order to a run, and prints its answer."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from supervisor.commands.lookup import add_directory, all_of, find, root_of
from supervisor.commands.tables import add_json, emit, emit_json
from supervisor.control.control_client import ask
from supervisor.control.control_protocol import ControlRequest
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.wording import one_line
from supervisor.experiment.experiment_status import is_running
from supervisor.reports.progress_file import OVER, read_progress
from supervisor.storage.files.layout import Layout
from supervisor.system.text_encoding import as_typed
from supervisor.views.console import print_lines

REFUSED = 1  # exit code: the run has refused the order

_ORDERS = {
    "pause": "start no new jobs; running ones continue",
    "resume": "continue after a pause",
    "drain": "end the run as the first Ctrl+C does, exit code 76",
    "stop": "end it now, as the second Ctrl+C does",
    "workers N": "change the number of workers, for this run only",
    "retry JOB ...": "give failed jobs one more attempt, now",
    "cancel JOB ...": "end or skip jobs; they count as failed (`cancelled`)",
    "stacks": "show the Python stack of each worker",
}


def describe(parser: argparse.ArgumentParser) -> None:
    width = max(map(len, _ORDERS))
    parser.usage = "longhaul ctl [ID] ORDER [N | JOB ...] [-d DIR] [--json]"
    parser.epilog = (
        "orders:\n"
        + "\n".join(f"  {order:<{width}}  {text}" for order, text in _ORDERS.items())
        + "\n\nWithout an ID: the one that is running. A JOB may be a pattern, such as 'iris/*'."
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="ORDER",
        help="an order, see below; before it the ID of an experiment, `latest`, or a directory",
    )
    add_directory(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    experiment, asked = _understand(arguments.words)
    root = root_of(arguments)
    layout = _the_running_one(root) if experiment is None else find(experiment, root)
    answer = ask(socket_of(layout), asked, name=layout.experiment_id, owner=owner_of(layout))
    if arguments.json:
        emit_json(answer)
    elif answer.done:
        emit("\n".join([one_line(answer.text), *answer.stacks]))
    else:
        print_lines(sys.stderr, f"error: {one_line(answer.text)}")
    return 0 if answer.done else REFUSED


# -------------------------------------------------------------------------- the order


def _understand(words: Sequence[str]) -> tuple[str | None, ControlRequest]:
    """The experiment, if one is named, and the order. Raises UsageError."""
    asked = _order(words)
    if asked is not None:
        return None, asked
    if len(words) > 1 and (asked := _order(words[1:])) is not None:
        return words[0], asked
    verbs = [order.split()[0] for order in _ORDERS]
    at = next((at for at, word in enumerate(words[:2]) if word in verbs), None)
    if at is None:
        unknown = words[min(1, len(words) - 1)]
        raise UsageError(f"unknown order {unknown!r}; expected one of: {', '.join(_ORDERS)}")
    wanted = next(order for order in _ORDERS if order.split()[0] == words[at])
    text = f"{' '.join(words[at:])!r}: expected `{wanted}`"
    if _order(words[:-1]) is not None:
        text += f"; the ID goes before it: longhaul ctl {' '.join([words[-1], *words[:-1]])}"
    raise UsageError(text)


def _order(words: Sequence[str]) -> ControlRequest | None:
    """The order that these words are; None if they are none."""
    match list(words):
        case ["workers", number] if number.isdecimal() and len(number) < 10:
            return ControlRequest("workers", number=int(number))
        case ["retry" | "cancel" as order, _, *_]:
            return msgspec.convert(
                {"order": order, "jobs": [as_typed(word) for word in words[1:]]}, ControlRequest
            )
        case ["pause" | "resume" | "drain" | "stop" | "stacks" as order]:
            return msgspec.convert({"order": order}, ControlRequest)
    return None


def _the_running_one(root: Path) -> Layout:
    running = [layout for layout in all_of(root) if is_running(layout)]
    if not running:
        raise UsageError(f"nothing is running in {root.absolute()}; look elsewhere with -d DIR")
    if len(running) > 1:
        ids = ", ".join(layout.experiment_id for layout in running)
        raise UsageError(
            f"several experiments are running: {ids}; name one: longhaul ctl {running[0].experiment_id} ..."
        )
    return running[0]


def socket_of(layout: Layout) -> str:
    """The path of the run's control socket. Raises UsageError that says why there is none."""
    name = layout.experiment_id
    progress = read_progress(layout)
    if progress is not None and progress.state not in OVER:
        host = progress.supervisor.host
        if host != socket.gethostname():
            raise UsageError(f"{name} runs on {host} (pid {progress.supervisor.pid}): ask it there")
    if not is_running(layout):
        how = "is over" if progress is None or progress.state in OVER else "has died"
        raise UsageError(
            f"{name} is not running: it {how}; its script (or longhaul exec) resumes it with --resume {name}"
        )
    if progress is None or progress.control is None:
        log = layout.supervisor_log
        raise UsageError(
            f"{name} is running but has no control socket: it is starting or ending (try again in a moment), "
            f"or the socket could not be created (see {log}); `kill -INT` drains it as well"
        )
    return progress.control


def owner_of(layout: Layout) -> str:
    """Whose run it is, in words."""
    try:
        return f"uid {layout.progress.stat().st_uid}"
    except OSError:
        return "another user"
