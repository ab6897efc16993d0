"""Random circuits of which all steady states are enclosed, with a proof that there are no others.

Source: the law of the trials of Rawat et al. 2024; degree theory for the sum of the signs.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Complex, Float

from organics.circuit.circuit import Circuit, State
from organics.enumeration.degree import expected_degree
from organics.enumeration.enclosed import ALL
from organics.enumeration.enclosure import enclose_all
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import is_among
from organics.linear.jacobian import jacobian
from organics.trials import fraction_interval

_MOST_BOXES = 5_000_000


def count(seed: int, n: int, norm: float, trials: int) -> dict[str, Any]:
    """How many states so many random circuits have, how many of them are stable, and for how many
    circuits, of those whose states are all known, the signs add up to that of `det(W_r)`.

    `negative` counts the latter circuits with `det(W_r) < 0`, those of them with a stable state,
    and those in which that is the only one.
    """
    numbers, stable, complete, as_expected = [], [], 0, 0
    negative = Counter(circuits=0, stable=0, alone=0)
    for k in range(trials):
        rng = np.random.default_rng([seed, n, round(1000 * norm), k])
        circuit, z = random_circuit(rng, n, norm)
        reduced = Reduced.of(circuit, z)
        found = enclose_all(circuit, z, reduced, _MOST_BOXES)
        here = int(sum(abscissae(circuit, [reduced.state(v) for v in found.v]) < 0))
        numbers.append(len(found.v))
        stable.append(here)
        if found.outcome != ALL:
            continue
        complete += 1
        sign = expected_degree(reduced)
        as_expected += sum(reduced.signs(found.v)) == sign
        if sign == -1:
            negative.update(circuits=1, stable=here > 0, alone=here > 0 and len(found.v) == 1)
    several = sum(one > 1 for one in stable)
    return {
        "n": n,
        "norm": norm,
        "circuits": trials,
        "complete": complete,
        "as_expected": as_expected,
        "negative": dict(negative),
        "states": dict(sorted(Counter(numbers).items())),
        "stable": dict(sorted(Counter(stable).items())),
        "several_stable": several,
        "interval": [round(end, 5) for end in fraction_interval(several, trials)],
    }


def random_circuit(
    rng: np.random.Generator, n: int, norm: float
) -> tuple[Circuit, Float[np.ndarray, " n"]]:
    """A circuit of the law of the paper's trials, and a drive of norm 1."""
    b, b0, sigma = 1 - rng.uniform(size=(3, n))  # not 0
    W, W_r, z = rng.uniform(size=(n, n)), rng.normal(size=(n, n)), rng.normal(size=n)
    return Circuit(W, norm * W_r / np.linalg.norm(W_r, 2), b, b0, sigma), z / np.linalg.norm(z)


def abscissae(circuit: Circuit, states: Sequence[State]) -> Float[np.ndarray, " k"]:
    """Largest real part of the eigenvalues at each state, in 1/ms."""
    return np.real(spectra(circuit, states)).max(axis=1)


def spectra(circuit: Circuit, states: Sequence[State]) -> Complex[np.ndarray, "k two_n"]:
    """The eigenvalues at each state, in 1/ms."""
    each = [np.asarray(_jacobian(circuit, state)) for state in states]
    shape = len(each), 2 * circuit.n, 2 * circuit.n
    return np.linalg.eigvals(np.array(each).reshape(shape)).astype(complex)


def distinct(v: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "m n"]:
    """Each state once."""
    kept = [one for i, one in enumerate(v) if not is_among(one, v[:i])]
    return np.array(kept).reshape(-1, v.shape[1])


@jax.jit
def _jacobian(circuit: Circuit, state: State) -> Float[Array, "two_n two_n"]:
    return jacobian(circuit, state)


COLUMNS = ("neurons", "norm", "circuits", "proved complete", "states: circuits",
           "stable: circuits")  # fmt: skip


def cells(row: dict[str, Any]) -> list[str]:
    """A count as a row of a table under `COLUMNS`."""
    counts = [
        ", ".join(f"{number}: {circuits:,}" for number, circuits in row[name].items())
        for name in ("states", "stable")
    ]
    return [str(row["n"]), f"{row['norm']:g}", f"{row['circuits']:,}", f"{row['complete']:,}",
            *counts]  # fmt: skip
