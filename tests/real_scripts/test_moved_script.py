"""An experiment is resumed by its script, wherever that lies and whatever it is called by now."""

from __future__ import annotations

from tests.real_scripts.conftest import RealScript

TEXT = """
    from pathlib import Path

    def evaluate(n):
        if n == 2 and Path(@FOLDER@, "fail").exists():
            raise ValueError(n)
        with open(Path(@FOLDER@, "ran"), "a") as file:
            print(n, file=file)
        return n

    PARAMS = [{"n": n} for n in range(3)]
"""


def test_a_moved_script_goes_on_with_its_experiment(real_script: RealScript) -> None:
    """Another name, with blanks, in another folder."""
    (real_script.folder / "fail").touch()
    real_script.write(TEXT.replace("@FOLDER@", repr(str(real_script.folder))))
    real_script.run(code=1)
    (real_script.folder / "fail").unlink()
    target = real_script.folder / "deeper" / "down" / "a name with blanks.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    real_script.script = real_script.script.rename(target)
    done = real_script.python("--resume", "latest")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert [entry["result"] for entry in real_script.final()] == [0, 1, 2]
    assert sorted((real_script.folder / "ran").read_text().split()) == ["0", "1", "2"]
    assert "changed" not in done.stderr, done.stderr
