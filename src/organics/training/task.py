"""The tasks of runs, by the kind of settings."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from organics import data, models
from organics.training.config import AnyConfig, SequenceConfig, TrainConfig


@runtime_checkable
class Task(Protocol):
    """What the trainer needs of a task."""

    def load(self) -> data.Dataset:
        """The data set, as the model takes it. Raises what `organics.data.load` raises."""
        ...

    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        ...

    def build(self) -> models.Model:
        """The untrained model. Its parameters are float32 whatever JAX's default is."""
        ...

    def setting_of_size(self, model: Any) -> str:
        """The setting that determines the size of the model, for messages."""
        ...

    def states_kept(self) -> int:
        """How many numbers besides the input must be in memory for each example of a batch."""
        ...


def task_of(config: AnyConfig) -> Task:
    """The task of a run with these settings."""
    return _TASKS[config.kind](config)


@dataclass(frozen=True)
class Images:
    """Images, all pixels at once, (pixels,)."""

    config: TrainConfig

    def load(self) -> data.Dataset:
        return data.load(self.config.dataset)

    def input_shape(self) -> tuple[int, ...]:
        height, width = data.image_shape(self.config.dataset)
        return (height * width,)

    def build(self) -> models.Model:
        config = self.config
        return models.build(
            config.model,
            self.input_shape()[0],
            layers=config.layers,
            encoder=config.encoder,
            recurrent=config.recurrent,
            key=jr.key(config.seed),
            dtype=np.float32,
        )

    def setting_of_size(self, model: Any) -> str:
        coders = bytes_of((model.encoder, model.decoder))
        return "encoder" if 2 * coders > bytes_of(model) else "layers"

    def states_kept(self) -> int:
        return 0


@dataclass(frozen=True)
class Sequences:
    """Images as sequences, (steps, values at each)."""

    config: SequenceConfig

    def load(self) -> data.Dataset:
        config = self.config
        found = data.load_sequences(config.task, config.resize, config.rows)
        return dataclasses.replace(found, max_value=1) if config.raw_pixels else found

    def input_shape(self) -> tuple[int, ...]:
        return data.sequence_shape(self.config.task, self.config.resize, self.config.rows)

    def build(self) -> models.Model:
        config = self.config
        steps, size = self.input_shape()
        return models.build_sequence(
            config.model,
            size,
            config.units,
            key=jr.key(config.seed),
            dtype=np.float32,
            **config.layer_options(steps),
        )

    def setting_of_size(self, model: Any) -> str:
        del model
        return "units"

    def states_kept(self) -> int:
        if self.config.memory == "less":
            return 0
        # for each neuron and step: y, a, b0 and b; for other models at least one number
        each = 4 if self.config.model == "organics" else 1
        return self.input_shape()[0] * self.config.units * self.config.layers * each


_TASKS: dict[str, Callable[[Any], Task]] = {"images": Images, "sequences": Sequences}


def bytes_of(tree: Any) -> int:
    """Size in bytes of the arrays in a tree of `jax.ShapeDtypeStruct` (from
    `eqx.filter_eval_shape`)."""
    shapes = eqx.filter(tree, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
