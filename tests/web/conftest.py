"""Scripts that run while a page looks at them, and the browser that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.experiment_fixture import experiment as experiment
from tests.page.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("starlette")
    yield from chromium()
