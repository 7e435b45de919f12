"""The house rules of the imports: arrows go downwards only, and the core does no I/O."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the roof to the cellar: a room may import from itself and from rooms that stand below it. Modules
# directly in `supervisor` are the roof, those directly in `workers` the room of that name.
ROOMS = (
    "supervisor",
    "supervisor.exec",
    "supervisor.web",
    "supervisor.commands",
    "supervisor.session",
    "supervisor.experiment",
    "supervisor.experiment.fitting",
    "supervisor.options",
    "supervisor.reports",
    "supervisor.page",
    "supervisor.views",
    "supervisor.control",
    "supervisor.nodes.ray",
    "supervisor.nodes",
    "supervisor.nodes.shipping",
    "supervisor.engines",
    "supervisor.storage",
    "supervisor.storage.recovery",
    "supervisor.storage.checkpoint",
    "supervisor.storage.plan",
    "supervisor.storage.journal",
    "supervisor.storage.files",
    "supervisor.core",
    "supervisor.core.scheduling",
    "supervisor.core.dispatch",
    "supervisor.core.places",
    "supervisor.core.state",
    "supervisor.core.terms",
    "supervisor.system.capacity",
    "supervisor.system",
    "workers",
    "workers.program",
    "workers.script",
    "workers.forking",
    "workers.isolation",
    "workers.job",
    "workers.values",
    "workers.transport",
    "workers.process",
)
# What stands in no room: the packages, the command, the public functions; what a worker process runs.
LOOSE = (
    "supervisor",
    "supervisor.__main__",
    "supervisor.api",
    "workers",
    "workers.worker",
    "workers.runner",
    "workers.zygote",
)
# Neighbours that know nothing of each other, whatever their order.
APART = (
    {"supervisor.commands", "supervisor.session"},
    {"supervisor.views", "supervisor.control", "supervisor.engines", "supervisor.storage"},
    {"supervisor.views", "supervisor.control", "supervisor.nodes", "supervisor.storage"},
)
# Who may enter these rooms.
ENTERED_BY = {
    "supervisor.engines": (
        "supervisor.session",
        "supervisor.nodes",
        "supervisor.nodes.ray",
        "supervisor.nodes.shipping",
        "supervisor",
    ),
    "supervisor.nodes": ("supervisor.session", "supervisor.nodes.ray"),
    "supervisor.nodes.ray": ("supervisor.session", "supervisor"),
    "supervisor.core.scheduling": ("supervisor.session", "supervisor.core.scheduling"),
}
# Who may import Ray: nothing that runs in the supervisor, in an agent or in a worker.
RAY_ENTERED_BY = ("supervisor.nodes.ray.ray_cluster",)
# Who may import what serves a page: runs and workers need nothing of it.
SERVERS = ("starlette", "uvicorn")
SERVERS_ENTERED_BY = "supervisor.web"
# What a worker and the core share.
SHARED_WITH_CORE = "workers.transport.messages"
MOST_MODULES = 13  # of a room; commands, one to a command, may be more

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
    "numbers",
    "operator",
    "random",
    "re",
    "statistics",
    "typing",
    "zlib",
    "msgspec",
    "signal.Signals",
    "unicodedata",
    "supervisor.core",
    SHARED_WITH_CORE,
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


def named_in(source: str) -> list[tuple[int, str]]:
    """Line and name of each of our modules that a string names as a whole: it is imported by that."""
    texts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    names = [(text.lineno, text.value.partition(":")[0]) for text in texts if isinstance(text.value, str)]
    return [
        (line, name) for line, name in names if re.fullmatch(r"\w+(\.\w+)+", name) and name == module_of(name)
    ]


def is_in(name: str, *places: str) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def module_of(name: str) -> str:
    """The module that a name in `supervisor` or `workers` belongs to; "" if it is none of ours."""
    while name.startswith(("supervisor", "workers")):
        path = ROOT / name.replace(".", "/")
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return name
        name = name.rpartition(".")[0]
    return ""


def room_of(module: str) -> str:
    """The room of a module, or of a package the room that it is."""
    is_room = (ROOT / module.replace(".", "/")).is_dir()
    return module if is_room else module.rpartition(".")[0]


def why_not(module: str, name: str) -> str:
    """Why a module may not import a name; "" if it may."""
    if is_in(module, "workers") and is_in(name, "supervisor"):
        return "workers never import supervisor"
    if is_in(name, "ray") and module not in RAY_ENTERED_BY:
        return f"Ray is imported by {' and '.join(RAY_ENTERED_BY)} alone"
    if is_in(name, *SERVERS) and not is_in(module, SERVERS_ENTERED_BY):
        return f"the page's server is imported in {SERVERS_ENTERED_BY} alone"
    if is_in(name, "tests", "tools", "examples"):
        return "packages do not import what stands beside them"
    if is_in(module, "supervisor.core") and not is_in(name, *PURE):
        return "the core is pure; what it needs comes in as a field of an event"
    here, there = room_of(module), room_of(module_of(name))
    if not is_in(name, "supervisor", "workers") or here == there:
        return ""
    if here not in ROOMS or there not in ROOMS:
        return f"no rank names the room {here if here not in ROOMS else there}"
    if ROOMS.index(there) < ROOMS.index(here):
        return f"{there} stands above {here}"
    for place, guests in ENTERED_BY.items():
        if there == place and here not in guests:
            return f"{there} is entered by {' and '.join(guests)} alone"
    for neighbours in APART:
        if ours := [place for place in neighbours if is_in(here, place)]:
            theirs = [place for place in neighbours - set(ours) if is_in(there, place)]
            if theirs:
                return f"{ours[0]} and {theirs[0]} know nothing of each other"
    return ""


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a module imports and may not, as "module:line imports name: why"."""
    names = [*imports_of(source, module, is_package=is_package), *named_in(source)]
    return [
        f"{module}:{line} imports {name}: {why}" for line, name in names if (why := why_not(module, name))
    ]


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
    assert len(modules()) > 100
    assert found == []


def test_every_module_stands_in_a_room_that_has_a_rank() -> None:
    names = [name_of(path) for path in modules()]
    assert {room_of(name) for name in names} == set(ROOMS)
    assert [name for name in names if room_of(name) in ("supervisor", "workers") and name not in LOOSE] == []


def test_every_room_says_what_it_is_for_and_holds_no_more_than_one_can_remember() -> None:
    for room in ROOMS:
        folder = ROOT / room.replace(".", "/")
        assert (
            len(ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or "") > 80
        )
        held = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
        assert len(held) <= MOST_MODULES or room == "supervisor.commands", room


def test_no_name_of_a_module_or_class_stands_twice() -> None:
    modules_by_name, classes = Counter(), Counter()  # type: Counter[str], Counter[str]
    for path in modules():
        if not path.name.startswith("__"):
            modules_by_name[path.stem] += 1
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes.update(node.name for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, times in (modules_by_name + classes).items() if times > 1] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("workers.runner", "import supervisor"),
        ("workers.runner", "from supervisor.core.terms.jobs import Job"),
        ("workers.runner", "def f():\n    from supervisor.core.terms import jobs"),
        ("workers.runner", "from tests import something"),
        ("workers.runner", "import ray"),
        ("supervisor.commands.show", "def f():\n    import uvicorn"),
        ("supervisor.nodes.ray.ray_carrier", "def f():\n    from ray.util import state"),
        ("supervisor.nodes.node_agent", "from supervisor.nodes.ray.ray_carrier import RayCarrier"),
        ("supervisor.core.dispatch.retry_policy", "import os"),
        ("supervisor.core.dispatch.retry_policy", "import time"),
        ("supervisor.core.dispatch.retry_policy", "from pathlib import Path"),
        ("supervisor.core.dispatch.retry_policy", "import logging.handlers"),
        (
            "supervisor.core.dispatch.retry_policy",
            "from workers.transport.supervisor_queues import OutboxReader",
        ),
        ("supervisor.core.dispatch.retry_policy", "from supervisor.storage.store import Store"),
        ("supervisor.core.dispatch.retry_policy", "from ...storage import store"),
        ("supervisor.storage.store", "from supervisor.engines.local_engine import LocalEngine"),
        ("supervisor.storage.store", "from ..engines.local_engine import LocalEngine"),
        ("supervisor.engines.local_engine", "from supervisor.views import terminal_view as terminal"),
        ("supervisor.views.terminal_view", "import supervisor.session.loop"),
        ("supervisor.views.terminal_view", "from supervisor import Report"),
        ("supervisor.views.terminal_view", "from supervisor.storage.store import Store"),
        ("supervisor.experiment.opening", "from supervisor.engines.local_engine import LocalEngine"),
        ("supervisor.experiment.opening", "from supervisor.core.scheduling.scheduler import Scheduler"),
        ("supervisor.system.clock", "NAMES = ['supervisor.session.loop']"),
        ("supervisor.commands.show", "from supervisor.session.outcome import Outcome"),
        ("workers.process.linux", "from workers.transport import frames"),
        ("supervisor.attic.stove", "from supervisor.core.terms.jobs import Job"),
        ("supervisor.experiment.opening", "from supervisor.session.loop import Loop"),
        ("supervisor.storage.files.disk", "from supervisor.storage.journal import journal_file"),
        ("supervisor.session.execution", "from supervisor.api import main"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "workers.runner",
            "import os\nfrom workers.transport.supervisor_queues import OutboxReader\nfrom . import messages",
        ),
        (
            "supervisor.core.dispatch.retry_policy",
            "import re\nfrom collections.abc import Iterable\nimport msgspec",
        ),
        (
            "supervisor.core.dispatch.retry_policy",
            "from supervisor.core.terms import events as facts\nfrom .jobs import Job",
        ),
        ("supervisor.core.dispatch.retry_policy", "from workers.transport.messages import Failed"),
        ("supervisor.session.loop", "import os\nfrom supervisor.storage.store import Store"),
        ("supervisor.session.loop", "from supervisor.core.terms import events"),
        ("supervisor.nodes.ray.ray_cluster", "import ray\nfrom ray.util import state"),
        ("supervisor.api", "from supervisor.session.execution import execute"),
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
