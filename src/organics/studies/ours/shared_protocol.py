"""Table 2 with one protocol: all networks with the same effort, on the full task.

MNIST, one pixel a step (784 steps), in raster and in permuted order. All networks have the same
optimizer, schedule, batches and epochs. Each is tried for an epoch at the same learning rates
with the first seed, and the rate with the best validation accuracy is trained with all seeds. The
other constants of the comparison models are those of their sources (`PUBLISHED`), and the
circuits' step sizes are those of the shorter task (`organics reproduce sequences`). Gradients
are clipped only where the source of a model clips, and never those of circuits. A comparison model
more than a point below its published accuracy falls short, and nothing is concluded from its row.

Source: after Rawat et al. 2024, Table 2.
"""

from dataclasses import dataclass, replace
from typing import Any

from organics.baselines import PUBLISHED
from organics.names import TaskName
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.protocols import LARGE_STEPS, PAPER, SMALLER_STEPS, TASKS
from organics.studies.networks.runs import accuracy_in_words, in_common, reports, where
from organics.studies.networks.tuned import summary, tuned
from organics.training import SequenceConfig

_IDENTITY = {"recurrent": "identity", **LARGE_STEPS}
_HALF = "ORGaNICs, W_r = I, 64 units"
NETWORKS: dict[str, dict[str, Any]] = {
    "ORGaNICs, W_r = I": _IDENTITY,
    "ORGaNICs, W_r = I, fixed time constants": _IDENTITY | {"time_constants": "fixed"},
    "ORGaNICs, bounded W_r": {"recurrent": "bounded", **SMALLER_STEPS},
    # with the paper's step sizes, which are the defaults
    "ORGaNICs, the authors' cell": {"rectification": "outside", "drive": "rectified"},
    "LSTM": {"model": "lstm"},
    "LEM": {"model": "lem"},
    "Lipschitz RNN": {"model": "lipschitz"},
    "coRNN": {"model": "cornn"},
    "AntisymmetricRNN": {"model": "antisymmetric"},
    _HALF: _IDENTITY,
}
"""The settings in which networks differ, besides the constants of the comparison models."""

_LITERATURE = {row.model: row for row in PAPER if row.units == 128 and row.model != "organics"}
_LEM = {"smnist": 0.995, "psmnist": 0.966}  # Rusch et al. 2022
NEAR = 0.01
"""An accuracy at most this much below another one is as good; a comparison model further below its
published accuracy falls short."""


@dataclass(frozen=True)
class Rows:
    """The runs: for each task and network, one at every rate, then one for each seed."""

    tasks: tuple[TaskName, ...] = TASKS
    """Tasks."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """Names in `NETWORKS`."""
    units: int = 128
    """Units of each network, but for the one with half of them."""
    learning_rates: tuple[float, ...] = (0.002, 0.006, 0.02)
    """Largest learning rates."""
    trial_epochs: int = 1
    """Epochs of the runs that choose the rate."""
    epochs: int = 4
    """Epochs of the others."""
    batch_size: int = 128
    """Images per step."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `shared_protocol` of the runs."""
    rows = Rows(seeds=tuple(job.seed + i for i in range(3)))
    if job.quick:
        rows = replace(
            rows, tasks=("sdigits",), networks=("ORGaNICs, W_r = I", "AntisymmetricRNN"), units=8,
            learning_rates=(0.02,), trial_epochs=1, epochs=1, batch_size=450, seeds=(job.seed,),
        )  # fmt: skip
    return conclude(measure(rows, job))


def measure(rows: Rows, job: Job) -> dict[str, Any]:
    """The accuracies and gradient norms of each network on each task, over the seeds."""
    settings = {
        f"{task}, {network}": _setting(rows, task, network)
        for network in rows.networks
        for task in rows.tasks
    }
    found = tuned(
        settings, rows.learning_rates, rows.seeds, job, "shared_protocol",
        trial_epochs=rows.trial_epochs,
    )  # fmt: skip
    differing = {"task", "learning_rate", "seed", "units", "model", "hyperparameters"}
    differing |= {"clip_norm", *(name for network in NETWORKS.values() for name in network)}
    one = next(iter(settings.values()))
    return {
        "settings": in_common(one, tuple(differing)) | {"trial_epochs": rows.trial_epochs},
        "rows": [
            {
                "task": task,
                "network": network,
                "model": settings[f"{task}, {network}"].model,
                "differing": _differing(task, network),
                "units": _units(rows, network),
                "published": published(task, network),
                **summary(found[f"{task}, {network}"]),
            }
            for task in rows.tasks
            for network in rows.networks
        ],
        **where(reports(run for one in found.values() for run in one.all())),
    }


def published(task: str, network: str) -> float | None:
    """The published test accuracy of a comparison model with 128 units; else None."""
    model = NETWORKS[network].get("model")
    if model is None or task not in TASKS:
        return None
    return _LEM[task] if model == "lem" else getattr(_LITERATURE[model], task)


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the accuracies; `found` is the result of `measure`."""
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        by_task.setdefault(row["task"], []).append(row)
    checks = [check for task, group in by_task.items() for check in _checks(task, group)]
    here = "; ".join(check.here for check in checks if check.decides)
    columns = ("task", "network", "rate", "parameters", "test accuracy", "published", "gradients")
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in found["rows"]]))


def _checks(task: str, group: list[dict[str, Any]]) -> list[Check]:
    ours = [row for row in group if row["model"] == "organics"]
    theirs = [row for row in group if row["model"] != "organics"]
    as_published = [row for row in theirs if not _falls_short(row)]
    best, other = (max(some, key=_mean, default=None) for some in (ours, as_published))
    words = ", ".join(
        f"{row['network']} {accuracy_in_words(row)}"
        for row in (best, other)
        if row is not None and _mean(row) > 0
    )
    short = [row["network"] for row in theirs if _falls_short(row)]
    lost = sum(step is not None for row in ours for step in row["diverged_at_step"])
    return [
        Check(
            f"{task}: the best circuits are as accurate as the best model that reaches its "
            "published accuracy",
            f"{task}: {words}",
            None if best is None or other is None else _mean(best) >= _mean(other) - NEAR,
            tolerance=f"at most {100 * NEAR:g} point below; means over the seeds",
        ),
        Check(
            f"{task}: no training of circuits, which is never clipped, diverges",
            f"{task}: {lost} of {sum(len(row['diverged_at_step']) for row in ours)} runs diverge",
            lost == 0 if ours else None,
            tolerance="not one",
        ),
        Check(
            f"{task}: no comparison model falls short of its published accuracy",
            ", ".join(short) or "none does",
            not short if theirs else None,
            tolerance=f"at most {100 * NEAR:g} point below",
            decides=False,
        ),
    ]


def _mean(row: dict[str, Any]) -> float:
    return row["mean_test_accuracy"] or 0.0


def _falls_short(row: dict[str, Any]) -> bool:
    return row["published"] is not None and _mean(row) < row["published"] - NEAR


def _units(rows: Rows, network: str) -> int:
    return rows.units // 2 if network == _HALF else rows.units


def _setting(rows: Rows, task: TaskName, network: str) -> SequenceConfig:
    shared = {
        "task": task,
        "units": _units(rows, network),
        "products": "bfloat16",
        "epochs": rows.epochs,
        "batch_size": rows.batch_size,
        "schedule": "warmup-cosine",
    }
    return SequenceConfig(**(shared | _differing(task, network)))


def _differing(task: str, network: str) -> dict[str, Any]:
    """The settings in which the network differs from the others."""
    settings = NETWORKS[network]
    recipe = PUBLISHED.get((settings.get("model", "organics"), task))
    if recipe is None:
        return settings
    return settings | {
        "hyperparameters": recipe.hyperparameters,
        "clip_norm": recipe.clip_norm,
        "raw_pixels": recipe.raw_pixels,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    published = "" if row["published"] is None else f"{row['published']:.1%}"
    name = [row["task"], row["network"]]
    if row["mean_test_accuracy"] is None:
        return [*name, "", "", "every run diverged", published, ""]
    short = "; falls short" if _falls_short(row) else ""
    return [
        *name,
        f"{row['learning_rate']:g}",
        f"{row['parameters']:,}",
        accuracy_in_words(row) + short,
        published,
        "" if row["largest_gradient_norm"] is None else f"{row['largest_gradient_norm']:.1f}",
    ]
