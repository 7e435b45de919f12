"""docs/the-morning-after.md is run from top to bottom, and tells what it says that it tells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from supervisor.__main__ import COMMANDS
from tests.docs.conftest import DOCS, README, ROOT, blocks, commands, longhaul, prose

PAGE = ROOT / "docs" / "the-morning-after.md"
EXPECTED = {  # by the words of a command: exit code, and what is said
    "python night.py --experiment-id monday": (1, "5 completed, 4 failed"),
    "longhaul list": (0, "monday"),
    "longhaul status": (0, "night monday: finished"),
    "longhaul verify monday": (0, "good"),
    "longhaul failures": (0, "ZeroDivisionError night.py:28: 3 jobs failed, 3 attempts ran again"),
    "longhaul show lima/10": (0, "ZeroDivisionError: division by zero"),
    "longhaul show pune/* monday || true": (2, "could be 3 jobs: 'pune/10', 'pune/20', 'pune/30'"),
    "longhaul output pune/30": (0, "--- attempt 3 ---\nreading pune\n30 rows\nFatal Python error: Aborted"),
    "longhaul memory": (0, "pune/30"),
    "longhaul memory monday -n 3 --json": (0, '"peak_rss"'),
    "longhaul replay oslo/20": (0, "the same result as in the record"),
    "longhaul replay --pdb lima/20 || true": (1, "(Pdb) []"),
    "longhaul results": (0, "result.mean"),
    "longhaul results --format csv -o monday.csv": (0, "monday.csv"),
    "longhaul results monday latest --format jsonl": (0, '"experiment":"monday"'),
    "longhaul results night --columns job,mean --sort mean": (0, "result.mean"),
    "longhaul rm monday --yes": (0, "removed monday"),
}


def test_its_commands_do_what_it_says(tmp_path: Path) -> None:
    (script,) = blocks(PAGE, "python")
    (tmp_path / str(script.file)).write_text(script.text)
    told = {}
    for words in commands(PAGE):
        rest = words[1 : words.index("||")] if "||" in words else words[1:]
        if words[0] == "longhaul" and rest[0] != "replay":
            told[" ".join(words)] = longhaul(tmp_path, *rest)
            continue
        program = ["-m", "supervisor"] if words[0] == "longhaul" else []
        done = subprocess.run(
            [sys.executable, *program, *rest],
            cwd=tmp_path,
            input="p rows\nq\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        told[" ".join(words)] = done.returncode, done.stdout + done.stderr
    assert told.keys() == EXPECTED.keys()
    for words, (code, text) in EXPECTED.items():
        assert told[words][0] == code, (words, told[words])
        assert text in told[words][1], (words, told[words])
    assert (tmp_path / "monday.csv").read_text().startswith("job,domain,state")
    assert not list((tmp_path / "data" / "outputs" / "night").glob("**/*monday*"))


def test_the_readme_leads_there_and_a_page_names_every_command() -> None:
    assert "(docs/the-morning-after.md)" in prose(README)
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"longhaul {name}" not in text] == []
