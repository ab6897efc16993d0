"""Perturbed identity recurrence where no theorem speaks: matrices that are not symmetric, pools
that differ, the rectified model.

20 neurons, `W_r = I + M`, `b = b0 = 1`, `sigma = 0.1`, equal time constants, and a drive that is
the same for all. The entries of M have the variance `spread^2 / (2 n)`. The steady state without
perturbation, divisive normalization, is followed by Newton's method while the spread grows in small
steps: until it loses stability by a complex pair (Hopf) or by a real eigenvalue, or is lost, as
where it meets another one. Simulations with adaptive steps, from the normalized state, say where
the circuit goes.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import jacobian, spectrum
from organics.machine.lapack import single_threaded_lapack
from organics.rest.search import steady_state
from organics.simulation.ode import DIVERGENCE, NONE, simulate
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.trials import fraction_interval

KINDS = {
    "symmetric, one pool": (True, True, False),
    "not symmetric, one pool": (False, True, False),
    "symmetric, random pools": (True, False, False),
    "not symmetric, random pools": (False, False, False),
    "symmetric, one pool, rectified": (True, True, True),
    "not symmetric, one pool, rectified": (False, True, True),
}
"""Whether M is symmetric, whether there is one pool, and whether the model is rectified."""
FATES = ("stable", "complex pair", "real eigenvalue", "lost")
ENDS = ("at rest", "moving", "diverged")
TAU, C = 2.0, 0.01
_MOST = 65_536  # adaptive steps
_REAL = 1e-9  # imaginary part, in 1/ms, of a real eigenvalue
_JUMP = 0.1  # difference from what the last two states predict beyond which it is another one


@dataclass(frozen=True)
class Sample:
    """The circuits."""

    neurons: int = 20
    strengths: tuple[float, ...] = (0.05, 0.5)
    """Norms of the drive."""
    spreads: int = 300
    """Steps by which the spread grows from 0.03 to 3."""
    simulated: tuple[float, ...] = (1.0, 3.0)
    """Spreads of the simulations."""
    trials: int = 30
    """Matrices for each kind and strength."""
    duration: float = 300.0
    """Of a simulation, in units of the time constants."""
    seed: int = 0


def draw_circuits(kind: str, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """M at a spread of 1, and W, of each trial."""
    symmetric, one_pool, _ = KINDS[kind]
    n, rng = sample.neurons, np.random.default_rng(sample.seed)
    G = rng.normal(size=(sample.trials, n, n))
    W = rng.uniform(0, 2, size=(sample.trials, n, n))
    M = (G + G.transpose(0, 2, 1)) / 2 if symmetric else G / np.sqrt(2)
    return M / np.sqrt(n), np.ones_like(W) if one_pool else W


def _circuit(rectified: bool, M, W, spread) -> Circuit:
    W_r = jnp.eye(len(M)) + spread * M
    return Circuit(W, W_r, 1.0, 1.0, np.sqrt(C), TAU, TAU, rectified)


def compute(job: Job) -> Outcome:
    """Follow the states, and simulate."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, neurons=4, spreads=200, trials=4, simulated=(1.0,), duration=50.0)
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """The counts; a piece for each kind."""
    pieces = []
    with jax.enable_x64(True), single_threaded_lapack():
        for i, kind in enumerate(KINDS):
            job.progress(i / len(KINDS), kind)
            name = f"{i}-{sample.neurons}-{sample.spreads}-{sample.trials}-{sample.seed}.json"
            pieces.append(kept_document(job.folder / name, partial(_of_kind, kind, sample)))
    return {"rows": [row for piece in pieces for row in piece["rows"]], "trials": sample.trials,
            "simulated": sample.simulated}  # fmt: skip


def _of_kind(kind: str, sample: Sample) -> dict[str, Any]:
    M, W = draw_circuits(kind, sample)
    rectified = KINDS[kind][2]
    spreads = np.geomspace(0.03, 3, sample.spreads)
    rows = []
    for strength in sample.strengths:
        z = np.full(sample.neurons, strength / np.sqrt(sample.neurons))
        fates, lasts = (np.asarray(x) for x in followed(rectified, M, W, spreads, z))
        ends = simulated(rectified, M, W, np.array(sample.simulated), z, TAU * sample.duration)
        rows.append(
            {
                "kind": kind,
                "strength": strength,
                "fates": [int(np.sum(fates == i)) for i in range(len(FATES))],
                "median_spread": float(np.median(lasts)),
                "ends": [[int(np.sum(one == i)) for i in range(len(ENDS))] for one in ends.T],
            }
        )
    return {"rows": rows}


def _normalized(z) -> State:
    a = C + jnp.sum(jnp.square(z))  # random pools have the mean of one pool
    return State(z / jnp.sqrt(a), jnp.full_like(z, a))


@partial(jax.jit, static_argnums=0)
def followed(rectified: bool, M, W, spreads, z):
    """For each circuit the fate of the state, an index into `FATES`, and the last spread at which
    it is stable."""

    def one(M, W):
        def grow(now, spread):
            state, before, fate, last = now
            circuit = _circuit(rectified, M, W, spread)
            guess = State(2 * state.y - before.y, jnp.square(state.a) / before.a)
            point = steady_state(circuit, z, start=guess)
            off = jnp.concatenate([point.state.y - guess.y, jnp.log(point.state.a / guess.a)])
            lost = ~point.converged | (jnp.max(jnp.abs(off)) > _JUMP)
            leading = spectrum(jnp.where(lost, 0, jacobian(circuit, point.state)))[0]
            unstable = jnp.where(jnp.abs(leading.imag) > _REAL, 1, 2)
            here = jnp.where(lost, 3, jnp.where(leading.real < 0, 0, unstable))
            fate = jnp.where(fate == 0, here, fate).astype(jnp.int32)
            good = fate == 0
            return (point.state, state, fate, jnp.where(good, spread, last)), None

        unperturbed = _circuit(rectified, M, W, 0.0)
        start = steady_state(unperturbed, z, start=_normalized(z)).state
        begin = start, start, jnp.int32(0), jnp.zeros_like(spreads[0])
        (*_, fate, last), _ = jax.lax.scan(grow, begin, spreads)
        return fate, last

    return jax.vmap(one)(M, W)


def simulated(rectified: bool, M, W, spreads, z, duration: float) -> np.ndarray:
    """Where each circuit goes from the normalized state, by circuit and spread; indices into
    `ENDS`."""
    rested, failure = (np.asarray(x) for x in _run(rectified, M, W, spreads, z, duration))
    if not np.all((failure == NONE) | (failure == DIVERGENCE)):
        raise ArithmeticError("a simulation failed for another reason than divergence.")
    return np.where(rested, 0, np.where(failure == NONE, 1, 2))


@partial(jax.jit, static_argnums=0)
def _run(rectified: bool, M, W, spreads, z, duration):
    def one(M, W, spread):
        circuit = _circuit(rectified, M, W, spread)
        times = jnp.stack([jnp.zeros_like(duration), duration])
        path = simulate(circuit, z, times, _normalized(z), until_steady=True, rtol=1e-7,
                        max_steps=_MOST, throw=False)  # fmt: skip
        return path.rested, path.failure

    return jax.vmap(jax.vmap(one, (None, None, 0)), (0, 0, None))(M, W, spreads)


def conclude(found: dict[str, Any]) -> Outcome:
    """How often the state is lost, and how."""
    rows, trials = found["rows"], found["trials"]
    of = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}

    def total(kind: str, fate: int) -> int:
        return sum(row["fates"][fate] for row in of[kind])

    control = of["symmetric, one pool"]
    kept_there = sum(row["fates"][0] for row in control)
    circuits = trials * len(control)
    others = [kind for kind in KINDS if kind != "symmetric, one pool"]
    hopf = {kind: total(kind, 1) for kind in others}
    checks = [
        Check("symmetric matrices and one pool: the state stays stable up to a spread of 3",
              f"{kept_there:,} of {circuits:,}", kept_there == circuits, tolerance="all"),
        *(
            Check(f"{kind}: the state stays stable up to a spread of 3",
                  _in_words(total(kind, 0), circuits), total(kind, 0) == circuits, decides=False)
            for kind in others
        ),
    ]  # fmt: skip
    most = max(hopf, key=lambda kind: hopf[kind])
    here = (
        f"symmetric, one pool: stable in {kept_there:,} of {circuits:,}; "
        f"{most}: lost by a complex pair in {_in_words(hopf[most], circuits)}"
    )
    columns = ("kind", "strength", *FATES, "median of the last stable spread",
               *(f"at rest, moving, diverged at {x:g}" for x in found["simulated"]))  # fmt: skip
    table = [
        [row["kind"], f"{row['strength']:g}", *map(str, row["fates"]),
         f"{row['median_spread']:.3f}", *(", ".join(map(str, end)) for end in row["ends"])]
        for row in rows
    ]  # fmt: skip
    return Outcome(here, checks, found, Table(columns, table))


def _in_words(successes: int, trials: int) -> str:
    low, high = fraction_interval(successes, trials)
    return f"{successes:,} of {trials:,} ({low:.0%} to {high:.0%})"
