"""What a job does to the standard streams reaches no other job: what that prints is in its log."""

from __future__ import annotations

import pytest

from tests.conftest import some
from tests.real_scripts.conftest import RealScript

SPOILED = {
    "replaced": "sys.stdout = io.StringIO(); sys.stderr = io.StringIO()",
    "replaced_below": "sys.__stdout__ = sys.stdout = open(os.devnull, 'w')",
    "none": "sys.stdout = sys.stderr = None",
    "deleted": "del sys.stdout, sys.__stderr__",
    "redirected": "contextlib.redirect_stdout(io.StringIO()).__enter__()",
    "closed": "sys.stdout.close(); sys.stderr.close()",
    "buffer_closed": "sys.stdout.buffer.close()",
    "detached": "sys.stdout.detach(); sys.stderr.detach()",
    "patched": "sys.stdout.write = len; sys.stderr.flush = None",
    "ascii": "sys.stdout.reconfigure(encoding='ascii', errors='strict', line_buffering=False)",
    "rewrapped": "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-16')",
    "descriptors_closed": "os.close(0); os.close(1); os.close(2)",
    "descriptors_moved": "os.dup2(os.open('printed.txt', os.O_RDWR | os.O_CREAT), 1); os.dup2(1, 2)",
    "print_patched": "builtins.print = len",
    "input_replaced": "sys.stdin = io.StringIO('text'); sys.__stdin__ = None",
    "input_closed": "sys.stdin.close(); os.close(0); os.open('script.py', os.O_RDONLY)",
}
SCRIPT = """
    import builtins, contextlib, io, os, subprocess, sys, time

    spoiled = @SPOILED@
    PARAMS = [{"what": what, "number": number} for what in spoiled for number in range(3)]

    def evaluate(what, number):
        print("out of", number, "\\u20ac")
        print("err of", number, file=sys.stderr)
        subprocess.run(["echo", f"child of {number}"])
        read = sys.stdin.read()
        if number == 1:
            exec(spoiled[what])
            time.sleep(@PAUSE@)
        return read
"""


@pytest.mark.parametrize("pause", ["0", "0.002"], ids=["short", "long"])
def test_what_later_jobs_print_is_in_their_logs(real_script: RealScript, pause: str) -> None:
    real_script.write(SCRIPT.replace("@SPOILED@", repr(SPOILED)).replace("@PAUSE@", pause))
    environment = real_script.environment(PYTHONIOENCODING="utf-8")
    assert real_script.run("--workers", "1", env=environment) == [""] * 3 * len(SPOILED)
    for place, what in enumerate(SPOILED):
        for number in range(3):
            log = real_script.log(f"job{3 * place + number}")
            lines = [f"child of {number}", f"err of {number}", f"out of {number} \u20ac"]
            assert sorted(log.splitlines()) == lines, what


def test_a_job_that_only_replaces_a_stream_takes_nothing_from_the_next(real_script: RealScript) -> None:
    """However short both are, and though nothing was written that somebody would have noticed."""
    real_script.write("""
        import io, sys

        PARAMS = [{"number": number} for number in range(30)]

        def evaluate(number):
            if number % 2:
                sys.stdout = io.StringIO()
            print(number)
    """)
    real_script.run("--workers", "1")
    assert [real_script.log(f"job{number}") for number in range(0, 30, 2)] == [
        f"{n}\n" for n in range(0, 30, 2)
    ]


TEE = """
    import io, os, sys

    class Tee:
        def __init__(self, *streams):
            self.streams = streams
        def write(self, text):
            return [stream.write(text) for stream in self.streams][0]
        def flush(self):
            for stream in self.streams:
                stream.flush()

    copy = io.StringIO()
    def tee():
        sys.stdout = Tee(sys.stdout, copy)
        return "context"
    @TOP@

    PARAMS = [{"number": number} for number in range(4)]

    def evaluate(number):
        print("out of", number)
        if number == 1:
            sys.stdout = None
        return [type(sys.stdout).__name__, f"out of {number}\\n" in copy.getvalue()]
"""


@pytest.mark.parametrize(
    ("where", "method"), some([("top", "auto"), ("setup", "spawn"), ("top", "spawn"), ("setup", "auto")], 2)
)
def test_a_stream_that_the_script_has_put_there_stays(
    real_script: RealScript, where: str, method: str
) -> None:
    real_script.write(TEE.replace("@TOP@", "tee()" if where == "top" else ""))
    text = real_script.script.read_text().replace(
        "all_tasks=True", f"start_method={method!r}, all_tasks=True"
    )
    if where == "setup":
        text = text.replace("all_tasks=True", "setup=tee, all_tasks=True")
    real_script.script.write_text(text)
    results = real_script.run("--workers", "1")
    assert results == [["NoneType" if number == 1 else "Tee", True] for number in range(4)]
    assert [real_script.log(f"job{number}") for number in range(4)] == [f"out of {n}\n" for n in range(4)]
