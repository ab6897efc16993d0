"""A task with one more input, which is always 1."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from organics.data.tasks.task import Condition, Task, Trials, Trivial
from organics.models.target import Target


@dataclass(frozen=True)
class WithConstant:
    """The trials of `task` with a last input that is always 1.

    The gates of a gated circuit have no bias: where all inputs are 0 they cannot close without it.
    """

    task: Task

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def steps(self) -> int:
        return self.task.steps

    @property
    def input_size(self) -> int:
        return self.task.input_size + 1

    @property
    def target(self) -> Target:
        return self.task.target

    @property
    def trivial(self) -> Trivial:
        return self.task.trivial

    def trial(self, key: PRNGKeyArray, dtype: Any = np.float32) -> Trials:
        made = self.task.trial(key, dtype)
        ones = jnp.ones((self.steps, 1), dtype)
        return made._replace(inputs=jnp.concatenate([made.inputs, ones], axis=1))

    def conditions(self) -> tuple[Condition, ...]:
        return tuple(Condition(c.name, np.append(c.input, 1.0)) for c in self.task.conditions())
