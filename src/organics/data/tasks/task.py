"""What a task made on the fly is: trials as pure functions of a key."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Num, PRNGKeyArray

from organics.arguments import float_type, require_sizes, require_whole
from organics.models.target import Marks, Target
from organics.names import Measure


class Trials(NamedTuple):
    """One trial, or a batch of them.

    Attributes
        inputs: (steps, m).
        wanted: what the network should say, as its `Target` has it: (steps,) or (steps, k), or at
            the end alone, () or (k,).
        marks: which steps count, (steps,); None if all do, or only the last is read out.
    """

    inputs: Float[Array, "*batch steps m"]
    wanted: Num[Array, "..."]
    marks: Marks | None = None


class Trivial(NamedTuple):
    """What a network that learned nothing reaches.

    Attributes
        measure: "loss", "accuracy" or "squared_error".
        score: its value when the best answer that does not look at the input is given.
    """

    measure: Measure
    score: float


class Condition(NamedTuple):
    """An input of a task that may stay for long.

    Attributes
        name: in words.
        input: (m,).
    """

    name: str
    input: Float[np.ndarray, " m"]


@runtime_checkable
class Task(Protocol):
    """A task. It can be compared and hashed, so that programs are compiled once for equal ones."""

    @property
    def name(self) -> str:
        """By which it is known."""
        ...

    @property
    def steps(self) -> int:
        """Number of steps of a trial, of the longest if they differ."""
        ...

    @property
    def input_size(self) -> int:
        """Numbers per step, m."""
        ...

    @property
    def target(self) -> Target:
        """What is learned: classes or numbers, how many, and at which steps."""
        ...

    @property
    def trivial(self) -> Trivial:
        """What is reached without learning."""
        ...

    def trial(self, key: PRNGKeyArray, dtype: type | jnp.dtype = np.float32) -> Trials:
        """One trial, a pure function of the key."""
        ...

    def conditions(self) -> tuple[Condition, ...]:
        """The inputs that stay constant for a while in its trials."""
        ...


@partial(jax.jit, static_argnums=(0, 2, 3))
def batch(task: Task, key: PRNGKeyArray, size: int, dtype: type = np.float32) -> Trials:
    """A batch of `size` trials, each with its own key; all arrays have a leading axis.

    Raises `ValueError` for a `size` below 1, and a `dtype` other than float32 and float64.
    """
    require_sizes(size=size)
    kind = float_type(dtype)
    return jax.vmap(lambda k: task.trial(k, kind))(jr.split(key, size))


@dataclass(frozen=True)
class Stream:
    """The numbered trials of a task: trial i is a function of the seed, the part and i alone,
    however trials are put into batches and on devices.

    Arguments
        seed: of the stream, from 0 to 2^32 - 1.
        part: of several streams with the same seed that share no trials; likewise.

    Raises `ValueError`, naming the argument, for other numbers.
    """

    seed: int
    part: int = 0
    # whatever JAX's default is: a seed must mean the same trials everywhere
    generator: ClassVar[str] = "threefry2x32"

    def __post_init__(self):
        for name, value in (("seed", self.seed), ("part", self.part)):
            require_whole(name, value, 0)
            if value >= 2**32:
                raise ValueError(f"`{name}` must be below 2^32, not {value}.")

    def key(self) -> PRNGKeyArray:
        """The key of the stream."""
        return jr.fold_in(jr.key(np.uint32(self.seed), impl=self.generator), np.uint32(self.part))
