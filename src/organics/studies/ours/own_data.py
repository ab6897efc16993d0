"""How well do the defaults for a user's own data learn small data sets?

    python -m organics.studies.ours.own_data

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

from organics.settings import Settings
from organics.studies.harness.outcome import command, run_from_command_line, write
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


@dataclass(frozen=True)
class Config(Settings):
    """Train on each small data set with the defaults."""

    out: Path = Path("runs/own_data")
    """Folder for the files and a folder for each run; complete runs are not repeated."""
    results: Path = Path("results/own_data.json")
    """File for the outcome."""
    sets: tuple[str, ...] = tuple(SETS)
    """Data sets."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the split and of the training."""
    epochs: int = 0
    """Epochs of each run; 0 for the default."""


def compute(config: Config, progress: bool = True) -> dict[str, Any]:
    """Train runs that are not complete; the outcome so far is always in `config.results`."""
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    config.out.mkdir(parents=True, exist_ok=True)
    for name in config.sets:
        path = config.out / f"{name}.npz"
        if not path.exists():
            arrays: Any = SETS[name]()
            np.savez(path, **arrays)
        found = [_run(config, path, seed, progress) for seed in config.seeds]
        rows.append(_row(name, found))
        last = found[-1].report
        summary = {
            "command": command("own_data"),
            "rows": rows,
            **{key: getattr(last, key) for key in ("versions", "device", "platform")},
        }
        write(config.results, summary)
    return summary


@dataclass(frozen=True)
class _Run:
    """A run, and the test score of a linear model; None for sequences."""

    setting: FileConfig
    report: Report | NumbersReport
    linear: float | None


def _run(config: Config, path: Path, seed: int, progress: bool) -> _Run:
    given: dict[str, Any] = {"epochs": config.epochs} if config.epochs else {}
    task = task_of_file(path, seed=seed, **given)
    report = train(task.config, config.out / f"{path.stem}-{seed}", True, progress)
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


if __name__ == "__main__":
    run_from_command_line(compute, Config)
