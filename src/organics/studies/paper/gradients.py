"""Norms of the gradient through training by plain backpropagation through time.

All networks have the same task (digits, a pixel per step), units, batches, epochs and schedule, and
no gradient is clipped. The learning rates of the tanh network and the LSTM were tuned with clipping
allowed; all kinds of ORGaNICs use the LSTM's. An epoch's last batch has only 6 digits, and its
gradient is larger in every network.

Source: Rawat et al. 2024, on training without gradient clipping or scaling; the comparison is ours.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from organics.baselines import TUNED
from organics.plots import BLUE, COLUMN, GREEN, ORANGE, SKY, VERMILION, style
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.runs import run
from organics.training import SequenceConfig

TASK = "sdigits"
_LEARNING_RATE = TUNED["lstm", TASK].learning_rate
NETWORKS: dict[str, dict[str, Any]] = {
    "ORGaNICs, W_r = I": {"recurrent": "identity", "learning_rate": _LEARNING_RATE},
    "ORGaNICs, bounded W_r": {"recurrent": "bounded", "learning_rate": _LEARNING_RATE},
    "ORGaNICs, free W_r": {"recurrent": "free", "learning_rate": _LEARNING_RATE},
    "LSTM": {"model": "lstm"},
    "tanh RNN": {"model": "rnn"},
}
"""The settings in which the networks differ; the rest of the latter two's are `TUNED`."""
_OURS = tuple(name for name, settings in NETWORKS.items() if "model" not in settings)
_COLOURS = (BLUE, GREEN, SKY, ORANGE, VERMILION)
_QUICK = ("ORGaNICs, W_r = I", "LSTM")


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `gradients` of the runs."""
    seeds = (job.seed,) if job.quick else tuple(job.seed + i for i in range(3))
    networks = _QUICK if job.quick else tuple(NETWORKS)
    runs: list[dict[str, Any]] = []
    for name in networks:
        for seed in seeds:
            job.progress(len(runs) / (len(networks) * len(seeds)), f"{name}, seed {seed}")
            runs.append(_run(job, name, seed))
    return conclude(runs)


def _run(job: Job, name: str, seed: int) -> dict[str, Any]:
    settings = dict(NETWORKS[name])
    if "model" in settings:
        recipe = TUNED[settings["model"], TASK]
        settings["learning_rate"] = recipe.learning_rate
        settings["hyperparameters"] = recipe.hyperparameters
    recipe = TUNED["lstm", TASK]
    assert recipe.epochs is not None
    config = SequenceConfig(
        task=TASK,
        units=8 if job.quick else 64,
        epochs=2 if job.quick else recipe.epochs,
        batch_size=270 if job.quick else recipe.batch_size,
        schedule="cosine",
        seed=seed,
        **settings,
    )
    quick = "-quick" if job.quick else ""
    folder = job.runs[0] / "gradients" / f"{config.name}-{config.recurrent}{quick}"
    found = run(config, folder)
    return {
        "network": name,
        "seed": seed,
        "learning_rate": config.learning_rate,
        "test_accuracy": None if found.report is None else found.report.test_accuracy,
        "diverged_at_step": found.diverged_at_step,
        "norms": [float(f"{norm:.4g}") for norm in found.gradient_norms()],
    }


def conclude(runs: list[dict[str, Any]]) -> Outcome:
    """Checks of the gradient norms of the runs."""
    names = list(dict.fromkeys(run["network"] for run in runs))
    groups = {name: [run for run in runs if run["network"] == name] for name in names}
    largest = {name: max(map(_largest, group)) for name, group in groups.items()}
    ours = [name for name in names if name in _OURS]
    others = [name for name in names if name not in ours]
    checks = [
        Check(
            f"no gradient of {name} is as large as the largest of each of the others",
            f"{_in_words(largest[name])}, "
            + ", ".join(f"{other} {_in_words(largest[other])}" for other in others),
            largest[name] < min(largest[other] for other in others),
            tolerance="over all steps and seeds; a run that diverged counts as infinite",
        )
        for name in ours
    ]
    diverged = [run for name in ours for run in groups[name] if run["diverged_at_step"] is not None]
    checks.append(
        Check(
            "ORGaNICs do not diverge",
            f"{len(diverged)} of {sum(len(groups[name]) for name in ours)} runs did",
            not diverged,
            tolerance="loss and gradient finite at every step",
        )
    )
    here = "largest gradient norm: " + ", ".join(
        f"{name} {_in_words(value)} ({_accuracy(groups[name])})" for name, value in largest.items()
    )
    columns = ("network", "learning rate", "largest gradient norm", "median", "test accuracy")
    rows = [_cells(name, group) for name, group in groups.items()]
    return Outcome(here, checks, {"task": TASK, "runs": runs}, Table(columns, rows))


@style()
def draw(outcome: Outcome) -> Figure:
    """Norm of the gradient at every step of training, a panel for each network, a line for each
    seed; the dotted line is at the largest. Digits, a pixel at a step; other tasks may have
    larger ones.
    """
    runs = outcome.numbers["runs"]
    names = list(dict.fromkeys(run["network"] for run in runs))
    figure = Figure(figsize=(2 * COLUMN, 2.2))
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    colours = dict(zip(NETWORKS, _COLOURS, strict=True))
    for axes, name in zip(panels, names, strict=True):
        chosen = [run["norms"] for run in runs if run["network"] == name]
        for norms in chosen:
            axes.plot(range(len(norms)), norms, color=colours[name], linewidth=0.5, alpha=0.8)
        if any(chosen):
            largest = max(max(norms, default=0.0) for norms in chosen)
            axes.axhline(largest, color=colours[name], linewidth=0.8, linestyle=":")
            axes.annotate(
                _in_words(largest), (1, largest), (0, 2), ha="right", fontsize=7,
                xycoords=("axes fraction", "data"), textcoords="offset points",
            )  # fmt: skip
        axes.set_title(name.replace("W_r", "$W_r$").replace(", ", ",\n"), fontsize=8)
        axes.set(xlabel="step", yscale="log")
    panels[0].set_ylabel("gradient norm")
    return figure


def _in_words(norm: float) -> str:
    return f"{norm:,.0f}" if 1000 <= norm < 1e6 else f"{norm:.3g}"


def _largest(run: dict[str, Any]) -> float:
    return max(run["norms"]) if run["diverged_at_step"] is None else float("inf")


def _accuracy(group: list[dict[str, Any]]) -> str:
    """The mean test accuracy of the runs that did not diverge."""
    tested = [a for run in group if (a := run["test_accuracy"]) is not None]
    return f"accuracy {np.mean(tested):.1%}" if tested else "diverged"


def _cells(name: str, group: list[dict[str, Any]]) -> list[str]:
    norms = np.concatenate([run["norms"] for run in group])
    largest = [
        _in_words(_largest(run)) if run["diverged_at_step"] is None
        else f"diverged at step {run['diverged_at_step']}"
        for run in group
    ]  # fmt: skip
    tested = [f"{a:.1%}" for run in group if (a := run["test_accuracy"]) is not None]
    return [
        name,
        f"{group[0]['learning_rate']:g}",
        ", ".join(largest),
        f"{np.median(norms):.3g}" if len(norms) else "",
        ", ".join(tested),
    ]
