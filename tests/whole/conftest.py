"""The fixture of the whole-program tests; it lives in tests/experiment.py."""

from __future__ import annotations

from tests.experiment import Experiment, experiment, wait_for

__all__ = ["Experiment", "experiment", "wait_for"]
