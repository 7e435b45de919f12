"""Which GPUs are found, and by whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.system.capacity.gpu_devices import listed_devices, usable_devices


def driver(folder: Path, *minors: int, with_files: tuple[int, ...] | None = None) -> tuple[Path, Path]:
    """What a driver lists, and its files in /dev."""
    listed, files = folder / "gpus", folder / "dev"
    listed.mkdir()
    files.mkdir()
    for place, minor in enumerate(minors):
        device = listed / f"0000:{place:02x}:00.0"
        device.mkdir()
        (device / "information").write_text(f"Model: \t NVIDIA X\nDevice Minor: \t {minor}\n")
    for minor in minors if with_files is None else with_files:
        (files / f"nvidia{minor}").touch()
    return listed, files


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0", ("0",)),
        ("2,0", ("2", "0")),
        ("GPU-8932f937, MIG-GPU-1/0/0", ("GPU-8932f937", "MIG-GPU-1/0/0")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("1,-1,2", ("1",)),
        ("1,1", ("1",)),
    ],
)
def test_the_environment_goes_before_the_driver(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    found = usable_devices({"CUDA_VISIBLE_DEVICES": text}, *driver(tmp_path, 0, 1, 2))
    assert (found.names, found.by_driver) == (names, False)
    assert found.found_in == f"CUDA_VISIBLE_DEVICES={text}"


def test_the_driver_lists_indices(tmp_path: Path) -> None:
    found = usable_devices({}, *driver(tmp_path, 1, 0, 2))
    assert (found.names, found.by_driver) == (("0", "1", "2"), True)


def test_devices_whose_files_a_container_does_not_have_are_not_there(tmp_path: Path) -> None:
    assert listed_devices(*driver(tmp_path, 0, 1, 2, with_files=(0, 2))) == 2


def test_without_a_driver_nobody_knows(tmp_path: Path) -> None:
    assert listed_devices(tmp_path / "gpus", tmp_path) is None
    found = usable_devices({}, tmp_path / "gpus", tmp_path)
    assert (found.names, found.by_driver) == ((), False)
    assert found.found_in == "CUDA_VISIBLE_DEVICES is not set, no NVIDIA driver is found"
