"""Write the task list of the example: twelve tasks for each of six data sets.

    python tools/make_tasks.py > data/tasks_2025-10-14.jsonl

One JSON object per line: `id`, `domain` and `params`, which `evaluate` in
examples/experiment_2025-10-14.py is called with. `repeats` is chosen so that a task takes
between a quarter of a second and about three seconds of one slow core. The first task of
each domain is a quick one: a run without --all-tasks is a pilot of exactly these.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

# (model, options, repeats); repeats of five folds each.
Task = tuple[str, dict[str, Any], int]


def neighbors(repeats: int, *counts: int) -> list[Task]:
    return [
        ("neighbors", {"n_neighbors": count, "weights": weights}, repeats)
        for count in counts
        for weights in ("uniform", "distance")
    ]


def forests(repeats: int, *sizes: int) -> list[Task]:
    return [("forest", {"n_estimators": size}, repeats) for size in sizes]


def svms(repeats: int, *strengths: float) -> list[Task]:
    return [("svm", {"C": strength}, repeats) for strength in strengths]


def logistics(repeats: int, *strengths: float) -> list[Task]:
    return [("logistic", {"C": strength}, repeats) for strength in strengths]


def ridges(repeats: int, *strengths: float) -> list[Task]:
    return [("ridge", {"alpha": strength}, repeats) for strength in strengths]


def bayes(repeats: int, *smoothings: float) -> list[Task]:
    return [("bayes", {"var_smoothing": smoothing}, repeats) for smoothing in smoothings]


def boostings(repeats: int, *sizes: int) -> list[Task]:
    return [("boosting", {"max_iter": size}, repeats) for size in sizes]


def trees(repeats: int, *depths: int) -> list[Task]:
    return [("tree", {"max_depth": depth}, repeats) for depth in depths]


TASKS: dict[str, list[Task]] = {
    "digits": [
        *neighbors(10, 3, 7),
        *svms(3, 1.0, 10.0),
        *logistics(5, 0.01, 0.1),
        *forests(1, 50, 100),
        *trees(5, 10),
        *bayes(20, 1e-2),
    ],
    "wine": [
        *logistics(20, 0.1, 1.0),
        *neighbors(20, 5, 15),
        *svms(20, 1.0, 10.0),
        *forests(2, 50, 200),
        *trees(20, 3),
        *boostings(4, 30),
    ],
    "breast_cancer": [
        *svms(20, 0.1, 1.0, 10.0),
        *logistics(20, 0.1, 1.0),
        *neighbors(20, 5, 15),
        *forests(2, 100),
        *trees(10, 4),
        *boostings(3, 30),
    ],
    "iris": [
        *logistics(20, 0.1, 1.0),
        *neighbors(20, 5, 15),
        *svms(20, 1.0, 10.0),
        *forests(2, 50, 200),
        *trees(20, 3),
        *bayes(20, 1e-9),
    ],
    "diabetes": [
        *ridges(40, 0.1, 10.0, 100.0),
        *neighbors(20, 10, 30),
        *svms(15, 1.0, 10.0),
        *forests(2, 50, 100),
        *boostings(5, 30),
    ],
    "linnerud": [
        *ridges(40, 1.0, 10.0, 100.0),
        *neighbors(40, 3, 7),
        *forests(3, 50, 200),
        *trees(40, 2, 3, 4),
    ],
}


def label(options: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items())


def lines() -> Iterator[str]:
    for domain, tasks in TASKS.items():
        for model, options, repeats in tasks:
            params = {"dataset": domain, "model": model, "options": options, "repeats": repeats}
            yield json.dumps({"id": f"{domain}/{model}/{label(options)}", "domain": domain, "params": params})


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines())
