"""What this package does itself, compared with a library that could do it.

    python -m benchmarks.libraries [--quick] [--seconds N] [--out FILE]

* The integration towards rest, for a batch of circuits: `organics.rest.relaxation` and Diffrax's
  `Bosh3`, the same pair of Runge-Kutta methods.
* Linear systems in the Jacobian by products, for a batch of drives of one circuit:
  `organics.linear.krylov` and Lineax's `GMRES`, with the same preconditioner, restart and accuracy.
* The gradient of steady states by the implicit function theorem: `organics.steady_state` and
  Optimistix's `root_find` from the steady state.

All are compiled, in float64. Their results must agree.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import optimistix as optx

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, time_in_turn
from organics.circuit.circuit import Circuit, State, random_drive
from organics.linear.krylov import linearized, neuron_blocks, solve_linearized
from organics.rest.relaxation import relax
from organics.rest.search import steady_state
from organics.rest.system import DrivenCircuit

Functions = dict[str, Callable[[], Any]]

_ACCURACY = 1e-6  # of a step of integration
_TIME = 200.0  # ms of integration; time constants are 2 ms
_RESTART = 4
_RESIDUAL = 1e-12


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time each against the library.

    Arguments
        out: file for the result.
        quick: small sizes and few rounds.
        seconds: limit; what does not fit into it is left out.
    """
    agenda = Agenda("libraries", 7, quick=quick, seconds=seconds)
    batch = 4 if quick else 1000
    cases = {
        "relaxation, 1000 circuits, n = 10": (partial(_relaxation, batch, 10), 6),
        "linear systems, 256 drives, n = 100": (partial(_linear, min(batch, 256), 100), 8),
        "gradients, 1000 circuits, n = 10": (partial(_gradient, batch, 10), 15),
    }
    with jax.enable_x64(True):
        found = agenda.take(
            [
                Measurement(name, before, 1.0, partial(_seconds, agenda, functions))
                for name, (functions, before) in cases.items()
            ]
        )
    ratios = {
        name: round(times["library"]["median"] / times["ours"]["median"], 2)
        for name, times in found.items()
    }
    document = {"seconds_each": found, "times_faster_than_the_library": ratios}
    return conclude(agenda, command("libraries", quick=quick, seconds=seconds), document, out)


def _seconds(agenda: Agenda, functions: Callable[[], Functions]) -> dict[str, Any]:
    made = functions()
    ours, other = (np.asarray(function()) for function in made.values())  # this compiles both
    apart = np.max(np.abs(ours - other)) / np.max(np.abs(ours))
    if not apart < 1e-3:
        raise ArithmeticError(f"the results are {apart:.2g} apart.")
    times = time_in_turn(made, agenda.rounds())
    return {name: spread(values, 5) for name, values in times.items()}


def _circuits(count: int, n: int) -> tuple[Circuit, jax.Array]:
    keys = jr.split(jr.key(0), count)
    circuits = jax.vmap(lambda key: Circuit.random(key, n, 1.0))(keys)
    return circuits, jax.vmap(lambda key: random_drive(key, n))(keys)


def _both(ours: Callable[..., Any], library: Callable[..., Any], *arguments: Any) -> Functions:
    def call(function: Callable[..., Any]) -> Callable[[], Any]:
        compiled = eqx.filter_jit(function)
        return lambda: jax.block_until_ready(compiled(*arguments))

    return {"ours": call(ours), "library": call(library)}


def _relaxation(count: int, n: int) -> Functions:
    """The states after a while, from a small one."""
    circuits, drives = _circuits(count, n)

    def begin(circuit, z):
        return jnp.concatenate([jnp.full_like(z, 0.01), circuit.c])

    def slope(circuit, z, x):
        driven = DrivenCircuit(circuit, z)
        return driven.imbalance(x) / driven.time_constants()

    def ours(circuit, z):
        path = relax(
            lambda x: ((), slope(circuit, z, x)),
            lambda _: jnp.bool_(False),
            begin(circuit, z),
            step=jnp.asarray(0.02),
            longest=_TIME,
            most=10_000,
            accuracy=_ACCURACY,
        )
        return path.x

    def library(circuit, z):
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda _, x, args: slope(args[0], args[1], x)),
            dfx.Bosh3(),
            t0=0.0,
            t1=_TIME,
            dt0=0.02,
            y0=begin(circuit, z),
            args=(circuit, z),
            saveat=dfx.SaveAt(t1=True),
            stepsize_controller=dfx.PIDController(
                rtol=_ACCURACY,
                atol=0.01 * _ACCURACY,
                norm=lambda x: jnp.max(jnp.abs(x)),  # as ours judges a step
            ),
            max_steps=10_000,
            adjoint=dfx.ForwardMode(),
        )
        assert solution.ys is not None
        return solution.ys[0]

    return _both(jax.vmap(ours), jax.vmap(library), circuits, drives)


def _linear(count: int, n: int) -> Functions:
    """The solutions at the steady states of many drives."""
    circuit = Circuit.random(jr.key(0), n, 1.0)
    drives = jax.vmap(lambda key: random_drive(key, n))(jr.split(jr.key(1), count))
    states = jax.jit(jax.vmap(lambda z: steady_state(circuit, z).state))(drives)
    sides = jr.normal(jr.key(2), (count, 2 * n))

    def ours(z, state, b):
        return solve_linearized(circuit, z, State(*state), b)

    def library(z, state, b):
        state, shape = State(*state), jax.eval_shape(lambda: b)
        operator = lx.FunctionLinearOperator(linearized(circuit, z, state), shape)
        nearly_inverse = lx.FunctionLinearOperator(neuron_blocks(circuit, state), shape)
        solver = lx.GMRES(rtol=_RESIDUAL, atol=_RESIDUAL, restart=_RESTART, max_steps=80)
        options = {"preconditioner": nearly_inverse}
        return lx.linear_solve(operator, b, solver, options=options, throw=False).value

    return _both(jax.vmap(ours), jax.vmap(library), drives, tuple(states), sides)


def _gradient(count: int, n: int) -> Functions:
    """The gradients of the responses' sum with respect to the drives; both search from scratch."""
    circuits, drives = _circuits(count, n)

    def ours(z, circuit):
        return jnp.sum(steady_state(circuit, z).state.y)

    def library(z, circuit):
        start = jax.lax.stop_gradient(jnp.concatenate(steady_state(circuit, z).state))
        found = optx.root_find(
            lambda x, z: DrivenCircuit(circuit, z).imbalance(x),
            optx.Newton(rtol=1e-10, atol=1e-10),
            start,
            z,
            max_steps=10,
            throw=False,
        )
        return jnp.sum(found.value[:n])

    both = (jax.vmap(jax.grad(one), in_axes=(0, 0)) for one in (ours, library))
    return _both(*both, drives, circuits)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
