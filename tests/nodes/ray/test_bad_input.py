"""What is asked for and cannot be: one line, exit code 2, nothing on disk."""

from __future__ import annotations

import os
import socket

import psutil
import pytest

from supervisor.nodes.ray.ray_state import draining_nodes, free_resources, too_old
from tests.experiment_fixture import Experiment
from tests.nodes.ray.conftest import RayNodes

pytestmark = pytest.mark.slow

SCRIPT = """
    def jobs():
        yield Job(id="one")

    def evaluate():
        return 1

    if __name__ == "__main__":
        main(evaluate, jobs, name="refused")
"""
NO_RAY = """
import sys

class NoRay:
    def find_spec(self, name, *_):
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")

sys.meta_path.insert(0, NoRay())
"""
OTHER_VERSION = """
import sys

if any("ray_driver" in word for word in sys.orig_argv):
    import ray
    ray.__version__ = "2.999.3"
"""
TOO_OLD = """
import sys, types

if any("ray_driver" in word for word in sys.orig_argv):
    sys.modules["ray"] = types.ModuleType("ray")
    sys.modules["ray"].__version__ = "2.3.1"
"""
Environment = dict[str, str]


def with_sitecustomize(experiment: Experiment, text: str) -> Environment:
    experiment.folder.joinpath("sitecustomize.py").write_text(text)
    environment = experiment.environment()
    environment["PYTHONPATH"] += os.pathsep + str(experiment.folder)
    return environment


def refused(experiment: Experiment, *arguments: str, env: Environment | None = None) -> str:
    """What is said."""
    experiment.write(SCRIPT)
    run = experiment.run(*arguments, **({} if env is None else {"env": env}))
    assert run.returncode == 2, run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ") and run.stdout == ""
    assert not experiment.output.exists()
    return line


def test_the_extra_is_missing(experiment: Experiment) -> None:
    line = refused(experiment, "--engine", "ray", env=with_sitecustomize(experiment, NO_RAY))
    assert line == "error: --engine ray: Ray is not installed: pip install 'longhaul[ray]'"


def test_the_version_of_ray_is_too_old(experiment: Experiment) -> None:
    line = refused(experiment, "--engine", "ray", env=with_sitecustomize(experiment, TOO_OLD))
    assert line == (
        "error: --engine ray: Ray 2.3.1 is too old, 2.9 or later is needed: "
        "pip install --upgrade 'ray>=2.9' on all nodes"
    )


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("2.8.1", True),
        ("1.13.0", True),
        ("2.9.0", False),
        ("2.60.0", False),
        ("3.0.0.dev0", False),
        ("", False),
    ],
)
def test_which_versions_of_ray_are_too_old(version: str, old: bool) -> None:
    assert bool(too_old(version)) == old


def test_what_is_free_and_what_drains_is_read_of_every_version() -> None:
    class Now:
        def available_resources_per_node(self) -> dict[str, dict[str, float]]:
            return {"a": {"CPU": 2.0}}

        def get_draining_nodes(self) -> dict[str, int]:
            return {"a": 1500}

    class Then:
        def _available_resources_per_node(self) -> dict[str, dict[str, float]]:
            return {"a": {"CPU": 2.0}}

        def get_draining_nodes(self) -> set[str]:
            return {"a"}

    assert free_resources(Now()) == free_resources(Then()) == {"a": {"CPU": 2.0}}
    assert draining_nodes(Now()) == {"a": 1.5}
    assert draining_nodes(Then()) == {"a": 0.0}
    assert draining_nodes(object()) == {}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--engine", "Ray"), "--engine Ray: expected local or ray"),
        (("--engine", "dask"), "--engine dask: expected local or ray"),
        (("--engine", "ray", "--address", "here"), "expected auto, local or HOST:PORT"),
        (("--engine", "ray", "--address", "ray://head:10001"), "expected auto, local or HOST:PORT"),
        (("--engine", "ray", "--address", "head:99999"), "expected auto, local or HOST:PORT"),
        (("--address", "head:6379"), "--address needs --engine ray"),
        (("--engine", "ray", "--nodes", "0"), "expected a whole number, at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_say_nothing(experiment: Experiment, arguments: tuple[str, ...], part: str) -> None:
    assert part in refused(experiment, *arguments)


@pytest.mark.needs_ray
def test_nobody_answers_at_the_address(experiment: Experiment) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused(experiment, "--engine", "ray", "--address", address)
    assert f"no Ray cluster answers at {address} (Connection refused)" in line


@pytest.mark.needs_ray
def test_there_is_no_cluster(experiment: Experiment) -> None:
    if any(process.name() == "gcs_server" for process in psutil.process_iter()):
        pytest.skip("a Ray cluster runs on this machine")
    line = refused(experiment, "--engine", "ray")
    assert "start one with `ray start --head`" in line


@pytest.mark.needs_ray
def test_the_cluster_has_another_version(experiment: Experiment, cluster: RayNodes) -> None:
    line = refused(experiment, *cluster.options, env=with_sitecustomize(experiment, OTHER_VERSION))
    assert "has other versions than this process" in line and "2.999.3" in line


@pytest.mark.needs_ray
def test_a_job_that_no_node_can_ever_run(experiment: Experiment, cluster: RayNodes) -> None:
    """The sum of the cluster does not help."""
    line = refused(experiment, *cluster.options, "--workers", "auto", "--job-cpus", "2")
    assert "asks for 2 cores, but no node has more than 1. Ask for less, or let a larger node join" in line


@pytest.mark.parametrize("last", ["completed", "failed"])
def test_a_resume_with_nothing_left_needs_no_cluster_and_one_with_something_changes_nothing(
    experiment: Experiment, last: str
) -> None:
    script = SCRIPT.replace("return 1", f"return 1 if {last == 'completed'} else 1 / 0")
    experiment.write(script)
    first = experiment.run()
    assert first.returncode == (0 if last == "completed" else 1), first.stderr
    before = experiment.path("journal").read_bytes()
    gone = with_sitecustomize(experiment, NO_RAY)
    ray = ("--resume", "latest", "--engine", "ray")
    for arguments in [(*ray, "--rerun", "*"), *([] if last == "completed" else [ray])]:
        run = experiment.run(*arguments, env=gone)
        assert run.returncode == 2 and "Ray is not installed" in run.stderr
        assert experiment.path("journal").read_bytes() == before
    run = experiment.run(*ray, "--no-retry-failed", env=gone)
    assert run.returncode == first.returncode, run.stderr
    assert "nothing left to run" in run.stderr
    assert experiment.journal()[-1]["type"] == "run_ended"
    run = experiment.run("--resume", "latest", "--engine", "carts", env=gone)
    assert run.returncode == 2 and "expected local or ray" in run.stderr
