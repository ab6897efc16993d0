"""How many steady states random circuits have, how many of them are stable, and at which norm of
`W_r` two can be.

    python -m organics.studies.ours.several_states

* count: random circuits of the law of the paper's trials, for each size and largest singular value
  of `W_r`. All their steady states are enclosed, with a proof that there are no others.
* hunt: among circuits of two neurons with `0 < W <= 1`, `|b z| <= 1`, `0 < b0 sigma < 1` and equal
  time constants, the one with two stable states and the smallest largest singular value of `W_r`.
  It begins at `examples/two_stable_states.json` and changes all parameters at random, keeping what
  is better. What it ends with is proved.

Source: Rawat et al. 2024, the conjecture on general recurrence, and the trials behind it.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from organics.circuit.circuit import Circuit, State
from organics.circuit.file import load_circuit
from organics.enumeration.enclosure import ALL, enclose_all
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import is_among, newton
from organics.enumeration.states import steady_states
from organics.linear.jacobian import jacobian
from organics.machine.provenance import system, versions
from organics.settings import Settings
from organics.studies.harness.outcome import command, run_from_command_line, write
from organics.trials import fraction_interval

_MOST_BOXES = 5_000_000


@dataclass(frozen=True)
class Config(Settings):
    """How many steady states random circuits have, and where two are stable."""

    results: Path = Path("results/several_states.json")
    """File for the outcome."""
    start: Path = Path("examples/two_stable_states.json")
    """Circuit file with two stable states, n = 2, where the hunt begins."""
    sizes: tuple[int, ...] = (2, 3, 4)
    """Neurons of the random circuits."""
    norms: tuple[float, ...] = (1.0, 2.0, 3.0)
    """Largest singular values of `W_r`."""
    trials: int = 300
    """Random circuits for each size and norm."""
    hunts: int = 5
    """Hunts, each with a seed of its own."""
    steps: int = 4000
    """Changes that a hunt tries."""
    least: float = 1e-3
    """Largest singular value of `W_r` below which a hunt ends."""
    seed: int = 0
    """Seed of all of it."""


def compute(config: Config) -> dict[str, Any]:
    """Count, then hunt; the outcome so far is always in `config.results`."""
    with jax.enable_x64(True):
        document: dict[str, Any] = {"command": command("several_states"), "count": []}
        for n in config.sizes:
            for norm in config.norms:
                document["count"].append(_count(config, n, norm))
                write(config.results, document)
        document["hunt"] = _hunts(config)
        document |= {"system": system(), "versions": versions()}
        write(config.results, document)
        return document


def _count(config: Config, n: int, norm: float) -> dict[str, Any]:
    numbers, stable, complete = [], [], 0
    for k in range(config.trials):
        circuit, z = _random(
            np.random.default_rng([config.seed, n, round(1000 * norm), k]), n, norm
        )
        reduced = Reduced.of(circuit, z)
        found = enclose_all(circuit, z, reduced, _MOST_BOXES)
        complete += found.outcome == ALL
        numbers.append(len(found.v))
        stable.append(int(sum(_abscissae(circuit, [reduced.state(v) for v in found.v]) < 0)))
    several = sum(one > 1 for one in stable)
    return {
        "n": n,
        "norm": norm,
        "circuits": config.trials,
        "complete": complete,
        "states": dict(sorted(Counter(numbers).items())),
        "stable": dict(sorted(Counter(stable).items())),
        "several_stable": several,
        "interval": [round(end, 5) for end in fraction_interval(several, config.trials)],
    }


def _random(rng: np.random.Generator, n: int, norm: float) -> tuple[Circuit, np.ndarray]:
    b, b0, sigma = 1 - rng.uniform(size=(3, n))  # not 0
    W, W_r, z = rng.uniform(size=(n, n)), rng.normal(size=(n, n)), rng.normal(size=n)
    return Circuit(W, norm * W_r / np.linalg.norm(W_r, 2), b, b0, sigma), z / np.linalg.norm(z)


def _abscissae(circuit: Circuit, states: list[State]) -> Float[np.ndarray, " k"]:
    """Largest real part of the eigenvalues at each state."""
    if not states:
        return np.empty(0)
    each = [np.asarray(_jacobian(circuit, state)) for state in states]
    return np.real(np.linalg.eigvals(np.array(each))).max(axis=1)


@jax.jit
def _jacobian(circuit: Circuit, state: State) -> Float[Array, "two_n two_n"]:
    return jacobian(circuit, state)


class _Prey(NamedTuple):
    """A circuit under a drive, with its states: those that were stable before, and the saddle."""

    W: Float[np.ndarray, "n n"]
    W_r: Float[np.ndarray, "n n"]
    c: Float[np.ndarray, " n"]
    d: Float[np.ndarray, " n"]
    v: Float[np.ndarray, "k n"]

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.W_r, 2))

    @property
    def circuit(self) -> Circuit:
        ones = np.ones(len(self.c))
        return Circuit(self.W, self.W_r, ones, ones, np.sqrt(self.c))

    def changed(self, rng: np.random.Generator, size: float) -> "_Prey":
        """With all parameters changed at random, and the states moved along by Newton's method."""
        W = np.minimum(self.W * np.exp(size * rng.normal(size=self.W.shape)), 1)
        c = np.minimum(self.c * np.exp(size * rng.normal(size=self.c.shape)), 0.999)
        d = self.d + size * rng.normal(size=self.d.shape) * np.abs(self.d)
        W_r = self.W_r + size * rng.normal(size=self.W_r.shape) * np.abs(self.W_r)
        moved = self._replace(W=W, W_r=W_r, c=c, d=d / max(1, np.linalg.norm(d)))
        with np.errstate(all="ignore"):
            v = newton(Reduced(moved.W, moved.W_r, moved.c, moved.d, False), self.v)
        return moved._replace(v=v)

    def has_two(self) -> bool:
        """Whether two of the states are stable."""
        different: list[np.ndarray] = []
        for v in self.v:
            if not is_among(v, np.array(different).reshape(-1, len(v))):
                different.append(v)
        reduced = Reduced(self.W, self.W_r, self.c, self.d, False)
        states = [reduced.state(v) for v in different]
        return len(states) > 1 and int(np.sum(_abscissae(self.circuit, states) < -1e-6)) > 1


def _hunts(config: Config) -> dict[str, Any]:
    circuit, (z,) = load_circuit(config.start)
    reduced = Reduced.of(circuit, np.asarray(z))
    states = steady_states(circuit, z).states
    v = np.array([reduced.unknowns(state.state) for state in states])
    begin = _Prey(reduced.W, reduced.W_r, reduced.c, reduced.d, v)
    seeds = range(config.seed, config.seed + config.hunts)
    ends = [_hunt(begin, config.steps, config.least, seed) for seed in seeds]
    best = min(ends, key=lambda end: end.norm)
    proved = steady_states(best.circuit, best.d, prove=True)
    return {
        "norm_at_the_start": begin.norm,
        "norms_at_the_ends": [end.norm for end in ends],
        "smallest": {
            "norm": best.norm,
            "W": best.W.tolist(),
            "W_r": best.W_r.tolist(),
            "b": 1.0,
            "b0": 1.0,
            "sigma": np.sqrt(best.c).tolist(),
            "tau_y": 2.0,
            "tau_a": 2.0,
            "z": best.d.tolist(),
        },
        "outcome": proved.outcome,
        "states": [
            {
                "a": np.asarray(state.state.a).tolist(),
                "spectral_abscissa": float(state.linear.spectral_abscissa),
                "proved": state.proved,
            }
            for state in proved.states
        ],
    }


def _hunt(begin: _Prey, steps: int, least: float, seed: int) -> _Prey:
    """What is left after so many changes at random, their size as one in five is better."""
    rng = np.random.default_rng(seed)
    best, size = begin, 0.05
    for _ in range(steps):
        if best.norm < least:
            break
        tried = best.changed(rng, size)
        better = tried.norm < best.norm and tried.has_two()
        best, size = (tried, 1.5 * size) if better else (best, 0.9 * size)
        size = min(max(size, 1e-5), 0.5)
    return best


if __name__ == "__main__":
    run_from_command_line(compute, Config)
