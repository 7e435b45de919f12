"""What the files of an experiment are to another user: root plays one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """This process as a user who may pass through the folders down to `folder`, and owns nothing there."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    for each in (folder, *folder.parents):
        if each.stat().st_mode & 0o777 == 0o700:
            each.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
