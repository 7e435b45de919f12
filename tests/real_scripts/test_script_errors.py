"""jobs() and finish() that raise: the script's own traceback, and an exit code of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.real_scripts.conftest import RealScript

ERROR = 70
SCRIPT = """
    import os, sys
    from pathlib import Path
    from supervisor import Job, main, run

    HERE = Path(__file__).parent
    TROUBLE = os.environ.get("TROUBLE", "")

    def helper():
        raise OSError(28, "no room, says the user's own code")

    def jobs():
        for number in range(4):
            if number == 2 and TROUBLE == "jobs":
                helper()
            yield Job(id=f"job{number}", params={"number": number})

    def evaluate(number):
        if number == 3 and "failed job" in TROUBLE:
            raise ValueError(number)
        with open(HERE / "calls", "a") as file:
            print(number, file=file)
        return number

    def finish(report):
        if "finish" in TROUBLE:
            {}["no such key"]
        if "raise_for_failures" in TROUBLE:
            report.raise_for_failures()
        if "exit 9" in TROUBLE:
            sys.exit(9)
        print("finish was called")

    if TROUBLE == "hook":
        sys.excepthook = lambda kind, error, trace: print("HOOK", kind.__name__, file=sys.stderr)
    elif TROUBLE == "generator":
        jobs = map(int, ["x"])

    if __name__ == "__main__":
        if "run" in sys.argv:
            try:
                run(evaluate, jobs, name="real", output=str(HERE / "out"), workers=2, progress=False, finish=finish)
            except Exception as error:
                import traceback
                last = traceback.extract_tb(error.__traceback__)[-1].name
                print("CAUGHT", type(error).__name__, error.__context__, last)
        else:
            main(evaluate, jobs, name="real", output=str(HERE / "out"), all_tasks=True, workers=2, finish=finish)
"""


@pytest.fixture
def script(real_script: RealScript) -> RealScript:
    real_script.write(SCRIPT, footer=False)
    return real_script


def run(script: RealScript, trouble: str, *words: str) -> tuple[int, str, str]:
    done = script.python(*words, env=script.environment(TROUBLE=trouble))
    return done.returncode, done.stdout, done.stderr


def files_of(err: str) -> set[str]:
    return {Path(path).name for path in re.findall(r'File "([^"]+)"', err)}


def test_jobs_that_raises_has_its_own_code_and_nobody_elses_frames(script: RealScript) -> None:
    code, _, err = run(script, "jobs")
    assert code == ERROR, err
    assert files_of(err) == {"script.py"}, err
    assert "in helper" in err and "says the user's own code" in err
    assert "error: jobs() of the script raised OSError, see above. No job was started." in err
    assert not list(script.output.glob("logs/journal_*"))


def test_what_the_script_gives_instead_of_jobs_may_raise_too(script: RealScript) -> None:
    code, _, err = run(script, "generator")
    assert code == ERROR and "invalid literal for int()" in err, err
    assert not files_of(err), err


def test_finish_that_raises_hides_no_result_and_is_called_again(script: RealScript) -> None:
    """Whether a job has failed or not: the code is that of the error, and the resume runs the job again."""
    code, _, err = run(script, "finish, and a failed job")
    assert code == ERROR, err
    assert files_of(err) == {"script.py"}, err
    assert "error: finish() of the script raised KeyError, see above. The results are safe" in err
    assert str(next(script.output.glob("*/logs_final.json"))) in err
    assert len(script.final()) == 4
    before = (script.folder / "calls").read_text().split()
    resume = err.rstrip().rpartition(" --resume ")[2]
    code, out, err = run(script, "", "--resume", resume)
    assert code == 0 and "finish was called" in out, err
    after = (script.folder / "calls").read_text().split()
    assert sorted(after) == ["0", "1", "2", "3"] and after[: len(before)] == before


def test_an_error_of_finish_that_is_a_word_about_jobs_keeps_its_code(script: RealScript) -> None:
    code, _, err = run(script, "raise_for_failures, and a failed job")
    assert code == 1 and "Traceback" not in err, err


def test_an_exit_of_the_script_is_its_own(script: RealScript) -> None:
    assert run(script, "exit 9")[0] == 9


def test_a_hook_of_the_script_shows_the_error(script: RealScript) -> None:
    script.script.write_text(script.script.read_text().replace('TROUBLE == "jobs"', 'TROUBLE == "hook"'))
    code, _, err = run(script, "hook")
    assert code == ERROR and "HOOK OSError" in err and "Traceback" not in err, err


@pytest.mark.parametrize(
    ("trouble", "caught"), [("jobs", "OSError None helper"), ("finish", "KeyError None finish")]
)
def test_run_raises_what_the_script_has_raised(script: RealScript, trouble: str, caught: str) -> None:
    code, out, err = run(script, trouble, "run")
    assert code == 0 and f"CAUGHT {caught}" in out, out + err
