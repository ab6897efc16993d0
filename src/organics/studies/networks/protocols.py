"""The recurrent networks of the paper's Table 2, their training, and how long it takes."""

import math
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from organics.baselines import PUBLISHED
from organics.names import TaskName
from organics.training import SequenceConfig
from organics.training.evaluation import build_model, input_shape
from organics.training.step import initial_state, make_optimizer, update

TASKS: tuple[TaskName, ...] = ("smnist", "psmnist")
TRAINING_IMAGES = 57_000
SHORT = 14
"""Pixels a side of the images of the shorter task."""

LARGE_STEPS = {"dt_tau_max_y": 0.6, "dt_tau_max_a": 1.0, "dt_tau_max_gates": 1.0}
"""Of circuits with `W_r = I`."""
SMALLER_STEPS = {"dt_tau_max_y": 0.2, "dt_tau_max_a": 0.05, "dt_tau_max_gates": 0.8}
"""Of circuits that learn `W_r`, which diverge at larger ones."""
_UNSTATED_EPOCHS = 100  # if the source of a comparison model does not state them


class Row(NamedTuple):
    """A row of the paper's table: the network, its parameters in thousands, test accuracies."""

    name: str
    model: str
    units: int
    time_constants: str
    thousands: int
    smnist: float
    psmnist: float


PAPER = (
    Row("LSTM", "lstm", 128, "learned", 68, 0.973, 0.926),
    Row("AntisymmetricRNN", "antisymmetric", 128, "learned", 10, 0.980, 0.958),
    Row("coRNN", "cornn", 128, "learned", 34, 0.993, 0.966),
    Row("Lipschitz RNN", "lipschitz", 128, "learned", 34, 0.994, 0.963),
    Row("ORGaNICs, fixed time constants", "organics", 64, "fixed", 26, 0.903, 0.803),
    Row("ORGaNICs, fixed time constants", "organics", 128, "fixed", 100, 0.948, 0.848),
    Row("ORGaNICs", "organics", 64, "learned", 26, 0.977, 0.899),
    Row("ORGaNICs", "organics", 128, "learned", 100, 0.978, 0.907),
)


def protocol(row: Row, task: str) -> SequenceConfig:
    """The settings of the row's source; see `departures`."""
    shared: dict[str, Any] = {"task": task, "units": row.units}
    if row.model == "organics":
        return SequenceConfig(**shared, time_constants=row.time_constants)  # pyright: ignore[reportArgumentType]
    recipe = PUBLISHED[row.model, task]
    dropping = {"drops": recipe.drops, "drop_factor": recipe.factor} if recipe.drops else {}
    return SequenceConfig(
        **shared,
        **dropping,
        model=row.model,  # pyright: ignore[reportArgumentType]
        hyperparameters=recipe.hyperparameters,
        optimizer=recipe.optimizer,
        momentum=recipe.momentum,
        learning_rate=recipe.learning_rate,
        schedule=recipe.schedule,
        weight_decay=0.0,  # none of them has any
        batch_size=recipe.batch_size,
        clip_norm=recipe.clip_norm,
        epochs=recipe.epochs or _UNSTATED_EPOCHS,
        raw_pixels=recipe.raw_pixels,
    )


def departures(row: Row, task: str) -> str:
    """How `protocol` departs from the row's source; "" if it is not known to."""
    if row.model == "organics":
        return ""
    recipe, words = PUBLISHED[row.model, task], []
    if recipe.units not in (None, row.units):
        words.append(f"with the constants for {recipe.units} units")
    if recipe.epochs is None:
        words.append(f"{_UNSTATED_EPOCHS} epochs, as the source does not say how many")
    return f" ({'; '.join(words)})" if words else ""


_WITHOUT_WEIGHT = ("seed", "backend", "memory")


def differences(row: Row, config: SequenceConfig) -> dict[str, list[Any]]:
    """The settings in which a run of the row's network differs from `protocol`: what it has, and
    what the source has."""
    found = config.differing(protocol(row, config.task))
    return {name: list(pair) for name, pair in found.items() if name not in _WITHOUT_WEIGHT}


def not_run(hours: float | None) -> str:
    """The words for a network that was not run, with the time it would take, if measured."""
    return "not run here" if hours is None else f"not run here: about {hours:.2g} h"


def hours_of(config: SequenceConfig) -> float:
    """How long such a run would take here, from the time of a training step."""
    steps, size = input_shape(config)
    optimizer = make_optimizer(config, config.epochs)
    state = initial_state(build_model(config), optimizer)
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.random((config.batch_size, steps, size), np.float32))
    labels = jnp.asarray(rng.integers(10, size=config.batch_size).astype(np.int32))
    # return the state, so that the compiler omits nothing of the backward pass
    step = eqx.filter_jit(lambda state: update(state, optimizer, (inputs, labels))[0])
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        state = jax.block_until_ready(step(state))
        seconds.append(time.perf_counter() - begin)
    per_epoch = min(seconds[1:]) * math.ceil(TRAINING_IMAGES / config.batch_size)
    return per_epoch * config.epochs / 3600
