"""Static classifiers of MNIST: circuits at rest, and networks for comparison.

The networks are those of `organics.studies.networks.static`, trained in the same way with three
seeds, except that the supralinear networks have fewer epochs, as their steps take several times as
long, and the dense networks, which are only a control, one seed. A run stops early when it no
longer learns.

Source: Rawat et al. 2024, Table 1. Its numbers for supralinear networks are cited from others, and
are of another setting: a frozen code, with no encoder trained. Like is compared with like in
`organics.studies.ours.frozen_code`.
"""

from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from organics.plots import BLUE, COLUMN, GREY, ORANGE, VERMILION, style
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.static import (
    NEAR,
    Networks,
    on_data,
    percent,
    quick_networks,
    train_all,
)

PARAMETERS = {(50,): 671_824, (80,): 682_354, (120, 60): 723_054}
"""The paper's parameters of the circuits, which learn `W_r`."""

_NAMES = {"ssn": "SSN", "mlp": "dense ReLU", "organics": "ORGaNICs"}
_CITED = "(of others, on a frozen code)"
_COLOURS = {"ssn": VERMILION, "mlp": ORANGE, "organics": BLUE}


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `mnist_static` of the runs."""
    quick = replace(quick_networks(job), models=("ssn", "organics"), recurrent="bounded")
    networks = quick if job.quick else _whole(job)
    return conclude(train_all(networks, job.progress, job.submit))


def _whole(job: Job) -> Networks:
    return Networks(
        out=job.runs[0] / "mnist_static",
        models=("ssn", "mlp", "organics"),
        seeds=tuple(job.seed + i for i in range(3)),
        mlp_seeds=1,
        recurrent="bounded",
        stability=("ssn",),
    )


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the trained networks; `found` is the result of `train_all`."""
    rows = found["rows"]
    by_model = {
        model: [row for row in rows if row["model"] == model]
        for model in dict.fromkeys(row["model"] for row in rows)
    }
    circuits, supralinear = by_model["organics"], by_model["ssn"]
    checks = [
        Check(
            f"{_label(row)} is as accurate as in the paper",
            percent(row),
            row["mean_test_accuracy"] >= row["paper_test_accuracy"] - NEAR,
            paper=f"{row['paper_test_accuracy']:.1%}",
            tolerance=f"not more than {100 * NEAR:g} points below",
        )
        for row in circuits
    ]
    worst = min(circuits, key=lambda row: row["mean_test_accuracy"])
    best = max(supralinear, key=lambda row: row["mean_test_accuracy"])
    checks.append(
        Check(
            "every circuit is ahead of every supralinear network",
            f"{_label(worst)} {percent(worst)}, {_label(best)} {percent(best)}",
            worst["mean_test_accuracy"] > best["mean_test_accuracy"] + NEAR,
            paper=f"98.1 % and 95.2 % {_CITED}",
            tolerance=f"the least of the circuits' means {100 * NEAR:g} points above the others'",
        )
    )
    known = [row for row in circuits if tuple(row["layers"]) in PARAMETERS]
    checks.append(
        Check(
            "the circuits have the paper's parameters, learned recurrent weights among them",
            ", ".join(f"{row['parameters']:,}" for row in known),
            all(row["parameters"] == PARAMETERS[tuple(row["layers"])] for row in known),
            paper=", ".join(f"{PARAMETERS[tuple(row['layers'])]:,}" for row in known),
            tolerance="equal",
            decides=False,
        )
    )
    lost = sum(sum(row["lost_steps"]) for row in supralinear)
    steps = sum(sum(row["steps"]) for row in supralinear)
    most = max(max(row["lost_at_most_in_a_step"]) for row in supralinear)
    checks.append(
        Check(
            "training drives supralinear networks to where inputs have no stable steady state",
            f"in {lost:,} of {steps:,} steps, at most {most:.1%} of a batch",
            lost > 0,
            tolerance="at least one image of one step",
            decides=False,
        )
    )
    here = on_data(found) + "; ".join(
        f"{_label(row)} {percent(row)}" for row in (*supralinear, *circuits)
    )
    columns = ("network", "parameters", "epochs, at most", "test accuracy", "paper",
               "images lost in training", "inputs stable in test")  # fmt: skip
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in rows]))


@style()
def draw(outcome: Outcome) -> Figure:
    """Test accuracy of each network: seeds, mean and standard deviation, and the paper's. Every
    network's parameters are averaged over the steps, where the paper does not average. The paper's
    numbers of supralinear networks are of others, on a frozen code.
    """
    rows = outcome.numbers["rows"]
    figure = Figure(figsize=(COLUMN, 0.9 + 0.24 * len(rows)))
    axes = figure.add_subplot()
    first = [row["paper_test_accuracy"] is not None for row in rows].index(True)
    for i, row in enumerate(rows):
        colour, paper = _COLOURS[row["model"]], row["paper_test_accuracy"]
        here = [100 * accuracy for accuracy in row["test_accuracy"]]
        axes.plot(here, [i] * len(here), "o", color=colour, markersize=2.5, alpha=0.5)
        axes.errorbar(
            100 * row["mean_test_accuracy"], i, xerr=100 * (row["sd_test_accuracy"] or 0),
            fmt="D", color=colour, markersize=4, capsize=2,
            label="here: seeds, mean, sd" if i == first else None,
        )  # fmt: skip
        if paper is not None:
            axes.plot(
                100 * paper, i, "|", color="black", markersize=11,
                label="paper" if i == first else None,
            )  # fmt: skip
    for i in range(1, len(rows)):
        if rows[i]["model"] != rows[i - 1]["model"]:
            axes.axhline(i - 0.5, color=GREY, linewidth=0.4)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="test accuracy (%)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    return figure


def _label(row: dict[str, Any]) -> str:
    """The network and its sizes in the paper's notation: E:I, or principal:modulator neurons."""
    name, sizes = row["model"], row["layers"]
    if name == "organics":
        sizes = sizes * 2 if len(sizes) == 1 else [f"{n}:{n}" for n in sizes]
    alone = name == "ssn" or (name == "organics" and len(row["layers"]) == 1)
    return f"{_NAMES[name]} {(':' if alone else ', ').join(map(str, sizes))}"


def _cells(row: dict[str, Any]) -> list[str]:
    lost = stable = ""
    if row["model"] == "ssn":
        lost = ", ".join(f"{fraction:.3%}" for fraction in row["lost_in_training"])
        (found,) = row.get("stability", ({"stable_fraction": ()},))
        stable = ", ".join(f"{fraction:.2%}" for fraction in found["stable_fraction"])
    paper = row["paper_test_accuracy"]
    return [
        _label(row),
        f"{row['parameters']:,}",
        str(row["epochs"]),
        percent(row),
        ""
        if paper is None
        else f"{100 * paper:.1f} %" + (f" {_CITED}" if row["model"] == "ssn" else ""),
        lost,
        stable,
    ]
