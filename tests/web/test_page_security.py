"""Who is refused by the page's server, and that nothing is answered before it is decided."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.__main__ import main
from supervisor.web.page_security import POLICY, AccessRules
from supervisor.web.page_server import MOST_OPEN, described, is_loopback
from tests.experiment_fixture import PATIENCE, ROOT, wait_for
from tests.web.serving import Served, end, served

TOKEN = "t" * 43
SECRET = "secret-parameter"
API_PATHS = (
    "experiments",
    "x/K/live",
    "x/K/jobs",
    "x/K/job?id=a",
    "x/K/output?id=a",
    "x/K/log",
    "x/K/failures",
    "x/K/timeline",
    "x/K/series",
    "x/K/columns",
    "x/K/plot?x=seconds&y=seconds",
    "x/K/results.csv",
    "x/K/orders",
    "x/K/else",
    "",
)

SCRIPT = f"""
from supervisor import Job, main
def evaluate(word):
    print(word)
    return len(word)
if __name__ == "__main__":
    jobs = [Job(id=name, params={{"word": "{SECRET}" + name}}) for name in "ab"]
    main(evaluate, jobs, name="trial", workers=1, all_tasks=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web")
    (made / "exp.py").write_text(SCRIPT)
    command = [sys.executable, "exp.py", "--experiment-id", "night"]
    done = subprocess.run(
        command,
        cwd=made,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    pytest.importorskip("starlette")
    found = served(folder, "--allow-host", "lab.example:8443")
    yield found
    end(found)


def refused(answer: tuple[int, dict[str, str], bytes]) -> int:
    status, _, text = answer
    told = json.loads(text)
    assert told["error"] and told["hint"]
    assert SECRET not in text.decode()
    return status


def test_the_token_has_256_bits_and_no_word_of_it_is_in_the_command(server: Served) -> None:
    assert len(server.token) == 43
    command = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert server.token.encode() not in command


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FETCH"]
)
@pytest.mark.parametrize("token", [None, "wrong", "x" * 43])
def test_no_method_of_any_path_is_answered_without_the_token(
    server: Served, method: str, token: str | None
) -> None:
    for path in API_PATHS:
        where = f"/api/{path}".replace("K", server.key)
        status, _, text = server.ask(method, where, token=token)
        assert status == 401, (method, path)
        assert method == "HEAD" or set(json.loads(text)) == {"error", "hint"}


@pytest.mark.parametrize("path", ["/", "/assets/web.mjs", "/api/experiments", "/nowhere"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil.example:{port}",
        "127.0.0.1:{port}.evil.example",
        "lab.example",
        "lab.example:{port}",
        "",
        "127.0.0.1:{port}@evil.example",
    ],
)
def test_only_its_own_names_are_answered_for(server: Served, host: str, path: str) -> None:
    """A name that somebody else has point to this machine would let pages of theirs read this one (DNS rebinding)."""
    assert refused(server.ask("GET", path, Host=host.format(port=server.port))) == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}", "lab.example:8443"]
)
def test_names_of_its_own_and_allowed_ones_are_answered_for(server: Served, host: str) -> None:
    status, _, _ = server.ask("GET", "/api/experiments", Host=host.format(port=server.port))
    assert status == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "https://lab.example",
        "file://",
        "127.0.0.1:{port}",
        "http://[",
    ],
)
def test_another_origin_is_refused(server: Served, origin: str) -> None:
    assert refused(server.ask("GET", "/api/experiments", Origin=origin.format(port=server.port))) == 403
    assert (
        refused(
            server.ask(
                "POST", f"/api/x/{server.key}/orders", body=b"{}", Origin=origin.format(port=server.port)
            )
        )
        == 403
    )


def test_its_own_origin_may_ask(server: Served) -> None:
    for origin in (f"http://127.0.0.1:{server.port}", "https://lab.example:8443"):
        assert server.ask("GET", "/api/experiments", Origin=origin)[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "else"])
def test_what_another_page_asks_for_is_refused(server: Served, site: str) -> None:
    for path in ("/", "/api/experiments", "/assets/web.mjs"):
        assert refused(server.ask("GET", path, Sec_Fetch_Site=site)) == 403
    navigation = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert (
        server.ask("GET", "/", token=None, Sec_Fetch_Site=site, **navigation)[0] == 200
    )  # a link to it in a mail
    assert refused(server.ask("GET", "/api/experiments", Sec_Fetch_Site=site, **navigation)) == 403
    assert (
        refused(
            server.ask("GET", "/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe")
        )
        == 403
    )


@pytest.mark.parametrize("name", ["Host", "X-Longhaul-Token", "Origin"])
def test_a_header_that_decides_occurs_once(server: Served, name: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        lines = [
            f"Host: 127.0.0.1:{server.port}",
            f"X-Longhaul-Token: {server.token}",
            f"{name}: http://127.0.0.1:{server.port}",
        ]
        connection.sendall(
            "\r\n".join(
                ["GET /api/experiments HTTP/1.1", *lines, f"{name}: evil", "Connection: close", "", ""]
            ).encode()
        )
        answer = b"".join(iter(lambda: connection.recv(9999), b""))
    assert answer.split()[1] in (b"400", b"403")
    assert b"night" not in answer


CLIMBING = [
    "..", "../..", "%2e%2e", "..%2f..%2f..%2fetc%2fpasswd", "night", "night%00", "../logs/journal_night.jsonl",
    "%2fetc%2fpasswd", "K%2f..%2fK", "a/../b", "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("climbing", CLIMBING)
def test_what_is_named_is_looked_up_and_never_a_path(server: Served, climbing: str) -> None:
    for path in (
        f"/api/x/{climbing}/live",
        f"/api/x/{climbing}/log",
        f"/api/{climbing}",
        f"/assets/{climbing}",
        f"/assets/../{climbing}",
        f"/{climbing}",
        f"/assets/vendor/../../{climbing}",
    ):
        status, _, text = server.ask("GET", path)
        assert status in (400, 404), path
        assert b"root:" not in text and SECRET.encode() not in text
    for name in ("job", "output"):
        assert refused(server.ask("GET", f"/api/x/{server.key}/{name}?id={climbing}")) == 404


def test_every_answer_has_the_headers(server: Served) -> None:
    for status, path in (
        (200, "/"),
        (200, "/assets/web.mjs"),
        (200, "/api/experiments"),
        (404, "/nowhere"),
        (404, "/api/x/none/live"),
        (400, f"/api/x/{server.key}/jobs?state=odd"),
    ):
        found, headers, _ = server.ask("GET", path)
        assert (found, path) == (status, path)
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert (
            "set-cookie" not in headers
            and "access-control-allow-origin" not in headers
            and "server" not in headers
        )
    assert server.ask("GET", "/api/experiments", token=None)[1]["content-security-policy"] == POLICY
    for part in (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
    ):
        assert part in POLICY


def test_read_only_has_no_path_for_orders(folder: Path) -> None:
    for options in (["--read-only"], ["--address", "0.0.0.0"]):
        found = served(folder, *options, "night", "-d", "data/outputs")
        try:
            assert found.get("experiments")["read_only"] is True
            assert found.ask("POST", f"/api/x/{found.key}/orders", body=b'{"order":"stop"}')[0] in (404, 405)
            wait_for(lambda said=found.said: any("read-only" in line for line in said), "it says so")
            own = found.address.removeprefix("http://").partition("/")[0]  # by the name that it prints
            assert found.ask("GET", "/api/experiments", Host=own)[0] == 200
        finally:
            end(found)


def test_orders_are_checked_before_they_are_sent(server: Served) -> None:
    def order(body: bytes) -> int:
        return refused(server.ask("POST", f"/api/x/{server.key}/orders", body=body))

    assert order(b"") == order(b"[]") == order(b'{"order":"format"}') == order(b'{"order":"retry"}') == 400
    assert order(b'{"order":"retry","jobs":"a"}') == order(b'{"order":"workers","number":"4"}') == 400
    assert order(b'{"order":"retry","jobs":["' + b"a" * 70_000 + b'"]}') == 413
    assert order(b'{"order":"pause"}') == 409  # it is over
    assert refused(server.ask("POST", "/api/x/none/orders", body=b'{"order":"pause"}')) == 404
    assert refused(server.ask("GET", f"/api/x/{server.key}/orders")) == 405
    assert refused(server.ask("POST", "/api/experiments", body=b"{}")) == 405


def test_a_socket_is_for_this_user_alone(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "supervisor", "web", "--socket"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        token = process.stdout.readline().strip().partition("#t=")[2]
        process.stdout.readline()
        words = process.stdout.readline().split()
        assert words[:4] == ["ssh", "-N", "-L", words[3]]
        port, _, path = words[3].partition(":")
        assert port == "8787"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        for host, status in (("127.0.0.1:8787", 200), ("localhost:9999", 200), ("evil.example:8787", 403)):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                lines = [f"Host: {host}", f"X-Longhaul-Token: {token}", "Connection: close"]
                connection.sendall("\r\n".join(["GET /api/experiments HTTP/1.1", *lines, "", ""]).encode())
                assert int(connection.recv(999).split()[1]) == status, host
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()
    assert not os.path.exists(path)


def test_requests_that_never_get_complete_keep_nobody_out(server: Served) -> None:
    heads = (
        b"GET /api/exp",
        f"POST /api/x/{server.key}/orders HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode(),
    )
    heads = (*heads, heads[1] + f"X-Longhaul-Token: {server.token}\r\nContent-Length: 9\r\n\r\n{{".encode())
    slow = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(MOST_OPEN + 60)]
    try:
        for at, connection in enumerate(slow):
            connection.sendall(heads[at % len(heads)])
        wait_for(lambda: server.ask("GET", "/api/experiments")[0] == 200, "there is room for others")
        for connection in slow:
            while connection.recv(999):  # a 503, or nothing, and then its end
                pass
    except ConnectionResetError:
        pass
    finally:
        for connection in slow:
            connection.close()


def test_requests_that_are_begun_anew_all_the_time_keep_nobody_out(server: Served) -> None:
    """Each that is ended is replaced at once: there are always more of them than connections are allowed."""
    held: list[socket.socket] = []
    over = threading.Event()

    def crowd() -> None:
        while not over.is_set():
            one = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            held.append(one)
            with contextlib.suppress(OSError):
                one.sendall(b"GET /api/exp")
            if len(held) > 2 * MOST_OPEN:
                held.pop(0).close()

    thread = threading.Thread(target=crowd)
    thread.start()
    try:
        wait_for(lambda: len(held) > MOST_OPEN + 50, "there are more than are allowed")
        for _ in range(20):
            assert server.ask("GET", "/api/experiments")[0] == 200
    finally:
        over.set()
        thread.join()
        for one in held:
            one.close()


def test_over_ssh_it_says_how_to_get_there() -> None:
    told = described(
        "http://127.0.0.1:8787/#t=x",
        "",
        8787,
        read_only=False,
        environment={"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 2222"},
    )
    assert any(line.startswith("  ssh -N -L 8787:127.0.0.1:8787 -p 2222 ") for line in told)
    assert not any(
        "ssh" in line
        for line in described("http://127.0.0.1:8787/#t=x", "", 8787, read_only=False, environment={})
    )
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.168.0.1") and not is_loopback("lab.example")


def test_without_the_extra_one_line_says_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("supervisor.web.web_command.find_spec", lambda name: None)
    assert main(["web", "-d", str(folder / "data" / "outputs")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "pip install 'longhaul[web]'" in told


def test_rules_answer_for_ipv6_and_port_80() -> None:
    rules = AccessRules(TOKEN, port=80, address="::")
    assert rules.refusal("GET", "/", {"host": "localhost"}) is None
    assert AccessRules(TOKEN, port=81).refusal("GET", "/", {"host": "localhost"}) is not None


READS_FOR_EVER = """
import sys, threading
from supervisor.__main__ import main
from supervisor.web import experiment_watch
def survey(layout):
    print("reading", file=sys.stderr, flush=True)
    threading.Event().wait()
experiment_watch.survey = survey
freshen = experiment_watch.ExperimentWatch.freshen_results
def waited(watch):
    print("waited for", file=sys.stderr, flush=True)
    freshen(watch)
experiment_watch.ExperimentWatch.freshen_results = waited
sys.exit(main(["web", "--port", "0"]))
"""


def test_it_ends_at_once_and_without_a_word_while_it_reads(folder: Path) -> None:
    """However often it is told so: threads that read a large journal are not waited for."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", READS_FOR_EVER]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        address, _, token = process.stdout.readline().strip().partition("#t=")
        port = int(address.split(":")[2].rstrip("/"))
        asking = []
        for path in ("live", "columns"):  # the second one waits for what is read
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            if path == "live":
                connection.request("GET", "/api/experiments", headers={"X-Longhaul-Token": token})
                key = json.loads(connection.getresponse().read())["experiments"][0]["key"]
            connection.request("GET", f"/api/x/{key}/{path}", headers={"X-Longhaul-Token": token})
            asking.append(connection)
        assert [process.stderr.readline() for _ in asking] == ["reading\n", "waited for\n"]
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        assert process.poll() == 0
        assert process.stderr.read() == ""
        for connection in asking:
            connection.close()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


INTERRUPTED_IN_A_CALLBACK = """
import os, signal, sys, weakref
from supervisor.__main__ import main
from supervisor.web import page_server

class Thing:
    pass

read = page_server.page_files

def interrupted():
    for _ in range(2):
        thing = Thing()
        waiting = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
        del thing
    print("goes on", flush=True)
    return read()

page_server.page_files = interrupted
sys.exit(main(["web", "--port", "0"]))
"""


def test_it_ends_though_the_signal_arrives_where_python_passes_no_exception_on(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_A_CALLBACK],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0 and ended.stderr == ""
    assert ended.stdout.endswith("goes on\n")


def _on_a_socket(
    folder: Path, runtime: Path, *before: str
) -> tuple[subprocess.Popen[str], Callable[[], int]]:
    """The process, and what asks it for its experiments; the status."""
    process = subprocess.Popen(
        [*before, sys.executable, "-m", "supervisor", "web", "--socket"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(runtime)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    token, _, words = (process.stdout.readline() for _ in range(3))

    def ask() -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(words.split()[3].partition(":")[2])
            lines = [f"X-Longhaul-Token: {token.strip().partition('#t=')[2]}", "Connection: close"]
            head = ["GET /api/experiments HTTP/1.1", "Host: 127.0.0.1:8787", *lines, "", ""]
            connection.sendall("\r\n".join(head).encode())
            return int(connection.recv(999).split()[1])

    return process, ask


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_however_it_is_ended_no_file_is_left(folder: Path, tmp_path: Path, signum: signal.Signals) -> None:
    """SIGHUP is what a closed terminal sends."""
    process, ask = _on_a_socket(folder, tmp_path)
    try:
        assert ask() == 200
        process.send_signal(signum)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        _, errors = process.communicate()
    assert errors == ""
    assert list((tmp_path / "longhaul").iterdir()) == []


def test_under_nohup_it_outlives_the_terminal(folder: Path, tmp_path: Path) -> None:
    process, ask = _on_a_socket(folder, tmp_path, "sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    try:
        assert ask() == 200
        process.send_signal(signal.SIGHUP)
        assert ask() == 200
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [(">&-", 2, "standard output is closed"), (">/dev/full", 74, "No space left on device")],
    ids=["closed", "full"],
)
def test_a_page_whose_address_nobody_reads_is_not_served(
    folder: Path, output: str, code: int, words: str
) -> None:
    if output == ">/dev/full" and not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full here")
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {output}', "sh", sys.executable, "-m", "supervisor", "web", "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == code
    assert ended.stderr.startswith("error: ") and words in ended.stderr and ended.stderr.count("\n") == 1
