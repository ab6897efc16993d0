"""How common two stable states are within the bounds of the conjecture, and at which norm of `W_r`
two can be.

* count: random circuits of the law of the paper's trials, for each size and largest singular value
  of `W_r`. All their steady states are enclosed, with a proof that there are no others.
* hunt: among circuits of two neurons with `0 < W <= 1`, `|b z| <= 1`, `0 < b0 sigma < 1` and equal
  time constants, the one with two stable states and the smallest largest singular value of `W_r`.
  It begins at `examples/two_stable_states.json` and changes all parameters at random, keeping what
  is better. What it ends with is proved.

Source: Rawat et al. 2024, the conjecture on general recurrence, and the trials behind it.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from organics.circuit.circuit import Circuit
from organics.enumeration.enclosed import ALL
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import newton
from organics.enumeration.states import steady_states
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.ours.enumerated import COLUMNS, abscissae, cells, count, distinct
from organics.trials import fraction_interval


@dataclass(frozen=True)
class Sample:
    """The circuits that are counted, and the hunts."""

    sizes: tuple[int, ...] = (2, 3, 4)
    """Neurons of the random circuits."""
    norms: tuple[float, ...] = (1.0,)
    """Largest singular values of `W_r`."""
    trials: int = 1112
    """Random circuits for each size and norm."""
    hunts: int = 5
    """Hunts, each with a seed of its own."""
    steps: int = 4000
    """Changes that a hunt tries."""
    least: float = 1e-3
    """Largest singular value of `W_r` below which a hunt ends."""
    seed: int = 0
    """Seed of all of it."""


def compute(job: Job) -> Outcome:
    """Count, then hunt."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, sizes=(2,), norms=(1.0,), trials=20, hunts=1, steps=40)
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """The counts, a piece for each size and norm, and what the hunts end with."""
    groups = [(n, norm) for n in sample.sizes for norm in sample.norms]
    parts = len(groups) + 1
    rows = []
    with jax.enable_x64(True):
        for i, (n, norm) in enumerate(groups):
            job.progress(i / parts, f"n = {n}, norm {norm:g}")
            name = f"{n}-{norm:g}-{sample.trials}-{sample.seed}.json"
            make = partial(count, sample.seed, n, norm, sample.trials)
            rows.append(kept_document(job.folder / name, make))
        job.progress(len(groups) / parts, "hunts")
        name = f"hunts-{sample.hunts}-{sample.steps}-{sample.least:g}-{sample.seed}.json"
        hunt = kept_document(job.folder / name, partial(_hunts, sample))
    return {"count": rows, "hunt": hunt}


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the counts and the hunts; `found` is the result of `measure`."""
    rows, hunt = found["count"], found["hunt"]
    norm, stable = hunt["smallest"]["norm"], _stable(hunt)
    inside = [row for row in rows if row["norm"] <= 1]
    several = sum(row["several_stable"] for row in inside)
    circuits = sum(row["circuits"] for row in inside)
    low, high = (100 * end for end in fraction_interval(several, circuits))
    how_many = f"{several} of {circuits:,} ({low:.2g} to {high:.2g} %)"
    checks = [
        Check(
            "two stable states of one circuit, and no others but a saddle, are proved at a norm "
            "of at most 1",
            f"norm {norm:.2g}: {stable} stable of {len(hunt['states'])}, {hunt['outcome']}",
            (stable, len(hunt["states"])) == (2, 3) and norm <= 1 and hunt["outcome"] == ALL,
        ),
        Check(
            "some random circuits of norm at most 1 have two stable states",
            how_many,
            several > 0,
            tolerance="95 % interval of the fraction",
            decides=False,
        ),
        Check(
            "the states of every random circuit are enclosed, and proved to be all",
            f"{sum(row['complete'] for row in rows):,} of {sum(row['circuits'] for row in rows):,}",
            all(row["complete"] == row["circuits"] for row in rows),
            tolerance="all; near a fold the proof is left open",
            decides=False,
        ),
    ]
    here = (
        f"two stable states proved at norm {norm:.2g}; among random circuits of norm at most 1, "
        f"{how_many}"
    )
    return Outcome(here, checks, found, Table(COLUMNS, [cells(row) for row in rows]))


def _stable(hunt: dict[str, Any]) -> int:
    """How many of the states that the hunt ends with are proved to be there, and stable."""
    return sum(state["spectral_abscissa"] < 0 and state["proved"] for state in hunt["states"])


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
        reduced = Reduced(self.W, self.W_r, self.c, self.d, False)
        states = [reduced.state(v) for v in distinct(self.v)]
        return len(states) > 1 and int(np.sum(abscissae(self.circuit, states) < -1e-6)) > 1


def _beginning() -> tuple[Circuit, Float[np.ndarray, " 2"]]:
    """A circuit with two stable states, that of `examples/two_stable_states.json`."""
    W, W_r = [[0.67, 0.03], [0.0001, 0.0024]], [[0.18, 0.16], [0.16, 0.94]]
    return Circuit(W, W_r, b=1.0, b0=1.0, sigma=np.sqrt([0.15, 0.026])), np.array([-0.2, -0.84])


def _hunts(sample: Sample) -> dict[str, Any]:
    circuit, z = _beginning()
    reduced = Reduced.of(circuit, np.asarray(z))
    states = steady_states(circuit, z).states
    v = np.array([reduced.unknowns(state.state) for state in states])
    begin = _Prey(reduced.W, reduced.W_r, reduced.c, reduced.d, v)
    seeds = range(sample.seed, sample.seed + sample.hunts)
    ends = [_hunt(begin, sample.steps, sample.least, seed) for seed in seeds]
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
