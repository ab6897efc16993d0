"""Do other learning-rate schedules need fewer epochs? The paper's schedule and two others.

    python -m organics.studies.ours.schedules

Trains the recurrent circuits on the digits, pixel by pixel, with the paper's schedule ("step"),
with "warmup-cosine" and with "trapezoid", for several numbers of epochs, learning rates and seeds,
all else equal. Each number of epochs needs a run of its own, as the other two schedules depend on
it.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from organics.names import Schedule
from organics.settings import Settings
from organics.studies.harness.outcome import command, run_from_command_line, write
from organics.studies.networks.runs import Run, accuracies, in_common, reports, run, where
from organics.training import SequenceConfig

SCHEDULES: tuple[Schedule, ...] = ("step", "warmup-cosine", "trapezoid")


@dataclass(frozen=True)
class Config(Settings):
    """Train the recurrent circuits on the digits with each schedule."""

    out: Path = Path("runs/schedules")
    """Folder with a folder for each run; complete runs are not repeated."""
    results: Path = Path("results/schedules.json")
    """File for the outcome."""
    rows: bool = False
    """A row of the image at each step, instead of a pixel."""
    units: int = 64
    """Neurons."""
    epochs: tuple[int, ...] = (10, 14, 20)
    """Numbers of epochs."""
    learning_rates: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04)
    """Largest learning rates."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds: one run of each kind for each."""


def compute(config: Config, progress: bool = True) -> dict[str, Any]:
    """Train runs that are not complete; the outcome is also in `config.results`."""
    rows: list[dict[str, Any]] = []
    done: list[Run] = []
    for epochs, schedule, rate in product(config.epochs, SCHEDULES, config.learning_rates):
        settings = [_setting(config, epochs, schedule, rate, seed) for seed in config.seeds]
        group = [
            run(one, config.out / f"{schedule}-{epochs}-{rate:g}-{one.seed}", progress)
            for one in settings
        ]
        rows.append(_row(epochs, schedule, rate, group))
        done += group
    differing = ("epochs", "schedule", "learning_rate", "seed")
    summary = {
        "command": command("schedules"),
        "settings": in_common(_setting(config, 1, "step", 1.0, 0), differing),
        "chosen": _chosen(rows),
        "rows": rows,
        **where(reports(done)),
    }
    write(config.results, summary)
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


def _row(epochs: int, schedule: str, rate: float, group: list[Run]) -> dict[str, Any]:
    complete = reports(group)
    norms = [norm for one in group if one.report is not None for norm in one.gradient_norms()]
    return {
        "epochs": epochs,
        "schedule": schedule,
        "learning_rate": rate,
        "diverged": len(group) - len(complete),
        **accuracies(complete),
        "least_gradient_norm": min(norms, default=None),
        "largest_gradient_norm": max(norms, default=None),
    }


def _chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each schedule and number of epochs the row with the best validation accuracy, among those
    without diverged runs. Test images are not used."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if not row["diverged"]:
            key = row["schedule"], row["epochs"]
            best[key] = max(best.get(key, row), row, key=_validation)
    named = ("epochs", "schedule", "learning_rate", "mean_test_accuracy", "sd_test_accuracy")
    return [{name: row[name] for name in named} for row in best.values()]


def _validation(row: dict[str, Any]) -> float:
    return mean(row["validation_accuracy"])


if __name__ == "__main__":
    run_from_command_line(compute, Config)
