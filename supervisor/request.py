"""What the user asks for in one start of the program, before anything is on disk. Pure data."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

import msgspec

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


class Request(msgspec.Struct, kw_only=True):
    """One call of `main` or `run`.

    `settings_now` holds only what was given on this command line, or in this call of `run`;
    `settings_script` the keywords that the script gives `main` as defaults. Both hold parsed
    values of `core.settings.Settings` fields. The user's own options likewise: `options_now`
    were given now, `options_default` are the parser's defaults; both in the JSON form in
    which they are remembered, of which `script_options.namespace` makes what `jobs` gets.
    """

    function: Callable[..., Any]
    jobs: Any
    name: str
    output: str | None = None  # --output, as given
    setup: Callable[[], Any] | None = None
    finish: Callable[..., Any] | None = None
    settings_now: dict[str, Any] = {}
    settings_script: dict[str, Any] = {}
    parser: argparse.ArgumentParser | None = None  # the script's own options
    taken: frozenset[str] = frozenset()  # names of options that are the script's, whatever ours are
    options_now: dict[str, Any] = {}
    options_default: dict[str, Any] = {}
    resume: str | None = None  # an id, "latest", "auto"
    recording: bool = True  # False: --no-resume
    experiment_id: str | None = None
    rerun: list[str] = []  # globs, and code:VERSION
    accept_code: bool = False  # results of earlier code are as good as those of this one
    only: list[str] = []  # globs
    changed: str = "refuse"  # refuse, keep, rerun
    debug: str | None = None  # glob
    show_output: bool = False
    list_checkpoints: bool = False
    detach: bool = False
    started_by: int | None = None  # in the background: where the parent waits for a word
    command_line: list[str] = []  # to build "resume with" commands from (sys.orig_argv)
    arguments: list[str] = []  # of the script, likewise (sys.argv[1:])
    interactive: bool = True  # False for run(): no summary, no process exit
    progress: bool = True  # False: no view at all

    def in_its_words(self, text: str) -> str:
        """A text that names our options, with the names that they have in this script."""
        if not self.taken:
            return text
        from supervisor.script_options import spelled

        return _OPTION.sub(lambda found: spelled(found.group(), self.taken), text)
