"""The files of the page, as they are served: its own, and those that the report has, too."""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from supervisor.page.page_assets import SHARED_STYLES, VENDOR, asset
from supervisor.page.squeezing import squeezed, squeezed_style

# Each is sent as one file, under the name of its last module: the page itself, and what is loaded when it is wanted.
# In the order in which modules need each other; no name stands twice at the top of two modules of a bundle.
BUNDLES = (
    (
        *("words", "elements", "api", "address", "glance", "orders", "log"),
        *("experiments", "overview", "jobs", "failures", "web"),
    ),
    ("time_axis", "lanes", "series", "timeline"),
    ("choices_kept", "results_table", "scatter", "results"),
)
SHARED = ("words", "elements", "choices_kept", "time_axis", "lanes", "series", "results_table", "scatter")
OWN = tuple(name for bundle in BUNDLES for name in bundle if name not in SHARED)
OWN_STYLE = "web.css"


class PageFile(NamedTuple):
    """packed: the content by gzip, as browsers ask for it."""

    content: bytes
    packed: bytes
    kind: str


_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "LICENSE": "text/plain; charset=utf-8",
}
_IMPORT = re.compile(r'^import \{ ([^}]*) \} from "\./(\w+)\.mjs";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async )?(?:function|const|class) (\w+)", re.MULTILINE)


@cache
def page_files() -> dict[str, PageFile]:
    """By name; there are no other files. Scripts and styles are sent without comments and spaces."""
    texts = {f"{bundle[-1]}.mjs": bundled(bundle) for bundle in BUNDLES}
    texts |= {
        name: asset(f"vendor/{name.partition('/')[2]}")
        for name in (f"vendor/{VENDOR}", "vendor/uPlot.LICENSE")
    }
    styles = [*map(asset, SHARED_STYLES), own_asset(OWN_STYLE)]
    texts |= {OWN_STYLE: "\n".join(map(squeezed_style, styles)), "index.html": own_asset("index.html")}
    return {
        name: PageFile(
            text.encode(), gzip.compress(text.encode(), 9, mtime=0), _KINDS[name.rpartition(".")[2]]
        )
        for name, text in texts.items()
    }


def own_asset(name: str) -> str:
    return files("supervisor.web").joinpath("assets", name).read_text(encoding="utf-8")


def module_text(name: str) -> str:
    return asset(f"{name}.mjs") if name in SHARED else own_asset(f"{name}.mjs")


@cache
def _across() -> frozenset[tuple[str, str, str]]:
    """What bundles need of each other: the one that imports, the one that exports, the name."""
    home = {name: bundle[-1] for bundle in BUNDLES for name in bundle}
    return frozenset(
        (home[importer], home[module], name)
        for importer in home
        for names, module in _IMPORT.findall(module_text(importer))
        for name in names.split(", ")
        if home[module] != home[importer]
    )


def bundled(bundle: Sequence[str]) -> str:
    """Modules as one, which imports from other bundles, and exports what those import, alone."""
    own = bundle[-1]
    heads = []
    for other in (names[-1] for names in BUNDLES):
        names = sorted(name for to, of, name in _across() if (to, of) == (own, other))
        heads += [f'import{{{",".join(names)}}}from"./{other}.mjs";'] if names else []
    exported = {f"{own}View", *(name for _, of, name in _across() if of == own)}
    text = "\n".join(_IMPORT.sub("", module_text(name)) for name in bundle)
    text = _EXPORT.sub(lambda found: found[0] if found[1] in exported else found[0][7:], text)
    return "\n".join([*heads, squeezed(text)]) + "\n"
