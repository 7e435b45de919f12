"""A run on this machine alone knows nothing of nodes."""

from __future__ import annotations

from tests.experiment_fixture import Experiment

SCRIPT = """
    import sys

    def jobs():
        yield Job(id="one")

    def evaluate():
        return [name for name in sys.modules if name.startswith("supervisor.nodes")]

    def finish(report):
        print([name for name in sys.modules if name.startswith("supervisor.nodes")])

    if __name__ == "__main__":
        main(evaluate, jobs, name="alone", finish=finish)
"""


def test_nothing_of_this_room_is_imported(experiment: Experiment) -> None:
    experiment.write(SCRIPT)
    run = experiment.run()
    assert run.returncode == 0, run.stderr
    assert run.stdout == "[]\n"
    assert experiment.final()["one"]["result"] == []
    assert experiment.journal()[1]["settings"].pop("nodes") is None  # as remembered as any other setting
    assert "nodes" not in experiment.journal()[1]
    written = experiment.path("journal").read_text() + experiment.path("progress").read_text()
    assert '"place"' not in written and '"nodes": [' not in written and '"heard_age"' not in written
    assert "place" not in experiment.final()["one"]
