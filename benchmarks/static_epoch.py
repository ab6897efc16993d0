"""Seconds per MNIST epoch of the static classifier, with and without circuits.

    python -m benchmarks.static_epoch [--quick] [--seconds N] [--out FILE]

The images are random numbers in MNIST's shape, as the time does not depend on their values.
"""

from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, time_in_turn
from organics.training.config import TrainConfig
from organics.training.evaluation import as_examples, build_model
from organics.training.step import (
    Examples,
    TrainState,
    advance,
    initial_state,
    make_optimizer,
    metric_dtypes,
)

IMAGES = 57_000
NETWORKS = {
    "dense_1": TrainConfig(model="mlp", layers=(1,)),  # almost no layer: the cost of the rest
    "circuits_50": TrainConfig(model="organics", layers=(50,)),
    "dense_50": TrainConfig(model="mlp", layers=(50,)),
    "circuits_80": TrainConfig(model="organics", layers=(80,)),
    "dense_80": TrainConfig(model="mlp", layers=(80,)),
    "circuits_120_60": TrainConfig(model="organics", layers=(120, 60)),
    "dense_120_60": TrainConfig(model="mlp", layers=(120, 60)),
}


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time training epochs of each network; encoder and decoder are the same in all.

    Arguments
        out: file for the result.
        quick: two epochs of 2,000 images instead of seven of 57,000.
        seconds: limit; with less time fewer epochs, or no result.
    """
    agenda = Agenda("static_epoch", 7, quick=quick, seconds=seconds)
    images = 2_000 if quick else IMAGES
    epochs = Measurement("epochs", 30, 6, partial(_epochs, agenda, images))
    found = agenda.take([epochs]).get(epochs.what, {})
    return conclude(agenda, command("static_epoch", quick=quick, seconds=seconds), found, out)


def _epochs(agenda: Agenda, images: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 28, 28), np.uint8)
    examples = as_examples(pixels, rng.integers(0, 10, images), 255)
    epochs = {name: _Epoch(config, examples) for name, config in NETWORKS.items()}
    time_in_turn(epochs, range(1))  # compiles
    seconds = time_in_turn(epochs, agenda.rounds())
    least = median(seconds["dense_1"])
    return {
        "images": images,
        "batch_size": NETWORKS["dense_1"].batch_size,
        "seconds_per_epoch": {name: spread(times) for name, times in seconds.items()},
        "times_one_dense_unit": {
            name: round(median(times) / least, 3) for name, times in seconds.items()
        },
    }


class _Epoch:
    """A network in training; a call trains for one epoch."""

    def __init__(self, config: TrainConfig, examples: Examples):
        self.examples = examples
        self.batch_size = config.batch_size
        self.optimizer = make_optimizer(config, steps=10**6)
        model = build_model(config)
        self.state: TrainState = initial_state(model, self.optimizer)
        self.dtypes = metric_dtypes(self.state, self.optimizer, examples)
        self.rng = np.random.default_rng(0)

    def __call__(self) -> None:
        order = self.rng.permutation(len(self.examples.labels)).astype(np.int32)
        full = len(order) // self.batch_size
        cut = full * self.batch_size
        for rows in (order[:cut].reshape(full, self.batch_size), order[None, cut:]):
            steps = len(rows)
            record = {name: jnp.zeros(steps, dtype) for name, dtype in self.dtypes.items()}
            self.state, _ = advance(
                (self.state, record),
                self.optimizer,
                self.examples,
                jnp.asarray(rows),
                jnp.int32(0),
                jnp.int32(steps),
            )
        jax.block_until_ready(self.state.step)


if __name__ == "__main__":
    command_line(run)
