"""The cost of never stepping over changes of the drive: `simulate` compared with Diffrax alone.

    python -m benchmarks.drives [--quick] [--seconds N] [--out FILE]

Both have the same circuit, smooth drive (a function of time), solver, tolerances and save times, in
float64 and compiled. Diffrax alone evaluates the drive at its stages only, and misses pulses
between them; `simulate` also evaluates it in between, and bounds its steps.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.circuit.circuit import Circuit, State, random_drive
from organics.simulation.ode import simulate

ERROR = 1e-6  # relative, of a step; the absolute one is a thousandth of it
SAVED = 1001
MOST_STEPS = 1_000_000


class Case(NamedTuple):
    """Neurons, simulated time in ms, and period of the drive in ms."""

    n: int
    time: float
    period: float


CASES = {
    "10 s, a period of 100 ms": Case(10, 1e4, 100.0),
    "100 s, a period of 1 s": Case(10, 1e5, 1000.0),
    "100 s, a period of 20 s": Case(10, 1e5, 20_000.0),
    "10 s, a period of 100 ms, n = 100": Case(100, 1e4, 100.0),
}


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time simulations under smooth drives.

    Arguments
        out: file for the result.
        quick: one case, of 100 ms, and few rounds.
        seconds: limit; cases that do not fit into it are left out.
    """
    cases = {"100 ms": Case(10, 100.0, 100.0)} if quick else CASES
    agenda = Agenda("drives", 7, quick=quick, seconds=seconds)
    with jax.enable_x64(True):
        found = agenda.take(
            [
                Measurement(name, 3, 0.5, partial(_seconds, agenda, case))
                for name, case in cases.items()
            ]
        )
    ratios = {
        name: round(times["simulate"]["median"] / times["diffrax"]["median"], 2)
        for name, times in found.items()
    }
    document = {
        "cases": {name: cases[name]._asdict() for name in found},
        "simulation_seconds": found,
        "over_diffrax": ratios,
        "targets": [target(f"over Diffrax alone, {name}", ratio, "at most", 2)
                    for name, ratio in ratios.items()],
    }  # fmt: skip
    return conclude(agenda, command("drives", quick=quick, seconds=seconds), document, out)


def _seconds(agenda: Agenda, case: Case) -> dict[str, Any]:
    functions = _functions(case)
    ends = [np.asarray(function()) for function in functions.values()]
    if np.max(np.abs(ends[0] - ends[1])) > 1e-3:  # this compiles both; they must agree
        raise ArithmeticError(f"the simulations end {np.abs(ends[0] - ends[1]).max():.2g} apart.")
    times = time_in_turn(functions, agenda.rounds())
    return {name: spread(values) for name, values in times.items()}


def _functions(case: Case) -> dict[str, Callable[[], Any]]:
    circuit = Circuit.random(jr.key(0), case.n, None)
    z = random_drive(jr.key(1), case.n)
    times = jnp.linspace(0.0, case.time, SAVED)
    start = State(jnp.zeros(case.n), circuit.c)

    def drive(t):
        return z * (1 + 0.5 * jnp.sin(2 * jnp.pi * t / case.period))

    @jax.jit
    def ours(start):
        path = simulate(
            circuit, drive, times, start, rtol=ERROR, atol=ERROR / 1000, max_steps=MOST_STEPS,
            throw=False,
        )  # fmt: skip
        return path.state.y[-1]

    @jax.jit
    def alone(start):
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda t, x, _: jnp.stack(circuit.velocity(State(*x), drive(t)))),
            dfx.Tsit5(),
            t0=times[0],
            t1=times[-1],
            dt0=None,
            y0=jnp.stack(start),
            saveat=dfx.SaveAt(ts=times),
            stepsize_controller=dfx.PIDController(rtol=ERROR, atol=ERROR / 1000),
            max_steps=MOST_STEPS,
            throw=False,
        )
        assert solution.ys is not None
        return solution.ys[-1, 0]

    return {
        "simulate": lambda: jax.block_until_ready(ours(start)),
        "diffrax": lambda: jax.block_until_ready(alone(start)),
    }


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
