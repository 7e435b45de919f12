"""`longhaul web`: its options, and what it shows."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from supervisor.commands.lookup import add_directory, all_of, find_and_tell, root_of, search
from supervisor.core.terms.errors import UsageError
from supervisor.storage.files.layout import Layout

_MODULES = ("starlette", "uvicorn")


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiment",
        nargs="?",
        metavar="ID",
        help="an experiment, `latest`, a name, or a directory of outputs (default: all there are)",
    )
    add_directory(parser)
    parser.add_argument(
        "--port",
        type=_port,
        metavar="N",
        help="listen at this port; 0: any that is free (default: 8787, else any)",
    )
    parser.add_argument(
        "--socket",
        action="store_true",
        help="listen at a Unix socket that only this user can open, for ssh -L",
    )
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        metavar="IP",
        help="listen there (default: 127.0.0.1); at an address that other machines reach, no orders are taken",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="answer under this name, too, as a proxy or a tunnel asks for it (name, or name:port); may be repeated",
    )
    parser.add_argument("--read-only", action="store_true", help="take no orders")
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")


def run(arguments: argparse.Namespace) -> int:
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"`longhaul web` needs {' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed: "
            "pip install 'longhaul[web]'"
        )
    if arguments.socket and (arguments.port is not None or arguments.address != "127.0.0.1"):
        raise UsageError("--socket takes the place of --port and --address: give one or the other")
    shown, root = _what(arguments)
    from supervisor.web.page_server import Where, serve

    return serve(
        lambda: [shown] if shown is not None else all_of(root),
        shown,
        Where(arguments.address, arguments.port, arguments.socket),
        hosts=arguments.allow_host,
        read_only=arguments.read_only,
        opening=arguments.open,
    )


def _what(arguments: argparse.Namespace) -> tuple[Layout | None, Path]:
    """One experiment, or the directory whose experiments are shown. Raises UsageError."""
    word = arguments.experiment
    root = root_of(arguments)
    if word is None:
        search(root)
        return None, root
    if Path(word).is_dir() and search(Path(word)):
        return None, Path(word)
    return find_and_tell(word, root), root


def _port(text: str) -> int:
    if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 65535")
    return int(text)
