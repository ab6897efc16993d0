"""The cost of a step of the stochastic differential equation: the library's scan and Diffrax.

    python -m benchmarks.sde_stepping [--quick] [--seconds N] [--out FILE]

Both have the same circuit, noise, step and number of steps, in float64 and compiled. Each
simulation returns only the final state, the least that Diffrax can do. `UnsafeBrownianPath`
draws fresh increments, as the scan does; `VirtualBrownianTree`, Diffrax's usual choice, can also be
evaluated anywhere. Compilation is not counted.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.circuit.circuit import Circuit, State, random_drive
from organics.simulation.noise import Noise, simulate_noisy

LEVEL, DT = 1e-3, 0.02  # noise level of all neurons; step in ms
CASES: dict[str, tuple[int, int | None, int]] = {  # neurons, trials in a batch, steps
    "n=10": (10, None, 2000),
    "n=10, 32 trials": (10, 32, 200),
    "n=1": (1, None, 2000),
}

DIFFRAX = {
    "euler, unsafe": (dfx.Euler, "unsafe"),
    "euler, tree": (dfx.Euler, "tree"),
    "heun, unsafe": (dfx.Heun, "unsafe"),
    "heun, tree": (dfx.Heun, "tree"),
}


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time steps of the scan and of Diffrax.

    Arguments
        out: file for the result.
        quick: the first case only, with few steps and rounds.
        seconds: limit; cases that do not fit into it are left out.
    """
    cases = {"n=10": (10, None, 100)} if quick else CASES
    agenda = Agenda("sde_stepping", 5, quick=quick, seconds=seconds)
    with jax.enable_x64(True):
        microseconds = agenda.take(
            [
                Measurement(case, 13, 0.3, partial(_microseconds, agenda, *sizes))
                for case, sizes in cases.items()
            ]
        )
    ratios = {case: _diffrax_over_scan(times) for case, times in microseconds.items()}
    found = {
        "cases": {
            case: {"n": n, "trials": trials or 1, "steps": steps, "dt_ms": DT}
            for case, (n, trials, steps) in cases.items()
            if case in microseconds
        },
        "microseconds_per_step_and_trial": microseconds,
        "diffrax_over_scan": ratios,
        "targets": [
            target(f"Diffrax ({name}) over the scan, n=10", ratios["n=10"][name], "at least", bound)
            for name, bound in (("euler, unsafe", 1), ("euler, tree", 10))
            if "n=10" in ratios
        ],
    }
    return conclude(agenda, command("sde_stepping", quick=quick, seconds=seconds), found, out)


def _microseconds(agenda: Agenda, n: int, trials: int | None, steps: int) -> dict[str, Any]:
    functions = _functions(n, steps, trials)
    time_in_turn(functions, range(1))  # compiles
    each = 1e6 / (steps * (trials or 1))
    return {
        name: spread([each * value for value in values])
        for name, values in time_in_turn(functions, agenda.rounds()).items()
    }


def _diffrax_over_scan(times: dict[str, Any]) -> dict[str, float]:
    return {
        name: round(times[name]["median"] / times[_counterpart(name)]["median"], 1)
        for name in DIFFRAX
    }


def _counterpart(name: str) -> str:
    return "scan, heun" if name.startswith("heun") else "scan, euler-maruyama"


def _functions(n: int, steps: int, trials: int | None) -> dict[str, Callable[[], Any]]:
    circuit = Circuit.random(jr.key(0), n)
    # far enough from a = 0 for this noise
    circuit = Circuit(circuit.W, circuit.W_r, circuit.b, 1.0, 0.5, circuit.tau_y, circuit.tau_a)
    z = random_drive(jr.key(1), n)
    simulations = {
        f"scan, {scheme}": partial(_by_scan, circuit, z, steps, scheme)
        for scheme in ("euler-maruyama", "heun")
    } | {
        name: partial(_by_diffrax, circuit, z, steps, solver(), path)
        for name, (solver, path) in DIFFRAX.items()
    }
    keys = jr.key(2) if trials is None else jr.split(jr.key(2), trials)

    def ready(simulation):
        compiled = jax.jit(simulation if trials is None else jax.vmap(simulation))
        return lambda: jax.block_until_ready(compiled(keys))

    return {name: ready(simulation) for name, simulation in simulations.items()}


def _by_scan(circuit, z, steps, scheme, key):
    path = simulate_noisy(
        circuit,
        z,
        Noise(LEVEL, LEVEL),
        DT,
        steps,
        key=key,
        scheme=scheme,
        save_every=steps,
        throw=False,
    )
    return path.state.y[-1], path.ok


def _by_diffrax(circuit, z, steps, solver, path, key):
    start = jnp.stack([jnp.zeros_like(z), circuit.c])
    amplitude = LEVEL / jnp.sqrt(jnp.stack([circuit.tau_y, circuit.tau_a]))
    if path == "unsafe":
        brownian = dfx.UnsafeBrownianPath(start.shape, key)
    else:
        brownian = dfx.VirtualBrownianTree(0.0, steps * DT, DT / 2, start.shape, key)

    def drift(_t, x, _args):
        return jnp.stack(circuit.velocity(State(x[0], x[1]), z))

    def diffusion(_t, _x, _args):
        return lx.DiagonalLinearOperator(amplitude)

    solution = dfx.diffeqsolve(
        dfx.MultiTerm(dfx.ODETerm(drift), dfx.ControlTerm(diffusion, brownian)),
        solver,
        0.0,
        steps * DT,
        DT,
        start,
        adjoint=dfx.ForwardMode(),
        max_steps=steps + 1,
        throw=False,
    )
    assert solution.ys is not None
    return solution.ys[-1, 0], solution.result == dfx.RESULTS.successful


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
