"""What jobs of some microseconds print is theirs, though their worker asks for it as rarely as it can."""

from __future__ import annotations

from tests.experiment_fixture import Experiment
from tests.failures.observing import write

PRINTS = """
    import ctypes, os, sys

    LIBC = ctypes.CDLL(None)
    WAYS = {
        "silent": lambda text: None,
        "print": print,
        "part_of_a_line": lambda text: print(text, end=""),
        "to_stderr": lambda text: sys.stderr.write(text),
        "bytes": lambda text: sys.stdout.buffer.write(text.encode()),
        "to_the_descriptor": lambda text: os.write(1, text.encode()),
        "from_c": lambda text: LIBC.puts(text.encode()),
        "part_of_a_line_from_c": lambda text: LIBC.printf(b"%s", text.encode()),
    }

    def jobs():
        for number in range(150):
            for way in WAYS:
                yield Job(id=f"{way}-{number}", params={"way": way, "text": f"{way} {number}"})

    def evaluate(way, text):
        WAYS[way](text)

    if __name__ == "__main__":
        main(evaluate, jobs, name="prints", workers=1, all_tasks=True)
"""


def test_each_tiny_job_has_exactly_what_it_printed_in_its_log(experiment: Experiment) -> None:
    write(experiment, PRINTS)
    done = experiment.run()
    assert done.returncode == 0, done.stderr
    folder = experiment.output / experiment.experiment_id() / "output"
    logs = {path.stem: path.read_text().strip() for path in folder.iterdir()}
    assert len(logs) == 150 * 7
    assert {job: text for job, text in logs.items() if text != job.replace("-", " ")} == {}
