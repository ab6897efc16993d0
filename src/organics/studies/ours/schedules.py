"""Do other learning-rate schedules need fewer epochs? The paper's schedule and two others.

Trains the recurrent circuits on the digits, pixel by pixel, with the paper's schedule ("step"),
with "warmup-cosine" and with "trapezoid", for several numbers of epochs, learning rates and seeds,
all else equal. Each number of epochs needs a run of its own, as the other two schedules depend on
it.
"""

from dataclasses import dataclass
from itertools import product
from statistics import mean
from typing import Any

from organics.names import Schedule
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.runs import (
    Run,
    accuracies,
    accuracy_in_words,
    in_common,
    reports,
    run,
    where,
)
from organics.training import SequenceConfig

SCHEDULES: tuple[Schedule, ...] = ("step", "warmup-cosine", "trapezoid")


@dataclass(frozen=True)
class Grid:
    """The runs: one for each schedule, number of epochs, learning rate and seed."""

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


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `schedules` of the runs."""
    grid = Grid(seeds=tuple(job.seed + i for i in range(3)))
    quick = Grid(True, 8, epochs=(1,), learning_rates=(0.02,), seeds=(job.seed,))
    return conclude(measure(quick if job.quick else grid, job))


def measure(grid: Grid, job: Job) -> dict[str, Any]:
    """The accuracies of all runs, and for each schedule and number of epochs the chosen rate."""
    rows: list[dict[str, Any]] = []
    done: list[Run] = []
    cells = list(product(grid.epochs, SCHEDULES, grid.learning_rates))
    for i, (epochs, schedule, rate) in enumerate(cells):
        job.progress(i / len(cells), f"{epochs} epochs, {schedule}, {rate:g}")
        settings = [_setting(grid, epochs, schedule, rate, seed) for seed in grid.seeds]
        folder = job.runs[0] / "schedules"
        group = [run(one, folder / f"{schedule}-{epochs}-{rate:g}-{one.seed}") for one in settings]
        rows.append(_row(epochs, schedule, rate, group))
        done += group
    differing = ("epochs", "schedule", "learning_rate", "seed")
    return {
        "settings": in_common(_setting(grid, 1, "step", 1.0, 0), differing),
        "chosen": _chosen(rows),
        "rows": rows,
        **where(reports(done)),
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the accuracies; `found` is the result of `measure`."""
    chosen = found["chosen"]
    all_epochs = list(dict.fromkeys(row["epochs"] for row in chosen))
    checks = []
    for epochs in all_epochs:
        at = {row["schedule"]: row for row in chosen if row["epochs"] == epochs}
        papers, others = at.pop("step", None), list(at.values())
        if papers is None or not others:
            continue
        best = max(others, key=lambda row: row["mean_test_accuracy"])
        spread = max(papers["sd_test_accuracy"] or 0, best["sd_test_accuracy"] or 0)
        checks.append(
            Check(
                f"after {epochs} epochs another schedule is ahead of the paper's",
                f"{best['schedule']} {accuracy_in_words(best)}, "
                f"the paper's {accuracy_in_words(papers)}",
                best["mean_test_accuracy"] > papers["mean_test_accuracy"] + spread,
                tolerance="by more than the larger standard deviation; each at its best rate",
            )
        )
    columns = ("schedule", *(f"{epochs} epochs" for epochs in all_epochs))
    cells = {(row["schedule"], row["epochs"]): _cell(row) for row in chosen}
    table = [[name, *(cells.get((name, n), "") for n in all_epochs)] for name in SCHEDULES]
    here = "; ".join(check.here for check in checks) or "every run diverged"
    return Outcome(here, checks, found, Table(columns, table))


def _cell(row: dict[str, Any]) -> str:
    return f"{accuracy_in_words(row)} at {row['learning_rate']:g}"


def _setting(grid: Grid, epochs: int, schedule: Schedule, rate: float, seed: int) -> SequenceConfig:
    return SequenceConfig(
        task="sdigits",
        rows=grid.rows,
        units=grid.units,
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
