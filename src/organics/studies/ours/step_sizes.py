"""Which step sizes of `y` and `a` learn sequences, and which diverge.

Trains the recurrent circuits with several largest ratios of step size to time constant, for `y` and
for `a`, for each kind of recurrent weights, all else equal. The larger they are, the less the
discrete network is like the continuous circuit, whose stability is proved.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from organics.names import Recurrence, TaskName
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.runs import Run, in_common, lines, reports, run, where
from organics.training import SequenceConfig


@dataclass(frozen=True)
class Grid:
    """The runs: one for each kind of recurrent weights and pair of step sizes."""

    task: TaskName = "psmnist"
    """Task."""
    resize: int = 14
    """Pixels a side of MNIST's images."""
    recurrent: tuple[Recurrence, ...] = ("identity", "semidefinite", "bounded")
    """Kinds of recurrent weights."""
    dt_tau_max_y: tuple[float, ...] = (0.2, 0.4, 0.8)
    """Largest ratios of step size to time constant, for `y`."""
    dt_tau_max_a: tuple[float, ...] = (0.05, 0.2, 1.0)
    """The same for `a`."""
    dt_tau_max_gates: float = 1.0
    """The same for the gains, in all runs."""
    units: int = 64
    """Neurons."""
    epochs: int = 6
    """Epochs of each run."""
    batch_size: int = 32
    """Images per step."""
    learning_rate: float = 0.02
    """Largest learning rate."""
    seed: int = 0
    """Seed of each run."""


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `step_sizes` of the runs."""
    grid = Grid(seed=job.seed)
    if job.quick:
        grid = replace(
            grid, task="sdigits", recurrent=("identity",), dt_tau_max_y=(0.4,),
            dt_tau_max_a=(0.2, 1.0), units=8, epochs=1, batch_size=450,
        )  # fmt: skip
    return conclude(measure(grid, job))


def measure(grid: Grid, job: Job) -> dict[str, Any]:
    """The curves of all runs, or where they diverged."""
    done: list[Run] = []
    pairs = list(product(grid.recurrent, grid.dt_tau_max_y, grid.dt_tau_max_a))
    for i, (kind, y, a) in enumerate(pairs):
        job.progress(i / len(pairs), f"{kind}, {y:g}, {a:g}")
        folder = f"{grid.task}-{kind}-{y:g}-{a:g}-seed{grid.seed}"
        done.append(run(_setting(grid, kind, y, a), job.runs[0] / "step_sizes" / folder))
    return {
        "settings": in_common(done[0].setting, ("recurrent", "dt_tau_max_y", "dt_tau_max_a")),
        "rows": [_row(one) for one in done],
        **where(reports(done)),
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of which runs diverged; `found` is the result of `measure`."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        by_kind.setdefault(row["recurrent"], []).append(row)
    lost = {kind: sum(map(_is_lost, rows)) for kind, rows in by_kind.items()}
    checks = [
        Check(
            f"no run with {_KINDS[kind]} diverges",
            f"{lost[kind]} of {len(rows)} diverge",
            lost[kind] == 0,
            tolerance="not one",
            decides=kind == "identity",
        )
        for kind, rows in by_kind.items()
    ]
    best = {kind: max(row["test_accuracy"] or 0 for row in rows) for kind, rows in by_kind.items()}
    here = "; ".join(
        f"{_KINDS[kind]}: {lost[kind]} of {len(rows)} diverge, the best has {best[kind]:.1%}"
        for kind, rows in by_kind.items()
    )
    columns = list(dict.fromkeys(row["dt_tau_max_a"] for row in found["rows"]))
    cells = {
        (row["recurrent"], row["dt_tau_max_y"], row["dt_tau_max_a"]): _cell(row)
        for row in found["rows"]
    }
    lines = dict.fromkeys((kind, y) for kind, y, _ in cells)
    table = [[_KINDS[kind], f"{y:g}", *(cells[kind, y, a] for a in columns)] for kind, y in lines]
    heads = ("W_r", "largest dt/tau of y", *(f"{a:g} of a" for a in columns))
    return Outcome(here, checks, found, Table(heads, table))


_KINDS = {
    "identity": "W_r = I",
    "semidefinite": "semidefinite W_r",
    "bounded": "bounded W_r",
    "free": "free W_r",
}


def _is_lost(row: dict[str, Any]) -> bool:
    return row["diverged_at_step"] is not None


def _cell(row: dict[str, Any]) -> str:
    """The test accuracy and the largest gradient norm."""
    if _is_lost(row):
        return f"diverged at step {row['diverged_at_step']:,}"
    return f"{row['test_accuracy']:.1%} ({row['largest_gradient_norm']:.1f})"


def _setting(grid: Grid, kind: Recurrence, y: float, a: float) -> SequenceConfig:
    return SequenceConfig(
        task=grid.task,
        resize=None if grid.task == "sdigits" else grid.resize,
        units=grid.units,
        recurrent=kind,
        dt_tau_max_y=y,
        dt_tau_max_a=a,
        dt_tau_max_gates=grid.dt_tau_max_gates,
        epochs=grid.epochs,
        batch_size=grid.batch_size,
        learning_rate=grid.learning_rate,
        schedule="warmup-cosine",
        seed=grid.seed,
    )


def _row(found: Run) -> dict[str, Any]:
    epochs = lines(found.folder, "metrics.jsonl")
    return {
        "recurrent": found.setting.recurrent,
        "dt_tau_max_y": found.setting.dt_tau_max_y,
        "dt_tau_max_a": found.setting.dt_tau_max_a,
        "diverged_at_step": found.diverged_at_step,
        "epochs": len(epochs),
        "validation_accuracy": [round(line["validation_accuracy"], 6) for line in epochs],
        "test_accuracy": None if found.report is None else round(found.report.test_accuracy, 6),
        "largest_gradient_norm": _largest(epochs, "gradient_norm_max"),
        "largest_step_radius": _largest(epochs, "largest_step_radius"),
    }


def _largest(lines: list[dict[str, Any]], name: str) -> float | None:
    """The largest finite value over the epochs; None if there is none."""
    return max((line[name] for line in lines if line[name] is not None), default=None)
