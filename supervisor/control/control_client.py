"""The client's end of the control socket: sends an order to a run and waits for its answer."""

from __future__ import annotations

import os
import socket
import time

import msgspec

from supervisor.control.control_protocol import MAX_ANSWER, ControlAnswer, ControlRequest
from supervisor.control.control_socket import peer_uid
from supervisor.core.terms.errors import UsageError

_ANSWER_WITHIN = 30.0  # seconds for the answer
_PIECE = 64 << 10


def ask(path: str, asked: ControlRequest, *, name: str, owner: str) -> ControlAnswer:
    """The answer of the run that listens at `path`. name: of the experiment. owner: whose it is, in words.

    Raises UsageError if nobody answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_WITHIN)
        try:
            _connect(connection, path)
            _check_peer(connection, name)
            connection.sendall(msgspec.json.encode(asked) + b"\n")
            line = _receive(connection)
        except PermissionError:
            raise UsageError(f"{name} belongs to {owner}: only that user (and root) can steer it") from None
        except FileNotFoundError:
            raise UsageError(
                f"the control socket of {name}, {path}, does not exist: the run has just ended, or it is in a "
                f"container or has another temporary directory"
            ) from None
        except ConnectionRefusedError:
            raise UsageError(f"{name} is not running any more; resume it with its script") from None
        except TimeoutError:
            raise UsageError(
                f"{name} does not answer: is it stopped (SIGSTOP, Ctrl+Z), or does its disk hang?"
            ) from None
        except OSError as error:
            raise UsageError(f"{name} cannot be asked at {path}: {error.strerror or error}") from None
    if not line.endswith(b"\n"):
        raise UsageError(f"{name} has ended meanwhile; see `longhaul status {name}`")
    try:
        return msgspec.json.decode(line, type=ControlAnswer)
    except msgspec.DecodeError as error:
        raise UsageError(f"{name} sent an answer that this version does not understand: {error}") from None


def _connect(connection: socket.socket, path: str) -> None:
    """Connect; waits while too many other clients do. Raises TimeoutError."""
    deadline = time.monotonic() + _ANSWER_WITHIN
    while True:
        try:
            connection.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(0.05)


def _check_peer(connection: socket.socket, name: str) -> None:
    """Raise UsageError if another user has opened the socket."""
    uid = peer_uid(connection)
    if uid != os.geteuid() and os.geteuid() != 0:
        raise UsageError(f"{name}: its control socket belongs to another user (uid {uid}); no order was sent")


def _receive(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) <= MAX_ANSWER:
        piece = connection.recv(_PIECE)
        if not piece:
            break
        line += piece
    return line
