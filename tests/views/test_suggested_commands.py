"""Commands to paste: they name the script as the user did, and repeat nothing remembered."""

from __future__ import annotations

import pytest

from supervisor.views.suggested_commands import resume_command

ID = "experiment_20251014_223000"
PROGRAMS = {
    "python": "/home/me/venv/bin/python",
    "python3": "/usr/bin/python3",
    "pilot": "/home/me/venv/bin/pilot",
}


def resume(line: str, arguments: str, *extra: str) -> str:
    argv = arguments.split()
    return resume_command([*line.split(), *argv], argv, ID, extra, which=PROGRAMS.get)


@pytest.mark.parametrize(
    ("line", "arguments", "command"),
    [
        ("python exp.py", "", f"python exp.py --resume {ID}"),
        ("python -u exp.py", "--workers 4 --all-tasks", f"python -u exp.py --resume {ID}"),
        ("python exp.py", "--resume latest --rerun a* --only b*", f"python exp.py --resume {ID}"),
        ("python exp.py", "--output /data/x -s", f"python exp.py --output /data/x --resume {ID}"),
        ("python exp.py", "--output=/data/x", f"python exp.py --output=/data/x --resume {ID}"),
        ("python exp.py", "--resume auto --changed keep", f"python exp.py --changed keep --resume {ID}"),
        ("python exp.py", "data -- --output", f"python exp.py --resume {ID}"),
        ("/home/me/venv/bin/python exp.py", "", f"python exp.py --resume {ID}"),
        ("/opt/other/bin/python exp.py", "", f"/opt/other/bin/python exp.py --resume {ID}"),
        ("/home/me/venv/bin/python /home/me/venv/bin/pilot", "--size 3", f"pilot --resume {ID}"),
        ("python -m package.experiment", "--size 3", f"python -m package.experiment --resume {ID}"),
        ("python -um package.experiment", "", f"python -um package.experiment --resume {ID}"),
        ("python -mpackage", "--size 3", f"python -mpackage --resume {ID}"),
        ("python -X dev -W error exp.py", "-s", f"python -X dev -W error exp.py --resume {ID}"),
        ("python -m pdb exp.py", "--size 3", f"python -m pdb exp.py --resume {ID}"),
    ],
)
def test_the_command_is_the_one_that_was_typed(line: str, arguments: str, command: str) -> None:
    assert resume(line, arguments) == command


def test_words_are_quoted_for_the_shell() -> None:
    command = resume_command(["python", "my exp.py"], [], ID, ["--rerun", "iris/*"])
    assert command == f"python 'my exp.py' --resume {ID} --rerun 'iris/*'"


@pytest.mark.parametrize(
    "line",
    ["", "python -c main()", "python -ic main()", "python -", "python", "python -m ipykernel_launcher"],
)
def test_without_a_script_it_is_a_call(line: str) -> None:
    assert resume(line, "") == f'run(..., resume="{ID}")'
    assert resume(line, "", "--rerun", "iris/*", "--all-tasks", "--no-retry-failed") == (
        f'run(..., resume="{ID}", rerun="iris/*", all_tasks=True, retry_failed=False)'
    )


def test_arguments_that_are_not_the_command_lines_leave_the_script_alone() -> None:
    assert (
        resume_command(["python", "exp.py", "--own"], ["--workers", "2"], ID)
        == f"python exp.py --resume {ID}"
    )


def test_options_whose_names_are_the_scripts_are_left_to_it() -> None:
    argv = ["--output", "plots", "--longhaul-output", "out", "--longhaul-changed=keep", "--resume"]
    command = resume_command(
        ["python", "exp.py", *argv], argv, ID, ["--rerun", "x"], taken={"--output", "--resume"}
    )
    kept = "--longhaul-output out --longhaul-changed=keep"
    assert command == f"python exp.py {kept} --longhaul-resume {ID} --rerun x"
