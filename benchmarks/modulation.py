"""Modulated time constants compared with learned ones.

    python -m benchmarks.modulation [--quick] [--seconds N] [--out FILE]

One training step is a forward and backward pass over a whole sequence, with the gradient of every
weight, by the quickest kernel. *Products* is the ratio of the multiplications in the matrix
products of a step: with n neurons, learned time constants need 6 n^2, those of y modulated 2 n^2
more, all four together as many, and each by itself 8 n^2 more. *Gigaflops* are the billions of
multiplications and additions in these products in a second: where they are alike, the products
bound the kernel.
"""

from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from benchmarks._peers import BATCH, size_in_words
from organics.kernels import native
from organics.nn import ORGaNICs

SIZES = ((64, 784), (128, 784))
KINDS = {"learned": 6, "modulated-y": 8, "modulated-together": 8, "modulated": 14}
"""Time constants, and the products of a step over n^2."""
ROUNDS = 5


def run(
    out: Path | None = None,
    quick: bool = False,
    seconds: float | None = None,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Time training steps and inference.

    Arguments
        out: file for the result.
        quick: a small size and two rounds; the times mean nothing.
        seconds: limit; sizes that do not fit into it are left out.
        rounds: rounds for each size, at least five.
    """
    agenda = Agenda("modulation", rounds, quick=quick, seconds=seconds)
    sizes = [(16, 20)] if quick else list(SIZES)
    measurements = [
        Measurement(
            size_in_words(*size), 10, 6e-5 * size[0] * size[1], partial(_row, agenda, *size)
        )
        for size in sizes
    ]
    measured = agenda.take(measurements)
    rows = [measured[size_in_words(*size)] for size in sizes if size_in_words(*size) in measured]
    found = {
        "batch": BATCH,
        "instruction_set": native.instruction_set(),
        "targets": [goal for row in rows for goal in _targets(row)],
        "rows": rows,
    }
    options = {"quick": quick, "seconds": seconds, "rounds": None if rounds == ROUNDS else rounds}
    return conclude(agenda, command("modulation", **options), found, out)


def _row(agenda: Agenda, n: int, steps: int) -> dict[str, Any]:
    functions = {}
    for kind in KINDS:
        functions[f"training {kind}"] = _function(n, steps, kind, training=True)
        functions[f"inference {kind}"] = _function(n, steps, kind, training=False)
    time_in_turn(functions, range(1))  # compiles
    seconds = time_in_turn(functions, agenda.rounds())
    row: dict[str, Any] = {"units": n, "steps": steps}
    for what in ("training", "inference"):
        times = {kind: seconds[f"{what} {kind}"] for kind in KINDS}
        base = median(times["learned"])
        row[f"{what}_seconds"] = {kind: spread(one) for kind, one in times.items()}
        row[f"{what}_over_learned"] = {
            kind: round(median(one) / base, 3) for kind, one in times.items() if kind != "learned"
        }
    row["inference_gigaflops"] = {
        kind: round(2e-9 * count * n**2 * steps * BATCH / median(seconds[f"inference {kind}"]))
        for kind, count in KINDS.items()
    }
    row["products_over_learned"] = {
        kind: round(count / KINDS["learned"], 3) for kind, count in KINDS.items()
    }
    return row


def _function(n: int, steps: int, kind: Any, *, training: bool):
    layer = ORGaNICs(1, n, key=jr.key(0), time_constants=kind, dtype=np.float32)
    if kind != "learned":  # no special values
        keys = iter(jr.split(jr.key(1), 3))
        moved = jax.tree.map(
            lambda leaf: 0.1 * jr.normal(next(keys), leaf.shape, leaf.dtype),
            layer.cells[0].modulation,
        )
        layer = eqx.tree_at(lambda la: la.cells[0].modulation, layer, moved)
    x = jr.uniform(jr.key(2), (BATCH, steps, 1), np.float32)

    def value(layer, x):
        return jnp.sum(jnp.square(layer(x, sequence=False)[0]))

    compiled = eqx.filter_jit(eqx.filter_grad(value) if training else value)
    return lambda: jax.block_until_ready(compiled(layer, x))


def _targets(row: dict[str, Any]) -> list[dict[str, Any]]:
    where = size_in_words(row["units"], row["steps"])
    ratios = row["training_over_learned"]
    return [
        target(f"{where}: training, {kind} over learned", ratios[kind], "at most", 1.4)
        for kind in ratios
    ]


if __name__ == "__main__":
    command_line(run)
