"""The static classifiers with identity recurrence: accuracy, and stability at every test input.

The networks of the paper's Table 1, but with `W_r = I`, for which stability is proved. Runs are
shared with `organics reproduce table1`: complete ones are kept, and an interrupted one continues.

Source: after Rawat et al. 2024, Table 1.
"""

from typing import Any

from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.static import (
    NEAR,
    Networks,
    on_data,
    percent,
    quick_networks,
    train_all,
)


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `mnist_static` of the runs."""
    networks = quick_networks(job) if job.quick else _whole(job)
    return conclude(train_all(networks, job.progress, job.submit))


def _whole(job: Job) -> Networks:
    seeds = tuple(job.seed + i for i in range(3))
    return Networks(out=job.runs[0] / "mnist_static", seeds=seeds)


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the trained networks; `found` is the result of `train_all`."""
    circuits = [row for row in found["rows"] if row["model"] == "organics"]
    checks = [check for row in circuits for check in _checks(row)]
    here = on_data(found) + "; ".join(f"{_label(row)} {percent(row)}" for row in circuits)
    columns = ("network", "parameters", "epochs, at most", "test accuracy", "paper",
               "test inputs at which all layers are stable")  # fmt: skip
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in found["rows"]]))


def _checks(row: dict[str, Any]) -> list[Check]:
    accurate = Check(
        f"{_label(row)} are as accurate as the paper's, which learn W_r",
        percent(row),
        row["mean_test_accuracy"] >= row["paper_test_accuracy"] - NEAR,
        paper=f"{row['paper_test_accuracy']:.1%}",
        tolerance=f"not more than {100 * NEAR:g} points below",
    )
    if "stability" not in row:
        return [accurate]
    least = min(fraction for layer in row["stability"] for fraction in layer["stable_fraction"])
    stable = Check(
        f"{_label(row)} are stable at every test input, in every layer and with every seed",
        f"{least:.2%} at least",
        least == 1,
        tolerance="all",
    )
    return [accurate, stable]


def _label(row: dict[str, Any]) -> str:
    names = {"organics": "circuits", "mlp": "dense ReLU", "ssn": "supralinear"}
    return f"{names[row['model']]} of {' and '.join(map(str, row['layers']))}"


def _cells(row: dict[str, Any]) -> list[str]:
    paper = row["paper_test_accuracy"]
    fractions = [layer["stable_fraction"] for layer in row.get("stability", ())]
    return [
        _label(row),
        f"{row['parameters']:,}",
        str(row["epochs"]),
        percent(row),
        "" if paper is None else f"{paper:.1%}",
        ", ".join(f"{min(seed):.2%}" for seed in zip(*fractions, strict=True)),
    ]
