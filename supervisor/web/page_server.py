"""The process that serves the page: where it listens, what it prints, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import ipaddress
import logging
import os
import secrets
import signal
import socket
import stat
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from supervisor.control.control_socket import NoControlSocket, find_directory
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.wording import harmless
from supervisor.storage.files.layout import Layout
from supervisor.views.console import print_lines
from supervisor.web.experiment_catalogue import Catalogue, key_of
from supervisor.web.page_files import page_files
from supervisor.web.page_routes import create_app
from supervisor.web.page_security import AccessRules

USUAL_PORT = 8787
REQUEST_PATIENCE = 10.0  # seconds for a whole request to arrive
MOST_OPEN = 400  # connections
# Connections that are accepted before any is read: what is complete must not be the oldest by then.
_AT_ONCE = 100
_SWITCH = 0.001  # seconds that a thread which reads a journal goes on while a request waits for its turn
_NICE = 10
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.01  # seconds
_ANY = ("0.0.0.0", "::")  # all addresses of this machine


class _PatientProtocol(H11Protocol):
    """Ends a connection whose request does not get complete: so many of them, held open by another user of the machine,
    would keep everybody else out. However fast they come anew, each makes room by ending the oldest of them."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= MOST_OPEN:
            self._make_room()
        super().connection_made(transport)
        self._since = self.loop.time()
        self._look_again()

    def _make_room(self) -> None:
        open_ones = (one for one in self.connections if isinstance(one, _PatientProtocol))
        waiting = [one for one in open_ones if one._is_incomplete()]
        if waiting:
            oldest = min(waiting, key=lambda one: one._since)
            # Several connections may be made before it notices that it has ended.
            self.connections.discard(oldest)
            oldest.transport.abort()

    def _is_incomplete(self) -> bool:
        """Also of one that is kept open after an answer."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _look_again(self) -> None:
        self._before = self.cycle
        self._look = self.loop.call_later(REQUEST_PATIENCE, self._end_if_slow)

    def _end_if_slow(self) -> None:
        if self._is_incomplete() and self.cycle is self._before:
            self.transport.abort()
        else:
            self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)


class _QuietlyEnding(uvicorn.Server):
    """Requests that are being answered at the end are given up: that is no error, and is not printed as one."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").disabled = True
        await super().shutdown(sockets)


class Where(NamedTuple):
    """port: 0 for any that is free; None for the usual one, or any if that is taken. on_socket: a Unix socket
    instead."""

    address: str = "127.0.0.1"
    port: int | None = None
    on_socket: bool = False


def serve(
    find: Callable[[], list[Layout]],
    shown: Layout | None,
    where: Where,
    *,
    hosts: Sequence[str],
    read_only: bool,
    opening: bool,
) -> NoReturn:
    """Until Ctrl+C, SIGTERM or the end of the terminal; the process ends with it. shown: what the page opens with; None
    for the list. Raises UsageError, and OSError if the address cannot be printed."""
    read_only = read_only or not is_loopback(where.address)
    token = secrets.token_urlsafe(32)  # 256 bits
    # Whenever it is ended, also while the browser is being opened: what is to be removed is removed. The server raises
    # the signal that ended it again after its own end.
    ending = [
        one for one in _ENDING if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN
    ]  # nohup
    for number in ending:
        signal.signal(number, _end_once)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        listener, path = stack.enter_context(_listening(where))
        port = None if path else int(listener.getsockname()[1])
        catalogue = Catalogue(find)
        stack.callback(catalogue.close)
        own = [f"{socket.gethostname()}:{port}"] if where.address in _ANY else []
        rules = AccessRules(token, port=port, hosts=[*hosts, *own], address=where.address)
        config = uvicorn.Config(
            create_app(catalogue, rules, read_only=read_only),
            log_level="error",
            access_log=False,
            lifespan="off",
            http=_PatientProtocol,
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            limit_concurrency=MOST_OPEN + _AT_ONCE,
            backlog=_AT_ONCE,
            use_colors=False,  # it would ask a standard output that may be closed
        )
        _be_nice()
        query = f"?x={key_of(shown)}" if shown is not None else ""
        local = USUAL_PORT if port is None else port
        address = f"http://{_in_address(where.address, path)}:{local}/{query}#t={token}"
        told = described(address, path, port, read_only=read_only, environment=os.environ)
        _tell(told, opening=opening)
        if opening:
            stack.enter_context(_opened(address))
        # While somebody takes the address to a browser: the first page need not wait for it.
        page_files()
        catalogue.layouts()
        sys.setswitchinterval(_SWITCH)
        server = _QuietlyEnding(config)
        if signal.SIGHUP in ending:  # the one that the server leaves alone
            signal.signal(signal.SIGHUP, server.handle_exit)
        server.run(sockets=[listener])
    # Threads that read a large journal take many seconds more, and change nothing: nobody waits for them.
    os._exit(0)


def _tell(lines: Sequence[str], *, opening: bool) -> None:
    """Print the address. Where it cannot be printed nobody could open the page, unless a browser is told. Raises
    UsageError and OSError."""
    text = "\n".join(lines)
    if opening:
        print_lines(sys.stdout, text)
    elif sys.stdout is None:
        raise UsageError(
            "the address of the page cannot be printed: standard output is closed; open it, or use --open"
        )
    else:
        print(harmless(text), flush=True)


def _end_once(*_: object) -> NoReturn:
    """Raises KeyboardInterrupt; a second signal would interrupt what the first one has begun to remove."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    sys.unraisablehook = _end_after_all
    raise KeyboardInterrupt


def _end_after_all(lost: sys.UnraisableHookArgs) -> None:
    """A signal may arrive in a callback of the garbage collector, from where Python passes no exception on: raise
    KeyboardInterrupt again, when that callback has returned."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, _end_once)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def described(
    address: str, path: str, port: int | None, *, read_only: bool, environment: Mapping[str, str]
) -> list[str]:
    """What is printed: the address, and over SSH the command for the machine where the browser is."""
    lines = [address]
    far = environment.get("SSH_CONNECTION", "")
    if path or far:
        local = USUAL_PORT if port is None else port
        target = path or f"127.0.0.1:{local}"
        lines.append("on the machine with the browser, then open the address there:")
        lines.append(
            f"  ssh -N -L {local}:{target} {_ssh_words(far)}{getpass.getuser()}@{socket.gethostname()}"
        )
    if read_only:
        lines.append("read-only: no orders are taken")
    lines.append("Ctrl+C ends this page, and nothing else")
    return lines


def _ssh_words(connection: str) -> str:
    """`-p N` if the SSH server of this session listens elsewhere than usual."""
    parts = connection.split()
    return f"-p {parts[3]} " if len(parts) == 4 and parts[3].isdecimal() and parts[3] != "22" else ""


def _in_address(address: str, path: str) -> str:
    if address in _ANY:
        return socket.gethostname()
    if path or address == "localhost":
        return "127.0.0.1"
    return f"[{address}]" if ":" in address else address


@contextlib.contextmanager
def _listening(where: Where) -> Iterator[tuple[socket.socket, str]]:
    """The listening socket, and its path if it is a Unix socket."""
    if where.on_socket:
        with _unix_socket() as found:
            yield found
        return
    family = socket.AF_INET6 if ":" in where.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            _bind(listener, where)
        except (OSError, OverflowError) as error:
            port = USUAL_PORT if where.port is None else where.port
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"{where.address}:{port} cannot be listened at: {reason}; choose another port with --port N (0: any)"
            ) from None
        listener.listen(_AT_ONCE)
        yield listener, ""


def _bind(listener: socket.socket, where: Where) -> None:
    if where.port is not None:
        listener.bind((where.address, where.port))
        return
    try:
        listener.bind((where.address, USUAL_PORT))
    except OSError:
        listener.bind((where.address, 0))


@contextlib.contextmanager
def _unix_socket() -> Iterator[tuple[socket.socket, str]]:
    try:
        directory = find_directory()
    except NoControlSocket as error:
        raise UsageError(f"no socket can be made: {error}; leave --socket out") from None
    path = os.path.join(directory, f"web-{secrets.token_hex(6)}.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        listener.bind(path)
        try:
            os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
            listener.listen(_AT_ONCE)
            yield listener, path
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


@contextlib.contextmanager
def _opened(address: str) -> Iterator[None]:
    """Open it in the browser by a file that only this user can read: others can read the words of a command."""
    try:
        directory = find_directory()
    except NoControlSocket as error:
        print_lines(sys.stderr, f"the page is not opened: {error}; open the address yourself")
        yield
        return
    path = os.path.join(directory, f"open-{secrets.token_hex(8)}.html")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(
            f'<!DOCTYPE html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0;url={address}"><title>longhaul</title>\n'
        )
    try:
        if not webbrowser.open(f"file://{path}"):
            print_lines(sys.stderr, "no browser was found here: open the address yourself")
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _be_nice() -> None:
    """A run beside it goes first."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
