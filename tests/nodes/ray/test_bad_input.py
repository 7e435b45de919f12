"""What is asked for and cannot be: one line, exit code 2, nothing on disk."""

from __future__ import annotations

import os
import socket

import psutil
import pytest

from tests.experiment_fixture import Experiment
from tests.nodes.ray.conftest import RayNodes

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
    ray.__version__ = "1.2.3"
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
    assert "has other versions than this process" in line and "1.2.3" in line


@pytest.mark.needs_ray
def test_a_job_that_no_node_can_ever_run(experiment: Experiment, cluster: RayNodes) -> None:
    """The sum of the cluster does not help."""
    line = refused(experiment, *cluster.options, "--workers", "auto", "--job-cpus", "2")
    assert "2 cores" in line
