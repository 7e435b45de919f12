"""Scripts and styles of pages, as they lie in `assets`: small ES modules, one style sheet, and a library.

A page that is served has them in three pieces (`web/page_files`), a report in one (`bundled`): their import lines
go, and so do the words `export`, which is why no name stands twice at the top of two modules.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import cache
from importlib.resources import files

from supervisor.page.squeezing import squeezed, squeezed_style

# In the order in which they need each other.
MODULES = (
    "words",
    "elements",
    "payload",
    "choices_kept",
    "time_axis",
    "lanes",
    "series",
    "results_table",
    "scatter",
    "report",
)
VENDOR = "uPlot.iife.min.js"
SHARED_STYLES = ("vendor/uPlot.min.css", "page.css")
STYLES = (*SHARED_STYLES, "report.css")

_IMPORT = re.compile(r'^import \{[^}]*\} from "[^"]+";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class)\b)", re.MULTILINE)


@cache
def asset(name: str) -> str:
    """The text of an asset."""
    return files("supervisor.page").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


@cache
def library() -> str:
    """uPlot, as a script of its own, with a comment on whose it is."""
    owner = next(line for line in library_licence().splitlines() if line.startswith("Copyright"))
    code = asset(f"vendor/{VENDOR}").partition("\n")[2].strip()
    return _as_script(f"/* uPlot, MIT licence. {owner} The licence stands at the end of the page. */\n{code}")


def library_licence() -> str:
    return asset("vendor/uPlot.LICENSE")


@cache
def bundled() -> str:
    """All modules, as one script of type `module`."""
    return _as_script(
        squeezed("\n".join(_EXPORT.sub("", _IMPORT.sub("", asset(f"{name}.mjs"))) for name in MODULES))
    )


def _as_script(text: str) -> str:
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script would end its own element")
    return f"\n{text}\n"


@cache
def styles() -> str:
    return "\n" + "\n".join(squeezed_style(asset(name)) for name in STYLES) + "\n"


def source_of(text: str) -> str:
    """How a policy names an inline script or style that it lets through."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
