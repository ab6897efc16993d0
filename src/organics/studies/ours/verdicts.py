"""Is a circuit ever called stable, or unstable, against its eigenvalues?

`organics.linear.abscissa` decides on which side of a rate the spectral abscissa of a Jacobian lies,
without its eigenvalues. The Jacobians here are those of random circuits, as in the paper's trials,
at the states that the search finds, steady or not. Each verdict is compared with the eigenvalues,
by `numpy.linalg.eigvals`, for two rates: 0, and the largest abscissa of some other circuits, as
in a scan that looks for the largest.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from organics.linear.abscissa import balanced, compare, log_norm_is_below
from organics.linear.jacobian import eigenvalues, jacobian
from organics.printing import model_in_words
from organics.rest.search import steady_state
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.trials import trial

_RELAXATION_STEPS = 300  # where more are needed the state is not steady, but its Jacobian as good


@dataclass(frozen=True)
class Sample:
    """The circuits that are drawn."""

    circuits: int = 100_000
    """Number of circuits, divided among norms, models and sizes; that of n neurons is as 1 / n."""
    sizes: tuple[int, ...] = (2, 5, 10, 20, 50, 100)
    """Neurons."""
    norms: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)
    """Largest singular values of the recurrent matrices."""
    rectified: tuple[bool, ...] = (False, True)
    """Models, main or rectified."""
    seed: int = 0
    """Seed of all circuits and drives."""


def compute(job: Job) -> Outcome:
    """Compare the verdicts on the sample's circuits."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, circuits=400, sizes=(2, 5), norms=(1.0, 3.0), rectified=(False,))
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """Draw, linearize and compare; the circuits of a size, model and norm are a piece."""
    shares = np.array([1 / n for n in sample.sizes])
    shares /= shares.sum() * len(sample.norms) * len(sample.rectified)
    groups = [
        (n, norm, rectified, int(np.ceil(sample.circuits * share)))
        for n, share in zip(sample.sizes, shares, strict=True)
        for rectified in sample.rectified
        for norm in sample.norms
    ]
    rows = []
    for i, (n, norm, rectified, count) in enumerate(groups):
        model = model_in_words(rectified)
        job.progress(i / len(groups), f"n = {n}, {model}, norm {norm:g}")
        name = f"{n}-{model}-{norm:g}-{count}-{sample.seed}.json"
        make = partial(_compared, sample.seed, n, norm, rectified, count)
        rows.append(kept_document(job.folder / name, make))
        jax.clear_caches()
    return {"total": {key: sum(row[key] for row in rows) for key in _COUNTS}, "rows": rows}


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the counts; `found` is the result of `measure`."""
    total = found["total"]
    checks = [
        Check(
            f"each verdict on the abscissa being below {what} is that of the eigenvalues",
            f"{total[name]:,} of {total[tested]:,} are not",
            total[name] == 0 if total[tested] else None,
            tolerance="not one",
        )
        for name, tested, what in (
            ("different", "circuits", "0"),
            ("different_at_another_rate", "at_another_rate", "another rate"),
        )
    ]
    here = (
        f"of {total['circuits']:,} circuits {total['by_logarithmic_norm']:,} are decided by the "
        f"logarithmic norm, {total['by_powers']:,} by powers, {total['by_eigenvalues']:,} by "
        f"eigenvalues; {total['different']} wrongly"
    )
    columns = ("neurons", "model", "norm", "circuits", "unstable", "by logarithmic norm",
               "by powers", "by eigenvalues", "wrongly")  # fmt: skip
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in found["rows"]]))


def _cells(row: dict[str, Any]) -> list[str]:
    counts = ("circuits", "unstable", "by_logarithmic_norm", "by_powers", "by_eigenvalues",
              "different")  # fmt: skip
    model = model_in_words(row["rectified"])
    cells = [str(row["n"]), model, f"{row['spectral_norm']:g}"]
    return cells + [f"{row[name]:,}" for name in counts]


_COUNTS = (
    "circuits",
    "unstable",
    "by_logarithmic_norm",
    "by_powers",
    "by_eigenvalues",
    "different",
    "at_another_rate",
    "different_at_another_rate",
)


def _compared(seed: int, n: int, norm: float, rectified: bool, count: int) -> dict[str, Any]:
    counts = dict.fromkeys(_COUNTS, 0)
    rate, closest = np.nan, np.inf
    batch = max(1, min(500, 40_000 // n**2, count // 2))
    with jax.enable_x64(True):
        for start in range(0, count, batch):
            indices = np.arange(start, start + batch)
            J = np.asarray(_jacobians(seed, indices, norm, n, rectified))[: count - start]
            abscissa = np.real(eigenvalues(J)[:, 0])
            side = compare(J)
            by_norm = log_norm_is_below(balanced(J), 0.0)
            counts["circuits"] += len(J)
            counts["unstable"] += int(np.sum(abscissa > 0))
            counts["by_logarithmic_norm"] += int(np.sum(by_norm))
            counts["by_powers"] += int(np.sum((side != 0) & ~by_norm))
            counts["by_eigenvalues"] += int(np.sum(side == 0))
            counts["different"] += _different(side, abscissa, 0.0)
            if start:
                counts["at_another_rate"] += len(J)
                side = compare(J, rate)
                counts["different_at_another_rate"] += _different(side, abscissa, rate)
            else:
                rate = float(abscissa.max())
            closest = min(closest, float(np.abs(abscissa).min()))
    return {
        "n": n,
        "spectral_norm": norm,
        "rectified": rectified,
        **counts,
        "closest_to_0_per_ms": float(f"{closest:.3g}"),
    }


def _different(side: np.ndarray, abscissa: Float[np.ndarray, " circuits"], rate: float) -> int:
    """Number of verdicts that are not those of the eigenvalues."""
    return int(np.sum((side != 0) & (side != np.sign(abscissa - rate))))


@partial(jax.jit, static_argnums=(0, 3, 4))
def _jacobians(seed, indices, norm, n, rectified):
    def one(index):
        circuit, z = trial(seed, index, n, norm, rectified=rectified)
        found = steady_state(circuit, z, spectral_norm=norm, relaxation_steps=_RELAXATION_STEPS)
        return jacobian(circuit, found.state)

    return jax.vmap(one)(indices)
