"""Random numbers of one trial, and the periods that they make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """Numbers in [0, 1), the same in float32 and in float64."""
    return jr.uniform(key, shape, jnp.float32).astype(dtype)


def normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """Normal numbers, the same in float32 and in float64."""
    # in one row, as loops over short rows are several times slower; the numbers are the same
    drawn = jr.normal(key, (math.prod(shape),), jnp.float32)
    return drawn.astype(dtype).reshape(shape)


def among(u: Float[Array, "*shape"], count: int) -> Int[Array, "*shape"]:
    """One of 0 to `count - 1`, all equally likely, for a uniform `u`."""
    scaled = u * jnp.asarray(count, u.dtype)
    return jnp.minimum(scaled.astype(jnp.int32), count - 1)  # the product may round up


def one_of(u: Float[Array, ""], values: Sequence[float]) -> Float[Array, ""]:
    """One of the values, all equally likely."""
    return jnp.asarray(np.asarray(values), u.dtype)[among(u, len(values))]


@dataclass(frozen=True)
class Uniform:
    """A duration uniform between two, in ms."""

    low: float
    high: float

    def at(self, u: Float[Array, ""]) -> Float[Array, ""]:
        """The quantile `u`."""
        return self.low + u * (self.high - self.low)

    @property
    def most(self) -> float:
        """The longest."""
        return self.high


@dataclass(frozen=True)
class Exponential:
    """A duration of an exponential distribution with this mean, between two limits, in ms."""

    mean: float
    low: float
    high: float

    def at(self, u: Float[Array, ""]) -> Float[Array, ""]:
        """The quantile `u`."""
        share = -math.expm1((self.low - self.high) / self.mean)
        return self.low - self.mean * jnp.log1p(-u * share)

    @property
    def most(self) -> float:
        """The longest."""
        return math.nextafter(self.high, self.low)  # the limit itself is not reached


@dataclass(frozen=True)
class Among:
    """One of several durations, in ms."""

    values: tuple[float, ...]

    def at(self, u: Float[Array, ""]) -> Float[Array, ""]:
        """The quantile `u`."""
        return one_of(u, self.values)

    @property
    def most(self) -> float:
        """The longest."""
        return max(self.values)


Duration = int | float | Uniform | Exponential | Among


def whole_steps(duration: int | float, dt: float) -> int:
    """The number of whole steps of `dt` ms in a duration."""
    return int(duration // dt)


def steps_at(duration: Duration, dt: float, u: Float[Array, ""] | None) -> int | Int[Array, ""]:
    """The number of whole steps in a duration, at its quantile `u` if it is random."""
    if isinstance(duration, int | float):
        return whole_steps(duration, dt)
    assert u is not None
    # never more than there is room for, whatever float32 rounds to
    most = whole_steps(duration.most, dt)
    return jnp.minimum(jnp.floor(duration.at(u) / dt).astype(jnp.int32), most)


class Timeline:
    """The periods of a trial, one after another, by name and number of steps.

    `total` is the number of steps of the longest trial.
    """

    def __init__(self, periods: dict[str, Any], total: int):
        self._times = np.arange(total, dtype=np.int32)
        self._bounds = {}
        end: Any = 0
        for name, steps in periods.items():
            self._bounds[name] = (end, end + steps)
            end = end + steps
        self._end = end

    def within(self, *names: str) -> Bool[Any, " steps"]:
        """Whether a step is in one of the periods."""
        found: Any = np.zeros(len(self._times), bool)
        for name in names:
            start, stop = self._bounds[name]
            found = found | ((self._times >= start) & (self._times < stop))
        return found

    def at(self, name: str, offset: Any = 0) -> Bool[Any, " steps"]:
        """Whether a step is so many steps after the begin of a period."""
        return self._times == self._bounds[name][0] + offset

    def whole(self) -> Bool[Any, " steps"]:
        """Whether a step is before the end of the trial."""
        return self._times < self._end
