"""Phase diagram of identity recurrence with a random symmetric perturbation, `W_r = I + M`.

`M = (G + G^T) / 2`, with entries of G of variance `spread^2 / n`; n = 100 neurons of one pool with
weights 1, `b = b0 = 1`, `sigma = 0.1`, equal time constants, and a drive of norm `strength` that is
the same for all neurons.

* diagram: the principal state and all eigenvalues of the circuits of a fine grid, by the exact
  reduction: whether the state is stable, whether explicit Euler steps of 0.05 tau are stable at it,
  and whether its slowest mode is slower than 0.01 / tau. One decomposition of a matrix serves the
  whole grid.
* experiment, on a coarser grid: the published one (explicit Euler steps of 0.05 tau, up to 20
  chunks of 100 tau, from the state of first order), and the same with adaptive steps. Both begin
  with a uniform `a`, so the modes are simulated, which is the same circuit in another basis.

Source: Morone, Rawat, Heeger & Martiniani 2025, bioRxiv 2025.05.16.654567, and its published
scripts; the reduction is ours.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from organics.circuit.circuit import State
from organics.linear_stability.spectrum import largest_euler_step
from organics.machine.lapack import single_threaded_lapack
from organics.plots import COLOURS
from organics.shared_pool.modes import Modes
from organics.shared_pool.perturbation import (
    euler_spread,
    first_order,
    mean_field,
    slowing_spread,
)
from organics.shared_pool.principal import principal
from organics.shared_pool.spectrum import reduced_eigenvalues
from organics.simulation.ode import DIVERGENCE, NONE, simulate
from organics.studies.harness.pieces import kept, kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table

C, TAU = 0.01, 2.0
STEP = 0.05
"""Length of the published Euler steps, in units of the time constants."""
SLOW = 0.01
"""Rate, in the same units, below which a state counts as slow."""
_CHUNKS, _CHUNK = 20, 2000  # of steps
_REST, _BEYOND = 1e-6, 1e10  # largest change in a step at rest, and size of a diverged state
_PERIODIC = 0.01  # difference of the last maxima, relative to the swing
_MOST, _TOGETHER = 65_536, 32  # adaptive steps; circuits of a batch
_MARGIN = 1.2  # closer to the border of stable steps, these come to rest slowly
_NEAR = 0.01  # relative distance of `sqrt(a)` at which a simulation is at the principal state
OUTCOMES = ("at rest", "periodic", "neither", "diverged")
_SPREADS, _STRENGTHS = (0.02, 0.1, 0.3, 0.6), (0.01, 0.05, 0.3)  # of the table of the mean field
_DRAWN = 4  # every such point of the grid is kept as a number


@dataclass(frozen=True)
class Sample:
    """The circuits."""

    neurons: int = 100
    grid: int = 200
    """Spreads, from 0.01 to 10, and as many strengths, from 0.01 to 1, of the diagram."""
    trials: int = 20
    """Matrices of the diagram; 100 were published."""
    spreads: int = 13
    """Of the simulations, from 0.1 to 10."""
    strengths: int = 5
    """Of the simulations, from 0.01 to 0.9."""
    runs: int = 4
    """Simulations for each spread and strength."""
    table: int = 20
    """Matrices behind each number of the table."""
    seed: int = 0


def compute(job: Job) -> Outcome:
    """The diagram, the simulations, and the mean field."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(
            sample, neurons=20, grid=8, trials=2, spreads=2, strengths=2, runs=1, table=2
        )
    return conclude(measure(sample, job))


def matrix(sample: Sample, trial: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the trial's M for a spread of 1, and its modes' shares of a uniform drive of
    norm 1."""
    n = sample.neurons
    G = np.random.default_rng((sample.seed, trial)).normal(size=(n, n)) / np.sqrt(n)
    mu, Q = np.linalg.eigh((G + G.T) / 2)
    return mu, Q.sum(axis=0) / np.sqrt(n)


def axes(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Spreads and strengths of the diagram."""
    return np.geomspace(0.01, 10, sample.grid), np.geomspace(0.01, 1, sample.grid)


def modes(spread, strength, mu, share) -> Modes:
    """The circuit of a matrix."""
    return Modes(1 + spread * mu, strength * share, C, TAU, TAU)


@jax.jit
def diagram(
    spreads: Float[Array, " i"],
    strengths: Float[Array, " j"],
    mu: Float[Array, " n"],
    share: Float[Array, " n"],
) -> tuple[Float[Array, "i j"], Float[Array, "i j"]]:
    """Largest real part and largest stable Euler step of the principal states, in units of the time
    constants; NaN where there is none."""

    def one(spread, strength):
        circuit = modes(spread, strength, mu, share)
        found = reduced_eigenvalues(circuit, principal(circuit))
        slowest = jnp.maximum(TAU * found[0].real, -1)  # -1 is an eigenvalue, too
        return slowest, largest_euler_step(found) / TAU

    # one after another: a batch takes as many steps as its slowest circuit
    return jax.lax.map(lambda x: jax.lax.map(lambda z: one(x, z), strengths), spreads)


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """All numbers; a piece for each matrix of the diagram."""
    with jax.enable_x64(True), single_threaded_lapack():
        spreads, strengths = axes(sample)
        named = f"{sample.neurons}-{sample.grid}-{sample.seed}"

        def trial(i: int) -> dict[str, np.ndarray]:
            abscissa, step = diagram(spreads, strengths, *matrix(sample, i))
            return {"abscissa": np.asarray(abscissa), "step": np.asarray(step)}

        pieces = []
        for i in range(sample.trials):
            job.progress(0.9 * i / sample.trials, f"matrix {i + 1} of {sample.trials}")
            pieces.append(kept(job.folder, f"{named}-{i}", partial(trial, i)))
        job.progress(0.9, "simulations")
        runs = (sample.neurons, sample.spreads, sample.strengths, sample.runs, sample.seed)
        path = job.folder / f"runs-{'-'.join(map(str, runs))}.json"
        return {
            "trials": sample.trials,
            "neurons": sample.neurons,
            "diagram": _summary(sample, pieces),
            "simulations": kept_document(path, partial(_experiment, sample)),
            "mean_field": _mean_fields(sample),
            "limit": euler_spread(STEP, C),
        }


def _summary(sample: Sample, pieces: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Counts over all matrices on the whole grid, and fractions on every fourth of its points."""
    spreads, strengths = axes(sample)
    abscissa = np.stack([piece["abscissa"] for piece in pieces])
    step = np.stack([piece["step"] for piece in pieces])
    exists = np.isfinite(abscissa)
    weak = np.square(strengths) < 1 - C
    euler, slow = step > STEP, abscissa > -SLOW
    few = (slice(None, None, _DRAWN), slice(None, None, _DRAWN))
    fraction = lambda which: np.round(which.mean(axis=0)[few], 4)  # noqa: E731
    return {
        "grid": sample.grid,
        "circuits": int(exists.size),
        "weak": int(exists[:, :, weak].size),
        "weak_existing": int(exists[:, :, weak].sum()),
        "strong": int(exists[:, :, ~weak].size),
        "strong_existing": int(exists[:, :, ~weak].sum()),
        "existing": int(exists.sum()),
        "stable": int((abscissa < 0).sum()),
        "largest": float(np.nanmax(abscissa)),
        "spreads": spreads[few[0]],
        "strengths": strengths[few[1]],
        "exists": fraction(exists),
        "euler": fraction(euler),
        "slow": fraction(slow),
        "median": np.round(np.nanmedian(abscissa, axis=0)[few], 6),
        "all_strengths": strengths,
        "euler_border": [_crossing(spreads, row) for row in euler.mean(axis=0).T],
        "slow_border": [_crossing(spreads, 1 - row) for row in slow.mean(axis=0).T],
    }


def _crossing(spreads: np.ndarray, fraction: np.ndarray) -> float | None:
    """Where a fraction first falls to half, interpolated in the logarithm; `None` if nowhere."""
    below = np.flatnonzero(fraction < 0.5)
    if not len(below) or below[0] == 0:
        return None
    i = below[0]
    weight = (fraction[i - 1] - 0.5) / (fraction[i - 1] - fraction[i])
    return float(spreads[i - 1] * (spreads[i] / spreads[i - 1]) ** weight)


def _experiment(sample: Sample) -> dict[str, Any]:
    """Outcomes of both kinds of simulation from both starts, by spread, strength and matrix."""
    spreads = np.geomspace(0.1, 10, sample.spreads)
    strengths = np.geomspace(0.01, 0.9, sample.strengths)
    cases = [(x, z, k) for x in spreads for z in strengths for k in range(sample.runs)]
    drawn = [modes(x, z, *matrix(sample, k)) for x, z, k in cases]
    batch = jax.tree.map(lambda *x: np.stack(x), *drawn)
    at = jax.jit(jax.vmap(principal))(batch)
    rates = jax.jit(jax.vmap(reduced_eigenvalues))(batch, at)
    shape = (len(spreads), len(strengths), sample.runs)
    found: dict[str, Any] = {
        "spreads": spreads,
        "strengths": strengths,
        "runs": sample.runs,
        "abscissa": (TAU * np.real(rates[:, 0])).reshape(shape),
        "step": (np.asarray(jax.vmap(largest_euler_step)(rates)) / TAU).reshape(shape),
    }
    for name, start in STARTS.items():
        x = jax.jit(jax.vmap(start))(batch)
        adaptive, s = by_adaptive_steps(batch, x, np.real(rates[:, 0]))
        near = np.isfinite(s) & (np.abs(s / np.asarray(at.s) - 1) < _NEAR)
        found[name] = {
            "euler": by_euler_steps(batch, x).reshape(shape),
            "adaptive": adaptive.reshape(shape),
            "near": near.reshape(shape),
        }
    return found


def _first_order(circuit: Modes) -> State:
    """The state of first order; `a` is c where that is negative."""
    v, a = first_order(circuit)
    return State(v, jnp.full_like(v, jnp.where(a > 0, a, C)))


def _normalized(circuit: Modes) -> State:
    """Divisive normalization, the steady state without perturbation."""
    d = jnp.asarray(circuit.d)
    a = circuit.c + jnp.sum(jnp.square(d))
    return State(d / jnp.sqrt(a), jnp.full_like(d, a))


STARTS = {"first order": _first_order, "normalized": _normalized}
"""The published start, and a milder one."""


@jax.jit
def _chunk(batch: Modes, x: Float[Array, "k 2 n"]):
    """Explicit Euler steps of all circuits: the last state, its size, the largest change in a step
    of the second half, and `a` of every step."""

    def one(circuit: Modes, x):
        full, z = circuit.as_circuit()

        def step(x, _):
            change = STEP * TAU * jnp.stack(full.velocity(State(*x), z))
            # all `a` are equal; a state that is too large would only become NaN
            return jnp.clip(x + change, -10 * _BEYOND, 10 * _BEYOND), (
                jnp.max(jnp.abs(change)),
                x[1, 0],
            )

        x, (changes, a) = jax.lax.scan(step, x, length=_CHUNK)
        return x, jnp.max(jnp.abs(x)), jnp.max(changes[_CHUNK // 2 :]), a

    return jax.vmap(one)(batch, x)


def by_euler_steps(batch: Modes, start: State) -> np.ndarray:
    """The outcome of the published simulation of each circuit, an index into `OUTCOMES`."""
    x = jnp.stack(start, axis=1)
    found, a = np.full(len(x), -1), np.zeros((len(x), _CHUNK))
    for _ in range(_CHUNKS):
        x, size, change, a = (np.asarray(value) for value in _chunk(batch, x))
        for which, outcome in ((size > _BEYOND, 3), (change < _REST, 0)):
            found = np.where((found < 0) & which, outcome, found)
        if np.all(found >= 0):
            break
    periodic = np.array([_is_periodic(one) for one in a])
    return np.where(found >= 0, found, np.where(periodic, 1, 2))


def _is_periodic(a: np.ndarray) -> bool:
    """Whether the last maxima are about equally high and equally far apart."""
    peaks = np.flatnonzero((a[1:-1] > a[:-2]) & (a[1:-1] >= a[2:])) + 1
    if len(peaks) < 6:
        return False
    high, apart = a[peaks[-5:]], np.diff(peaks[-6:])
    swing = a[_CHUNK // 2 :].max() - a[_CHUNK // 2 :].min()
    return bool(np.ptp(high) < _PERIODIC * swing and np.ptp(apart) <= 2)


@jax.jit
def _adaptive(batch: Modes, start: State):
    def one(circuit: Modes, start: State):
        full, z = circuit.as_circuit()
        times = jnp.array([0.0, STEP * TAU * _CHUNK * _CHUNKS])
        path = simulate(full, z, times, start, until_steady=True, rtol=1e-7,
                        max_steps=_MOST, throw=False)  # fmt: skip
        return path.rested, path.failure, jnp.sqrt(path.state.a[-1, 0])

    return jax.vmap(one)(batch, start)


def by_adaptive_steps(
    batch: Modes, start: State, slowness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The outcome of adaptive steps over the same time, 0, 2 or 3 of `OUTCOMES`, and the last
    `sqrt(a)`.

    Circuits that are about as slow are simulated together, as all of a batch take as many steps as
    the slowest. `slowness` rises with the time that a circuit needs.
    """
    order = np.argsort(slowness)
    parts = -(-len(order) // _TOGETHER)
    size = -(-len(order) // parts)
    some = [order[np.minimum(np.arange(i, i + size), len(order) - 1)]
            for i in range(0, parts * size, size)]  # fmt: skip
    found = [_adaptive(*jax.tree.map(lambda x, i=i: x[i], (batch, start))) for i in some]
    _, first = np.unique(np.concatenate(some), return_index=True)
    rested, failure, s = (np.concatenate(values)[first] for values in zip(*found, strict=True))
    if not np.all((failure == NONE) | (failure == DIVERGENCE)):
        raise ArithmeticError("a simulation failed for another reason than divergence.")
    return np.where(rested, 0, np.where(failure == NONE, 2, 3)), s


def _mean_fields(sample: Sample) -> list[dict[str, float]]:
    """`sqrt(a)` of the mean field beside the average over matrices."""
    drawn = [matrix(sample, trial) for trial in range(sample.table)]
    at = jax.jit(
        jax.vmap(lambda x, z, mu, share: principal(modes(x, z, mu, share)).s, (None, None, 0, 0))
    )
    mu, share = (np.stack(values) for values in zip(*drawn, strict=True))
    return [
        {
            "strength": strength,
            "spread": spread,
            "theory": mean_field(spread, strength, C).s,
            "mean": float(np.mean(at(spread, strength, mu, share))),
        }
        for strength in _STRENGTHS
        for spread in _SPREADS
    ]


def conclude(found: dict[str, Any]) -> Outcome:
    """The diagram and the simulations as checks."""
    whole, runs = found["diagram"], found["simulations"]
    both = lambda name: np.stack([np.asarray(runs[start][name]) for start in STARTS])  # noqa: E731
    euler, adaptive, near = both("euler"), both("adaptive"), both("near")
    abscissa = np.broadcast_to(np.asarray(runs["abscissa"], float), euler.shape)
    largest = np.broadcast_to(np.asarray(runs["step"], float), euler.shape)
    safe, well_below = largest > STEP, largest > _MARGIN * STEP
    diverged, fast = adaptive == 3, abscissa < -SLOW
    beyond, calm = ~safe & ~diverged, well_below & fast & ~diverged
    border = whole["euler_border"][0]
    off = max(abs(row["mean"] / row["theory"] - 1) for row in found["mean_field"])
    checks = [
        Check("the principal state exists for every matrix and spread, where strength^2 < 1 - c",
              f"{whole['weak_existing']:,} of {whole['weak']:,}",
              whole["weak_existing"] == whole["weak"], tolerance="all"),
        Check("it is stable wherever it exists",
              f"{whole['stable']:,} of {whole['existing']:,}; largest real part "
              f"{whole['largest']:.2g} / tau", whole["stable"] == whole["existing"],
              tolerance="all"),
        Check("at the weakest drive Euler steps of 0.05 tau lose it in half of the trials at a "
              "spread of about 0.67", _number(border),
              border is not None and abs(border - 0.67) <= 0.05,
              paper="limit cycles from about 0.64", tolerance="0.05"),
        Check("every simulation with adaptive steps that does not diverge is at the principal "
              "state after 2,000 tau: there is no limit cycle", _count(near & ~diverged, ~diverged),
              bool(np.all(near | diverged)), tolerance="all, sqrt(a) within 1 %"),
        Check("with Euler steps none of them is at rest where these steps are unstable",
              _count((euler == 0) & beyond, beyond), not np.any((euler == 0) & beyond),
              tolerance="none"),
        Check("and nearly all are where steps 1.2 times as long are stable, and the state is not "
              "slow", _count((euler == 0) & calm, calm), bool(np.mean(euler[calm] == 0) >= 0.95),
              tolerance="95 %"),
        Check("the mean field is the average over matrices", f"within {off:.1%}", off < 0.03,
              tolerance="3 %"),
        Check("the circuit itself never diverges",
              "; ".join(f"from the {name} state {_count(one, np.ones_like(one))} diverge"
                        for name, one in zip(STARTS, diverged, strict=True)),
              not np.any(diverged), decides=False),
        Check("for strength^2 > 1 - c the principal state exists",
              f"{whole['strong_existing']:,} of {whole['strong']:,}",
              whole["strong_existing"] == whole["strong"], decides=False),
    ]  # fmt: skip
    here = (
        f"stable in {whole['stable']:,} cases of {whole['existing']:,}; Euler steps lose it at a "
        f"spread of {_number(border)}; of {near.size} simulations {int(near.sum())} reach it with "
        f"adaptive steps and {int(diverged.sum())} diverge, {int((euler == 0).sum())} reach it "
        "with Euler steps"
    )
    columns = ("strength", "slowing begins at", "slow for half", "Euler border", "spread",
               "sqrt(a), mean field", "sqrt(a), mean of trials")  # fmt: skip
    rows = [_cells(found, row) for row in found["mean_field"]]
    return Outcome(here, checks, found, Table(columns, rows))


def _count(which: np.ndarray, of: np.ndarray) -> str:
    return f"{int(which.sum()):,} of {int(of.sum()):,}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _cells(found: dict[str, Any], row: dict[str, float]) -> list[str]:
    whole = found["diagram"]
    nearest = int(np.argmin(np.abs(np.log(np.asarray(whole["all_strengths"]) / row["strength"]))))
    return [
        f"{row['strength']:g}",
        f"{slowing_spread(row['strength'], C):.4f}",
        _number(whole["slow_border"][nearest]),
        _number(whole["euler_border"][nearest]),
        f"{row['spread']:g}",
        f"{row['theory']:.5f}",
        f"{row['mean']:.5f}",
    ]


def draw(outcome: Outcome) -> Figure:
    """Left: fraction of matrices for which Euler steps of 0.05 tau are stable at the principal
    state, which itself is always stable; the solid line is where half of them are, the dashed one
    the limit of weak drives and many neurons. Points are simulations from the normalized state:
    filled where all come to the principal state, open where not. Right: the slowest rate of the
    principal state, and where slowing begins in theory (dotted)."""
    whole, runs = outcome.numbers["diagram"], outcome.numbers["simulations"]
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    spreads, strengths = np.asarray(whole["spreads"]), np.asarray(whole["strengths"])
    mesh = left.pcolormesh(spreads, strengths, np.asarray(whole["euler"]).T, cmap="Greys_r",
                           vmin=-0.5, vmax=1, shading="nearest")  # fmt: skip
    mesh.set_rasterized(True)
    edge = [(x, z) for x, z in zip(whole["euler_border"], whole["all_strengths"], strict=True) if x]
    if edge:
        left.plot(
            *zip(*edge, strict=True), color=COLOURS[0], label="step of 0.05 τ, half of trials"
        )
    left.axvline(outcome.numbers["limit"], color=COLOURS[1], ls="--", label="its limit")
    x, z = np.meshgrid(runs["spreads"], runs["strengths"], indexing="ij")
    for kind, colour, size in (("adaptive", COLOURS[2], 42), ("euler", COLOURS[3], 14)):
        one = runs["normalized"]
        calm = np.asarray(one["near"] if kind == "adaptive" else one[kind]) == (kind == "adaptive")
        calm = np.all(calm, axis=2)
        for which, face in ((calm, colour), (~calm, "none")):
            label = f"{kind} steps" if face == colour else None
            left.scatter(x[which], z[which], s=size, edgecolors=colour, facecolors=face,
                         linewidths=0.8, label=label)  # fmt: skip
    left.set(
        xscale="log", yscale="log", xlabel="spread of the perturbation", ylabel="input strength"
    )
    left.legend(fontsize=6, loc="upper left")
    median = np.asarray(whole["median"], float)
    for i, colour in zip(
        np.linspace(0, len(strengths) - 1, 4).astype(int)[:3], COLOURS, strict=False
    ):
        right.plot(spreads, -median[:, i], color=colour, label=f"strength {strengths[i]:.2g}")
        right.axvline(slowing_spread(float(strengths[i]), C), color=colour, ls=":")
    right.set(xscale="log", yscale="log", xlabel="spread of the perturbation",
              ylabel="slowest rate (1/τ), median")  # fmt: skip
    right.legend(fontsize=7)
    return figure
