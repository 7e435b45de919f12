"""docs/long-jobs.md: its script is interrupted and goes on, and its limits are those of the code."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

from supervisor.core.dispatch.retry_policy import INTERRUPTED_LIMIT
from supervisor.core.state.worker_state import MOST_METRICS
from tests.docs.conftest import ROOT, blocks, commands
from tests.experiment_fixture import wait_for
from workers.job.current_job import REPORT_EVERY
from workers.job.saved_state import MAX_STATE

PAGE = ROOT / "docs" / "long-jobs.md"


def test_the_script_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    (script,) = blocks(PAGE, "python")
    first = commands(PAGE)[0]
    assert first == ["python", script.file]
    (tmp_path / "train.py").write_text(script.text)
    process = subprocess.Popen(
        [sys.executable, *first[1:]], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    saved = tmp_path / "data" / "outputs" / "train"
    for rate in ("0.5", "0.1"):
        wait_for(lambda r=rate: list(saved.glob(f"*/states/train%2F{r}*")), f"train/{rate} has saved")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, said
    done = subprocess.run(
        [sys.executable, *first[1:], "--resume", "latest"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (final,) = saved.glob("*/logs_final.json")
    entries = json.loads(final.read_text())
    assert [entry["result"]["starts"] for entry in entries] == [2, 2]
    assert [entry["attempts"] for entry in entries] == [2, 2]
    assert not list(saved.glob("*/states"))


def test_the_numbers_are_those_of_the_code() -> None:
    text = re.sub(r"\s+", " ", PAGE.read_text(encoding="utf-8"))
    assert MAX_STATE == 64 << 20 and "At most 64 MB of JSON" in text
    assert INTERRUPTED_LIMIT == 10 and "ten times in one run at most" in text
    assert MOST_METRICS == 32 and "32 of them" in text
    assert REPORT_EVERY == 1.0 and "One report in a second is sent" in text
