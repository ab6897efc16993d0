"""How long the phase diagram of perturbed identity recurrence takes, and its simulations.

    python -m benchmarks.perturbed [--quick] [--seconds N] [--out FILE]

The diagram: principal state and all eigenvalues of the 200 x 200 circuits of 100 neurons of one
matrix, by the reduction; beside it LAPACK's eigenvalues of whole Jacobians, for a few of them. The
simulations, per trial, up to 2,000 tau from the state of first order: ours by adaptive steps, of
the modes and of the circuits with their matrices, in one batch; the published way one after
another, by explicit Euler steps of 0.05 tau in chunks of 100 tau until the last steps are below
1e-6, with every state stored. That is written here a second time, in NumPy and, where it is
installed, in PyTorch, without the overhead of the published script's `odeint`. All in float64.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from benchmarks._peers import torch
from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import eigenvalues, jacobian
from organics.machine.lapack import single_threaded_lapack
from organics.shared_pool.principal import principal
from organics.shared_pool.spectrum import reduced_eigenvalues
from organics.simulation.ode import simulate
from organics.studies.ours import perturbed as study

DIAGRAM_SECONDS, TIMES_FASTER = 120.0, 20.0
SPREADS, STRENGTHS = (0.1, 0.8), (0.01, 0.8)  # two of these four come to rest soon
_MODES, _MATRICES = 16, 2  # matrices of a batch of ours
_STEPS, _CHUNKS = 2000, 20


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time the diagram and the simulations.

    Arguments
        out: file for the result.
        quick: small sizes, and few rounds.
        seconds: limit; what does not fit into it is left out.
    """
    agenda = Agenda("perturbed", 5, quick=quick, seconds=seconds)
    sample = study.Sample(neurons=6, grid=4) if quick else study.Sample()
    with jax.enable_x64(True), single_threaded_lapack():
        found = agenda.take(
            [
                Measurement("diagram", 20, 12, partial(_diagram, agenda, sample)),
                Measurement("simulations", 120, 40, partial(_simulations, agenda, sample, quick)),
            ]
        )
    goals = []
    if "diagram" in found:
        took = found["diagram"]["diagram"]["median"]
        goals.append(target(f"{sample.grid**2:,} circuits", took, "at most", DIAGRAM_SECONDS))
    if "simulations" in found:
        per_trial = {name: one["median"] for name, one in found["simulations"].items()}
        goals += [
            target(f"times faster per simulation than in {name}",
                   per_trial[name] / per_trial["modes"], "at least", TIMES_FASTER)
            for name in ("NumPy", "PyTorch")
            if name in per_trial
        ]  # fmt: skip
    document = {"neurons": sample.neurons, "grid": sample.grid, "seconds_of": found,
                "targets": goals, "torch": getattr(torch, "__version__", None)}  # fmt: skip
    return conclude(agenda, command("perturbed", quick=quick, seconds=seconds), document, out)


def _diagram(agenda: Agenda, sample: study.Sample) -> dict[str, Any]:
    """Seconds for one matrix, and for a circuit by LAPACK."""
    mu, share = study.matrix(sample, 0)
    axes = study.axes(sample)
    few, n = 10, sample.neurons
    states = [principal(study.modes(0.5, z, mu, share)) for z in axes[1][:few]]
    J = np.stack(
        [
            jacobian(
                study.modes(0.5, z, mu, share).as_circuit()[0],
                State(one.v, jnp.full(n, jnp.square(one.s))),
            )
            for z, one in zip(axes[1][:few], states, strict=True)
        ]
    )
    functions = {
        "diagram": lambda: jax.block_until_ready(study.diagram(*axes, mu, share)),
        "lapack": lambda: eigenvalues(J),
    }
    for function in functions.values():  # compiles
        function()
    times = time_in_turn(functions, agenda.rounds())
    times["lapack"] = [t / len(J) for t in times["lapack"]]
    return {name: spread(values, 6) for name, values in times.items()}


def circuits(sample: study.Sample, runs: int):
    """Modes and circuits with their matrices, in the same order, and the states at the start."""
    n, drawn = sample.neurons, []
    for k in range(runs):
        G = np.random.default_rng((sample.seed, k)).normal(size=(n, n)) / np.sqrt(n)
        mu, Q = np.linalg.eigh((G + G.T) / 2)
        for x in SPREADS:
            for z in STRENGTHS:
                modes = study.modes(x, z, mu, Q.sum(axis=0) / np.sqrt(n))
                W_r = np.eye(n) + x * (G + G.T) / 2
                drawn.append((modes, W_r, np.full(n, z / np.sqrt(n)), Q))
    batch = jax.tree.map(lambda *x: np.stack(x), *[one[0] for one in drawn])
    start = jax.jit(jax.vmap(study.STARTS["first order"]))(batch)
    rates = jax.jit(jax.vmap(lambda m: reduced_eigenvalues(m, principal(m))))(batch)
    slowness = np.real(rates[:, 0])
    matrices, drives, bases = (np.stack([one[i] for one in drawn]) for i in (1, 2, 3))
    dense = State(jnp.einsum("kij,kj->ki", bases, start.y), start.a)
    return batch, start, slowness, matrices, drives, dense


def _simulations(agenda: Agenda, sample: study.Sample, quick: bool) -> dict[str, Any]:
    """Seconds per trial, each way; the published way for one matrix only."""
    batch, start, slowness, matrices, drives, dense = circuits(sample, 1 if quick else _MODES)
    one = len(SPREADS) * len(STRENGTHS)
    some = min(len(drives), _MATRICES * one)
    work = {
        "modes": (len(drives), lambda: study.by_adaptive_steps(batch, start, slowness)),
        "matrices": (
            some,
            lambda: jax.block_until_ready(
                _adaptive(matrices[:some], drives[:some], State(dense.y[:some], dense.a[:some]))
            ),
        ),
    }
    ways = {"NumPy": _in_numpy} | ({} if torch is None else {"PyTorch": _in_torch})
    if torch is None:
        agenda.leave_out("PyTorch", "it is not installed")
    else:
        torch.set_num_threads(1)
    for name, way in ways.items():
        work[name] = (one, partial(_one_by_one, way, matrices[:one], drives[:one], dense))
    for _, function in list(work.values())[:2]:  # compiles
        function()
    times = time_in_turn({name: function for name, (_, function) in work.items()}, agenda.rounds())
    return {name: spread([t / work[name][0] for t in values], 6) for name, values in times.items()}


@jax.jit
def _adaptive(matrices, drives, start: State):
    ones = jnp.ones(matrices.shape[1:])

    def one(W_r, z, start):
        circuit = Circuit(ones, W_r, 1.0, 1.0, np.sqrt(study.C), study.TAU, study.TAU)
        times = jnp.array([0.0, study.STEP * study.TAU * _STEPS * _CHUNKS])
        path = simulate(circuit, z, times, start, until_steady=True, rtol=1e-7, throw=False)
        return path.state.a[-1, 0]

    return jax.vmap(one)(matrices, drives, start)


def _one_by_one(way, matrices, drives, dense: State) -> list[str]:
    y, a = np.asarray(dense.y), np.asarray(dense.a)
    return [
        way(W_r, z, y[i], a[i]) for i, (W_r, z) in enumerate(zip(matrices, drives, strict=True))
    ]


def _in_numpy(W_r, z, y, a) -> str:
    """Chunks of Euler steps until the state rests or diverges."""
    n, W = len(z), np.ones_like(W_r)
    path = np.empty((_STEPS, 2 * n))
    x = np.concatenate([y, a])
    for _ in range(_CHUNKS):
        for i in range(_STEPS):
            y, a = x[:n], np.maximum(x[n:], 0)
            rate_y = -y + z + (1 - np.sqrt(a)) * (W_r @ y)
            rate_a = -x[n:] + study.C + W @ (a * y * y)
            x = x + study.STEP * np.concatenate([rate_y, rate_a])
            path[i] = x
        if not np.all(np.abs(x) < 1e10):
            return "diverged"
        if np.max(np.abs(np.diff(path[_STEPS // 2 :], axis=0))) < 1e-6:
            return "at rest"
    return "neither"


def _in_torch(W_r, z, y, a) -> str:
    """The same in PyTorch."""
    n, (W_r, z, y, a) = len(z), map(torch.tensor, (W_r, z, y, a))
    W = torch.ones_like(W_r)
    x = torch.cat([y, a])
    with torch.no_grad():
        for _ in range(_CHUNKS):
            path = []
            for _ in range(_STEPS):
                y, a = x[:n], torch.relu(x[n:])
                rate_y = -y + z + (1 - torch.sqrt(a)) * (W_r @ y)
                rate_a = -x[n:] + study.C + W @ (a * y * y)
                x = x + study.STEP * torch.cat([rate_y, rate_a])
                path.append(x)
            if not bool(torch.all(torch.abs(x) < 1e10)):
                return "diverged"
            late = torch.stack(path[_STEPS // 2 :])
            if bool(torch.max(torch.abs(torch.diff(late, dim=0))) < 1e-6):
                return "at rest"
    return "neither"


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
