"""Names from another machine: nothing outside of the directory is touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervisor.system.confined_tree import ConfinedTree, ForbiddenName, leads_inside


@pytest.fixture
def tree(tmp_path: Path) -> ConfinedTree:
    return ConfinedTree(str(tmp_path / "beside"))


def put(tree: ConfinedTree, path: bytes, data: bytes = b"x", mode: int = 0o644) -> None:
    tree.begin_file(path, mode, 10**18)
    tree.write(data)


@pytest.mark.parametrize(
    "name",
    [
        b"../out",
        b"a/../../out",
        b"/tmp/out",
        b"a//b",
        b"",
        b".",
        b"a/.",
        b"a/\0",
        b"..",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tree: ConfinedTree, tmp_path: Path, name: bytes) -> None:
    with pytest.raises(ForbiddenName):
        put(tree, name)
    if name:  # that is the directory itself
        with pytest.raises(ForbiddenName):
            tree.folder(name, 0o755)
    with pytest.raises(ForbiddenName):
        tree.link(name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["beside"]


def test_nothing_is_written_through_a_link(tree: ConfinedTree, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "beside" / "way")
    for path in (b"way/file", b"way"):
        with pytest.raises(OSError, match=r"Not a directory|symbolic links|File exists"):
            put(tree, path)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        tree.folder(b"way/deep", 0o755)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        (b"link", b"file", True),
        (b"a/link", b"../file", True),
        (b"a/link", b"./b/../../file", True),
        (b"link", b"../file", False),
        (b"a/link", b"b/../../../file", False),
        (b"link", b"/etc/passwd", False),
        (b"link", b"", False),
    ],
)
def test_a_link_leads_to_something_in_the_directory(path: bytes, target: bytes, inside: bool) -> None:
    assert leads_inside(path, target) == inside


def test_what_is_moved_joins_what_is_there_and_has_its_modes_and_times(
    tree: ConfinedTree, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (target / "a" / "old").mkdir(parents=True)
    (target / "kept").write_text("kept")
    (target / "file").write_text("old")
    (target / "was folder").mkdir()
    (target / "was link").symlink_to("kept")
    tree.folder(b"", 0o700)
    tree.folder(b"a", 0o550)
    put(tree, b"a/new", mode=0o4640)
    put(tree, b"file", b"new")
    put(tree, b"was folder")
    tree.folder(b"was link", 0o755)
    put(tree, b"was link/inside")
    tree.move_to(str(target))
    assert sorted(path.name for path in target.iterdir()) == ["a", "file", "kept", "was folder", "was link"]
    assert sorted(path.name for path in (target / "a").iterdir()) == ["new", "old"]
    assert (target / "file").read_text() == "new" and (target / "kept").read_text() == "kept"
    assert (target / "was link" / "inside").is_file() and not (target / "was link").is_symlink()
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o550
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert (target / "a" / "new").stat().st_mtime == 1e9
    (target / "a").chmod(0o755)
    tree.discard()
    assert not (tmp_path / "beside").exists()


def test_a_file_cannot_come_twice_and_bytes_need_a_file(tree: ConfinedTree) -> None:
    with pytest.raises(ForbiddenName):
        tree.write(b"x")
    put(tree, b"a")
    with pytest.raises(FileExistsError):
        put(tree, b"a")
