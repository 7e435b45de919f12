"""The paths of the files of one experiment. Their content is not known here."""

from __future__ import annotations

import os
from pathlib import Path


class Layout:
    """The paths of one experiment under `directory` (data/outputs/<name>), absolute."""

    def __init__(self, directory: Path | str, experiment_id: str) -> None:
        self.directory = Path(os.path.realpath(directory))
        self.experiment_id = experiment_id

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def journal(self) -> Path:
        return self.logs / f"journal_{self.experiment_id}.jsonl"

    @property
    def plan(self) -> Path:
        return self.logs / f"plan_{self.experiment_id}.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.logs / f"checkpoint_{self.experiment_id}.json"

    @property
    def index(self) -> Path:
        return self.logs / f"index_{self.experiment_id}.json"

    @property
    def stretches(self) -> Path:
        return self.logs / f"stretches_{self.experiment_id}.jsonl"

    @property
    def columns(self) -> Path:
        return self.logs / f"jobs_{self.experiment_id}.json"

    @property
    def progress(self) -> Path:
        return self.logs / f"progress_{self.experiment_id}.json"

    @property
    def lock(self) -> Path:
        return self.logs / f"lock_{self.experiment_id}"

    @property
    def console(self) -> Path:
        """The output of a run in the background (--detach)."""
        return self.logs / f"console_{self.experiment_id}.log"

    @property
    def supervisor_log(self) -> Path:
        return self.results_directory / "supervisor.log"

    @property
    def results_directory(self) -> Path:
        return self.directory / self.experiment_id

    @property
    def final(self) -> Path:
        return self.results_directory / "logs_final.json"

    @property
    def statistics(self) -> Path:
        return self.results_directory / "statistics.json"

    @property
    def output_directory(self) -> Path:
        return self.results_directory / "output"

    @property
    def jobs_directory(self) -> Path:
        return self.results_directory / "jobs"

    @property
    def states_directory(self) -> Path:
        return self.results_directory / "states"

    @property
    def from_nodes(self) -> Path:
        """Where files of nodes are put together; gone when no run is going on."""
        return self.results_directory / ".from-nodes"

    @property
    def replaced(self) -> tuple[Path, ...]:
        """The files that are written beside their old version, which they then replace."""
        return (
            self.checkpoint,
            self.columns,
            self.index,
            self.journal,
            self.plan,
            self.progress,
            self.final,
            self.statistics,
        )

    def exists(self) -> bool:
        """Whether there is an experiment with this id, usable or not."""
        return os.path.lexists(self.journal) or os.path.lexists(self.checkpoint)

    def taken(self) -> bool:
        """Whether any file has this id, also results of a run with --no-resume, which a new experiment would
        overwrite."""
        return self.exists() or os.path.lexists(self.results_directory)
