"""What tasks of the laboratory share: stimuli, delays and choices, with the timing of NeuroGym.

In each, the classes wanted are 0, keep fixating, and from 1 the choices. All steps of a trial count
in the loss, and those of its decision in the accuracy.

Source: conventions of NeuroGym 2.3 (Molano-Mazón et al. 2022); a duration is cut to whole steps of
`dt`, and noise has the deviation `sigma / sqrt(dt)`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from organics.arguments import require_not_negative
from organics.data.tasks.draws import (
    Duration,
    Timeline,
    normal,
    steps_at,
    uniform,
)
from organics.data.tasks.task import Condition, Trials, Trivial
from organics.models.target import Marks, Target

PAIR = np.array([0.0, np.pi])  # the two directions of most tasks


class Term(NamedTuple):
    """A channel has a value at some of the steps."""

    channel: int
    where: Bool[Any, " steps"]
    value: Any = 1.0


class Shown(NamedTuple):
    """A trial before noise: the inputs are the sum of the terms. Besides, the class that is wanted
    at each step, and which steps are of the decision, are noisy, and are of the trial."""

    inputs: list[Term]
    wanted: Int[Array, " steps"]
    decision: Bool[Any, " steps"]
    noisy: Bool[Any, " steps"]
    whole: Bool[Any, " steps"]


@dataclass(frozen=True)
class Laboratory(ABC):
    """What the tasks share: periods in ms, steps of `dt` ms, uniform numbers and noise."""

    name: ClassVar[str]
    input_size: ClassVar[int]
    choices: ClassVar[int] = 2
    chance: ClassVar[float | None] = None
    """Accuracy of the best constant choice, if that is not one over the number of choices."""
    draws: ClassVar[int]
    """Uniform numbers of a trial, besides those of its periods."""
    noisy: ClassVar[tuple[int, ...]] = ()
    """The channels with noise."""
    dt: ClassVar[float] = 100.0
    sigma: ClassVar[float] = 1.0

    def __post_init__(self):
        delay = getattr(self, "delay", 0)
        require_not_negative(delay=delay)
        if not isinstance(delay, int | float):  # a number of NumPy or JAX
            delay = delay.item()
            object.__setattr__(self, "delay", delay)
        if 0 < delay < self.dt:
            raise ValueError(f"`delay` must be 0 or at least a step, {self.dt:g} ms, not {delay}.")

    @abstractmethod
    def periods(self) -> dict[str, Duration]:
        """The periods, in order."""

    @abstractmethod
    def show(self, u: Float[Array, " draws"], line: Timeline) -> Shown:
        """The trial for these uniform numbers."""

    @abstractmethod
    def conditions(self) -> tuple[Condition, ...]:
        """The inputs that stay constant for a while."""

    @property
    def target(self) -> Target:
        return Target("classes", 1 + self.choices, "every")

    @property
    def trivial(self) -> Trivial:
        return Trivial("accuracy", 1 / self.choices if self.chance is None else self.chance)

    @property
    def steps(self) -> int:
        most = {
            name: steps_at(p if isinstance(p, int | float) else p.most, self.dt, None)
            for name, p in self.periods().items()
        }
        return sum(int(steps) for steps in self.lay_out(most).values())

    def lay_out(self, steps: dict[str, Any]) -> dict[str, Any]:
        """The steps of all periods, given those of `periods`."""
        return steps

    def trial(self, key: PRNGKeyArray, dtype: type | jnp.dtype = np.float32) -> Trials:
        periods = self.periods()
        random = [name for name, p in periods.items() if not isinstance(p, int | float)]
        k_uniform, k_noise = jr.split(key) if self.noisy else (key, key)
        u = uniform(k_uniform, (self.draws + len(random),), dtype)
        quantiles = dict(zip(random, u[self.draws :], strict=True))
        steps = {name: steps_at(p, self.dt, quantiles.get(name)) for name, p in periods.items()}
        line = Timeline(self.lay_out(steps), self.steps)
        shown = self.show(u[: self.draws], line)
        inputs = _sum(shown.inputs, self.input_size, dtype)
        if self.noisy:
            noise = _noise(k_noise, shown.noisy, self.noisy, self.input_size, dtype)
            inputs = inputs + self._deviation * noise
        marks = Marks(jnp.asarray(shown.whole, dtype), jnp.asarray(shown.decision))
        return Trials(inputs, shown.wanted, marks)

    @property
    def _deviation(self) -> float:
        return self.sigma / math.sqrt(self.dt)


def _sum(terms: list[Term], size: int, dtype: Any) -> Float[Array, "steps m"]:
    """The inputs that the terms add up to."""
    steps = len(terms[0].where)
    values = [jnp.asarray(term.value).astype(dtype) for term in terms]
    if not all(isinstance(term.where, np.ndarray) for term in terms):
        moving = [jnp.where(t.where, v, 0) for t, v in zip(terms, values, strict=True)]
        return _channels(terms, moving, size, jnp.zeros(steps, dtype))
    # the same steps in all trials
    if len(terms) * steps * size >= _MANY_ENTRIES:
        return _in_runs(terms, values, size)
    patterns = np.zeros((len(terms), steps, size))
    for pattern, term in zip(patterns, terms, strict=True):
        pattern[term.where, term.channel] = 1
    return _times(jnp.stack(values), patterns, dtype)


_MANY_ENTRIES = 9_000
"""With so many entries of a matrix of patterns, runs of equal steps are quicker than a product."""


def _in_runs(terms: list[Term], values: list[Array], size: int) -> Float[Array, "steps m"]:
    """The sum of terms at fixed steps: a row for each run of steps that are alike."""
    shown = np.stack([term.where for term in terms])
    ends = np.flatnonzero(np.any(shown[:, 1:] != shown[:, :-1], axis=0)) + 1
    pieces = []
    for run in np.split(np.arange(shown.shape[1]), ends):
        here = [i for i in range(len(terms)) if shown[i, run[0]]]
        row = _channels([terms[i] for i in here], [values[i] for i in here], size,
                        jnp.zeros((), values[0].dtype))  # fmt: skip
        pieces.append(jnp.broadcast_to(row, (len(run), size)))
    return jnp.concatenate(pieces)


def _channels(
    terms: list[Term], values: list[Array], size: int, zero: Float[Array, "*steps"]
) -> Float[Array, "*steps m"]:
    """The sum of the values in each channel, side by side."""
    found = [zero] * size
    for term, value in zip(terms, values, strict=True):
        found[term.channel] = found[term.channel] + value
    return jnp.stack(found, axis=-1)


def _times(values: Float[Array, " k"], patterns: np.ndarray, dtype: Any) -> Float[Array, "steps m"]:
    matrix = jnp.asarray(patterns.reshape(len(patterns), -1), dtype)
    product = jnp.matmul(values, matrix, precision="highest")
    return product.reshape(patterns.shape[1:])


_MOST_ENTRIES = 50_000  # of a matrix with which noise is multiplied rather than put together


def _noise(
    key: PRNGKeyArray, where: Any, channels: tuple[int, ...], size: int, dtype: Any
) -> Float[Array, "steps m"]:
    """Normal numbers at some of the steps in some channels, which are neighbours; 0 elsewhere."""
    steps, count = len(where), len(channels)
    sides = ((0, 0), (channels[0], size - channels[-1] - 1))
    if not isinstance(where, np.ndarray):
        drawn = normal(key, (steps, count), dtype)
        return jnp.pad(jnp.where(where[:, None], drawn, 0), sides)
    # the same steps in all trials: nothing is drawn for the others
    drawn = normal(key, (int(where.sum()), count), dtype)
    if drawn.size * steps * size < _MOST_ENTRIES:
        patterns = np.zeros((*drawn.shape, steps, size))
        for row, step in enumerate(np.flatnonzero(where)):
            for column, channel in enumerate(channels):
                patterns[row, column, step, channel] = 1
        return _times(drawn.reshape(-1), patterns.reshape(-1, steps, size), dtype)
    ends = np.flatnonzero(np.diff(where)) + 1
    pieces, used = [], 0
    for piece in np.split(where, ends):
        if piece[0]:
            pieces.append(drawn[used : used + len(piece)])
            used += len(piece)
        else:
            pieces.append(jnp.zeros((len(piece), count), dtype))
    return jnp.pad(jnp.concatenate(pieces), sides)


def during(where: Any, first: int, values: Float[Array, " k"]) -> list[Term]:
    """Channels from the `first` on have these values at some of the steps."""
    return [Term(first + i, where, value) for i, value in enumerate(values)]


def decide(where: Any, choice: Any) -> Int[Array, " steps"]:
    """The choice at some of the steps, fixation at the others."""
    return jnp.where(where, choice, 0).astype(jnp.int32)


def ring(angle: Float[Array, ""], directions: np.ndarray) -> Float[Array, " k"]:
    """The cosine of the angle to each direction."""
    return jnp.cos(jnp.asarray(directions, angle.dtype) - angle)


def bump(angle: Float[Array, ""], directions: np.ndarray) -> Float[Array, " k"]:
    """Inputs from 0 to 1, each largest at its own direction."""
    return 0.5 + 0.5 * ring(angle, directions)


def evidence_for(angle: Float[Array, ""], coherence: Float[Array, ""]) -> Float[Array, " two"]:
    """Inputs of the two directions that differ by so many percent for 0 and pi."""
    return 0.5 + coherence / 200 * ring(angle, PAIR)


def condition(name: str, *values: int | float) -> Condition:
    """The inputs, constant for a while, under a name."""
    return Condition(name, np.array(values, float))
