"""How long a hierarchy of areas takes to analyse: steady state, and all eigenvalues.

    python -m benchmarks.hierarchy [--quick] [--seconds N] [--out FILE]

Five areas of 200 neurons with random pools and random connections between neighbours, in float64,
compiled. With balanced feedback of weight 1 every area is solved by itself; of other weights the
state is followed from there in steps of 0.04 and the whole Jacobian, 2,000 x 2,000, decomposed.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.circuit.circuit import Circuit
from organics.circuit.hierarchy import Hierarchy
from organics.linear_stability.spectrum import stability
from organics.machine.lapack import single_threaded_lapack
from organics.rest.search import steady_state

GAMMAS = (1.0, 1.03, 0.5)
AREAS, N = 5, 200
SECONDS = 5.0  # at most


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time the analysis of a hierarchy.

    Arguments
        out: file for the result.
        quick: two areas of three neurons, and few rounds.
        seconds: limit; weights that do not fit into it are left out.
    """
    agenda = Agenda("hierarchy", 5, quick=quick, seconds=seconds)
    areas, n = (2, 3) if quick else (AREAS, N)
    with jax.enable_x64(True), single_threaded_lapack():
        found = agenda.take(
            [
                Measurement(f"gamma {gamma:g}", 30, 8, partial(_seconds, agenda, areas, n, gamma))
                for gamma in GAMMAS
            ]
        )
    totals = {name: one["total"]["median"] for name, one in found.items()}
    document = {
        "areas": areas,
        "neurons": n,
        "analysis_seconds": found,
        "targets": [target(f"{areas} areas of {n} neurons, {name}", total, "at most", SECONDS)
                    for name, total in totals.items()],
    }  # fmt: skip
    return conclude(agenda, command("hierarchy", quick=quick, seconds=seconds), document, out)


def hierarchy(areas: int, n: int, gamma: float) -> tuple[Hierarchy, np.ndarray]:
    """Random pools and connections whose sums do not grow with n, and a drive."""
    rng = np.random.default_rng(0)
    circuits = [Circuit(4 / n * rng.uniform(size=(n, n))) for _ in range(areas)]
    up = [2 / n * rng.uniform(size=(n, n)) for _ in range(areas - 1)]
    back = [1 / n * rng.uniform(size=(n, n)) for _ in range(areas - 1)]
    return Hierarchy(circuits, up, back, gamma), rng.uniform(size=n)


def _seconds(agenda: Agenda, areas: int, n: int, gamma: float) -> dict[str, Any]:
    h, z = hierarchy(areas, n, gamma)
    point = steady_state(h, z)
    if not bool(stability(point).stable):  # this compiles both
        raise ArithmeticError("the hierarchy has no stable steady state.")
    functions = {
        "steady_state": lambda: jax.block_until_ready(steady_state(h, z).residual),
        "stability": lambda: jax.block_until_ready(stability(point).eigenvalues),
    }
    times = time_in_turn(functions, agenda.rounds())
    times["total"] = [sum(both) for both in zip(*times.values(), strict=True)]
    return {"iterations": int(point.iterations)} | {k: spread(v) for k, v in times.items()}


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
