"""Is a circuit ever called stable, or unstable, against its eigenvalues?

    python -m organics.studies.ours.verdicts

`organics.linear.abscissa` decides on which side of a rate the spectral abscissa of a Jacobian lies,
without its eigenvalues. The Jacobians here are those of random circuits, as in the paper's trials,
at the states that the search finds, steady or not. Each verdict is compared with the eigenvalues,
by `numpy.linalg.eigvals`, for two rates: 0, and the largest abscissa of some other circuits, as
in a scan that looks for the largest.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from organics.linear.abscissa import balanced, compare, log_norm_is_below
from organics.linear.jacobian import eigenvalues, jacobian
from organics.machine.provenance import system, versions
from organics.rest.search import steady_state
from organics.studies.harness.outcome import command, run_from_command_line, write
from organics.trials import trial

_RELAXATION_STEPS = 300  # where more are needed the state is not steady, but its Jacobian as good


@dataclass(frozen=True)
class Config:
    """Compare verdicts on stability with eigenvalues."""

    results: Path = Path("results/verdicts.json")
    """File for the outcome."""
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


def compute(config: Config, progress: bool = True) -> dict[str, Any]:
    """Draw, linearize and compare; the outcome, so far, is also in `config.results`."""
    shares = np.array([1 / n for n in config.sizes])
    shares /= shares.sum() * len(config.norms) * len(config.rectified)
    rows: list[dict[str, Any]] = []
    summary = {}
    for n, share in zip(config.sizes, shares, strict=True):
        count = int(np.ceil(config.circuits * share))
        for rectified, norm in product(config.rectified, config.norms):
            rows.append(_compared(config.seed, n, norm, rectified, count))
            if progress:
                print(rows[-1], flush=True)
            summary = _summary(config, rows)
            write(config.results, summary)
        jax.clear_caches()
    return summary


def _summary(config: Config, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "command": command("verdicts"),
        "seed": config.seed,
        "total": {key: sum(row[key] for row in rows) for key in _COUNTS},
        "rows": rows,
        "versions": versions(),
        "platform": system(),
    }


_COUNTS = (
    "circuits",
    "unstable",
    "by_logarithmic_norm",
    "by_powers",
    "by_eigenvalues",
    "different",
    "different_at_another_rate",
)


def _compared(seed: int, n: int, norm: float, rectified: bool, count: int) -> dict[str, Any]:
    counts = dict.fromkeys(_COUNTS, 0)
    rate, closest = np.nan, np.inf
    batch = max(8, min(500, 40_000 // n**2))
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


if __name__ == "__main__":
    run_from_command_line(compute, Config)
