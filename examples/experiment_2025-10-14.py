"""Which model suits which data? Cross-validation on the data sets that scikit-learn ships.

    python examples/experiment_2025-10-14.py                  one task per data set
    python examples/experiment_2025-10-14.py --all-tasks      all of them
    python examples/experiment_2025-10-14.py --resume latest  go on after Ctrl+C, a crash, a power cut

An experiment is a function and a list of jobs. The function below knows nothing of
processes, files or restarts: whatever happens while it runs, each finished task is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sklearn import datasets, ensemble, linear_model, naive_bayes, neighbors, svm, tree
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from supervisor.api import main
from supervisor.core.terms.jobs import Job
from supervisor.reports.report import Report
from workers.job.current_job import current_job

CLASSIFIERS = {
    "logistic": partial(linear_model.LogisticRegression, max_iter=2000),
    "neighbors": neighbors.KNeighborsClassifier,
    "bayes": naive_bayes.GaussianNB,
    "svm": svm.SVC,
    "tree": tree.DecisionTreeClassifier,
    "forest": ensemble.RandomForestClassifier,
    "boosting": ensemble.HistGradientBoostingClassifier,
}
REGRESSORS = {
    "ridge": linear_model.Ridge,
    "neighbors": neighbors.KNeighborsRegressor,
    "svm": svm.SVR,
    "tree": tree.DecisionTreeRegressor,
    "forest": ensemble.RandomForestRegressor,
    "boosting": ensemble.HistGradientBoostingRegressor,
}
LOADERS = {
    "digits": datasets.load_digits,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "iris": datasets.load_iris,
    "diabetes": datasets.load_diabetes,
    "linnerud": datasets.load_linnerud,
}
REGRESSION = {"diabetes", "linnerud"}  # linnerud has 20 rows: no model beats guessing the mean, R² 0

TASKS = Path(__file__).resolve().parent.parent / "data" / "tasks_2025-10-14.jsonl"


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """One job per line of the task list: its id, its domain, and what `evaluate` is called with."""
    with arguments.tasks.open(encoding="utf-8") as lines:
        for line in lines:
            yield Job(**json.loads(line))


def evaluate(dataset: str, model: str, options: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Score one model on one data set: the mean over `repeats` times five folds.

    The seed depends on the experiment and the job alone, so a task that had to be run again
    after a crash gives the result that it would have given.
    """
    seed = current_job().seed
    regression = dataset in REGRESSION
    estimator = (REGRESSORS if regression else CLASSIFIERS)[model](**options)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=seed)
    folds = (RepeatedKFold if regression else RepeatedStratifiedKFold)(
        n_splits=5, n_repeats=repeats, random_state=seed
    )
    metric = "r2" if regression else "balanced_accuracy"
    data, target = LOADERS[dataset](return_X_y=True)
    scores = cross_val_score(
        make_pipeline(StandardScaler(), estimator),
        data,
        target,
        scoring=metric,
        cv=folds,
        error_score="raise",
    )
    return {"metric": metric, "mean": float(scores.mean()), "sd": float(scores.std()), "folds": len(scores)}


def best_table(report: Report) -> None:
    """Print the best configuration of each domain. Called when the final files are written."""
    best: dict[str, dict[str, Any]] = {}
    tried: dict[str, int] = {}
    for row in report.rows():
        if row["state"] == "completed":
            domain = row["domain"]
            tried[domain] = tried.get(domain, 0) + 1
            if domain not in best or row["result.mean"] > best[domain]["result.mean"]:
                best[domain] = row
    print(f"\n{'domain':<15}{'best configuration':<42}{'metric':<19}{'mean ± sd':<17}{'tried':>5}")
    for domain, row in best.items():
        configuration = row["job"].removeprefix(f"{domain}/")
        score = f"{row['result.mean']:.3f} ± {row['result.sd']:.3f}"
        print(f"{domain:<15}{configuration:<42}{row['result.metric']:<19}{score:<17}{tried[domain]:>5}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--tasks", type=Path, default=TASKS, metavar="FILE", help="the list of tasks")
    main(evaluate, jobs, name="pilot_experiment", parser=options, finish=best_table)
