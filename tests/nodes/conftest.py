from __future__ import annotations

from tests.experiment_fixture import experiment

__all__ = ["experiment"]
