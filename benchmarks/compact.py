"""How long a circuit of 10^5 neurons takes without a matrix: steady state, gradient, stability.

    python -m benchmarks.compact [--quick] [--seconds N] [--out FILE]

A ring of neurons with a Gaussian pool, convolutional recurrence of norm 1 (excitation nearby,
inhibition around it) and a drive that is different everywhere, in float64, compiled. The largest
real part is also computed for the same drive everywhere, where the dispersion relation knows it.
A quarter of the size is measured, too, for the growth of time. Peak memory is that of the process,
with Python, JAX and its compiler.
"""

import os
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.circuit.circuit import Circuit, State
from organics.circuit.weights import Convolution
from organics.linear_stability.dispersion import dispersion
from organics.linear_stability.spectrum import stability
from organics.rest.search import given_state, steady_state

N = 100_000
LIMITS = {"steady state": 1.0, "gradient": 5.0, "stability": 60.0}  # seconds
GIGABYTES = 2.0


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time the analysis of a large circuit.

    Arguments
        out: file for the result.
        quick: 20,000 neurons, and few rounds.
        seconds: limit; what does not fit into it is left out.
    """
    agenda = Agenda("compact", 5, quick=quick, seconds=seconds)
    n = 20_000 if quick else N
    with jax.enable_x64(True):
        found = agenda.take(
            [
                Measurement("small", 25, 0.7, partial(_at_rest, agenda, n // 4)),
                Measurement("all", 30, 4, partial(_at_rest, agenda, n)),
                Measurement("stability", 20, 50, partial(_stability, agenda, n)),
            ]
        )
    memory = _peak()
    goals = []
    if "all" in found:
        goals += [
            target(f"{n} neurons: {name}, s", found["all"][name]["median"], "at most", LIMITS[name])
            for name in ("steady state", "gradient")
        ]
    if "stability" in found:
        one = found["stability"]
        goals.append(
            target(f"{n} neurons: stability, s", one["seconds"]["median"], "at most", 60.0)
        )
        goals.append(target("distance from dispersion, 1e-6/ms", one["error"] * 1e6, "at most", 1))
    goals.append(target("peak memory, GB", memory, "at most", GIGABYTES))
    document = {"neurons": n, **found, "peak_gigabytes": round(memory, 3), "targets": goals}
    return conclude(agenda, command("compact", quick=quick, seconds=seconds), document, out)


class Ring(NamedTuple):
    """A circuit and its drive."""

    circuit: Circuit
    z: np.ndarray


def ring(n: int, *, uniform: bool = False) -> Ring:
    """The circuit of the benchmark."""
    x = np.arange(-50, 51)
    bump = lambda width: np.exp(-0.5 * (x / width) ** 2) / width  # noqa: E731
    on_ring = lambda kernel: Convolution(kernel[None, None, None], 1, n, "periodic")  # noqa: E731
    pool = bump(15.0)
    circuit = Circuit(
        W=on_ring(0.5 * pool / pool.sum()),
        W_r=on_ring(1.4 * bump(3.0) - 0.5 * bump(9.0)).capped(1.0),
        sigma=0.3,
        tau_a=4.0,
    )
    z = np.full(n, 0.6) if uniform else np.random.default_rng(0).uniform(0.2, 1, n)
    return Ring(circuit, z)


def _at_rest(agenda: Agenda, n: int) -> dict[str, Any]:
    circuit, z = ring(n)

    @jax.jit
    def find(circuit, z):
        return steady_state(circuit, z, matrix_free=True).found

    @jax.jit
    def gradient(circuit, z):
        total = lambda both: jnp.sum(find(*both).state.y ** 2)  # noqa: E731
        return jax.grad(total)((circuit, z))

    found = find(circuit, z)
    if not bool(found.converged):
        raise ArithmeticError("no steady state was found.")
    slope = gradient(circuit, z)[1]
    direction = np.random.default_rng(1).normal(size=n)
    h = 1e-6
    ends = [jnp.sum(find(circuit, z + e * direction).state.y ** 2) for e in (-h, h)]
    difference = (float(ends[1]) - float(ends[0])) / (2 * h)
    times = time_in_turn(
        {
            "steady state": lambda: jax.block_until_ready(find(circuit, z)),
            "gradient": lambda: jax.block_until_ready(gradient(circuit, z)),
        },
        agenda.rounds(),
    )
    return {
        "neurons": n,
        "iterations": int(found.iterations),
        "residual": float(found.residual),
        "gradient_error": abs(float(slope @ direction) / difference - 1),
        **{name: spread(each) for name, each in times.items()},
    }


def _stability(agenda: Agenda, n: int) -> dict[str, Any]:
    circuit, z = ring(n, uniform=True)
    known = dispersion(circuit, z)
    state = State(*(jnp.full(n, part[0]) for part in known.point.state))
    point = given_state(circuit, z, state)
    found = stability(point, matrix_free=True)
    times = time_in_turn({"stability": lambda: stability(point, matrix_free=True)}, agenda.rounds())
    return {
        "abscissa": float(found.spectral_abscissa),
        "residual": 0.0 if found.residual is None else float(found.residual),
        "error": abs(float(found.spectral_abscissa) - known.spectral_abscissa),
        "seconds": spread(times["stability"]),
    }


def _peak() -> float:
    """The most memory that this process had so far, in gigabytes."""
    units = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units / 1e9


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
