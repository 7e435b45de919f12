"""The fixture of the whole-program tests; it lives in tests/experiment_fixture.py."""

from __future__ import annotations

from tests.experiment_fixture import Experiment, experiment, wait_for

__all__ = ["Experiment", "experiment", "wait_for"]
