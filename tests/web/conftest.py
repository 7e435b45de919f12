"""Scripts that run while a page looks at them."""

from __future__ import annotations

from tests.experiment_fixture import experiment as experiment
