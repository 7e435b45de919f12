"""Jobs that say what they need, in the whole program: refused if they can never run, or left pending and named."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from supervisor.__main__ import main
from tests.experiment_fixture import Experiment, wait_for

SCRIPT = """
    def jobs():
        yield Job(id="small", params={"number": 0})
        yield Job(id="big", params={"number": 1}, @BIG@)
        yield Job(id="other", params={"number": 2}, @OTHER@)

    def evaluate(number):
        note("ran")
        return {"number": number, "devices": os.environ.get("CUDA_VISIBLE_DEVICES")}

    if __name__ == "__main__":
        main(evaluate, jobs, name="needs", all_tasks=True, workers=4)
"""


def text(big: str, other: str = "") -> str:
    return SCRIPT.replace("@BIG@", big).replace("@OTHER@", other)


def write(experiment: Experiment, big: str, other: str = "") -> None:
    experiment.write(text(big, other))


def without_devices(experiment: Experiment, devices: str = "") -> dict[str, str]:
    return {**experiment.environment(), "CUDA_VISIBLE_DEVICES": devices}


CAN_NEVER_RUN = [
    ("cpus=8", [], "job 'big': asks for 8 cores, but there are 4 (--workers)."),
    ("cpus=8", ["--workers", "2"], "job 'big': asks for 8 cores, but there are 2 (--workers)."),
    ("memory='3G'", ["--memory", "2G"], "job 'big': asks for 3G of memory, but there is 2G (--memory)."),
    ("gpus=2", ["--gpus", "7,"], "job 'big': asks for 2 GPUs, but there is 1 (--gpus)."),
    ("gpus=0.5", ["--gpus", "none"], "job 'big': asks for 0.5 of a GPU, but there is none (--gpus)."),
    (
        "gpus=1",
        [],
        (
            "job 'big': asks for 1 GPU, but there is none (--gpus). "
            "--gpus auto: found no GPU (CUDA_VISIBLE_DEVICES=)."
        ),
    ),
    ("gpus=0", ["--gpus", "1"], "--gpus 1: found no GPU (CUDA_VISIBLE_DEVICES=)."),
    (
        "resources={'license': 1}",
        ["--resource", "disk=1"],
        "job 'big': asks for license=1, but there is none (--resource license=N; offered: disk).",
    ),
    (
        "cpus=1",
        ["--job-cpus", "5"],
        "job 'small': asks for 5 cores, but there are 4 (--workers); 1 more job ",
    ),
    ("cpus=-1", [], "job 'big': cpus=-1: expected a number of 0.001 or more"),
    ("gpus=1.5", [], "job 'big': gpus=1.5: expected a whole number of GPUs, or less than 1 for a share"),
]


def test_what_can_never_run_is_refused_and_nothing_is_made(experiment: Experiment) -> None:
    scripts = [text(big) for big, _, _ in CAN_NEVER_RUN]
    answers = experiment.refused(
        (arguments for _, arguments, _ in CAN_NEVER_RUN), scripts, CUDA_VISIBLE_DEVICES=""
    )
    for (_, _, told), done in zip(CAN_NEVER_RUN, answers, strict=True):
        assert (done.returncode, done.made) == (2, False), done.stderr
        assert done.stderr.startswith(f"error: {told}") and done.stderr.count("\n") == 1
    assert not experiment.executions()


def test_a_job_that_is_not_chosen_is_not_looked_at(experiment: Experiment) -> None:
    write(experiment, "cpus=8", "cpus=4")
    done = experiment.run("--only", "small", "--only", "other")
    assert done.returncode == 0, done.stderr
    assert sorted(experiment.executions()) == ["other", "small"]


def test_on_a_resume_what_does_not_fit_any_more_stays_pending_and_is_named(experiment: Experiment) -> None:
    write(experiment, "cpus=4", "cpus=3, memory='20M'")
    done = experiment.run("--only", "small", "--on-finish", "echo finish >> hooks")
    assert done.returncode == 0, done.stderr
    again = experiment.run("--resume", "latest", "--workers", "2", "--on-failure", "echo failure >> hooks")
    assert again.returncode == 75, again.stderr
    why = "job 'big': asks for 4 cores, but there are 2 (--workers); 1 more job cannot run either"
    assert f"warning: {why}: left pending\n" in again.stderr
    assert f"\n  left pending: {why}. Offer more when you resume\n" in again.stderr
    assert ": unfinished after" in again.stderr
    assert "1 completed, 0 failed, 0 in progress, 2 pending" in again.stderr
    assert "\n  resume: " in again.stderr
    ended = [record for record in experiment.journal() if record["type"] == "run_ended"]
    assert (ended[-1]["state"], ended[-1]["exit_code"]) == ("unfinished", 75)
    assert (experiment.folder / "hooks").read_text() == "finish\nfailure\n"
    third = experiment.run("--resume", "latest", "--workers", "3")
    assert third.returncode == 75, third.stderr
    assert "job 'big': asks for 4 cores, but there are 3 (--workers): left pending" in third.stderr
    assert experiment.final()["other"]["state"] == "completed"
    last = experiment.run("--resume", "latest", "--workers", "4")
    assert last.returncode == 0, last.stderr
    assert sorted(experiment.executions()) == ["big", "other", "small"]


def test_another_need_of_a_job_is_no_other_job(experiment: Experiment) -> None:
    write(experiment, "cpus=4")
    assert experiment.run("--only", "small", "--resource", "license=1").returncode == 0
    write(experiment, "cpus=1, resources={'license': 1}", "memory=20 << 20")
    again = experiment.run("--resume", "latest")
    assert again.returncode == 0, again.stderr
    assert sorted(experiment.executions()) == ["big", "other", "small"]
    lines = {line["id"]: line for line in map(json.loads, experiment.path("plan").read_text().splitlines())}
    assert lines["big"]["needs"] == {"cpus": 1, "resources": {"license": 1}}
    assert lines["other"]["needs"] == {"memory": 20 << 20}
    assert "needs" not in lines["small"]
    assert experiment.checkpoint()["settings"]["resources"] == {"license": 1}


def test_the_first_run_has_what_is_offered(experiment: Experiment) -> None:
    write(experiment, "gpus=1, memory='20M'", "resources={'license': 0.5}")
    env = without_devices(experiment, "GPU-a")
    done = experiment.run("--resource", "license=1", env=env)
    assert done.returncode == 0, done.stderr
    devices = {job: entry["result"]["devices"] for job, entry in experiment.final().items()}
    assert devices == {"small": "", "big": "GPU-a", "other": ""}


def test_devices_are_those_of_this_run(experiment: Experiment) -> None:
    """`auto` is worked out anew; what is counted and gone is said, and the jobs that need it wait."""
    write(experiment, "gpus=2", "gpus=1")
    env = without_devices(experiment, "GPU-a,GPU-b,GPU-c")
    done = experiment.run("--only", "small", "--gpus", "2", env=env)
    assert done.returncode == 0, done.stderr
    env = without_devices(experiment, "GPU-d")
    refused = experiment.run("--resume", "latest", "--gpus", "2", env=env)
    assert refused.returncode == 2, refused.stderr
    assert "error: --gpus 2: found 1 GPU (CUDA_VISIBLE_DEVICES=GPU-d). " in refused.stderr
    again = experiment.run("--resume", "latest", env=env)
    assert again.returncode == 75, again.stderr
    assert "warning: --gpus 2: found 1 GPU (CUDA_VISIBLE_DEVICES=GPU-d)\n" in again.stderr
    assert "job 'big': asks for 2 GPUs, but there is 1 (--gpus): left pending" in again.stderr
    assert experiment.final()["other"]["result"]["devices"] == "GPU-d"
    last = experiment.run("--resume", "latest", "--gpus", "auto", env=without_devices(experiment, "x,y,z"))
    assert last.returncode == 0, last.stderr
    assert experiment.final()["big"]["result"]["devices"] == "x,y"


def test_after_an_order_for_fewer_workers_what_does_not_fit_is_named_and_left(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    write(experiment, "cpus=4, priority=-1")
    gate = experiment.folder / "gate"
    experiment.script.write_text(
        experiment.script.read_text().replace(
            'note("ran")',
            'note("began")\n    while not Path("gate").exists(): time.sleep(0.01)\n    note("ran")',
        )
    )
    process = experiment.start()
    wait_for(lambda: len(experiment.executions("began")) == 2)
    assert main(["ctl", "workers", "2", "-d", str(experiment.output)]) == 0
    left = "Left pending: job 'big': asks for 4 cores, but there are 2 (--workers)"
    assert left in capsys.readouterr().out
    gate.touch()
    _, said = process.communicate()
    assert process.returncode == 75, said
    assert "left pending: job 'big': asks for 4 cores, but there are 2 (--workers)" in said
    again = experiment.run("--resume", "latest")
    assert again.returncode == 0, again.stderr
    assert sorted(experiment.executions()) == ["big", "other", "small"]


WAITS = """
    def jobs():
        yield Job(id="first", params={})
        yield Job(id="big", params={}, cpus=2, memory="20M", resources={"license": 1})
        for number in range(3):
            yield Job(id=f"small/{number}", params={})

    def evaluate():
        note("began")
        while not Path("gate").exists() and not (current_job().id.startswith("small") and Path("side").exists()):
            time.sleep(0.01)
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    if __name__ == "__main__":
        main(evaluate, jobs, name="needs", all_tasks=True, workers=2, resources={"license": 2})
"""


def test_what_jobs_take_and_wait_for_is_seen_while_they_run_and_afterwards(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment.write(WAITS)
    process = experiment.start("--memory", "1G")
    (
        experiment.folder / "side"
    ).touch()  # the small ones go ahead of the big one, as many as there are workers

    def needs() -> Any:
        return json.loads(experiment.path("progress").read_text())["needs"]

    seen = {
        "cpus": [1, 2],
        "memory": [0, 1 << 30],
        "resources": {"license": [0, 2]},
        "waiting": {"job": "big", "lacks": "2 cores (1 free)"},
    }
    wait_for(lambda: list(experiment.output.glob("logs/progress_*")) and needs() == seen, "big has a claim")
    assert main(["status", "-d", str(experiment.output)]) == 0
    shown = capsys.readouterr().out
    assert (
        "\n  given: cores 1 of 2, memory 0B of 1.0G, license 0 of 2\n  big waits for 2 cores (1 free)\n"
        in shown
    )
    (experiment.folder / "gate").touch()
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert needs() == {"cpus": [0, 2], "memory": [0, 1 << 30], "resources": {"license": [0, 2]}}
    big, small = experiment.final()["big"], experiment.final()["small/1"]
    asked = {"memory": 20 << 20, "resources": {"license": 1}}
    assert (big["needs"], big["given"]) == ({"cpus": 2, **asked}, {"cpus": 2, **asked})
    assert "needs" not in small and "given" not in small
    directory = str(experiment.output)
    assert main(["show", "big", "-d", directory]) == 0
    words = "2 cores, 20M of memory, license=1"
    lines = capsys.readouterr().out.splitlines()
    assert f"needs    {words}" in lines and any(line.endswith(f"  {words}") for line in lines)
    assert main(["show", "small/1", "-d", directory]) == 0
    shown = capsys.readouterr().out
    assert "needs  " not in shown and "given" not in shown
    assert main(["show", "small/1", "--json", "-d", directory]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "needs" not in document and "given" not in document["attempts"][0]
    assert main(["show", "big", "--json", "-d", directory]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["needs"], document["attempts"][0]["given"]) == (big["needs"], big["given"])
    assert main(["verify", "-d", directory]) == 0
    assert "final files good" in capsys.readouterr().out


def test_what_was_given_to_all_jobs_is_in_the_final_file_of_a_run_that_keeps_nothing_else(
    experiment: Experiment,
) -> None:
    write(experiment, "")
    done = experiment.run("--no-resume", "--job-cpus", "2", "--job-memory", "30M")
    assert done.returncode == 0, done.stderr
    (path,) = experiment.output.glob("*/logs_final.json")
    for entry in json.loads(path.read_text()):
        assert entry["given"] == {"cpus": 2, "memory": 30 << 20} and "needs" not in entry


def test_in_the_debugger_a_job_finds_what_it_asks_for(experiment: Experiment) -> None:
    write(experiment, "cpus=99, gpus=2", "cpus=0.5")
    experiment.script.write_text(
        experiment.script.read_text().replace(
            'return {"number"', 'return {"job": [current_job().cpus, current_job().gpus], "number"'
        )
    )
    done = experiment.run("--debug", "*", env=without_devices(experiment, "GPU-a,GPU-b,GPU-c"))
    assert done.returncode == 0, done.stderr
    assert 'big: {"job":[99,["GPU-a","GPU-b"]],"number":1,"devices":"GPU-a,GPU-b"}' in done.stderr
    assert 'other: {"job":[0.5,[]],"number":2,"devices":""}' in done.stderr
    assert "it asks for" not in done.stderr
    fewer = experiment.run("--debug", "big", env=without_devices(experiment, "GPU-a"))
    assert fewer.returncode == 0, fewer.stderr
    assert "big: it asks for 2 GPUs, and there is 1 GPU here (--gpus)\n" in fewer.stderr
    assert not experiment.output.exists()


def test_a_replay_finds_what_the_job_asks_for(experiment: Experiment) -> None:
    write(experiment, "cpus=3, gpus=1", "memory='20M'")
    experiment.script.write_text(
        experiment.script.read_text().replace(
            'return {"number"',
            'return {"job": [current_job().cpus, current_job().gpus, os.environ["OMP_NUM_THREADS"]], "number"',
        )
    )
    env = without_devices(experiment, "GPU-a,GPU-b")
    env.pop("OMP_NUM_THREADS", None)
    assert experiment.run(env=env).returncode == 0
    command = [sys.executable, "-m", "supervisor", "replay", "big", "-d", str(experiment.output)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '{"job":[3,["GPU-a"],"3"],"number":1,"devices":"GPU-a"}' in done.stderr
    assert "the same result as in the record" in done.stderr
