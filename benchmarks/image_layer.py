"""A layer on images against a dense layer with as many neurons: time and memory of a gradient.

    python -m benchmarks.image_layer [--quick] [--seconds N] [--out FILE]

Images of 28 x 28 pixels and 8 channels of neurons, 6,272 in all, batches of 8, in float32: mean of
the rates and its gradient, compiled. `NormalizationConv2d` with pools of 5 x 5 across channels, and
`Normalization`, in which every neuron hears every pixel and every other neuron, both with
`W_r = I`; and the former with learned recurrence. (The latter with learned recurrence takes the
singular values of a 6,272 x 6,272 matrix at every step, minutes; only its memory is compared.)
Memory is that of the compiled program: arguments, results and intermediate values.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.names import StaticRecurrence
from organics.nn.convolution import NormalizationConv2d
from organics.nn.normalization import Normalization

SIDE, CHANNELS, BATCH = 28, 8, 8


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time both layers.

    Arguments
        out: file for the result.
        quick: images of 8 x 8 pixels and two channels, and few rounds.
        seconds: limit; what does not fit into it is left out.
    """
    agenda = Agenda("image_layer", 21, quick=quick, seconds=seconds)
    side, channels = (8, 2) if quick else (SIDE, CHANNELS)
    found = agenda.take(
        [
            Measurement("identity", 15, 1, partial(_both, agenda, side, channels)),
            Measurement("bounded", 30, 2, partial(_bounded, agenda, side, channels)),
        ]
    )
    goals = []
    if "identity" in found:
        one = found["identity"]
        goals += [
            target("W_r = I: dense time over local time", one["times_faster"], "at least", 5),
            target("W_r = I: dense memory over local memory", one["times_less"], "at least", 10),
        ]
    if "bounded" in found:
        goals.append(
            target("learned W_r: dense memory over local memory", found["bounded"]["times_less"],
                   "at least", 10)
        )  # fmt: skip
    document = {"side": side, "channels": channels, "batch": BATCH, **found, "targets": goals}
    return conclude(agenda, command("image_layer", quick=quick, seconds=seconds), document, out)


def _layers(side: int, channels: int, recurrent: StaticRecurrence) -> dict[str, Any]:
    """Both layers, and images in the form that each takes."""
    images = jr.uniform(jr.key(0), (BATCH, 1, side, side), np.float32)
    local = NormalizationConv2d(
        1, channels, 5, 5, recurrent=recurrent, key=jr.key(1), dtype=np.float32
    )
    dense = Normalization(
        side**2, channels * side**2, recurrent=recurrent, key=jr.key(1), dtype=np.float32
    )
    return {"local": (local, images), "dense": (dense, images.reshape(BATCH, -1))}


def _compiled(layer: Any, images: Any) -> Any:
    """The gradient of the mean rate, as a compiled program, and its arguments."""
    arrays, static = eqx.partition(layer, eqx.is_inexact_array)

    @jax.jit
    def gradient(arrays, images):
        rates = lambda arrays: jnp.mean(jax.vmap(eqx.combine(arrays, static))(images))  # noqa: E731
        return jax.grad(rates)(arrays)

    return gradient.lower(arrays, images).compile(), arrays


def _bytes(program: Any) -> int:
    used = program.memory_analysis()
    return used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes


def _both(agenda: Agenda, side: int, channels: int) -> dict[str, Any]:
    functions, memory = {}, {}
    for name, (layer, images) in _layers(side, channels, "identity").items():
        program, arrays = _compiled(layer, images)
        functions[name] = partial(_run, program, arrays, images)
        functions[name]()
        memory[name] = _bytes(program)
    times = time_in_turn(functions, agenda.rounds())
    medians = {name: float(np.median(each)) for name, each in times.items()}
    return {
        "seconds": {name: spread(each) for name, each in times.items()},
        "megabytes": {name: round(size / 1e6, 2) for name, size in memory.items()},
        "times_faster": medians["dense"] / medians["local"],
        "times_less": memory["dense"] / memory["local"],
    }


def _bounded(agenda: Agenda, side: int, channels: int) -> dict[str, Any]:
    both = _layers(side, channels, "bounded")
    program, arrays = _compiled(*both["local"])
    step = partial(_run, program, arrays, both["local"][1])
    step()
    dense, _ = _compiled(*both["dense"])
    times = time_in_turn({"local": step}, agenda.rounds())
    memory = {"local": _bytes(program), "dense": _bytes(dense)}
    return {
        "seconds": {"local": spread(times["local"])},
        "megabytes": {name: round(size / 1e6, 2) for name, size in memory.items()},
        "times_less": memory["dense"] / memory["local"],
    }


def _run(program: Any, *arguments: Any) -> Any:
    return jax.block_until_ready(program(*arguments))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
