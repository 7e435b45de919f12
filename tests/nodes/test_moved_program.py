"""The paths of a program whose directory was copied."""

from __future__ import annotations

from supervisor.nodes.moved_program import moved
from workers.script.preparation import Preparation, ProgramContext


def context(directory: str | None) -> ProgramContext:
    path = [
        ("text", "/home/me/night"),
        ("text", "/usr/lib/python"),
        ("text", ""),
        ("path", "/home/me/night/p"),
    ]
    argv = [("text", "/home/me/night/exp.py"), ("text", "--data"), ("text", "/home/me/nightly")]
    return ProgramContext(path, argv, directory, {"HOME": "/home/me/night"})


def test_what_is_in_the_directory_is_found_in_the_copy_and_nothing_else_is_touched() -> None:
    program = Preparation(
        start=context("/home/me"),
        now=context("/home/me/night/sub"),
        orig_argv=["python", "exp.py"],
        main_name=None,
        main_path="/home/me/night/exp.py",
        main_text=b"pass",
        modules=["helpers"],
        environment={},
        files={"helpers": "/home/me/night/lib/helpers.py", "other": "/opt/other.py"},
    )
    found = moved(program, "/home/me/night", "/copy")
    assert found.start is not None and found.start.directory == "/copy"
    assert found.now.directory == "/copy/sub"
    assert [text for _, text in found.now.path] == ["/copy", "/usr/lib/python", "", "/home/me/night/p"]
    assert [text for _, text in found.now.argv] == ["/copy/exp.py", "--data", "/home/me/nightly"]
    assert found.main_path == "/copy/exp.py"
    assert found.files == {"helpers": "/copy/lib/helpers.py", "other": "/opt/other.py"}
    assert found.now.environment == {"HOME": "/home/me/night"}
