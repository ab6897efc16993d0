"""Trials of a task as examples: made within the compiled step, and never stored."""

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, UInt32

from organics.data.tasks import Marks, Stream, Task, Trials


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
        return Made(jr.key_data(stream.key()), jax.numpy.int32(0), task, size)

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
        key = jr.wrap_key_data(self.key, impl=Stream.generator)
        return jax.vmap(lambda i: self.task.trial(jr.fold_in(key, i), dtype))(self.first + indices)
