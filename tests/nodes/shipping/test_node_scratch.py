"""The scratch directory of an agent ends with the agent, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.core.terms.errors import WorkersError
from supervisor.nodes.shipping.node_scratch import NodeScratch, remove_abandoned


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_it_is_removed_at_the_end(tmp_path: Path) -> None:
    scratch = NodeScratch()
    (Path(scratch.path) / "worker-1" / "output").mkdir(parents=True)
    assert Path(scratch.path).parent == tmp_path and os.stat(scratch.path).st_mode & 0o077 == 0
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_may_not_be_changed_are_removed_as_well(tmp_path: Path) -> None:
    scratch = NodeScratch()
    folder = Path(scratch.path) / "worker-1" / "jobs" / "j" / "sealed"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    outside = tmp_path / "outside"
    outside.mkdir(0o755)
    (folder / "link").symlink_to(outside)
    folder.chmod(0o500)
    folder.parent.chmod(0o500)
    scratch.close()
    assert list(tmp_path.iterdir()) == [outside] and outside.stat().st_mode & 0o777 == 0o755


def test_a_node_without_room_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(WorkersError, match=r"no directory for the files of jobs .* TMPDIR says where"):
        NodeScratch()


def test_the_next_agent_removes_what_a_killed_one_has_left_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import os, tempfile; tempfile.tempdir = os.environ['HERE']\n"
        "from supervisor.nodes.shipping.node_scratch import NodeScratch\n"
        "print(NodeScratch().path, flush=True); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "HERE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    ).stdout.strip()
    assert os.path.isdir(killed)
    alive = NodeScratch()
    assert not os.path.exists(killed)
    (tmp_path / "longhaul-node-being-made").mkdir()
    (tmp_path / "other").mkdir()
    remove_abandoned(str(tmp_path))
    assert os.path.isdir(alive.path)
    assert {path.name for path in tmp_path.iterdir()} == {
        Path(alive.path).name,
        "longhaul-node-being-made",
        "other",
    }
    alive.close()
