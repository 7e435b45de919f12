"""80 jobs with needs at random, in one experiment that is drained, killed and resumed: what they use, noted from
inside the jobs, is never more than there is."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.whole.test_control import told

# The script notes each process that executes it, and each job when it begins and before it ends, with one write:
# the order of the lines is the order in which it happened.
SCRIPT = """
    def use(**entry):
        entry |= {"pid": os.getpid(), "sees": os.environ.get("CUDA_VISIBLE_DEVICES")}
        file = os.open(os.environ["EXECUTIONS"] + ".use", os.O_WRONLY | os.O_APPEND)
        os.write(file, (json.dumps(entry) + "\\n").encode())
        os.close(file)

    use(what="script")

    def jobs():
        for line in Path("jobs.jsonl").read_text().splitlines():
            job = json.loads(line)
            yield Job(params={"number": job["number"], "seconds": job["seconds"]}, **job["fields"])

    def evaluate(number, seconds):
        job = current_job()
        use(what="begin", job=job.id, cpus=job.cpus, gpus=job.gpus)
        time.sleep(seconds)
        use(what="end", job=job.id)
        return number * number

    if __name__ == "__main__":
        main(evaluate, jobs, name="use", all_tasks=True, grace=60)
"""
JOBS = 80
CORES, FEWER = 5, 3
DEVICES = ("2", "0", "1")
MEMORY = 1200  # MB
RESOURCES = {"license": 2, "api": 1.5}
OFFER = (
    "--memory",
    f"{MEMORY}M",
    "--gpus",
    ",".join(DEVICES),
    "--resource",
    "license=2",
    "--resource",
    "api=1.5",
)

Note = dict[str, Any]


def some_jobs(seed: int) -> dict[str, dict[str, Any]]:
    """The fields of each job, by id. Some say nothing; a few that go last need four cores."""
    rng = random.Random(seed)
    found = {}
    for number in range(JOBS):
        fields: dict[str, Any] = {
            "domain": rng.choice([None, "a", "b"]),
            "priority": rng.choice([0, 0, 1, -1]),
        }
        if rng.random() < 0.75:
            fields["cpus"] = rng.choice([None, 0.5, 1, 1.25, 2, 3, 4])
            fields["memory"] = rng.choice([None, None, "200M", "350M", "500M", "900M"])
            fields["gpus"] = rng.choice([None, None, None, 0, 0.25, 0.5, 1, 2])
            fields["resources"] = rng.choice([{}, {}, {"license": 1}, {"license": 2}, {"api": 0.5}])
        if number % 30 == 0:
            fields |= {"cpus": 4, "priority": -5}
        found[f"job/{number}"] = {key: value for key, value in fields.items() if value not in (None, {})}
    return found


def write(experiment: Experiment, fields: dict[str, dict[str, Any]], seed: int) -> None:
    rng = random.Random(seed)
    lines = [
        {"number": number, "seconds": rng.uniform(0.02, 0.08), "fields": {"id": job_id, **own}}
        for number, (job_id, own) in enumerate(fields.items())
    ]
    (experiment.folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    experiment.write(SCRIPT)


def notes_file(experiment: Experiment) -> Path:
    return Path(f"{experiment.executions_file}.use")


def notes(experiment: Experiment) -> list[Note]:
    return [json.loads(line) for line in notes_file(experiment).read_text().splitlines()]


def ended(experiment: Experiment) -> list[str]:
    return [note["job"] for note in notes(experiment) if note["what"] == "end"]


def start(experiment: Experiment, cores: int, *arguments: str) -> subprocess.Popen[str]:
    wait_for(lambda: not experiment.processes(), "nothing of the run before is left")
    with notes_file(experiment).open("a") as file:
        file.write(json.dumps({"what": "run", "cores": cores}) + "\n")
    return experiment.start(*arguments)


def end(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=PATIENCE)[1]


# ------------------------------------------------------------------------ the checks


def asked(fields: dict[str, Any]) -> Counter[str]:
    """What a job takes of what is counted in one sum each."""
    takes = Counter({"cores": fields.get("cpus", 1), **fields.get("resources", {})})
    takes["memory"] = int(fields.get("memory", "0M").removesuffix("M"))
    return takes


def check_sums(found: list[Note], fields: dict[str, dict[str, Any]]) -> Counter[str]:
    """At no instant do the running jobs take more than there is; the most of everything that was taken."""
    limits: dict[str, float] = {"memory": MEMORY, **RESOURCES}
    running: dict[tuple[str, int], tuple[str, ...]] = {}
    most: Counter[str] = Counter()
    for note in found:
        if note["what"] == "run":
            running.clear()
            limits["cores"] = note["cores"]
        elif note["what"] == "end":
            del running[note["job"], note["pid"]]
        elif note["what"] == "begin":
            running[note["job"], note["pid"]] = tuple(note["gpus"])
            taken: Counter[str] = Counter()
            for (job, _), devices in running.items():
                taken.update(asked(fields[job]))
                taken.update(dict.fromkeys(devices, min(1, fields[job].get("gpus", 0))))
            over = {name: amount for name, amount in taken.items() if amount > limits.get(name, 1) + 1e-9}
            assert not over, f"{over} of {limits} are in use by {list(running)}"
            assert len(running) <= limits["cores"]
            most |= taken
    return most


def check_what_each_sees(found: list[Note], fields: dict[str, dict[str, Any]]) -> None:
    """A job has as many cores and devices as it has asked for, and the variable names these, since before the
    script's first line in its process."""
    sees_at_first = {note["pid"]: note["sees"] for note in reversed(found) if note["what"] == "script"}
    with_devices = set()
    for note in found:
        if note["what"] not in ("begin", "end"):
            continue
        own = fields[note["job"]]
        wanted = own.get("gpus", 0)
        if note["what"] == "begin":
            assert note["cpus"] == own.get("cpus", 1)
            assert len(note["gpus"]) == (wanted if wanted >= 1 or not wanted else 1), note
            assert note["sees"] == ",".join(note["gpus"])
            assert set(note["gpus"]) <= set(DEVICES)
        if wanted:
            assert note["sees"] == sees_at_first[note["pid"]], note
            with_devices.add(note["pid"])
        else:
            assert note["sees"] == ""
    assert (
        with_devices and "" in sees_at_first.values()
    )  # the latter where all other workers were forked from


def test_jobs_never_use_more_than_there_is(experiment: Experiment) -> None:
    seed = 13
    fields = some_jobs(seed)
    write(experiment, fields, seed)
    notes_file(experiment).touch()

    first = start(experiment, CORES, "--workers", str(CORES), *OFFER)
    wait_for(lambda: len(ended(experiment)) >= 10)
    assert "workers: 5 before, 3 from now on" in told(experiment, "workers", str(FEWER))
    wait_for(lambda: len(ended(experiment)) >= 20)
    told(experiment, "workers", str(CORES))
    wait_for(lambda: len(ended(experiment)) >= 35)
    first.send_signal(signal.SIGINT)
    end(first)
    assert first.returncode == -signal.SIGINT

    second = start(experiment, CORES, "--resume", "latest")
    before = len(ended(experiment))
    wait_for(lambda: len(ended(experiment)) >= before + 12)
    second.kill()
    end(second)
    wait_for(lambda: not experiment.processes(), "the workers end")
    recorded, before = set(experiment.completed_in_journal()), len(ended(experiment))

    third = start(experiment, FEWER, "--resume", "latest", "--workers", str(FEWER))
    told_third = end(third)
    assert third.returncode == 75, told_third
    final = experiment.final()
    left = [job for job in final if final[job]["state"] != "completed"]
    assert left == [job for job in left if fields[job].get("cpus", 1) > FEWER] != []
    why = f"job '{left[0]}': asks for 4 cores, but there are 3 (--workers); {len(left) - 1} more jobs cannot run"
    assert told_third.count(why) == 2  # when it begins, and at its end

    last = start(experiment, CORES, "--resume", "latest", "--workers", str(CORES))
    assert (end(last), last.returncode)[1] == 0
    final = experiment.final()
    assert {job: entry["result"] for job, entry in final.items()} == {
        job: number * number for number, job in enumerate(fields)
    }
    found = notes(experiment)
    # What had ended when the supervisor was killed may run again if it was not recorded yet; how much, is chance.
    assert not recorded & set(ended(experiment)[before:])
    most = check_sums(found, fields)
    assert most["cores"] >= 4 and most["license"] == 2 and most["memory"] >= 900
    assert [most[device] for device in DEVICES].count(1) >= 2
    check_what_each_sees(found, fields)
