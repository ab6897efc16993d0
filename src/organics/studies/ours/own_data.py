"""How well do the defaults for a user's own data learn small data sets?

Saves each data set as a file, trains on it as `organics train FILE` does, with no option but the
seed, and tests. Vectors are from scikit-learn, and are also learned by a linear model, on the same
split. Sequences are made here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.runs import where
from organics.training import FileConfig, NumbersReport, Report, train
from organics.training.choices import task_of_file

_Arrays = dict[str, np.ndarray]


def _waves() -> _Arrays:
    """300 sequences of 8 to 60 steps: noisy sines of three frequencies with a random phase, beside
    noise."""
    rng = np.random.default_rng(0)
    count, most = 300, 60
    lengths, kind = rng.integers(8, most + 1, count), rng.integers(3, size=count)
    t = np.arange(most)
    phase = np.array([0.05, 0.12, 0.25])[kind, None] * t + rng.random((count, 1))
    x = np.stack([np.sin(2 * np.pi * phase), 100 * rng.normal(size=(count, most))], axis=-1)
    x[..., 0] += 0.3 * rng.normal(size=(count, most))
    x[t >= lengths[:, None]] = np.nan
    return {"x": x, "y": np.array(["slow", "middle", "fast"])[kind], "lengths": lengths}


def _means() -> _Arrays:
    """400 sequences of 10 to 39 random numbers; the mean of each."""
    arrays = _running_means()
    ends = arrays["lengths"] - 1
    return arrays | {"y": arrays["y"][np.arange(len(ends)), ends]}


def _running_means() -> _Arrays:
    """The same; at every step the mean so far."""
    rng = np.random.default_rng(1)
    lengths, x = rng.integers(10, 40, 400), rng.normal(size=(400, 40, 1))
    y = 100 + 7 * np.cumsum(x, axis=1) / np.arange(1, 41)[:, None]
    return {"x": x, "y": y, "lengths": lengths}


def _of_scikit_learn(name: str) -> Callable[[], _Arrays]:
    def load() -> _Arrays:
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return {"x": x, "y": y}

    return load


SETS: dict[str, Callable[[], _Arrays]] = {
    **{
        name: _of_scikit_learn(name)
        for name in ("iris", "wine", "breast_cancer", "digits", "diabetes")
    },
    "waves": _waves,
    "means": _means,
    "running_means": _running_means,
}


NEAR = 0.02
"""How far below the linear model's accuracy counts as as good, and as a fraction, of its error."""


@dataclass(frozen=True)
class Sample:
    """The runs: one for each data set and seed."""

    sets: tuple[str, ...] = tuple(SETS)
    """Data sets."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the split and of the training."""
    epochs: int = 0
    """Epochs of each run; 0 for the default."""


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `own_data` of the runs, or `own_data-quick`."""
    sample = Sample(seeds=tuple(job.seed + i for i in range(3)))
    quick = Sample(("iris", "waves"), (job.seed,), epochs=2)
    return conclude(measure(quick if job.quick else sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """The scores of all runs; complete runs are not repeated."""
    folder = job.runs[0] / ("own_data-quick" if job.quick else "own_data")
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    reports = []
    for i, name in enumerate(sample.sets):
        job.progress(i / len(sample.sets), name)
        path = folder / f"{name}.npz"
        if not path.exists():
            arrays: Any = SETS[name]()
            np.savez(path, **arrays)
        found = [_run(sample, path, seed) for seed in sample.seeds]
        rows.append(_row(name, found))
        reports.append(found[-1].report)
    return {"rows": rows, **where(reports)}


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the scores; `found` is the result of `measure`."""
    rows = found["rows"]
    checks = [_check(row) for row in rows]
    here = "; ".join(check.here for check in checks)
    columns = ("data set", "steps", "features", "here", "linear model", "guessing")
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in rows]))


def _check(row: dict[str, Any]) -> Check:
    name, here, linear = row["set"], _score(row), row["mean_of_linear_model"]
    if linear is None:  # of sequences, which it cannot learn
        ahead = _is_better(here, row["mean_of_guessing"], row)
        return Check(
            f"{name}: the defaults learn more than the best guess",
            f"{name} {_words(here, row)}, guessing {_words(row['mean_of_guessing'], row)}",
            ahead,
        )
    near = linear - NEAR if "mean_test_accuracy" in row else linear * (1 + NEAR)
    return Check(
        f"{name}: the defaults are as good as a linear model",
        f"{name} {_words(here, row)}, linear {_words(linear, row)}",
        _is_better(here, near, row),
        tolerance=f"{NEAR:.0%} below, or of the error",
    )


def _score(row: dict[str, Any]) -> float:
    return row["mean_test_accuracy" if "mean_test_accuracy" in row else "mean_test_error"]


def _is_better(here: float, other: float, row: dict[str, Any]) -> bool:
    return here >= other if "mean_test_accuracy" in row else here <= other


def _words(value: float, row: dict[str, Any]) -> str:
    return f"{value:.1%}" if "mean_test_accuracy" in row else f"error {value:.3g}"


def _cells(row: dict[str, Any]) -> list[str]:
    linear = row["mean_of_linear_model"]
    return [
        row["set"],
        str(row["steps"] or ""),
        str(row["features"]),
        _words(_score(row), row),
        "" if linear is None else _words(linear, row),
        _words(row["mean_of_guessing"], row),
    ]


@dataclass(frozen=True)
class _Run:
    """A run, and the test score of a linear model; None for sequences."""

    setting: FileConfig
    report: Report | NumbersReport
    linear: float | None


def _run(sample: Sample, path: Path, seed: int) -> _Run:
    given: dict[str, Any] = {"epochs": sample.epochs} if sample.epochs else {}
    task = task_of_file(path, seed=seed, **given)
    report = train(task.config, path.parent / f"{path.stem}-{seed}", True, False)
    return _Run(task.config, report, None if task.config.steps else _linear(task))


def _linear(task: Any) -> float:
    """Test accuracy of logistic regression, or test error of ridge regression."""
    from sklearn.linear_model import LogisticRegression, RidgeCV

    found = task.load()
    parts = found.training, found.validation
    x, y = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y"))
    if task.config.target == "classes":
        model = LogisticRegression(max_iter=10_000).fit(x, y)
        return float(model.score(found.test.x, found.test.y))
    difference = (
        RidgeCV().fit(x, y).predict(found.test.x).reshape(found.test.y.shape) - found.test.y
    )
    return float(np.sqrt(np.mean((difference * np.array(found.preparation.target_scale)) ** 2)))


def _row(name: str, runs: list[_Run]) -> dict[str, Any]:
    setting, first = runs[0].setting, runs[0].report
    key = "test_accuracy" if isinstance(first, Report) else "test_error"
    tested = [getattr(one.report, key) for one in runs]
    linear = [one.linear for one in runs if one.linear is not None]
    guessing = [one.report.test_guessing or 0.0 for one in runs]
    return {
        "set": name,
        "steps": setting.steps,
        "features": setting.features,
        **{key: getattr(setting, key) for key in ("units", "epochs", "batch_size")},
        "seeds": [one.setting.seed for one in runs],
        key: [round(value, 6) for value in tested],
        f"mean_{key}": round(mean(tested), 6),
        "mean_of_linear_model": round(mean(linear), 6) if linear else None,
        "mean_of_guessing": round(mean(guessing), 6),
    }
