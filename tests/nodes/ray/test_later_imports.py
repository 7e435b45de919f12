"""Modules that are loaded when something of them is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from supervisor.nodes.ray.later_imports import RARELY_USED, import_later

PACKAGE = {
    "__init__.py": "import sys\nsys.loads_of_seldom = getattr(sys, 'loads_of_seldom', 0) + 1\n"
    "from seldom.part import inside\nvalue = 7\n",
    "part.py": "inside = 8\n",
}


@pytest.fixture
def seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package that was imported, twice, and not used."""
    folder = tmp_path / "seldom"
    folder.mkdir()
    for name, text in PACKAGE.items():
        folder.joinpath(name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "loads_of_seldom", 0, raising=False)
    import_later(["seldom"])
    import_module("seldom")
    yield import_module("seldom")
    for name in [name for name in sys.modules if name.partition(".")[0] == "seldom"]:
        del sys.modules[name]


def loads() -> int:
    return int(sys.loads_of_seldom)  # type: ignore[attr-defined]


def test_it_is_loaded_once_when_something_is_used(seldom: ModuleType) -> None:
    assert not hasattr(seldom, "__all__") and loads() == 0
    assert seldom.value == 7 and seldom.inside == 8
    with pytest.raises(AttributeError, match="nothing"):
        seldom.nothing  # noqa: B018
    assert loads() == 1


def test_a_part_of_it_can_be_imported_first(seldom: ModuleType) -> None:
    assert import_module("seldom.part").inside == 8
    assert seldom.value == 7 and loads() == 1


def test_a_module_that_is_not_there_is_not_there(seldom: ModuleType) -> None:
    import_later(["not_there_at_all"])
    with pytest.raises(ModuleNotFoundError):
        import_module("not_there_at_all")


@pytest.mark.needs_ray
def test_a_client_of_ray_uses_none_of_them() -> None:
    script = (
        "import sys\nfrom supervisor.nodes.ray.later_imports import import_later\nimport_later()\nimport ray\n"
        f"print([name for name in {sorted(RARELY_USED)} if '__getattr__' not in vars(sys.modules[name])],"
        " 'urllib3' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "[] False\n"
