"""Adding, copying and a memory of three bits: tasks that ask how long a network remembers."""

import math
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from organics.arguments import require_share, require_whole
from organics.data.tasks.draws import among, uniform
from organics.data.tasks.task import Condition, Trials, Trivial
from organics.models.target import Marks, Target

_SYMBOLS, _STORED = 8, 10
_BLANK, _CUE = _SYMBOLS, _SYMBOLS + 1


@dataclass(frozen=True)
class Adding:
    """The sum of the two marked of `steps` numbers, which are uniform on [0, 1].

    Each half of the sequence has one mark, at a uniform position. Inputs are the number and the
    mark. Read out at the end; always saying 1 has the squared error 1/6.

    Source: Hochreiter & Schmidhuber 1997; with a mark in each half, Le, Jaitly & Hinton 2015.
    """

    steps: int = 200
    name: ClassVar[str] = "adding"
    input_size: ClassVar[int] = 2
    target: ClassVar[Target] = Target("numbers", 1, "last")
    trivial: ClassVar[Trivial] = Trivial("squared_error", 1 / 6)

    def __post_init__(self):
        require_whole("steps", self.steps, 2)

    def trial(self, key: PRNGKeyArray, dtype: type | jnp.dtype = np.float32) -> Trials:
        k_values, k_marks = jr.split(key)
        values = uniform(k_values, (self.steps,), dtype)
        u = uniform(k_marks, (2,), dtype)
        half = self.steps // 2
        marked = jnp.stack([among(u[0], half), half + among(u[1], self.steps - half)])
        marks = jnp.any(
            np.arange(self.steps, dtype=np.int32)[:, None] == marked[None], axis=1
        ).astype(dtype)
        return Trials(jnp.stack([values, marks], axis=1), jnp.sum(values * marks)[None])

    def conditions(self) -> tuple[Condition, ...]:
        return (Condition("no mark, value 1/2", np.array([0.5, 0.0])),)


@dataclass(frozen=True)
class Copy:
    """Ten of eight symbols, to be said after `delay` steps, of which the last has a cue.

    A sequence has `delay + 20` steps: ten symbols, blanks, the cue, ten blanks. Inputs are one-hot,
    eight symbols, blank and cue; the nine classes are the symbols and the blank, which is wanted
    before the cue is over. The loss counts all steps; always saying blank, and then one of the
    symbols at random, has the loss 10 ln 8 / (delay + 20). The accuracy counts the last ten steps.

    Source: Hochreiter & Schmidhuber 1997; as in Arjovsky, Shah & Bengio 2016.
    """

    delay: int = 100
    name: ClassVar[str] = "copy"
    input_size: ClassVar[int] = _SYMBOLS + 2
    target: ClassVar[Target] = Target("classes", _SYMBOLS + 1, "every")

    def __post_init__(self):
        require_whole("steps", self.delay)

    @property
    def steps(self) -> int:
        return self.delay + 2 * _STORED

    @property
    def trivial(self) -> Trivial:
        return Trivial("loss", _STORED * math.log(_SYMBOLS) / self.steps)

    def trial(self, key: PRNGKeyArray, dtype: type | jnp.dtype = np.float32) -> Trials:
        symbols = among(uniform(key, (_STORED,), dtype), _SYMBOLS)
        shown = np.full(self.steps, _BLANK, np.int32)
        shown[self.steps - _STORED - 1] = _CUE
        shown = jnp.concatenate([symbols, jnp.asarray(shown[_STORED:])])
        blank = jnp.full(self.steps - _STORED, _BLANK, jnp.int32)
        scored = np.arange(self.steps) >= self.steps - _STORED
        return Trials(
            jax.nn.one_hot(shown, self.input_size, dtype=dtype),
            jnp.concatenate([blank, symbols]),
            Marks(jnp.ones(self.steps, dtype), jnp.asarray(scored)),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (Condition("blank", np.eye(self.input_size)[_BLANK]),)


@dataclass(frozen=True)
class FlipFlop:
    """A memory of three bits: each output is the sign of the last pulse of its input.

    Each of three inputs has at every step a pulse of +1 or -1 with `probability`, and surely at the
    first step. Outputs are numbers at every step; always saying 0 has the squared error 1.

    Source: Sussillo & Barak 2013; the public code of Golub & Sussillo 2018, 64 steps and 0.5.
    """

    steps: int = 64
    probability: float = 0.5
    bits: ClassVar[int] = 3
    name: ClassVar[str] = "flip-flop"
    input_size: ClassVar[int] = bits
    target: ClassVar[Target] = Target("numbers", bits, "every")
    trivial: ClassVar[Trivial] = Trivial("squared_error", 1.0)

    def __post_init__(self):
        require_whole("steps", self.steps)
        require_share(probability=self.probability)
        object.__setattr__(self, "probability", float(self.probability))

    def trial(self, key: PRNGKeyArray, dtype: type | jnp.dtype = np.float32) -> Trials:
        u = uniform(key, (self.steps, self.bits), dtype)
        # one number says both whether there is a pulse, and its sign
        first = (np.arange(self.steps) == 0)[:, None]
        least = jnp.where(first, jnp.ones((), dtype), jnp.asarray(self.probability, dtype))
        pulse = u < least
        sign = jnp.where(u < least / 2, -jnp.ones((), dtype), jnp.ones((), dtype))
        pulses = jnp.where(pulse, sign, 0)
        held, reach = pulses, 1
        while reach < self.steps:  # the last of so many steps, then of twice as many
            earlier = jnp.pad(held, ((reach, 0), (0, 0)))[: self.steps]
            held = jnp.where(held == 0, earlier, held)
            reach *= 2
        return Trials(pulses, held)

    def conditions(self) -> tuple[Condition, ...]:
        return (Condition("no pulse", np.zeros(self.bits)),)

    def patterns(self) -> np.ndarray:
        """The outputs that are to be held, (8, 3)."""
        return np.array(list(product((-1.0, 1.0), repeat=self.bits)))
