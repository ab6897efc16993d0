"""What makes the difference on long sequences: one setting changed at a time.

MNIST reduced to 14 x 14 pixels, one pixel a step in permuted order. All networks have the same
number of neurons in each circuit, batches, epochs and schedule. Each row differs from the reference
in one setting. Each is trained at every learning rate with the first seed; the rate that has the
best validation accuracy is trained with the other seeds. Nothing is clipped. Complete runs are
kept, and an interrupted run continues from its last epoch.
"""

from dataclasses import dataclass, replace
from typing import Any

from organics.names import TaskName
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.protocols import LARGE_STEPS
from organics.studies.networks.runs import accuracy_in_words, in_common, reports, where
from organics.studies.networks.tuned import summary, tuned
from organics.training import SequenceConfig

REFERENCE, TWO_LAYERS, TOGETHER = "reference", "two layers", "time constants modulated together"
FREE, BOUNDED, SEMIDEFINITE = "W_r free", "W_r bounded", "W_r semidefinite"

CHANGES: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    TWO_LAYERS: {"layers": 2},
    "each time constant modulated by itself": {"time_constants": "modulated"},
    TOGETHER: {"time_constants": "modulated-together"},
    "those of y modulated": {"time_constants": "modulated-y"},
    "time constants fixed": {"time_constants": "fixed"},
    "of y spread from 2 to 50 steps": {"initial_time_constants": (2.0, 50.0)},
    "y slower: 0.2": {"dt_tau_max_y": 0.2},
    "y faster: 1": {"dt_tau_max_y": 1.0},
    "a slower: 0.2": {"dt_tau_max_a": 0.2},
    "gains slower: 0.2": {"dt_tau_max_gates": 0.2},
    FREE: {"recurrent": "free"},
    BOUNDED: {"recurrent": "bounded"},
    SEMIDEFINITE: {"recurrent": "semidefinite"},
    "drive rectified": {"drive": "rectified"},
    "drive of norm 1": {"drive": "unit"},
    "not rectified": {"rectified": False},
    "products in float32": {"products": "full"},
}
"""The settings in which each row differs from the reference."""


@dataclass(frozen=True)
class Rows:
    """The runs: for each change, one at every rate, and at the chosen rate one for each seed."""

    task: TaskName = "psmnist"
    """Task."""
    resize: int | None = 14
    """Pixels a side of MNIST's images."""
    changes: tuple[str, ...] = tuple(CHANGES)
    """Names in `CHANGES`."""
    units: int = 64
    """Neurons of each circuit."""
    epochs: int = 6
    """Epochs of each run."""
    batch_size: int = 64
    """Images per step."""
    learning_rates: tuple[float, ...] = (0.02, 0.05)
    """Largest learning rates."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `ablation` of the runs."""
    rows = Rows(seeds=tuple(job.seed + i for i in range(3)))
    if job.quick:
        rows = replace(
            rows, task="sdigits", resize=None, changes=(REFERENCE, TOGETHER), units=8, epochs=1,
            batch_size=450, learning_rates=(0.02,), seeds=(job.seed,),
        )  # fmt: skip
    return conclude(measure(rows, job))


def measure(rows: Rows, job: Job) -> dict[str, Any]:
    """The accuracies and gradient norms of each change, over the seeds."""
    settings = {f"{rows.task}, {change}": _setting(rows, change) for change in rows.changes}
    found = tuned(settings, rows.learning_rates, rows.seeds, job, "ablation")
    return {
        "settings": in_common(_setting(rows, REFERENCE), ("learning_rate", "seed")),
        "rows": [
            {"change": change, "differing": CHANGES[change], **summary(one)}
            for change, one in zip(rows.changes, found.values(), strict=True)
        ],
        **where(reports(run for one in found.values() for run in one.all())),
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the accuracies; `found` is the result of `measure`."""
    rows = {row["change"]: row for row in found["rows"]}
    checks = [
        *(_ahead(rows, change, REFERENCE) for change in (TOGETHER, TWO_LAYERS)),
        *(_ahead(rows, REFERENCE, change) for change in (FREE, BOUNDED, SEMIDEFINITE)),
    ]
    checks = [check for check in checks if check is not None]
    learned = [row for row in rows.values() if row["mean_test_accuracy"] is not None]
    best = sorted(learned, key=lambda row: -row["mean_test_accuracy"])[:3]
    here = "; ".join(f"{row['change']} {accuracy_in_words(row)}" for row in best)
    columns = ("change", "rate", "parameters", "test accuracy", "gradient norm", "diverged")
    return Outcome(
        here or "every run diverged",
        checks,
        found,
        Table(columns, [_cells(row) for row in rows.values()]),
    )


def _ahead(rows: dict[str, dict[str, Any]], one: str, other: str) -> Check | None:
    """Whether `one` learns more than `other`, as it does if that diverges; None if one of them was
    not run."""
    if one not in rows or other not in rows:
        return None
    more, less = (rows[name]["mean_test_accuracy"] or 0.0 for name in (one, other))
    spread = max(rows[name]["sd_test_accuracy"] or 0.0 for name in (one, other))
    return Check(
        f"{one}: ahead of {other}",
        ", ".join(f"{mean:.1%}" if mean else "diverged" for mean in (more, less)),
        more > less + spread,
        tolerance="by more than the larger standard deviation",
    )


def _setting(rows: Rows, change: str) -> SequenceConfig:
    shared = {
        "task": rows.task,
        "resize": rows.resize,
        "units": rows.units,
        "recurrent": "identity",
        **LARGE_STEPS,
        "products": "bfloat16",
        "epochs": rows.epochs,
        "batch_size": rows.batch_size,
        "schedule": "warmup-cosine",
    }
    return SequenceConfig(**(shared | CHANGES[change]))


def _cells(row: dict[str, Any]) -> list[str]:
    steps = row["diverged_at_step"]
    diverged = f"{sum(step is not None for step in steps)} of {len(steps)}"
    if row["mean_test_accuracy"] is None:
        return [row["change"], "", "", "", "", diverged]
    return [
        row["change"],
        f"{row['learning_rate']:g}",
        f"{row['parameters']:,}",
        accuracy_in_words(row),
        "" if row["largest_gradient_norm"] is None else f"{row['largest_gradient_norm']:.1f}",
        diverged,
    ]
