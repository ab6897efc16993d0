"""The recurrent networks on short sequences: accuracy over seeds, time, gradient norms.

MNIST reduced to 14 x 14 pixels, one pixel a step, in raster and in permuted order, and the digits
of 8 x 8 pixels. All models have the same task, data, number of units, epochs, batches and schedule,
and their own tuned learning rate and constants (see `MODELS` and `TUNED`). ORGaNICs are never
clipped; models whose authors clip gradients are trained with and without. Complete runs are kept,
and an interrupted run continues from its last epoch.

Source: after Rawat et al. 2024, Table 2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from organics.baselines import TUNED
from organics.names import TaskName
from organics.plots import BLUE, COLUMN, ORANGE, style
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.protocols import LARGE_STEPS, SMALLER_STEPS
from organics.studies.networks.runs import Run, accuracies, accuracy_in_words, reports, run, where
from organics.training import SequenceConfig
from organics.training.evaluation import input_shape

_FAST = {
    "recurrent": "identity",
    "learning_rate": 0.06,
    **LARGE_STEPS,
}  # best of 4 configurations (permuted task, where a rate of 0.1 is better) and of 2 (raster)
MODELS: dict[str, dict[str, Any]] = {
    "organics": _FAST,
    "organics-fixed": _FAST | {"time_constants": "fixed"},
    "organics-bounded": {
        "recurrent": "bounded",
        "learning_rate": 0.05,
        **SMALLER_STEPS,
    },  # best of 13 configurations, chosen like `TUNED`
    "organics-semidefinite": {
        "recurrent": "semidefinite",
        "learning_rate": 0.1,
        **SMALLER_STEPS,
    },  # best of 8 configurations, after 4 epochs of the permuted task
    "lstm": {"model": "lstm"},
    "lstm-clipped": {"model": "lstm", "clip_norm": 1.0},
    "antisymmetric": {"model": "antisymmetric"},
    "cornn": {"model": "cornn"},
    "lipschitz": {"model": "lipschitz"},
    "lipschitz-clipped": {"model": "lipschitz", "clip_norm": 15.0},
}
"""The settings in which the rows differ; the rest of the comparison models' are `TUNED`."""

PAPER = {
    ("organics", "smnist"): 0.977,
    ("organics", "psmnist"): 0.899,
    ("organics-bounded", "smnist"): 0.977,
    ("organics-bounded", "psmnist"): 0.899,
    ("organics-semidefinite", "smnist"): 0.977,
    ("organics-semidefinite", "psmnist"): 0.899,
    ("organics-fixed", "smnist"): 0.903,
    ("organics-fixed", "psmnist"): 0.803,
    ("lstm", "smnist"): 0.973,
    ("lstm", "psmnist"): 0.926,
    ("antisymmetric", "smnist"): 0.98,
    ("antisymmetric", "psmnist"): 0.958,
    ("cornn", "smnist"): 0.993,
    ("cornn", "psmnist"): 0.966,
    ("lipschitz", "smnist"): 0.994,
    ("lipschitz", "psmnist"): 0.963,
}
"""Test accuracies of the paper's Table 2: on 784 steps, ORGaNICs with 64 units, others with 128."""

NEAR = 0.01
"""How far below the best comparison model an accuracy counts as much."""


class Task(NamedTuple):
    """A task, with the training that all models share.

    Attributes
        name: as in `organics.names`.
        resize: pixels a side of MNIST's images; None for the digits.
        epochs: of each run.
        batch_size: images per step.
    """

    name: TaskName
    resize: int | None
    epochs: int
    batch_size: int

    def __str__(self) -> str:
        return self.name if self.resize is None else f"{self.name}-{self.resize}"


TASKS = (Task("smnist", 14, 6, 256), Task("psmnist", 14, 6, 256), Task("sdigits", None, 20, 64))


@dataclass(frozen=True)
class Rows:
    """The runs: one for each task, model and seed."""

    tasks: tuple[Task, ...] = TASKS
    """Tasks."""
    models: tuple[str, ...] = tuple(MODELS)
    """Names in `MODELS`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds: one run of each model on each task for each."""
    units: int = 64
    """Units of each network."""


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `sequences` of the runs."""
    rows = Rows(seeds=tuple(job.seed + i for i in range(3)))
    digits = TASKS[-1]._replace(epochs=1, batch_size=450)
    quick = Rows((digits,), ("organics", "antisymmetric"), (job.seed,), units=8)
    return conclude(measure(quick if job.quick else rows, job))


def measure(rows: Rows, job: Job) -> dict[str, Any]:
    """The accuracies and gradient norms of each model on each task, over the seeds."""
    done: list[tuple[Task, str, Run]] = []
    todo = list(_in_order(rows))
    for i, (task, model, seed) in enumerate(todo):
        job.progress(i / len(todo), f"{task}, {model}, seed {seed}")
        folder = job.runs[0] / "sequences" / _folder(rows, task, model, seed)
        done.append((task, model, run(_setting(rows, task, model, seed), folder)))
    return {
        "rows": [
            _row(task, model, [one for *what, one in done if what == [task, model]])
            for task in rows.tasks
            for model in rows.models
        ]
    }


def _in_order(rows: Rows) -> Iterator[tuple[Task, str, int]]:
    """Seeds in the outer loop, so that what there is remains comparable if it is interrupted."""
    for seed in rows.seeds:
        for task in rows.tasks:
            for model in rows.models:
                yield task, model, seed


def _setting(rows: Rows, task: Task, model: str, seed: int) -> SequenceConfig:
    shared = {
        "task": task.name,
        "resize": task.resize,
        "units": rows.units,
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "schedule": "warmup-cosine",
        "seed": seed,
    }
    return SequenceConfig(**(shared | _differing(task, model)))


def _differing(task: Task, model: str) -> dict[str, Any]:
    """The settings in which the model differs from the others."""
    settings = MODELS[model]
    if "model" not in settings:
        return settings
    recipe = TUNED[settings["model"], str(task)]
    found = {
        "learning_rate": recipe.learning_rate,
        "hyperparameters": recipe.hyperparameters,
    }
    return found | settings


def _folder(rows: Rows, task: Task, model: str, seed: int) -> Path:
    name = str(task).replace("-", "")
    return Path(f"{name}-{model}-{rows.units}-seed{seed}")


def _row(task: Task, model: str, group: list[Run]) -> dict[str, Any]:
    complete, setting = reports(group), group[0].setting
    norms = [one.gradient_norms() for one in group if one.report is not None]
    lost = [one for one in group if one.report is None]
    return {
        "task": task.name,
        "model": model,
        "steps": input_shape(setting)[0],
        "units": setting.units,
        "epochs": setting.epochs,
        "batch_size": setting.batch_size,
        "schedule": setting.schedule,
        "settings": _differing(task, model),
        "parameters": complete[0].parameters if complete else None,
        **accuracies(complete),
        "paper_test_accuracy_784_steps": PAPER.get((model.removesuffix("-clipped"), task.name)),
        "seconds_per_epoch": [round(report.seconds_per_epoch, 2) for report in complete],
        "least_gradient_norm": [min(values) for values in norms],
        "largest_gradient_norm": [max(values) for values in norms],
        "diverged_seeds": [one.setting.seed for one in lost],
        "diverged_at_step": [one.diverged_at_step for one in lost],
        **where(complete),
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the accuracies; `found` is the result of `measure`."""
    rows = found["rows"]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_task.setdefault(row["task"], []).append(row)
    checks = [check for task, group in by_task.items() for check in _checks(task, group)]
    here = "; ".join(check.here for check in checks if check.decides)
    columns = ("task", "network", "parameters", "test accuracy", "gradient norms",
               "s an epoch")  # fmt: skip
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in rows]))


def _checks(task: str, group: list[dict[str, Any]]) -> list[Check]:
    learned = [row for row in group if row["mean_test_accuracy"] is not None]
    ours = [row for row in learned if row["model"].startswith("organics")]
    theirs = [row for row in learned if not row["model"].startswith("organics")]
    best, other = (max(some, key=_mean, default=None) for some in (ours, theirs))
    words = ", ".join(
        f"{row['model']} {accuracy_in_words(row)}" for row in (best, other) if row is not None
    )
    ahead = None if best is None or other is None else _mean(best) >= _mean(other) - NEAR
    circuits = [row for row in group if row["model"].startswith("organics")]
    lost = sum(len(row["diverged_seeds"]) for row in circuits)
    return [
        Check(
            f"{task}: the best circuits are as accurate as the best comparison model",
            f"{task}: {words}",
            ahead,
            tolerance=f"at most {100 * NEAR:g} point below; means over the seeds",
        ),
        Check(
            f"{task}: no training of circuits, which is never clipped, diverges",
            f"{task}: {lost} of {sum(len(r['seeds']) for r in circuits) + lost} runs diverge",
            lost == 0,
            tolerance="not one",
        ),
    ]


def _mean(row: dict[str, Any]) -> float:
    return row["mean_test_accuracy"]


def _cells(row: dict[str, Any]) -> list[str]:
    name = [f"{row['task']}, {row['steps']} steps", row["model"]]
    if row["mean_test_accuracy"] is None:
        return [*name, "", "every run diverged", "", ""]
    least, largest = min(row["least_gradient_norm"]), max(row["largest_gradient_norm"])
    quickest = f"{min(row['seconds_per_epoch']):.2g}"
    return [
        *name,
        f"{row['parameters']:,}",
        accuracy_in_words(row),
        f"{least:.2g} to {largest:.1f}",
        quickest,
    ]


@style()
def draw(outcome: Outcome) -> Figure:
    """Test accuracy of each network on each task: mean and standard deviation over the seeds.
    Circuits are blue.
    """
    rows = outcome.numbers["rows"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(0.9 + 0.9 * COLUMN * len(tasks) / 1.5, 0.9 + 0.22 * len(models)))
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for ax, task in zip(axes, tasks, strict=True):
        for row in rows:
            if row["task"] == task and row["mean_test_accuracy"] is not None:
                ax.errorbar(
                    100 * _mean(row), models.index(row["model"]),
                    xerr=100 * (row["sd_test_accuracy"] or 0), fmt="D", markersize=4, capsize=2,
                    color=BLUE if row["model"].startswith("organics") else ORANGE,
                )  # fmt: skip
        ax.set(ylim=(len(models) - 0.5, -0.5), xlabel="test accuracy (%)", title=task)
        ax.grid(axis="y", color="0.9", linewidth=0.5)
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(models)), models)
    return figure
