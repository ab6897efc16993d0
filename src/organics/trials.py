"""Random circuits by the thousand: how many are stable?"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from organics.arguments import float_type, require_among, require_whole
from organics.circuit.circuit import Circuit, random_drive
from organics.linear.abscissa import abscissae as abscissae_of
from organics.linear.abscissa import decaying, largest_stable, rounds, stable_abscissae
from organics.linear.jacobian import jacobian
from organics.machine.cluster import Cluster
from organics.machine.lapack import single_threaded_lapack
from organics.machine.memory import require_memory
from organics.machine.processors import available
from organics.machine.side_by_side import how_many, side_by_side
from organics.names import Abscissae
from organics.rest.point import SteadyState
from organics.rest.search import steady_state

_CALLS = 200  # most calls into which processes or a cluster divide the trials


class Trials(NamedTuple):
    """Outcome of random trials, each array of shape (trials,).

    Attributes
        spectral_abscissa: largest real part of the Jacobian's eigenvalues, in 1/ms, at the steady
            state, or at the best state found where there is none; or, see `run_trials`, an upper
            bound on it.
        decays: whether all of them are negative, or the theorem for identity recurrence says so,
            whatever the rounding.
        converged: whether a steady state was found.
        residual: of that state, see `organics.rest.point.SteadyState`.
        method: index into `organics.rest.point.METHODS`.
    """

    spectral_abscissa: Float[np.ndarray, " trials"]
    decays: Bool[np.ndarray, " trials"]
    converged: Bool[np.ndarray, " trials"]
    residual: Float[np.ndarray, " trials"]
    method: Int[np.ndarray, " trials"]

    @property
    def stable(self) -> Bool[np.ndarray, " trials"]:
        """Whether a steady state was found and is stable."""
        return self.converged & self.decays


def trial(
    seed: int,
    index: int | Int[Array, ""],
    n: int,
    spectral_norm: "ScalarLike | None" = 1.0,
    *,
    drive_norm: float = 1.0,
    rectified: bool = False,
    dtype: "DTypeLike | None" = None,
) -> tuple[Circuit, Float[jax.Array, " n"]]:
    """Circuit and input drive of trial `index` of `run_trials` with the same arguments.

    Can be mapped over `index` and `spectral_norm`.
    """
    key, index_array = jr.key(seed), jnp.asarray(index)
    return _draw(key, index_array, n, spectral_norm, drive_norm, rectified, dtype)


def run_trials(
    n: int,
    trials: int,
    spectral_norm: float | None = 1.0,
    *,
    seed: int = 0,
    drive_norm: float = 1.0,
    rectified: bool = False,
    dtype: "DTypeLike | None" = None,
    abscissae: Abscissae = "all",
    processes: int = 1,
    cluster: Cluster | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Trials:
    """Stability of `trials` random circuits of n neurons, by the law of `Circuit.random`.

    Trial i is `trial(seed, i, ...)`, whatever the number of trials. `spectral_norm=None` is
    identity recurrence. `on_progress` is called with the number of trials done since its last call.

    To decide which circuits are stable takes a fraction of the time of their eigenvalues. With
    `abscissae="largest"` only the largest spectral abscissa of the stable circuits, and those of
    unstable ones, are exact; others may be upper bounds, below 0. With "none" all are mere bounds:
    0 for stable circuits, else infinity.

    Several `processes`, or a `cluster`, share the trials. Each compiles for itself, so this pays
    only if one process takes minutes.

    Raises `ValueError` for `n`, `trials`, `spectral_norm`, `drive_norm` or `processes` out of
    range, if `abscissae` is none of those words, if the results do not fit into memory, or if the
    `cluster` cannot be reached.
    """
    processes = how_many(processes)
    require_whole("n", n)
    require_whole("trials", trials)
    require_whole("seed", seed, least=-(2**63))
    require_among("abscissae", abscissae, Abscissae)
    real = float_type(dtype)
    for name, value in (("drive_norm", drive_norm), ("spectral_norm", spectral_norm)):
        if value is not None and not 0 <= value <= float(np.finfo(real).max):
            raise ValueError(f"`{name}` must be >= 0 and in the range of {real}, not {value}.")
    law = _Law(int(n), spectral_norm, drive_norm, rectified, real)
    # every piece has the same shape, so that it compiles once, and its matrices fit into the CPU's
    # cache
    size = min(trials, max(8, min(2048, 40_000 // n**2)))
    require_memory(8 * size * (2 * n) ** 2, "n", f"a stack of {size} Jacobians")
    require_memory(22 * trials, "trials", "the outcome")
    tell = on_progress or _ignore
    if processes == 1 and cluster is None:
        return _run(seed, range(trials), size, law, abscissae, tell)
    x64 = float_type(None) == np.float64
    share = size * -(-trials // (size * _CALLS))
    shares = [range(trials)[start : start + share] for start in range(0, trials, share)]
    parts = side_by_side(
        _run_there,
        [(x64, seed, numbers, size, law, abscissae) for numbers in shares],
        processes=processes,
        cluster=cluster,
    )
    tell(trials)
    return _joined(parts)


class _Law(NamedTuple):
    """The distribution of circuits: arguments of `run_trials`."""

    n: int
    spectral_norm: float | None
    drive_norm: float
    rectified: bool
    dtype: DTypeLike


def _ignore(done: int) -> None:
    """Default `on_progress`: does nothing."""


def _run_there(
    x64: bool, seed: int, numbers: range, size: int, law: _Law, abscissae: Abscissae
) -> Trials:
    """`_run` in another process, which does not inherit JAX's configuration."""
    with jax.enable_x64(x64):
        return _run(seed, numbers, size, law, abscissae, _ignore)


def _run(
    seed: int,
    numbers: range,
    size: int,
    law: _Law,
    abscissae: Abscissae,
    on_progress: Callable[[int], None],
) -> Trials:
    """The trials of these consecutive `numbers`, `size` at a time, a piece on each processor."""
    key, x64 = jr.key(seed), float_type(None) == np.float64
    largest, done = -np.inf, []

    def piece(start: int) -> Trials:
        with jax.enable_x64(x64):  # threads do not inherit it
            found, J = jax.device_get(_solve(key, np.arange(start, start + size), law))
        return _outcome(found, J, numbers.stop - start, law, abscissae, largest)

    starts = numbers[::size]
    with single_threaded_lapack(), ThreadPoolExecutor(len(available())) as pool:
        # the first piece compiles; those of a round are compared with the pieces before it
        for some in rounds(len(starts)):
            for outcome in pool.map(piece, starts[some]):
                done.append(outcome)
                on_progress(len(outcome.converged))
            if abscissae == "largest":
                parts = (largest_stable(part.spectral_abscissa, part.converged) for part in done)
                largest = max(parts)
    return _joined(done)


def _joined(parts: list[Trials]) -> Trials:
    return Trials(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@partial(jax.jit, static_argnums=2)
def _solve(key, indices, law):
    def one(index):
        circuit, z = _draw(key, index, *law)
        found = steady_state(circuit, z, spectral_norm=law.spectral_norm).found
        return found, jacobian(circuit, found.state)

    return jax.vmap(one)(indices)


def _outcome(
    found: SteadyState,
    J: np.ndarray,
    count: int,
    law: _Law,
    abscissae: Abscissae,
    largest: float,
) -> Trials:
    J, converged, residual, method = (
        np.asarray(x)[:count] for x in (J, found.converged, found.residual, found.method)
    )
    finite = np.isfinite(J).all(axis=(1, 2))
    by_theorem = law.spectral_norm is None
    if abscissae == "none":
        decays = finite if by_theorem else decaying(J)
        known = np.where(finite, np.where(decays, 0, np.inf), np.nan).astype(J.dtype)
    else:
        exact = abscissae == "all"
        known = abscissae_of(J) if exact else stable_abscissae(J, converged, largest)
        decays = finite if by_theorem else np.less(known, 0)
    return Trials(known, np.asarray(decays), converged, residual, method)


def fraction_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval (Clopper-Pearson) of the probability behind `successes` of `trials`."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(0.95)
    return float(interval.low), float(interval.high)


def _draw(key, index, n, spectral_norm, drive_norm, rectified, dtype):
    k_circuit, k_drive = jr.split(jr.fold_in(key, index))
    circuit = Circuit.random(k_circuit, n, spectral_norm, rectified=rectified, dtype=dtype)
    return circuit, random_drive(k_drive, n, drive_norm, dtype=circuit.dtype.type)
