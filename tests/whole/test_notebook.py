"""`run()` in a Jupyter notebook: the example is executed, and a kernel is interrupted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.state.snapshot import WaitingJob
from supervisor.core.terms.errors import UsageError
from supervisor.reports.report import load
from supervisor.views.guarded_view import inside_notebook
from supervisor.views.notebook_view import NotebookView
from tests.experiment_fixture import wait_for
from tests.views.made import failure, needs, snapshot, worker

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"

# Deprecations inside of Jupyter's own packages are theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def outputs(notebook: Any) -> list[list[dict[str, Any]]]:
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(cell: list[dict[str, Any]]) -> str:
    return "".join("".join(output.get("data", {}).get("text/plain", "")) for output in cell)


def test_the_example_says_what_it_said_when_it_was_written(surroundings: None, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    pytest.importorskip("pandas", reason="pandas, which the example uses, is not installed")
    kept = outputs(json.loads(NOTEBOOK.read_text()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    now = outputs(notebook)
    assert [[o["output_type"] for o in cell] for cell in now] == [
        [o["output_type"] for o in cell] for cell in kept
    ], "one display, replaced as the run goes on, and nothing on stdout and stderr"
    assert "12 of 12 (100%), 0 failed" in texts(now[1])
    assert "<progress value=" in now[1][0]["data"]["text/html"]
    assert [texts(cell) for cell in now[2:5]] == [texts(cell) for cell in kept[2:5]], "seeded"
    assert texts(now[5]).endswith("True")


def test_the_example_names_no_place_of_the_machine_that_wrote_it() -> None:
    text = NOTEBOOK.read_text()
    assert "/tmp" not in text and "/home" not in text and "/work" not in text


INTERRUPTED = """
import time
from supervisor import Interrupted, Job, run
from workers import current_job

def work(number):
    while number > 0 and not current_job().stopping:
        time.sleep(0.01)
    return number

try:
    run(work, [Job(id=str(n), params={"number": n}) for n in range(4)], name="cut", workers=2)
except Interrupted as stop:
    print("DRAINED", stop.report.counts.completed, stop.report.counts.pending)
"""


@pytest.fixture
def kernel(surroundings: None, tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    manager_module = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed")
    manager, client = manager_module.start_new_kernel(cwd=str(tmp_path), env=dict(os.environ))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_interrupting_the_kernel_drains(kernel: Any, tmp_path: Path) -> None:
    manager, client = kernel
    heard: list[dict[str, Any]] = []
    client.execute(INTERRUPTED)

    def running() -> bool:
        files = list(tmp_path.glob("data/outputs/cut/logs/progress_*.json"))
        return bool(files) and json.loads(files[0].read_text())["counts"]["in_progress"] == 2

    wait_for(running, "two jobs run")
    manager.interrupt_kernel()

    def said() -> bool:
        heard.append(client.get_iopub_msg(timeout=30))
        return bool(heard[-1]["content"].get("text", "").startswith("DRAINED"))

    wait_for(said, "the run says that it has drained")
    # Job 0 and the two that saw the signal are completed, the fourth never began.
    assert heard[-1]["content"]["text"].split() == ["DRAINED", "3", "1"]
    shown = [m["content"]["data"]["text/plain"] for m in heard if m["msg_type"].endswith("display_data")]
    assert any("SIGINT: no new jobs are started" in text for text in shown)


def test_outside_of_jupyter_nothing_of_it_is_imported() -> None:
    assert not inside_notebook()
    assert "IPython" not in sys.modules or not hasattr(sys.modules["IPython"].get_ipython(), "kernel")


def test_the_display_has_bar_workers_and_what_was_said_and_escapes_it() -> None:
    shown: list[tuple[str, str]] = []
    view = NotebookView(lambda html, plain: shown.append((html, plain)))
    view.message("info", "beginning")
    view.failed(failure("<script>", output_tail="last words"))
    over = snapshot(workers=0)
    over.workers = [worker(slot, job="<b>", fraction=0.5) for slot in range(10)]
    view.update(over)
    html, plain = shown[-1]
    assert '<progress value="743" max="2000"' in html
    assert "&lt;script&gt;" in html and "<script>" not in html and "<b>" not in html.replace("<b>pilot", "")
    assert "50% done" in html and "+ 2 more" in html and "last words" in html
    assert "743 of 2,000" in plain and "beginning" in plain
    over.needs = needs(waiting=WaitingJob("<i>", "3 cores (2 free)"))
    view.update(over)
    html, plain = shown[-1]
    assert (
        "(given cores 3.5 of 4, memory 6.0G of 15G, " in plain
        and "&lt;i&gt; waits for 3 cores (2 free)" in html
    )
    assert "2 jobs cannot run: big/9 asks for 8 cores, but there are 4 (--workers)</div>" in html
    for number in range(100):
        view.failed(failure(str(number)))
    view.close(snapshot(state="finished"))
    assert "more failure" in shown[-1][1] and shown[-1][1].count("\n") < 30


def test_a_frame_has_a_row_for_each_job(tmp_path: Path) -> None:
    from supervisor.api import run
    from supervisor.core.terms.jobs import Job

    one = [Job(id="a", params={"obj": [1]})]
    report = run(json.dumps, one, name="frame", output=str(tmp_path), workers=1, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)
        with pytest.raises(UsageError, match="pip install pandas"):
            report.to_frame()
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    with load(tmp_path) as loaded:
        frame = loaded.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["job"]) == ["a"] and list(frame["result"]) == ["[1]"]
