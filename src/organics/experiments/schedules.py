"""Whether another course of the learning rate saves epochs: the paper's schedule beside two.

    python -m organics.experiments.schedules

Trains the recurrent circuits on the digits, pixel by pixel, with the paper's schedule ("step"),
with "warmup-cosine" and with "trapezoid", for several numbers of epochs, learning rates and seeds,
and all else alike. Each number of epochs is a run of its own, as the others have to know where it
ends.
"""

import json
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import tyro

from organics.atomic import write_atomically
from organics.training import Diverged, Report, SequenceConfig, train
from organics.training.config import Schedule
from organics.training.run_folder import RunFolder

SCHEDULES: tuple[Schedule, ...] = ("step", "warmup-cosine", "trapezoid")


@dataclass(frozen=True)
class Config:
    """Train the recurrent circuits on the digits with each schedule."""

    out: Path = Path("runs/schedules")
    """Folder for the folders of the runs; a run that is complete in it is not repeated."""
    results: Path = Path("results/schedules.json")
    """File for the outcome."""
    rows: bool = False
    """A row of the image at each step, instead of a pixel."""
    units: int = 64
    """Neurons."""
    epochs: tuple[int, ...] = (10, 14, 20)
    """Lengths of the runs."""
    learning_rates: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04)
    """Learning rates, the largest of each run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each kind for each of these."""


def compute(config: Config, progress: bool = True) -> dict[str, Any]:
    """Train what is not complete yet; the outcome is also in `config.results`."""
    rows: list[dict[str, Any]] = []
    where: dict[str, Any] = {}
    for epochs, schedule, rate in product(config.epochs, SCHEDULES, config.learning_rates):
        found = {}
        for seed in config.seeds:
            folder = config.out / f"{schedule}-{epochs}-{rate:g}-{seed}"
            setting = _setting(config, epochs, schedule, rate, seed)
            try:
                found[folder] = train(setting, folder, resume=True, progress=progress)
            except Diverged:
                found[folder] = None
        rows.append(_row(epochs, schedule, rate, found))
        for report in filter(None, found.values()):
            where = {name: getattr(report, name) for name in ("versions", "device", "platform")}
    summary = {
        "command": " ".join(["python -m organics.experiments.schedules", *sys.argv[1:]]),
        "settings": _shared(config),
        "chosen": _chosen(rows),
        "rows": rows,
        **where,
    }
    config.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.results, (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _setting(
    config: Config, epochs: int, schedule: Schedule, rate: float, seed: int
) -> SequenceConfig:
    return SequenceConfig(
        task="sdigits",
        rows=config.rows,
        units=config.units,
        recurrent="identity",
        dt_tau_max_y=1.0,
        dt_tau_max_a=0.5,
        dt_tau_max_gates=1.0,
        batch_size=32,
        epochs=epochs,
        schedule=schedule,
        learning_rate=rate,
        seed=seed,
    )


def _shared(config: Config) -> dict[str, Any]:
    """What is alike in all runs."""
    values = json.loads(_setting(config, 1, "step", 1.0, 0).to_json())
    for name in ("epochs", "schedule", "learning_rate", "seed"):
        del values[name]
    return values


def _row(
    epochs: int, schedule: str, rate: float, found: dict[Path, Report | None]
) -> dict[str, Any]:
    complete = {folder: report for folder, report in found.items() if report is not None}
    reports = complete.values()
    accuracies = [report.test_accuracy for report in reports]
    norms = [
        norm
        for folder in complete
        for line in RunFolder.open(folder).lines("steps.jsonl")
        for norm in line["gradient_norm"]
    ]
    return {
        "epochs": epochs,
        "schedule": schedule,
        "learning_rate": rate,
        "seeds": [report.seed for report in reports],
        "diverged": len(found) - len(complete),
        "test_accuracy": [round(accuracy, 6) for accuracy in accuracies],
        "mean_test_accuracy": round(mean(accuracies), 6) if accuracies else None,
        "sd_test_accuracy": round(stdev(accuracies), 6) if len(accuracies) > 1 else None,
        "validation_accuracy": [round(report.validation_accuracy, 6) for report in reports],
        "best_epoch": [report.best_epoch for report in reports],
        "least_gradient_norm": min(norms, default=None),
        "largest_gradient_norm": max(norms, default=None),
    }


def _chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each schedule and number of epochs the row that is best on validation images, among
    those of which no run diverged: no test image has a say in it."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if not row["diverged"]:
            key = row["schedule"], row["epochs"]
            best[key] = max(best.get(key, row), row, key=_validation)
    named = ("epochs", "schedule", "learning_rate", "mean_test_accuracy", "sd_test_accuracy")
    return [{name: row[name] for name in named} for row in best.values()]


def _validation(row: dict[str, Any]) -> float:
    return mean(row["validation_accuracy"])


def main() -> None:
    """Run the experiment from the command line."""
    json.dump(compute(tyro.cli(Config)), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
