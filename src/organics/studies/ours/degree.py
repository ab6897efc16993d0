"""How many steady states random circuits have, and whether their signs add up as they must.

If all entries of `W` are positive and `W_r` is nonsingular, the signs of `det(-J)` at all steady
states add up to the sign of `det(W_r)`. So their number is odd; and if that sign is negative, a
stable state, whose sign is positive, is never the only one.

Circuits are drawn by the law of the paper's trials. All their states are enclosed, with a proof
that there are no others.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.ours.enumerated import COLUMNS, cells, count
from organics.trials import fraction_interval


@dataclass(frozen=True)
class Sample:
    """The circuits."""

    sizes: tuple[int, ...] = (2, 3, 4)
    """Neurons."""
    norms: tuple[float, ...] = (1.0, 2.0, 3.0)
    """Largest singular values of `W_r`."""
    trials: int = 1112
    """Circuits of each size and norm."""
    seed: int = 0
    """Of all of them."""


def compute(job: Job) -> Outcome:
    """Count."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, sizes=(2,), norms=(1.0, 3.0), trials=20)
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """The counts, a piece for each size and norm."""
    groups = [(n, norm) for n in sample.sizes for norm in sample.norms]
    rows = []
    with jax.enable_x64(True):
        for i, (n, norm) in enumerate(groups):
            job.progress(i / len(groups), f"n = {n}, norm {norm:g}")
            name = f"{n}-{norm:g}-{sample.trials}-{sample.seed}.json"
            make = partial(count, sample.seed, n, norm, sample.trials)
            rows.append(kept_document(job.folder / name, make))
    return {"count": rows}


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the counts; `found` is the result of `measure`."""
    rows = found["count"]
    circuits, complete, as_expected = (
        sum(row[name] for row in rows) for name in ("circuits", "complete", "as_expected")
    )
    negative, stable, alone = (
        sum(row["negative"][name] for row in rows) for name in ("circuits", "stable", "alone")
    )
    checks = [
        Check(
            "the signs of all steady states add up to the sign of det W_r",
            f"{as_expected:,} of {complete:,}; {_at_most(complete - as_expected, complete)}",
            as_expected == complete > 0,
        ),
        Check(
            "with det W_r < 0 no stable state is the only steady state",
            f"{stable:,} of {negative:,} such circuits have a stable state, {alone} of them no "
            f"other; {_at_most(alone, stable)}",
            alone == 0 < stable,
        ),
        Check(
            "the states of every random circuit are enclosed, and proved to be all",
            f"{complete:,} of {circuits:,}",
            complete == circuits,
            tolerance="all; near a fold the proof is left open",
            decides=False,
        ),
    ]
    one = sum(row["states"].get("1", 0) for row in rows)
    here = (
        f"the signs of {as_expected:,} of {complete:,} circuits with all states proved add up; "
        f"{one:,} of {circuits:,} have one state; with det W_r < 0, {alone} of {stable:,} stable "
        "states are alone"
    )
    table = Table((*COLUMNS, "signs add up"), [[*cells(row), _degree(row)] for row in rows])
    return Outcome(here, checks, found, table)


def _degree(row: dict[str, Any]) -> str:
    return f"{row['as_expected']:,} of {row['complete']:,}"


def _at_most(count: int, trials: int) -> str:
    """The upper end of the interval for a fraction of exceptions."""
    return f"exceptions at most {100 * fraction_interval(count, max(trials, 1))[1]:.2g} % (95 %)"
