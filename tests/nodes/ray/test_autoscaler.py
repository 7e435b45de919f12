"""Ray's own autoscaler, with a provider of Ray's that starts its nodes on the same host: what a run lacks makes it add
some, and it takes them away when the run is over."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psutil
import pytest

from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.nodes.execution_log import WATCHED, executions
from tests.nodes.hosts import Host, needs_hosts, switch
from tests.nodes.ray.conftest import HAS_RAY, start_ray

pytestmark = [pytest.mark.needs_ray, needs_hosts()]

SCRIPT = (
    WATCHED
    + """
def jobs():
    for number in range(3):
        yield Job(id=f"job/{number}", params={"number": number})

def evaluate(number):
    with watched():
        while not Path(LOG).with_name("gate").exists():
            time.sleep(0.01)
    return number

if __name__ == "__main__":
    main(evaluate, jobs, name="autoscaled", workers=3, all_tasks=True)
"""
)
_HEAD, _ADDED = "ray.head.default", "one-cpu"
_NOTHING = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
)
CONFIG = {
    "cluster_name": "autoscaled",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        _HEAD: {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        _ADDED: {
            "resources": {"CPU": 1, "object_store_memory": 80_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    "head_node_type": _HEAD,
    "file_mounts_sync_continuously": False,
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{key: [] for key in _NOTHING},
}


@pytest.fixture
def host() -> Iterator[Host]:
    if not HAS_RAY:
        pytest.skip("Ray is not installed")
    with switch() as made:
        yield made.host()


def raylets(host: Host) -> int:
    names = [psutil.Process(pid).name() for pid in host.processes()]
    return names.count("raylet")


def test_the_autoscaler_adds_nodes_for_a_run_and_takes_them_away_after_it(
    experiment: Experiment, host: Host
) -> None:
    config = experiment.folder / "autoscaler.yaml"
    config.write_text(json.dumps(CONFIG))  # JSON is YAML
    options = ("--head", "--port=6379", "--num-cpus=1", "--include-dashboard=false")
    start_ray(
        host,
        *options,
        "--object-store-memory=80000000",
        f"--autoscaling-config={config}",
        RAY_FAKE_CLUSTER="1",
        AUTOSCALER_UPDATE_INTERVAL_S="1",
    )
    assert raylets(host) == 1
    experiment.write(SCRIPT)
    wrapper = host.entered(experiment.folder)
    supervisor = experiment.start("--engine", "ray", "--address", f"{host.address}:6379", wrapper=wrapper)
    wait_for(lambda: len(executions(experiment)) == 3, "a job on each of two nodes that were added")
    assert raylets(host) == 3
    experiment.folder.joinpath("gate").touch()
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    assert "nodes: 3 joined" in err
    wait_for(lambda: raylets(host) == 1, "the nodes that were added to be taken away")
