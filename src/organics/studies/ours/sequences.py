r"""The recurrent networks on small sequences: accuracy over seeds, time, gradient norms.

    python -m organics.studies.ours.sequences
    python -m organics.studies.ours.sequences --tasks sdigits --epochs 20 --batch-size 64 \
        --results results/sequences_digits.json

All models have the same task, data, number of units, epochs, batches and schedule, and their own
tuned learning rate and constants (see `MODELS` and `TUNED`). ORGaNICs are never clipped; models
whose authors clip gradients are trained with and without. It can be interrupted and repeated:
complete runs are kept, and an interrupted run continues from its last epoch. Other rows of the
results stay as they are, with their settings and machine.

Source: after Rawat et al. 2024, Table 2, on images of 14 x 14 pixels.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from organics.baselines import TUNED
from organics.names import TaskName
from organics.settings import Settings
from organics.studies.harness.outcome import command, run_from_command_line, write
from organics.studies.networks.runs import Run, accuracies, reports, run, where
from organics.training import SequenceConfig
from organics.training.evaluation import input_shape

_FAST = {
    "recurrent": "identity",
    "learning_rate": 0.06,
    "dt_tau_max_y": 0.6,
    "dt_tau_max_a": 1.0,
    "dt_tau_max_gates": 1.0,
}  # best of 4 configurations (permuted task, where a rate of 0.1 is better) and of 2 (raster)
MODELS: dict[str, dict[str, Any]] = {
    "organics": _FAST,
    "organics-fixed": _FAST | {"time_constants": "fixed"},
    "organics-bounded": {
        "recurrent": "bounded",
        "learning_rate": 0.05,
        "dt_tau_max_y": 0.2,
        "dt_tau_max_a": 0.05,
        "dt_tau_max_gates": 0.8,
    },  # best of 13 configurations, chosen like `TUNED`
    "organics-semidefinite": {
        "recurrent": "semidefinite",
        "learning_rate": 0.1,
        "dt_tau_max_y": 0.2,
        "dt_tau_max_a": 0.05,
        "dt_tau_max_gates": 0.8,
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


_TASKS = get_args(TaskName)


@dataclass(frozen=True)
class Config(Settings):
    """Train the recurrent networks of the paper's Table 2 on shorter sequences."""

    out: Path = Path("runs/sequences")
    """Folder with a folder for each run."""
    results: Path = Path("results/sequences.json")
    """File for the outcome."""
    tasks: tuple[TaskName, ...] = ("smnist", "psmnist")
    """Tasks."""
    models: tuple[str, ...] = tuple(MODELS)
    """Rows of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds: one run of each row for each."""
    units: int = 64
    """Units of each network."""
    resize: int = 14
    """Pixels a side of MNIST's images."""
    epochs: int = 6
    """Epochs of each run."""
    batch_size: int = 256
    """Images per step."""

    def __post_init__(self):
        super().__post_init__()
        for model in self.models:
            if model not in MODELS:
                raise ValueError(f"`models` must be among {', '.join(MODELS)}, not {model!r}.")


def compute(config: Config, progress: bool = True) -> dict[str, Any]:
    """Train runs that are not complete; the outcome so far is always in `config.results`."""
    others, done = _others(config), []
    summary = {"rows": others}
    for seed in config.seeds:  # the outer loop, so that rows stay comparable if it ends early
        for task in config.tasks:
            for model in config.models:
                setting = _setting(config, task, model, seed)
                folder = _folder(config, task, model, seed)
                done.append((task, model, run(setting, folder, progress)))
                summary = _summary(config, done, others)
                write(config.results, summary)
    return summary


def _others(config: Config) -> list[dict[str, Any]]:
    """The existing rows that these settings do not replace."""
    if not config.results.exists():
        return []
    rows = json.loads(config.results.read_text())["rows"]
    return [r for r in rows if r["task"] not in config.tasks or r["model"] not in config.models]


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
    """The settings in which the row differs from the others."""
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
    """The task, with the size of its images if there are several."""
    return task if task == "sdigits" else f"{task}-{config.resize}"


def _summary(
    config: Config, done: list[tuple[str, str, Run]], others: list[dict[str, Any]]
) -> dict[str, Any]:
    rows = list(others)
    for task in config.tasks:
        for model in config.models:
            group = [one for *what, one in done if what == [task, model]]
            if group:
                rows.append(_row(config, task, model, group))
    order = list(MODELS)
    rows.sort(key=lambda row: (_TASKS.index(row["task"]), order.index(row["model"])))
    return {"rows": rows}


def _row(config: Config, task: str, model: str, group: list[Run]) -> dict[str, Any]:
    complete, setting = reports(group), group[0].setting
    norms = [one.gradient_norms() for one in group if one.report is not None]
    lost = [one for one in group if one.report is None]
    return {
        "task": task,
        "model": model,
        "steps": input_shape(setting)[0],
        "units": setting.units,
        "epochs": setting.epochs,
        "batch_size": setting.batch_size,
        "schedule": setting.schedule,
        "settings": _differing(config, task, model),
        "parameters": complete[0].parameters if complete else None,
        **accuracies(complete),
        "paper_test_accuracy_784_steps": PAPER.get((model.removesuffix("-clipped"), task)),
        "seconds_per_epoch": [round(report.seconds_per_epoch, 2) for report in complete],
        "least_gradient_norm": [min(values) for values in norms],
        "largest_gradient_norm": [max(values) for values in norms],
        "diverged_seeds": [one.setting.seed for one in lost],
        "diverged_at_step": [one.diverged_at_step for one in lost],
        "command": command("sequences"),
        **where(complete),
    }


if __name__ == "__main__":
    run_from_command_line(compute, Config)
