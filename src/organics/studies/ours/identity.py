"""What happens, and what does not, in circuits with identity recurrence, near and far from rest.

* branches: over contrast, from rest on, without folds, Hopf points and branch points.
* window: with one pool of equal neurons, `k = b0 sigma`, `r = tau_y / tau_a` and
  `u = sqrt(sqrt(a) / r)`, the linearization oscillates where `u^6 - 2 u^5 + (k / r)^2 < 0`: at some
  contrast if `k / r < 25 sqrt(5) / 27`, and never faster than `1 / tau_a` rad/ms.
* starts: simulations from far away come to the closed form, below the bound on `a` that is proved
  in the documentation (theory, "From anywhere").
* energy: along trajectories from far away it rises, along those from nearby it does not.

The simulations take steps of a linearly implicit method of order 2, as far states are stiff.

Source: Rawat et al. 2024, the theorem; Shampine & Reichelt 1997, "ode23s", for the steps.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from matplotlib.figure import Figure

from organics.branches.continuation import continuations
from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import jacobian
from organics.linear_stability.energy import energy
from organics.rest.closed_form import closed_form
from organics.rest.search import steady_state
from organics.studies.harness.pieces import joined, kept
from organics.studies.harness.target import Check, Job, Outcome
from organics.trials import fraction_interval

CRITICAL = 25 * np.sqrt(5) / 27
"""Largest `k / r` at which there is a window of oscillation."""
_GAMMA = 1 / (2 + np.sqrt(2))
_E32 = 6 + np.sqrt(2)
_SMALL = 1e-3  # errors are relative to this plus the size
_ARRIVED = 1e-3  # relative distance from the closed form, at which the theorem takes over
_ACCURACY, _TIGHT = 1e-4, 1e-5  # of a step: of many simulations, and where energies are compared
_TOLERANCE = 0.01
_STEPS = 40  # between two looks
_MOST_STEPS = 20_000
_AT_ONCE = 1000
_RISE, _TO = 0.05, 1e-4  # a rise of the energy that counts, and down to which part of its beginning


@dataclass(frozen=True)
class Sample:
    """The circuits."""

    branches: int = 1000
    """Branches over contrast."""
    branch_size: int = 10
    """Neurons of their circuits."""
    window: int = 10_000
    """Linearizations of circuits with one pool."""
    circuits: int = 10_000
    """Circuits that are simulated from far away, of two neurons."""
    starts: int = 10
    """Simulations of each."""
    energies: int = 200
    """Trajectories from far away, and from nearby, along which the energy is computed."""
    seed: int = 0
    """Seed of all of it."""


def compute(job: Job) -> Outcome:
    """All four parts."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(
            sample, branches=20, branch_size=2, window=500, circuits=100, starts=2, energies=20
        )
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """Counts, and the circuits of the window."""
    with jax.enable_x64(True):
        job.progress(0.0, "window")
        window = _window(np.random.default_rng([sample.seed, 1]), sample.window)
        job.progress(0.02, "energy")
        energies = _energies(sample)
        job.progress(0.05, "branches")
        name = f"branches-{sample.branches}-{sample.branch_size}-{sample.seed}"
        branches = kept(job.folder, name, partial(_branches, sample))
        pieces = []
        firsts = range(0, sample.circuits, _AT_ONCE)
        for i, first in enumerate(firsts):
            job.progress(0.2 + 0.8 * i / len(firsts), "starts from far away")
            count = min(_AT_ONCE, sample.circuits - first)
            name = f"starts-{first}-{count}-{sample.starts}-{sample.seed}"
            pieces.append(kept(job.folder, name, partial(_starts, sample, first, count)))
    far = joined(pieces)
    drawn = slice(0, 600)
    return {
        "branches": {name: int(value) for name, value in branches.items()},
        "window": {
            "circuits": len(window.u),
            "decided": int(np.sum(window.decided)),
            "agree": int(np.sum((window.oscillates == window.predicted)[window.decided])),
            "with_window": int(np.sum(window.at_best & (window.ratio < CRITICAL))),
            "with_window_and_oscillate": int(
                np.sum(window.oscillates[window.at_best & (window.ratio < CRITICAL)])
            ),
            "without_window": int(np.sum(window.ratio > CRITICAL)),
            "without_window_but_oscillate": int(np.sum(window.oscillates[window.ratio > CRITICAL])),
            "fastest": float(window.frequency.max()),
            "u": np.round(window.u[drawn], 4),
            "ratio": np.round(window.ratio[drawn], 4),
            "oscillates": window.oscillates[drawn].astype(int),
        },
        "starts": {
            "simulations": len(far["arrived"]),
            "arrived": int(far["arrived"].sum()),
            "most_of_bound": float(far["of_bound"].max()),
            "steps_median": float(np.median(far["steps"])),
            "largest_a": float(far["largest_a"].max()),
        },
        "energy": energies,
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the counts; `found` is the result of `measure`."""
    branches, window, starts, energies = (
        found[name] for name in ("branches", "window", "starts", "energy")
    )
    missed = starts["simulations"] - starts["arrived"]
    at_most = 100 * fraction_interval(missed, starts["simulations"])[1]
    checks = [
        Check(
            "no fold, Hopf point or branch point over contrasts from 0 to 5, all states stable",
            f"{branches['events']} events on {branches['branches']:,} branches, "
            f"{branches['stable']:,} of them stable throughout",
            branches["events"] == 0 and branches["stable"] == branches["branches"],
        ),
        Check(
            "one pool: the linearization oscillates where u^6 - 2 u^5 + (k/r)^2 < 0",
            f"{window['agree']:,} of {window['decided']:,}",
            window["agree"] == window["decided"] > 0,
            tolerance="all whose sign is clear of rounding",
        ),
        Check(
            "one pool: it oscillates at some contrast if k/r < 25 sqrt(5)/27, at none above that",
            f"{window['with_window_and_oscillate']:,} of {window['with_window']:,} below, "
            f"{window['without_window_but_oscillate']} of {window['without_window']:,} above",
            window["with_window_and_oscillate"] == window["with_window"]
            and window["without_window_but_oscillate"] == 0,
        ),
        Check(
            "one pool: it is never faster than 1/(2 pi tau_a)",
            f"at most {window['fastest']:.6f} of that",
            window["fastest"] <= 1 + 1e-9,
        ),
        Check(
            "every simulation from far away comes to the closed form",
            f"{starts['arrived']:,} of {starts['simulations']:,}; exceptions at most "
            f"{at_most:.2g} % (95 %)",
            missed == 0,
        ),
        Check(
            "none of them exceeds the bound on sqrt(a) that is proved",
            f"at most {starts['most_of_bound']:.4f} of the bound; largest a "
            f"{starts['largest_a']:.1e}",
            starts["most_of_bound"] <= 1 + _TOLERANCE,
            tolerance=f"{_TOLERANCE:g}, for the errors of the steps",
        ),
        Check(
            f"from far away the energy rises by {100 * _RISE:g} % or more on most trajectories, "
            "from 1 % away on none",
            f"{energies['far_rise']} of {energies['trajectories']}, {energies['near_rise']} of "
            f"{energies['trajectories']}",
            energies["near_rise"] == 0 and 2 * energies["far_rise"] > energies["trajectories"],
        ),
    ]
    here = (
        f"{branches['events']} events on {branches['branches']:,} branches; "
        f"{starts['arrived']:,} of {starts['simulations']:,} starts from far away come to the "
        f"closed form; the energy rises on {energies['far_rise']} of {energies['trajectories']} "
        f"trajectories from far away, {energies['near_rise']} from nearby"
    )
    return Outcome(here, checks, found)


def draw(outcome: Outcome) -> Figure:
    """Where the linearization of one pool oscillates: circuits that do (filled) and that do not,
    and the border `u^6 - 2 u^5 + (k/r)^2 = 0`."""
    window = outcome.numbers["window"]
    u, ratio, oscillates = (np.asarray(window[name]) for name in ("u", "ratio", "oscillates"))
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for value, face in ((1, "C0"), (0, "none")):
        some = oscillates == value
        axes.plot(u[some], ratio[some], "o", ms=3, mfc=face, mec="C0", mew=0.5)
    border = np.linspace(0, 2, 200)
    axes.plot(border, np.sqrt(2 * border**5 - border**6), "k", lw=1)
    axes.set(xlim=(0, 3), ylim=(0, 3), xlabel=r"$u = (\sqrt{a}\,\tau_a/\tau_y)^{1/2}$",
             ylabel=r"$b_0 \sigma\,\tau_a/\tau_y$")  # fmt: skip
    return figure


class _Window(NamedTuple):
    """Circuits of one pool: `u`, `k / r`, whether the linearization oscillates, whether the formula
    says so and clearly, the fastest frequency in units of `1 / tau_a`, and whether `u` is where a
    window closes last."""

    u: Float[np.ndarray, " k"]
    ratio: Float[np.ndarray, " k"]
    oscillates: Bool[np.ndarray, " k"]
    predicted: Bool[np.ndarray, " k"]
    decided: Bool[np.ndarray, " k"]
    frequency: Float[np.ndarray, " k"]
    at_best: Bool[np.ndarray, " k"]


def _window(rng: np.random.Generator, count: int) -> _Window:
    n = 3
    alpha, tau_a = 10 ** rng.uniform(-1, 1, (2, count))
    ratio = rng.uniform(0, 1.5 * CRITICAL, count)
    r = 10 ** rng.uniform(-1, 1, count)
    k = ratio * r
    at_best = rng.random(count) < 0.2
    u = np.where(at_best, 5 / 3, np.sqrt(ratio) + rng.exponential(1.0, count))  # sqrt(a) >= k
    directions = rng.normal(size=(count, n))
    a = (r * u * u) ** 2
    size = np.sqrt(np.maximum(a - k * k, 0) / alpha)
    d = size[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    J = _jacobians(alpha, k, r * tau_a, tau_a, d)
    imaginary = np.abs(np.linalg.eigvals(np.asarray(J)).imag).max(axis=1)
    terms = np.stack([u**6, -2 * u**5, ratio**2])
    decided = np.abs(terms.sum(axis=0)) > 1e-6 * np.abs(terms).sum(axis=0)
    fast = imaginary * tau_a
    return _Window(u, ratio, fast > 1e-6, terms.sum(axis=0) < 0, decided, fast, at_best)


@jax.jit
@jax.vmap
def _jacobians(alpha, k, tau_y, tau_a, d):
    n = len(d)
    circuit = Circuit(alpha * jnp.ones((n, n)), None, 1.0, 1.0, k, tau_y, tau_a)
    return jacobian(circuit, closed_form(circuit, d))


def _circuits(
    rng: np.random.Generator, count: int, n: int
) -> tuple[Circuit, Float[np.ndarray, "k n"]]:
    """Stacked circuits and drives, with parameters over decades."""
    W = 10 ** rng.uniform(-2, 0.5, (count, n, n))
    sigma = 10 ** rng.uniform(-2, 0, (count, n))
    tau_y, tau_a = 2 * 10 ** rng.uniform(-0.5, 0.5, (2, count, n))
    z = rng.normal(size=(count, n)) * 10 ** rng.uniform(-2, 1, (count, 1))
    made = jax.vmap(lambda W, *rest: Circuit(W, None, 1.0, 1.0, *rest))
    return jax.device_get(made(W, sigma, tau_y, tau_a)), z


def _branches(sample: Sample) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([sample.seed, 2])
    circuits, z = _circuits(rng, sample.branches, sample.branch_size)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    identity = np.tile(np.eye(sample.branch_size), (sample.branches, 1, 1))
    circuits = eqx.tree_at(  # as a matrix, with programs that other branches use, too
        lambda circuit: circuit.W_r, circuits, identity, is_leaf=lambda leaf: leaf is None
    )
    diagrams = continuations(circuits, z, "z", (0.0, 5.0), start="rest")
    return {
        "branches": np.array(len(diagrams)),
        "events": np.array(sum(len(diagram.events) for diagram in diagrams)),
        "stable": np.array(sum(diagram.branches[0].stable.all() for diagram in diagrams)),
    }


class _Walk(NamedTuple):
    """A simulation: the state `(y, a)`, the length of the next step, the largest `a` so far."""

    x: Float[Array | np.ndarray, "*batch m"]
    h: Float[Array | np.ndarray, "*batch"]
    largest_a: Float[Array | np.ndarray, "*batch"]


def _step(circuit: Circuit, z: Float[Array, " n"], accuracy: float, walk: _Walk) -> _Walk:
    """A step, if it is accurate enough, and the length of the next one."""
    x, h, n = jnp.asarray(walk.x), walk.h, circuit.n

    def velocity(x):
        return jnp.concatenate(circuit.velocity(State(x[:n], x[n:]), z))

    implicit = jnp.eye(2 * n) - h * _GAMMA * jacobian(circuit, State(x[:n], x[n:]))
    inverse = jnp.linalg.inv(implicit)
    f0 = velocity(x)
    k1 = inverse @ f0
    f1 = velocity(x + 0.5 * h * k1)
    k2 = inverse @ (f1 - k1) + k1
    moved = x + h * k2
    k3 = inverse @ (velocity(moved) - _E32 * (k2 - f1) - 2 * (k1 - f0))
    error = h / 6 * jnp.abs(k1 - 2 * k2 + k3) / (accuracy * (_SMALL + jnp.abs(moved)))
    size = jnp.max(error)
    good = (size <= 1) & jnp.all(moved[n:] > 0)  # NaN is not
    change = jnp.clip(0.8 * jnp.maximum(size, 1e-9) ** (-1 / 3), 0.2, 5.0)
    change = jnp.where(good, change, jnp.minimum(jnp.nan_to_num(change, nan=0.2), 0.5))
    x = jnp.where(good, moved, x)
    return _Walk(x, h * change, jnp.maximum(walk.largest_a, jnp.max(x[n:])))


@jax.jit
def _advance(circuits: Circuit, z: Float[Array, "k n"], walks: _Walk) -> tuple[_Walk, Array]:
    """Some steps of each, and the distance from the closed form, relative to it."""

    def one(circuit, z, walk):
        step = partial(_step, circuit, z, _ACCURACY)
        walk = jax.lax.fori_loop(0, _STEPS, lambda _, walk: step(walk), walk)
        rest = jnp.concatenate(closed_form(circuit, z))
        return walk, jnp.max(jnp.abs(walk.x - rest) / (_SMALL + jnp.abs(rest)))

    return jax.vmap(one)(circuits, z, walks)


def _far(rng: np.random.Generator, z: Float[np.ndarray, "k n"]) -> _Walk:
    """Starts with `|y|` up to 1e3 and `a` up to 1e6."""
    y = rng.choice([-1, 1], z.shape) * 10 ** rng.uniform(-3, 3, z.shape)
    a = 10 ** rng.uniform(-4, 6, z.shape)
    return _Walk(np.concatenate([y, a], axis=1), np.full(len(z), 1e-6), a.max(axis=1))


def _starts(sample: Sample, first: int, count: int) -> dict[str, np.ndarray]:
    """Of each simulation, whether it comes to the closed form, the largest `sqrt(a)` as a part of
    the bound, the number of steps, and the largest `a`. Those that arrive make room for others."""
    rng = np.random.default_rng([sample.seed, 3, first])
    circuits, z = _circuits(rng, count, 2)
    circuits, z = jax.tree.map(lambda leaf: np.repeat(leaf, sample.starts, axis=0), (circuits, z))
    walks = _far(rng, z)
    bound = np.asarray(_bounds(circuits, z, walks.x))
    total, width = len(z), min(_AT_ONCE, len(z))
    steps, arrived, largest = np.zeros(total, int), np.zeros(total, bool), np.zeros(total)
    slots, waiting = np.arange(width), width
    now = jax.tree.map(lambda leaf: leaf[:width], walks)
    while np.any(slots >= 0):
        index = np.maximum(slots, 0)
        moved, distance = jax.device_get(
            _advance(*jax.tree.map(lambda leaf, i=index: leaf[i], (circuits, z)), now)
        )
        now = jax.tree.map(np.array, moved)
        active = slots >= 0
        steps[slots[active]] += _STEPS
        largest[slots[active]] = now.largest_a[active]
        done = active & (distance < _ARRIVED)
        arrived[slots[done]] = True
        for slot in np.flatnonzero(done | (active & (steps[index] >= _MOST_STEPS))):
            slots[slot] = waiting if waiting < total else -1
            waiting += 1
            if slots[slot] >= 0:
                for leaf, source in zip(now, walks, strict=True):
                    leaf[slot] = source[slots[slot]]
    return {
        "arrived": arrived,
        "of_bound": np.sqrt(largest) / bound,
        "steps": steps,
        "largest_a": largest,
    }


@jax.jit
@jax.vmap
def _bounds(circuit: Circuit, z: Float[Array, " n"], x: Float[Array, " m"]) -> Float[Array, ""]:
    """The largest `sqrt(a)` that is possible on the trajectory from each `x = (y, a)`; stacked."""
    y, a = x[: circuit.n], x[circuit.n :]
    d, c = jnp.abs(circuit.b * z), circuit.c
    m = jnp.minimum(a, c)
    Y = jnp.maximum(jnp.abs(y), d / jnp.sqrt(m))
    rate = 1 / (2 * jnp.max(circuit.tau_a))
    fed = jnp.max(circuit.pool.as_matrix() / (2 * circuit.tau_a[:, None]), axis=0)
    own = jnp.max(c / (2 * circuit.tau_a * jnp.sqrt(m)))
    pooled = jnp.sum(fed * (d * Y / rate + circuit.tau_y * Y**2 / 2))
    return jnp.sqrt(jnp.max(a)) + own / rate + pooled


def _energies(sample: Sample) -> dict[str, int]:
    """On how many trajectories the energy rises."""
    rng = np.random.default_rng([sample.seed, 4])
    circuits, z = _circuits(rng, sample.energies, 2)
    rest = np.concatenate(jax.vmap(closed_form)(circuits, jnp.asarray(z)), axis=1)
    near = rest * (1 + 0.01 * rng.choice([-1, 1], rest.shape))
    rises = {}
    for name, walks in (
        ("far", _far(rng, z)),
        ("near", _Walk(near, np.full(len(z), 1e-6), near[:, 2:].max(axis=1))),
    ):
        V = np.asarray(_along(circuits, z, walks))
        lowest = np.minimum.accumulate(V, axis=1)
        counts = lowest > _TO * V[:, :1]
        rises[f"{name}_rise"] = int(np.sum(np.any(counts & (V - lowest > _RISE * lowest), axis=1)))
    return {"trajectories": sample.energies, **rises}


@jax.jit
@jax.vmap
def _along(circuit: Circuit, z: Float[Array, " n"], walk: _Walk) -> Float[Array, " steps"]:
    """The energy after each step."""
    point, n = steady_state(circuit, z), circuit.n

    def step(walk, _):
        walk = _step(circuit, z, _TIGHT, walk)
        x = jnp.asarray(walk.x)
        return walk, energy(point, State(x[:n], x[n:]))

    return jax.lax.scan(step, walk, None, length=3000)[1]
