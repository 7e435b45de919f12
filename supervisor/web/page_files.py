"""The files of the page, as they are served: its own, and those that the report has, too."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from supervisor.page.page_assets import STYLES, VENDOR, asset

SHARED = ("words", "elements", "payload", "time_axis", "lanes", "series", "results_table", "scatter")
OWN = (
    "api",
    "address",
    "orders",
    "glance",
    "experiments",
    "overview",
    "jobs",
    "failures",
    "timeline",
    "results",
    "log",
    "web",
)
OWN_STYLE = "web.css"

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "LICENSE": "text/plain; charset=utf-8",
}
_INDENT = re.compile(r"^[ ]+", re.MULTILINE)
_COMMENT = re.compile(r"^[ ]*(?://[^\n]*|/\*\*.*?\*/)[ ]*\n", re.MULTILINE | re.DOTALL)


@cache
def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and type by name; there are no other files. Comments and indentation of modules are not sent."""
    texts = {f"{name}.mjs": _shortened(asset(f"{name}.mjs")) for name in SHARED}
    texts |= {f"{name}.mjs": _shortened(own_asset(f"{name}.mjs")) for name in OWN}
    texts |= {name: asset(name) for name in STYLES}
    texts |= {
        name: asset(f"vendor/{name.partition('/')[2]}")
        for name in (f"vendor/{VENDOR}", "vendor/uPlot.LICENSE")
    }
    texts |= {name: own_asset(name) for name in (OWN_STYLE, "index.html")}
    return {name: (text.encode(), _KINDS[name.rpartition(".")[2]]) for name, text in texts.items()}


def own_asset(name: str) -> str:
    return files("supervisor.web").joinpath("assets", name).read_text(encoding="utf-8")


def _shortened(text: str) -> str:
    """Without comments that have lines of their own, and without indentation: no text of a module goes over lines."""
    return _INDENT.sub("", _COMMENT.sub("", text))
