"""The house rules of the imports: arrows go downwards only, and the core does no I/O."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the roof to the cellar. A module may import from its own storey and from those
# below. A module directly in `supervisor/` that is not named here belongs to experiment.
STOREYS = (
    ("cli", {"", "__main__", "cli", "options", "commands"}),  # "" is the package itself, its front door
    ("experiment", {"experiment"}),
    ("loop", {"loop"}),
    ("signals", {"signals", "clock", "control"}),
    ("views", {"views"}),
    ("engines", {"engines"}),
    ("records", {"records"}),
    ("core", {"core"}),
)

PURE = {
    "__future__",
    "array",
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "fnmatch",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "random",
    "re",
    "statistics",
    "typing",
    "zlib",
    "msgspec",
    "supervisor.core",
    "workers.transport.messages",
    "workers.values.json_encoding",
}


def imports_of(source: str, module: str, *, is_package: bool = False) -> list[tuple[int, str]]:
    """Line and full name of everything that a module imports, wherever in it that happens."""
    found = []
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{name}.{alias.name}") for alias in node.names]
    return found


def is_in(name: str, *places: str) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def storey(name: str) -> int:
    """The storey of a name in `supervisor`; 0 is the roof."""
    room = [*name.split("."), ""][1]
    for level, (_, rooms) in enumerate(STOREYS):
        if room in rooms:
            return level
    known = (ROOT / "supervisor" / f"{room}.py").exists() or (ROOT / "supervisor" / room).is_dir()
    return 1 if known else 0  # `from supervisor import Job` goes through the front door


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a module imports and may not, as "module:line imports name: why"."""
    found = []
    for line, name in imports_of(source, module, is_package=is_package):
        why = ""
        if is_in(module, "workers") and is_in(name, "supervisor"):
            why = "workers never import supervisor"
        elif is_in(name, "tests", "tools", "examples"):
            why = "packages do not import what stands beside them"
        elif is_in(module, "supervisor.core") and not is_in(name, *PURE):
            why = "the core is pure; what it needs comes in as a field of an event"
        elif is_in(name, "supervisor") and storey(name) < storey(module):
            why = f"{STOREYS[storey(name)][0]} stands above {STOREYS[storey(module)][0]}"
        if why:
            found.append(f"{module}:{line} imports {name}: {why}")
    return found


def modules() -> list[Path]:
    return sorted(path for package in ("supervisor", "workers") for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_arrows_go_downwards_only() -> None:
    found = []
    for path in modules():
        is_package = path.name == "__init__.py"
        found += violations(path.read_text(encoding="utf-8"), name_of(path), is_package=is_package)
    assert len(modules()) > 20
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("workers.runner", "import supervisor"),
        ("workers.runner", "from supervisor.core.terms.jobs import Job"),
        ("workers.runner", "def f():\n    from supervisor.core.terms import jobs"),
        ("workers.runner", "from tests import something"),
        ("supervisor.core.dispatch.retry_policy", "import os"),
        ("supervisor.core.dispatch.retry_policy", "import time"),
        ("supervisor.core.dispatch.retry_policy", "from pathlib import Path"),
        ("supervisor.core.dispatch.retry_policy", "import logging.handlers"),
        ("supervisor.core.dispatch.retry_policy", "from workers.transport.pipes import Outbox"),
        ("supervisor.core.dispatch.retry_policy", "from supervisor.storage.store import Store"),
        ("supervisor.core.dispatch.retry_policy", "from ..records import store"),
        ("supervisor.storage.store", "from supervisor.engines.local_engine import LocalEngine"),
        ("supervisor.storage.store", "from ..engines.local import LocalEngine"),
        ("supervisor.engines.local_engine", "from supervisor.views import terminal_view as terminal"),
        ("supervisor.views.terminal_view", "import supervisor.run.loop"),
        ("supervisor.views.terminal_view", "from supervisor import Report"),
        ("supervisor.run.loop", "from supervisor.experiment import run"),
        ("supervisor.run.loop", "from supervisor.experiment import planning"),
        ("supervisor.run.execution", "from supervisor.api import main"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("workers.runner", "import os\nfrom workers.transport.pipes import Outbox\nfrom . import messages"),
        (
            "supervisor.core.dispatch.retry_policy",
            "import re\nfrom collections.abc import Iterable\nimport msgspec",
        ),
        (
            "supervisor.core.dispatch.retry_policy",
            "from supervisor.core.terms import events as facts\nfrom .jobs import Job",
        ),
        ("supervisor.core.dispatch.retry_policy", "from workers.transport.messages import Failed"),
        ("supervisor.run.loop", "import os\nfrom supervisor.storage.store import Store"),
        ("supervisor.run.loop", "from supervisor.core.terms import events"),
        ("supervisor.api", "from supervisor.experiment import run"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_a_worker_starts_light() -> None:
    heavy = ("supervisor", "loguru", "rich", "psutil", "numpy", "asyncio", "logging", "cloudpickle")
    program = f"import sys, workers.worker; print([name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


def test_modules_stay_short_enough_to_read() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {name: count for name, count in lines.items() if count > 500} == {}
