"""Stacks as faulthandler writes them, read and told without our frames."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from workers.isolation import faulthandler_dumps
from workers.values.tracebacks import OURS

RUNNER = OURS[0] + "runner.py"
LIBRARY = sysconfig.get_paths()["stdlib"] + "/threading.py"
EXTENSIONS = "Extension modules: numpy.core, numpy.linalg (total: 2)\n"


def thread(*frames: tuple[str, int, str], heading: str = "Current thread", at_job: bool = True) -> str:
    ours = [(RUNNER, 81, "run"), (OURS[0] + "worker.py", 129, "_work"), ("<string>", 1, "<module>")]
    lines = [f'  File "{file}", line {line} in {name}' for file, line, name in [*frames, *ours * at_job]]
    return f"{heading} 0x00007f6a9c1ff740 (most recent call first):\n" + "".join(f"{x}\n" for x in lines)


def test_the_place_is_the_innermost_one_of_the_users_code() -> None:
    text = thread((LIBRARY, 1119, "join"), ("/home/a/model.py", 12, "wait"), ("/home/a/s.py", 3, "evaluate"))
    stack = faulthandler_dumps.stack_in(text)
    assert stack is not None
    assert (stack.where, stack.function) == ("model.py:12", "wait")
    assert stack.text.splitlines() == [
        "stopped here (most recent call last):",
        '  File "/home/a/s.py", line 3, in evaluate',
        '  File "/home/a/model.py", line 12, in wait',
        f'  File "{LIBRARY}", line 1119, in join',
        *[f"    {line}" for line in [faulthandler_dumps.linecache.getline(LIBRARY, 1119).strip()] if line],
    ]


def test_a_cell_of_a_notebook_is_the_users_code_and_no_library_is() -> None:
    stack = faulthandler_dumps.stack_in(thread((LIBRARY, 1119, "join"), ("<ipython-input-3>", 4, "evaluate")))
    assert stack is not None and stack.where == "<ipython-input-3>:4"


def test_a_timeout_is_about_the_thread_of_the_job_and_a_crash_about_the_one_that_crashed() -> None:
    other = thread(("/home/a/helper.py", 5, "work"), heading="Current thread", at_job=False)
    text = f"{other}\n{thread(('/home/a/s.py', 3, 'evaluate'), heading='Thread')}"
    stopped, crashed = faulthandler_dumps.stack_in(text), faulthandler_dumps.stack_in(text, crash=True)
    assert stopped is not None and crashed is not None
    assert (stopped.where, crashed.where) == ("s.py:3", "helper.py:5")
    assert stopped.text.index("another thread") < stopped.text.index("stopped here")


def test_a_worker_between_two_jobs_is_nowhere() -> None:
    text = thread((OURS[0] + "transport/worker_queues.py", 40, "receive"))
    stack = faulthandler_dumps.stack_in(text)
    assert stack == ("", "", "")
    assert faulthandler_dumps.cleaned(text).endswith("(most recent call first):\n  between two jobs")
    assert faulthandler_dumps.stack_in("no stack at all\n") is None


def test_a_line_that_is_not_known_is_no_place() -> None:
    text = thread(("/home/a/s.py", 3, "evaluate")).replace(
        "first):\n", 'first):\n  File "/home/a/s.py", line ??? in f\n'
    )
    stack = faulthandler_dumps.stack_in(text)
    assert stack is not None and (stack.where, stack.function) == ("s.py:3", "evaluate")
    assert 's.py", line ???, in f' in stack.text


def test_of_a_deep_recursion_only_the_innermost_frames_are_there() -> None:
    text = thread(*[("/home/a/s.py", 9, "f")] * 100, at_job=False) + "  ...\n"
    stack = faulthandler_dumps.stack_in(text)
    assert stack is not None and stack.where == "s.py:9"
    assert "[Previous line repeated 97 more times]" in stack.text
    assert len(stack.text.splitlines()) < 10


def test_a_crash_is_told_without_our_frames_and_without_the_list_of_extension_modules() -> None:
    report = f"Fatal Python error: Aborted\n\n{thread(('/home/a/s.py', 4, 'evaluate'))}\n{EXTENSIONS}"
    printed = f"step 1\nFatal Python error: of somebody else\n{report}"
    assert printed[faulthandler_dumps.crash_in(printed) :] == report
    assert faulthandler_dumps.crash_in("step 1\n") == -1
    assert faulthandler_dumps.crash_in(report) == 0
    assert faulthandler_dumps.cleaned(report).splitlines() == [
        "Fatal Python error: Aborted",
        "",
        "Current thread 0x00007f6a9c1ff740 (most recent call first):",
        '  File "/home/a/s.py", line 4 in evaluate',
    ]


def test_the_stack_at_the_end_of_a_log_can_be_left_out() -> None:
    stack = 'another thread (most recent call last):\n  File "x", line 1, in f\n    code\n'
    assert faulthandler_dumps.before_stack(f"step 1\n{faulthandler_dumps.HEADING}\n{stack}") == "step 1"
    after = f"step 1\n{faulthandler_dumps.HEADING}\n{stack}\n--- attempt 2 ---\nstep 1\n"
    assert faulthandler_dumps.before_stack(after) == after
    assert faulthandler_dumps.before_stack("step 1\n") == "step 1\n"


def test_the_last_lines_of_a_log_are_those_before_the_stack(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(
        f"step 1\nstep 2\n{faulthandler_dumps.HEADING}\nstopped here (most recent call last):\n"
        + "  code\n" * 300
    )
    assert faulthandler_dumps.printed_tail(str(log), 1) == "step 2"
    log.write_text(f"{faulthandler_dumps.HEADING}\nstopped here (most recent call last):\n" + "  code\n" * 30)
    assert faulthandler_dumps.printed_tail(str(log)) == ""
    assert faulthandler_dumps.printed_tail(str(tmp_path / "none.log")) == ""


@pytest.mark.parametrize("name", ["b\xe4r.py", "\u0416.py", "\U0001f600.py"])
def test_names_of_files_that_are_not_ascii_are_read_back(name: str, tmp_path: object) -> None:
    path = f"{tmp_path}/{name}"
    with open(path, "w", encoding="utf-8") as file:
        file.write("while True: pass\n")
    stack = faulthandler_dumps.stack_in(thread((path.encode("ascii", "backslashreplace").decode(), 1, "f")))
    assert stack is not None and stack.where == f"{name}:1"
    assert "    while True: pass" in stack.text
