"""What runs on each host of the tests as its first process: starts an agent for each connection, as inetd would.

A connection begins with one line of JSON: {command, environment, directory, output}. The rest of it is the agent's.
To be run as a script; it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

_started: list[subprocess.Popen[bytes]] = []


def serve(connection: socket.socket) -> None:
    line = b""
    connection.settimeout(10.0)
    try:
        while not line.endswith(b"\n"):  # not a byte of what follows
            if not (byte := connection.recv(1)):
                return
            line += byte
    except OSError:
        return
    connection.settimeout(None)
    wanted = json.loads(line)
    descriptor = connection.fileno()
    with connection, open(wanted["output"], "ab") as output:
        process = subprocess.Popen(
            [*wanted["command"], str(descriptor), str(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=wanted["environment"],
            cwd=wanted["directory"],
            pass_fds=(descriptor,),
            start_new_session=True,
        )
    _started.append(process)


def listen(address: str, port: int) -> None:
    with socket.create_server((address, port)) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


def end_with_test() -> None:
    """Whoever has started the host holds the other end of this pipe."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main(address: str, port: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for work in (end_with_test, lambda: listen(address, port)):
        threading.Thread(target=work, daemon=True).start()
    while True:  # the first process of a host reaps what others have left
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
