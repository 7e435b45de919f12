"""Scripts are sent without comments and spaces, and do what they did."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.page.squeezing import squeezed, squeezed_style


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a = b + 1; // why\n", "a=b+1;"),
        ("/** @param {string} a */\nf(a, {\n  b: 1,\n});\n", "f(a,{b:1});"),
        ("if (a) {\n  b();\n}\nc();\n", "if(a){b()}\nc();"),
        ("  const a = 1;\n  const b = 2;\n  const c = 3;\n", "const a=1,b=2,c=3;"),
        ("  const a = 1;\n    const b = 2;\n", "const a=1;const b=2;"),
        ('return (one) => one ?? "a , b";', 'return(one)=>one??"a , b";'),
        ('return `a , ${b + (c ? `, ${d [0]} ; ` : "")} x`;', 'return`a , ${b+(c?`, ${d[0]} ; `:"")} x`;'),
        ('s.replace(/ , "/g, " ");', 's.replace(/ , "/g," ");'),
        ('x = a / b / c; // and "not a text\n', "x=a/b/c;"),
        ("s = 'http://x'; t = \"it's // no comment\";", "s='http://x';t=\"it's // no comment\";"),
        ("x = a - -b + +c;", "x=a - -b + +c;"),
        ("a\n  .map(f)\n", "a\n.map(f)"),
        ("a - b + c - d", "a-b+c-d"),
        ("f(0.5, 10.5, a[0].b)", "f(.5,10.5,a[0].b)"),
        ("f((one) => g);", "f(one=>g);"),
    ],
)
def test_only_what_has_no_meaning_goes(code: str, expected: str) -> None:
    assert squeezed(code) == expected


def test_a_style_keeps_its_meaning() -> None:
    text = "/* why */\na:hover b, c > d { margin: 0 calc(0.5px + 2px); }\n"
    text += "@media (max-width: 4rem) {\n  e { top: 0; }\n}\n"
    assert squeezed_style(text) == "a:hover b,c>d{margin:0 calc(.5px + 2px)}@media (max-width:4rem){e{top:0}}"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_it_says_the_same(tmp_path: Path) -> None:
    code = """
const rows = [1, 2.5, null];
const words = (value) => `<${value === null ? `none, ${"a  b"}` : `${value / 2 / 1} { ; } `}>`; // `with` "quotes'
let said = "";
for (const row of rows) {
  const one = words(row);
  const two = one.replace(/[ ,;]/g, (found) => (found === "," ? " , " : "_"));
  said += typeof two + two
    .trim();
}
console.log(said, rows.length - -1, !/ [/] /.test("x"));
"""
    said = []
    for text in (code, squeezed(code)):
        path = tmp_path / "said.mjs"
        path.write_text(text, encoding="utf-8")
        said.append(subprocess.run(["node", path], capture_output=True, text=True, check=True).stdout)
    assert said[0] == said[1]
    assert len(squeezed(code)) < 0.9 * len(code)
