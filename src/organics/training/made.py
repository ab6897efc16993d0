"""Examples that are made within the compiled step, and never stored: trials, noise."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, UInt32

from organics.data.tasks import Marks, Stream, Task, Trials
from organics.data.tasks.draws import normal
from organics.training.step import Examples, Source


class Made(eqx.Module):
    """The trials of a stream. Each epoch has `size` others; see `organics.training.step.Source`.

    Attributes
        key: data of the stream's key.
        first: number of the first trial.
    """

    key: UInt32[Array, " words"]
    first: Int[Array, ""]
    task: Task = eqx.field(static=True)
    size: int = eqx.field(static=True)

    @staticmethod
    def of(task: Task, stream: Stream, size: int) -> "Made":
        """The first `size` trials of a stream."""
        return Made(jr.key_data(stream.key()), jnp.int32(0), task, size)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Steps, and numbers at each."""
        return (self.task.steps, self.task.input_size)

    def order(self, seed: int, epoch: int) -> Int[np.ndarray, " size"]:
        """The numbers of the trials of an epoch. The seed is that of the stream."""
        del seed
        return np.arange((epoch - 1) * self.size, epoch * self.size, dtype=np.int32)

    def part(self, start: int, stop: int) -> "Made":
        """Those from `start` to before `stop`."""
        return Made(self.key, self.first + start, self.task, stop - start)

    def take(self, indices: Int[Array, " batch"], dtype) -> tuple[Array | Marks | None, ...]:
        """Inputs, labels, no lengths, and which steps count."""
        made = self.trials(indices, dtype)
        return (made.inputs, made.wanted, *([] if made.marks is None else [None, made.marks]))

    def trials(self, indices: Int[Array, " batch"], dtype) -> Trials:
        """The trials with these numbers."""
        keys = keys_of(self.key, self.first + indices)
        return jax.vmap(lambda key: self.task.trial(key, dtype))(keys)


class Padded(eqx.Module):
    """Sequences, each followed by noise of deviation 1; see `organics.training.step.Source`.

    Attributes
        examples: the sequences.
        key, first: as those of `Made`, of the noise.
        steps: of a sequence with its noise.
        fresh: whether the noise is another every time, or one for all.

    Source: the noise-padded images of Chang et al. 2019.
    """

    examples: Examples
    key: UInt32[Array, " words"]
    first: Int[Array, ""]
    steps: int = eqx.field(static=True)
    fresh: bool = eqx.field(static=True)

    @staticmethod
    def of(examples: Examples, stream: Stream, steps: int, fresh: bool) -> "Padded":
        """Sequences with the noise of a stream."""
        return Padded(examples, jr.key_data(stream.key()), jnp.int32(0), steps, fresh)

    @property
    def size(self) -> int:
        """How many there are."""
        return self.examples.size

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Steps, and numbers at each."""
        return (self.steps, *self.examples.input_shape[1:])

    def order(self, seed: int, epoch: int) -> Int[np.ndarray, " size"]:
        """The numbers of the sequences, and of their noise."""
        return self.examples.order(seed, epoch)

    def part(self, start: int, stop: int) -> "Padded":
        """Those from `start` to before `stop`."""
        some = self.examples.part(start, stop)
        return Padded(some, self.key, self.first + start, self.steps, self.fresh)

    def take(self, indices: Int[Array, " batch"], dtype) -> tuple[Array, ...]:
        """Inputs and labels."""
        inputs, labels, *_ = self.examples.take(indices, dtype)
        shape = (self.steps - inputs.shape[1], *inputs.shape[2:])
        if self.fresh:
            noise = _noise(self.key, self.first + indices, shape, dtype)
        else:
            key = jr.wrap_key_data(self.key, impl=Stream.generator)
            noise = jnp.broadcast_to(normal(key, shape, dtype), (len(indices), *shape))
        return jnp.concatenate([inputs, noise], axis=1), labels


class Varied(eqx.Module):
    """Examples whose inputs are changed, another way every time: a `step.Source`.

    Attributes
        examples: what is changed.
        key, first: as those of `Made`, of the changes.
    """

    examples: Source
    key: UInt32[Array, " words"]
    first: Int[Array, ""]

    @property
    def size(self) -> int:
        """How many there are."""
        return self.examples.size

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.examples.input_shape

    def order(self, seed: int, epoch: int) -> Int[np.ndarray, " size"]:
        """The numbers of the examples, and of their changes."""
        return self.examples.order(seed, epoch)

    def part(self, start: int, stop: int) -> "Varied":
        """Those from `start` to before `stop`."""
        some = self.examples.part(start, stop)
        return eqx.tree_at(lambda s: (s.examples, s.first), self, (some, self.first + start))

    @abstractmethod
    def take(self, indices: Int[Array, " batch"], dtype) -> tuple[Any, ...]:
        """As that of the examples, with changed inputs."""


class Noisy(Varied):
    """Examples with normal noise added to their inputs.

    Attributes
        deviation: the standard deviation of the noise.
    """

    deviation: float = eqx.field(static=True)

    @staticmethod
    def of(examples: Source, stream: Stream, deviation: float) -> "Noisy":
        """Examples with the noise of a stream."""
        return Noisy(examples, jr.key_data(stream.key()), jnp.int32(0), deviation)

    def take(self, indices: Int[Array, " batch"], dtype) -> tuple[Any, ...]:
        """As that of the examples."""
        inputs, *others = self.examples.take(indices, dtype)
        noise = _noise(self.key, self.first + indices, inputs.shape[1:], dtype)
        return (inputs + jnp.asarray(self.deviation, dtype) * noise, *others)


def _noise(key: Array, numbers: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Normal numbers of this shape, a function of the key and the number, for each number."""
    return jax.vmap(lambda k: normal(k, shape, dtype))(keys_of(key, numbers))


def keys_of(key: Array, numbers: Array) -> Array:
    """The keys of the numbers, of the stream whose key has these data."""
    whole = jr.wrap_key_data(key, impl=Stream.generator)
    return jax.vmap(lambda i: jr.fold_in(whole, i))(numbers)
