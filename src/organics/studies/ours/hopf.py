"""How oscillation begins in random circuits as contrast falls, and how often rest and oscillation
are both stable.

* branches: random circuits of the law of the paper's trials, with a large singular value of `W_r`
  and a stable state at contrast 1. This state is followed down to contrast 0. The sign of the first
  Lyapunov coefficient tells whether the cycle that is born at a Hopf point is stable.
* simulations: the same circuits at contrasts drawn at random, each from several states. One that
  comes to rest from one state and keeps moving from another has both. From large states `a` may go
  to infinity, where `W_r` has negative eigenvalues.

Source: the law of the trials of Rawat et al. 2024; Kuznetsov, Elements of Applied Bifurcation
Theory, for the coefficient.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from organics.branches.branch import Diagram, Event
from organics.branches.continuation import continuations
from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import jacobian
from organics.rest.search import steady_state
from organics.simulation.resting import near_rest, settle
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.trials import fraction_interval, trial

_TIME = 4000.0  # ms, 2,000 time constants
_MOVING = 1e-2  # norm of the imbalance after that time which is no slow approach to rest


@dataclass(frozen=True)
class Sample:
    """The circuits."""

    sizes: tuple[int, ...] = (4, 10)
    """Neurons."""
    norm: float = 3.0
    """Largest singular value of `W_r`."""
    circuits: int = 1000
    """Random circuits of each size; those with a stable state at contrast 1 are followed."""
    simulated: int = 100
    """The first of them, which are simulated."""
    starts: int = 3
    """Simulations of each."""
    seed: int = 0
    """Seed of all of it."""


def compute(job: Job) -> Outcome:
    """Follow, then simulate."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, sizes=(2,), circuits=60, simulated=20, starts=3)
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """For each size, counts of Hopf points, and of simulations that rest and that do not."""
    rows = []
    with jax.enable_x64(True):
        for i, n in enumerate(sample.sizes):
            kind = f"{n}-{sample.norm:g}-{sample.circuits}-{sample.seed}"
            job.progress(i / len(sample.sizes), f"n = {n}: branches")
            path = job.folder / f"branches-{kind}.json"
            branches = kept_document(path, partial(_branches, sample, n))
            job.progress((i + 0.5) / len(sample.sizes), f"n = {n}: simulations")
            path = job.folder / f"simulations-{kind}-{sample.simulated}-{sample.starts}.json"
            simulations = kept_document(path, partial(_simulations, sample, n))
            rows.append({"n": n, "branches": branches, "simulations": simulations})
    return {"norm": sample.norm, "sizes": rows}


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the counts; `found` is the result of `measure`."""
    sizes = found["sizes"]

    def total(part: str, name: str) -> int:
        return sum(row[part][name] for row in sizes)

    above, below = (total("branches", name) for name in ("supercritical", "subcritical"))
    hopfs, followed = above + below, total("branches", "followed")
    confirmed, points = (total("branches", name) for name in ("confirmed", "hopf_points"))
    both, simulated = (total("simulations", name) for name in ("both", "circuits"))
    checks = [
        Check(
            "most Hopf points that stable states meet first as contrast falls are supercritical",
            f"{above} of {hopfs}{_interval(above, hopfs)}",
            bool(hopfs) and 2 * above > hopfs,
            tolerance="95 % interval of the fraction",
        ),
        Check(
            "some are subcritical",
            f"{below} of {hopfs}{_interval(below, hopfs)}",
            below > 0,
            decides=False,
        ),
        Check(
            "every Hopf point on the branches is confirmed by its defining equations",
            f"{confirmed} of {points}",
            confirmed == points,
            decides=False,
        ),
        Check(
            "some circuits come to rest from one state and oscillate from another",
            f"{both} of {simulated}{_interval(both, simulated)}",
            both > 0,
            decides=False,
        ),
    ]
    here = (
        f"of {followed:,} stable states {hopfs} first meet a Hopf point as contrast falls, "
        f"{above} supercritical and {below} subcritical; {both} of {simulated} circuits come to "
        "rest from one state and oscillate from another"
    )
    columns = ("circuits", *(f"n = {row['n']}" for row in sizes))
    cells = zip(*(_counts(row["branches"], row["simulations"]) for row in sizes), strict=True)
    rows = [[what, *counts] for what, counts in zip(_ROWS, cells, strict=True)]
    return Outcome(here, checks, found, Table(columns, rows))


_ROWS = ("stable at contrast 1", "first event: a Hopf point", "  supercritical", "  subcritical",
         "first event: a fold", "no event", "simulated: to rest, none moves on", "  none to rest",
         "  both", "  neither", "  some simulation fails")  # fmt: skip
_ENDS = ("rest", "moves", "both", "neither", "diverges")


def _counts(branches: dict[str, Any], simulations: dict[str, Any]) -> list[str]:
    hopfs = branches["supercritical"] + branches["subcritical"]
    followed, simulated = branches["followed"], simulations["circuits"]
    pairs = (
        (followed, branches["circuits"]),
        (hopfs, followed),
        (branches["supercritical"], hopfs),
        (branches["subcritical"], hopfs),
        (branches["folds"], followed),
        (branches["none"], followed),
        *(
            (simulations[name], simulated)
            for name in ("rest", "moves", "both", "neither", "diverges")
        ),
    )
    return [f"{count:,} of {of:,}{_interval(count, of)}" for count, of in pairs]


def _interval(count: int, trials: int) -> str:
    if not trials:
        return ""
    low, high = (100 * end for end in fraction_interval(count, trials))
    return f" ({low:.2g} to {high:.3g} %)"


def _drawn(sample: Sample, n: int) -> tuple[Circuit, Float[np.ndarray, "k n"]]:
    """Stacked circuits and their drives at contrast 1."""
    draw_one = partial(trial, sample.seed, n=n, spectral_norm=sample.norm)
    many = jax.jit(jax.vmap(lambda index: draw_one(index)))
    circuits, z = jax.device_get(many(np.arange(sample.circuits)))
    return circuits, z


@jax.jit
@jax.vmap
def _at_rest(circuit: Circuit, z: Float[Array, " n"]):
    """A state, and whether it is a stable steady state."""
    point = steady_state(circuit, z)
    rates = jnp.linalg.eigvals(jacobian(circuit, point.state))
    return point.state, point.converged & (jnp.max(jnp.real(rates)) < 0)


def _branches(sample: Sample, n: int) -> dict[str, Any]:
    circuits, z = _drawn(sample, n)
    states, stable = jax.device_get(_at_rest(circuits, z))
    circuits, z, states = jax.tree.map(lambda leaf: leaf[stable], (circuits, z, states))
    diagrams = continuations(circuits, z, "z", (0.0, 1.0), start=State(*states))
    hopfs = [e for found in diagrams for e in found.events if e.kind == "hopf"]
    kinds = Counter(_first(diagram) for diagram in diagrams)
    return {
        "circuits": sample.circuits,
        "followed": len(diagrams),
        "hopf_points": len(hopfs),
        "confirmed": sum(event.confirmed for event in hopfs),
        **{name: kinds[name] for name in ("supercritical", "subcritical", "folds", "none")},
    }


def _first(diagram: Diagram) -> str:
    """The event that the branch meets first from contrast 1 on, which is its last point: it ends
    there, unless it comes back."""
    (branch,) = diagram.branches
    events: list[Event] = [event for event in branch.events if event.confirmed]
    if not events:
        return "none"
    event = events[-1]
    if event.kind != "hopf":
        return "folds"
    assert event.first_lyapunov is not None
    return "supercritical" if event.first_lyapunov < 0 else "subcritical"


def _simulations(sample: Sample, n: int) -> dict[str, Any]:
    circuits, z = jax.tree.map(lambda leaf: leaf[: sample.simulated], _drawn(sample, n))
    rng = np.random.default_rng(sample.seed)
    z = z * rng.uniform(size=(len(z), 1))
    begin = [near_rest(circuits)]
    for _ in range(1, sample.starts):
        size = 10 ** rng.uniform(-2, 0, (len(z), 1))
        y, a = size * rng.normal(size=z.shape), circuits.c + size * rng.uniform(size=z.shape)
        begin.append(State(jnp.asarray(y), jnp.asarray(a)))
    repeated = partial(jax.tree.map, lambda leaf: np.concatenate([leaf] * sample.starts))
    circuits, drives = repeated(circuits), repeated(z)
    starts = State(*(jnp.concatenate(parts) for parts in zip(*begin, strict=True)))
    ends, settled = settle(circuits, drives, starts, _TIME)
    imbalance = jax.jit(jax.vmap(lambda circuit, state, z: circuit.imbalance(state, z)))
    left = np.linalg.norm(np.concatenate(imbalance(circuits, ends, drives), axis=1), axis=1)
    rest, moves, diverges = (
        x.reshape(sample.starts, len(z)).any(axis=0)
        for x in (settled, ~settled & (left > _MOVING), ~np.isfinite(left))
    )
    return {
        "circuits": len(z),
        "rest": int(np.sum(rest & ~moves)),
        "moves": int(np.sum(moves & ~rest)),
        "both": int(np.sum(rest & moves)),
        "neither": int(np.sum(~rest & ~moves)),
        "diverges": int(np.sum(diverges)),
        "which": np.flatnonzero(rest & moves),
    }
