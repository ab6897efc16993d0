"""Random circuits by the million: for which is a stable steady state found?

The circuits are those of `organics.trials`. The search first takes few steps, then many for those
circuits that need them, as a batch takes as long as its slowest circuit. It ends when a steady
state with negative spectral abscissa is found. Its counts are therefore lower bounds: a stable
steady state may be missed.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, ScalarLike

from organics.linear.abscissa import stable_abscissae
from organics.linear.jacobian import jacobian
from organics.machine.lapack import single_threaded_lapack
from organics.printing import model_in_words
from organics.rest.search import steady_state
from organics.studies.harness.pieces import Piece, kept
from organics.trials import fraction_interval, trial

NORMS = (0.5, 1.0, 2.0, 3.0, 5.0)
PIECE = {2: 20_000, 4: 10_000, 8: 5_000, 16: 1_000, 32: 200, 64: 50}
"""Trials in a piece, by the number of neurons: a few seconds of work."""

_NAMED = 8  # of the trials without a stable steady state
_FEW, _MANY = 300, 50_000  # steps of relaxation
_LANES = {_FEW: 1024, _MANY: 16}  # circuits at once; less if they are large


class Piecework(NamedTuple):
    """Piece `number` of the trials with n neurons; each has `trials` of them."""

    n: int
    spectral_norm: float
    rectified: bool
    number: int
    trials: int

    @property
    def name(self) -> str:
        """Name of the piece; determines it, except for the seed."""
        model = model_in_words(self.rectified)
        return f"trials-n{self.n}-norm{self.spectral_norm:g}-{model}-{self.number}-of-{self.trials}"


def pieces(
    trials: dict[int, tuple[int, ...]], rectified: bool, largest: int | None = None
) -> list[Piecework]:
    """The pieces of `trials`, which has, by number of neurons, a number of trials for each of
    `NORMS`.

    Numbers of trials are rounded up to whole pieces, of at most `largest` trials.
    """
    work = []
    for n, numbers in trials.items():
        count = min(PIECE[n], largest or PIECE[n])
        for norm, number in zip(NORMS, numbers, strict=True):
            work += [Piecework(n, norm, rectified, i, count) for i in range(-(-number // count))]
    return work


def survey(folder: Path, seed: int, work: Piecework) -> Piece:
    """`found` and `abscissa`, in 1/ms, for each trial of a piece; kept in `folder`.

    The largest abscissa of those found is exact, others may be upper bounds.
    """
    return kept(folder, work.name, partial(_survey, seed, work))


def _survey(seed: int, work: Piecework) -> Piece:
    first = work.number * work.trials
    indices = np.arange(first, first + work.trials)
    found, abscissa = _search(seed, work, indices, _FEW)
    again = np.flatnonzero(~found)
    if len(again):
        found[again], abscissa[again] = _search(seed, work, indices[again], _MANY)
    return {"found": found, "abscissa": abscissa.astype(np.float32)}


def _search(
    seed: int, work: Piecework, indices: Int[np.ndarray, " count"], steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Run batches on the devices in turn; eigenvalues on the host."""
    lanes = min(_LANES[steps], max(8, 40_000 // work.n**2))
    if work.trials < lanes:
        lanes = min(lanes, _LANES[_MANY])
    devices = jax.devices()
    running = []
    for k, start in enumerate(range(0, len(indices), lanes)):
        # padded with earlier entries, so that it compiles once
        batch = np.resize(indices[start : start + lanes], lanes)
        placed = jax.device_put(batch, devices[k % len(devices)])
        running.append(_solve(seed, placed, work.spectral_norm, steps, work.n, work.rectified))
    converged, J = (np.concatenate(parts)[: len(indices)]
                    for parts in zip(*jax.device_get(running), strict=True))  # fmt: skip
    with single_threaded_lapack():
        abscissa = stable_abscissae(J, converged)
    return converged & (abscissa < 0), abscissa


@partial(jax.jit, static_argnums=(0, 4, 5))
def _solve(
    seed: int,
    indices: Int[Array, " lanes"],
    spectral_norm: ScalarLike,
    steps: ScalarLike,
    n: int,
    rectified: bool,
) -> tuple[Array, Array]:
    def one(index):
        circuit, z = trial(seed, index, n, spectral_norm, rectified=rectified)
        found = steady_state(circuit, z, spectral_norm=spectral_norm, relaxation_steps=steps)
        return found.converged, jacobian(circuit, found.state)

    return jax.vmap(one)(indices)


def fractions(work: list[Piecework], done: list[Piece]) -> list[dict[str, Any]]:
    """For each model, n and norm: trials, number with a stable steady state found, and 95 %
    interval."""
    groups: dict[tuple[bool, int, float], list[Piece]] = {}
    for one, piece in zip(work, done, strict=True):
        groups.setdefault((one.rectified, one.n, one.spectral_norm), []).append(piece)
    rows = []
    for (rectified, n, norm), parts in groups.items():
        found = np.concatenate([part["found"] for part in parts])
        abscissa = np.concatenate([part["abscissa"] for part in parts])
        low, high = fraction_interval(int(found.sum()), len(found))
        rows.append(
            {
                "rectified": rectified,
                "n": n,
                "spectral_norm": norm,
                "trials": len(found),
                "found": int(found.sum()),
                "fraction": float(found.mean()),
                "interval_95": [float(f"{low:.9g}"), float(f"{high:.9g}")],
                "largest_abscissa_of_the_stable": _largest(abscissa[found]),
                "first_not_found": np.flatnonzero(~found)[:_NAMED].tolist(),
            }
        )
    return rows


def _largest(values: Float[np.ndarray, " found"]) -> float | None:
    return float(f"{values.max():.3g}") if len(values) else None
