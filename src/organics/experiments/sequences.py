r"""The recurrent networks on small sequences: accuracy over seeds, time, gradient norms.

    python -m organics.experiments.sequences
    python -m organics.experiments.sequences --tasks sdigits --epochs 20 --batch-size 64 \
        --results results/sequences_digits.json

Every model has the same task, data, number of units, epochs, batches and schedule, and the learning
rate and constants that were found for it (see `MODELS` and `TUNED`). ORGaNICs are never clipped;
the models whose authors clip gradients are trained with and without. Interrupt and repeat it at
will: what is complete is kept, and a run that was cut off goes on from its last epoch.

Source: after Rawat et al. 2024, Table 2, on images of 14 x 14 pixels.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

import tyro

from organics.atomic import write_atomically
from organics.baselines import TUNED
from organics.training import Diverged, Report, SequenceConfig, train
from organics.training.run_folder import RunFolder

MODELS: dict[str, dict[str, Any]] = {
    "organics": {"recurrent": "identity", "learning_rate": 0.02},
    "organics-fixed": {
        "recurrent": "identity",
        "learning_rate": 0.02,
        "time_constants": "fixed",
    },
    "organics-bounded": {
        "recurrent": "bounded",
        "learning_rate": 0.05,
        "dt_tau_max_y": 0.2,
        "dt_tau_max_a": 0.05,
        "dt_tau_max_gates": 0.8,
    },  # the best of 13 configurations, in the way of `TUNED`
    "organics-semidefinite": {
        "recurrent": "semidefinite",
        "learning_rate": 0.1,
        "dt_tau_max_y": 0.2,
        "dt_tau_max_a": 0.05,
        "dt_tau_max_gates": 0.8,
    },  # the best of 8 configurations, after 4 epochs of the permuted task
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


@dataclass(frozen=True)
class Config:
    """Train the recurrent networks of the paper's Table 2 on shorter sequences."""

    out: Path = Path("runs/sequences")
    """Folder for the folders of the runs."""
    results: Path = Path("results/sequences.json")
    """File for the outcome."""
    tasks: tuple[Literal["smnist", "psmnist", "sdigits"], ...] = ("smnist", "psmnist")
    """Tasks."""
    models: tuple[str, ...] = tuple(MODELS)
    """Rows."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each row for each of these."""
    units: int = 64
    """Units of each network."""
    resize: int = 14
    """Pixels a side of MNIST's images."""
    epochs: int = 6
    """Epochs of each run."""
    batch_size: int = 256
    """Images per step."""

    def __post_init__(self):
        for model in self.models:
            if model not in MODELS:
                raise ValueError(f"`models` must be among {', '.join(MODELS)}, not {model!r}.")


class _Run(NamedTuple):
    """A run that is complete, with its report, or that diverged, at a step."""

    task: str
    model: str
    seed: int
    report: Report | None
    diverged: int | None


def compute(config: Config, progress: bool = True) -> dict[str, Any]:
    """Train what is not complete yet; the outcome so far is always in `config.results`."""
    done: list[_Run] = []
    for seed in config.seeds:  # the outer loop, so that an early end leaves all rows comparable
        for task in config.tasks:
            for model in config.models:
                done.append(_run(config, task, model, seed, progress))
                config.results.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps(_summary(config, done), indent=2) + "\n"
                write_atomically(config.results, text.encode())
    return _summary(config, done)


def _run(config: Config, task: str, model: str, seed: int, progress: bool) -> _Run:
    folder = _folder(config, task, model, seed)
    setting = _setting(config, task, model, seed)
    try:
        report = train(setting, folder, resume=True, progress=progress)
    except Diverged as error:
        return _Run(task, model, seed, None, error.step)
    return _Run(task, model, seed, report, None)


def _setting(config: Config, task: str, model: str, seed: int) -> SequenceConfig:
    shared = {
        "task": task,
        "resize": None if task == "sdigits" else config.resize,
        "units": config.units,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "schedule": "warmup-cosine",
        "seed": seed,
    }
    return SequenceConfig(**(shared | _differing(config, task, model)))


def _differing(config: Config, task: str, model: str) -> dict[str, Any]:
    """What sets the row apart from the others."""
    settings = MODELS[model]
    if "model" not in settings:
        return settings
    recipe = TUNED[settings["model"], _named(config, task)]
    found = {
        "learning_rate": recipe.learning_rate,
        "hyperparameters": recipe.hyperparameters,
    }
    return found | settings


def _folder(config: Config, task: str, model: str, seed: int) -> Path:
    name = _named(config, task).replace("-", "")
    return config.out / f"{name}-{model}-{config.units}-seed{seed}"


def _named(config: Config, task: str) -> str:
    """The task, with the size of its images unless it has but one."""
    return task if task == "sdigits" else f"{task}-{config.resize}"


def _summary(config: Config, done: list[_Run]) -> dict[str, Any]:
    rows = []
    for task in config.tasks:
        for model in config.models:
            group = [run for run in done if (run.task, run.model) == (task, model)]
            if group:
                rows.append(_row(config, task, model, group))
    reports = [run.report for run in done if run.report is not None]
    return {
        "command": " ".join(["python -m organics.experiments.sequences", *sys.argv[1:]]),
        "steps": {task: 64 if task == "sdigits" else config.resize**2 for task in config.tasks},
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "schedule": "warmup-cosine",
        "rows": rows,
        "versions": reports[-1].versions if reports else None,
        "device": reports[-1].device if reports else None,
        "platform": reports[-1].platform if reports else None,
    }


def _row(config: Config, task: str, model: str, group: list[_Run]) -> dict[str, Any]:
    reports = [run.report for run in group if run.report is not None]
    accuracies = [report.test_accuracy for report in reports]
    norms = [_gradient_norms(config, task, model, report.seed) for report in reports]
    return {
        "task": task,
        "model": model,
        "settings": _differing(config, task, model),
        "parameters": reports[0].parameters if reports else None,
        "seeds": [report.seed for report in reports],
        "test_accuracy": [round(accuracy, 6) for accuracy in accuracies],
        "mean_test_accuracy": round(mean(accuracies), 6) if accuracies else None,
        "sd_test_accuracy": round(stdev(accuracies), 6) if len(accuracies) > 1 else None,
        "paper_test_accuracy_784_steps": PAPER.get((model.removesuffix("-clipped"), task)),
        "validation_accuracy": [round(report.validation_accuracy, 6) for report in reports],
        "best_epoch": [report.best_epoch for report in reports],
        "seconds_per_epoch": [round(report.seconds_per_epoch, 2) for report in reports],
        "least_gradient_norm": [min(values) for values in norms],
        "largest_gradient_norm": [max(values) for values in norms],
        "diverged_seeds": [run.seed for run in group if run.report is None],
        "diverged_at_step": [run.diverged for run in group if run.report is None],
    }


def _gradient_norms(config: Config, task: str, model: str, seed: int) -> list[float]:
    """Of every step of a run, before any clipping."""
    lines = RunFolder.open(_folder(config, task, model, seed)).lines("steps.jsonl")
    return [norm for line in lines for norm in line["gradient_norm"]]


def main() -> None:
    """Run the experiment from the command line."""
    json.dump(compute(tyro.cli(Config)), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
