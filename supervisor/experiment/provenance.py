"""What code and which machine a run was made with; recorded, and compared on resume."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.terms.code_spans import DIGITS
from supervisor.core.terms.settings import Settings
from supervisor.core.terms.version import VERSION
from supervisor.experiment.code_files import known_now, modules_now, version_of
from supervisor.experiment.notebook_code import digests_of, source_of
from supervisor.system.processes import start_time
from supervisor.system.script_start import start_directory
from workers.process.surrogates import encoded_entry, received, sendable
from workers.script.callables import by_name
from workers.script.main_module import main_source
from workers.values.tracebacks import encodable


def seed_changed(before: Any, now: Settings, completed: int) -> list[str]:
    """A warning if the results will have been made with two seeds. `before`: None if it is not known."""
    if not completed or before is None or before == now.seed:
        return []
    text = f"the seed was {before} for the {completed} results so far, and is {now.seed} from here on"
    return [f"{text}; --rerun '*' repeats them"]


GIT_TIMEOUT = 2.0  # seconds; git may be slow on a slow file system, and the commit is not worth the wait


def code_of(
    function: Callable[..., Any],
    before: dict[str, Any] | None = None,
    setup: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """What the results of a run are made by: SHA-256 of the function's module, of its own source and of
    the rest of the module, the other modules of the user's that are imported here, a version of all
    that, git commit and whether the tree was dirty.

    A function whose file is not known (a notebook) is identified by what is sent with it and with
    `setup`: see `notebook_code`. `before`: what the last run of the experiment recorded.
    """
    target = inspect.unwrap(function)
    if _runs_a_program(target):
        return _code_of_command(target, before)
    target = getattr(target, "func", target)  # functools.partial
    found: dict[str, Any] = {"function": getattr(target, "__qualname__", type(target).__qualname__)}
    found["module"] = sendable(str(getattr(target, "__module__", "")))
    path = _file_of(target)
    if path is not None:
        found["file"] = encodable(str(path))
        text, own = path.read_bytes(), source_of(target)
        found["sha256"] = hashlib.sha256(text).hexdigest()
        found["function_sha256"] = hashlib.sha256(own).hexdigest()
        if own in text:
            found["rest_sha256"] = hashlib.sha256(text.replace(own, b"", 1)).hexdigest()
        found.update(_git(path.parent))
    else:
        found["function_sha256"], found["used"] = digests_of(function, target, setup)
        whole = [found["function_sha256"], *chain.from_iterable(found["used"].items())]
        found["sha256"] = hashlib.sha256("\n".join(whole).encode(errors="surrogatepass")).hexdigest()
    here = modules_now("" if path is None else str(path))
    found["modules"], found["late"] = known_now(here, before or {})
    found["version"] = version_of(found["sha256"], found["modules"], found["late"])
    return found


def _runs_a_program(target: Any) -> bool:
    """Whether it is of `longhaul exec` or `program()`. Both import `program_job`; a start of other scripts is 4 ms
    shorter without it."""
    jobs = sys.modules.get("workers.program.program_job")
    return jobs is not None and getattr(target, "func", None) is jobs.run_program


def _code_of_command(function: Any, before: dict[str, Any] | None) -> dict[str, Any]:
    """The code of jobs that are programs: not ours. `before`, if it is not known yet what they are."""
    from workers.program.command_code import code_of_command

    known = code_of_command(function.args[0])
    if known is None:
        return before or {}
    own, files = known[0], {name: digest[:DIGITS] for name, digest in known[1].items()}
    whole = "\n".join([own, *chain.from_iterable(files.items())])
    sha256 = hashlib.sha256(whole.encode()).hexdigest()
    found = {"function": "the command", "module": "", "function_sha256": own, "used": files, "sha256": sha256}
    return {**found, "modules": {}, "late": {}, "version": version_of(sha256, {}, {})}


def entry_of(function: Callable[..., Any], setup: Callable[[], Any] | None) -> dict[str, Any]:
    """What another process needs to call the same functions (`longhaul replay`): where they
    are, by module and name, and what the interpreter was started with. Without `function` only the script
    itself can make them (notebooks, closures)."""
    found: dict[str, Any] = {"executable": sys.executable}
    for role, target in (("function", function), ("setup", setup)):
        spec = by_name(target) if target is not None else None
        if spec is not None:
            found[role] = [spec.module, spec.qualname]
            if spec.constants:
                found[f"{role}_constants"] = msgspec.json.encode(spec.constants).decode()
            if spec.files:  # name and file, one after the other
                found.setdefault("files", []).extend(map(received, chain.from_iterable(spec.files.items())))
    found["main_name"], found["main_path"] = main_source()
    try:
        found["directory"], found["start_directory"] = os.getcwd(), start_directory()
    except OSError:  # deleted
        found["directory"] = None
    found["sys_argv"] = [str(word) for word in sys.argv]
    entries = [entry or found["directory"] or "" for entry in sys.path if isinstance(entry, str)]
    found["sys_path"] = [entry for entry in entries if not _is_pythons_own(entry)]
    return encoded_entry(found)


def _is_pythons_own(entry: str) -> bool:
    """Whether any interpreter of this installation has the entry by itself."""
    return entry.endswith(".zip") or entry.startswith(tuple(sysconfig.get_paths().values()))


def _file_of(target: Any) -> Path | None:
    try:
        path = Path(inspect.getfile(target))
    except TypeError:
        return None
    return path.resolve() if path.is_file() else None


def _git(folder: Path) -> dict[str, Any]:
    status = _ask_git(
        folder, "status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no"
    )
    if status == "":
        return {}
    if status is not None:
        heads = [line for line in status.splitlines() if line.startswith("# ")]
        commit = next((line.split()[2] for line in heads if line.startswith("# branch.oid ")), "")
        # Without a commit yet, it says "(initial)".
        return (
            {"git_commit": commit, "dirty": len(status.splitlines()) > len(heads)} if commit.isalnum() else {}
        )
    commit = _ask_git(folder, "rev-parse", "HEAD") or ""
    return {"git_commit": commit, "dirty": None} if commit else {}


def _ask_git(folder: Path, *arguments: str) -> str | None:
    """The output of git; "" if there is no repository here, None if it took too long or failed."""
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GIT_TIMEOUT,
            start_new_session=True,  # Ctrl+C is for us, not for git
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if answer.returncode == 128:
        return ""
    return answer.stdout.decode(errors="replace").strip() if answer.returncode == 0 else None


def versions() -> dict[str, str]:
    """Python, longhaul and the operating system."""
    # platform.platform() starts a process for a part that it then leaves out.
    system = os.uname()
    return {
        "python": platform.python_version(),
        "longhaul": VERSION,
        "system": f"{system.sysname}-{system.release}-{system.machine}",
    }


def host() -> str:
    return platform.node()


def process_start() -> float:
    """When this process started, as psutil gives it."""
    return start_time(os.getpid())
