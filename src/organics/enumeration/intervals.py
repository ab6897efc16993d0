"""Intervals of float64 numbers, rounded outwards, so that each contains every exact result."""

from typing import NamedTuple, Union

import numpy as np

_UNIT = 2.0**-53  # a sum of k terms is off by less than (k + 1) units of the sum of their sizes


def below(x: np.ndarray) -> np.ndarray:
    """The next number below."""
    return np.nextafter(x, -np.inf)


def above(x: np.ndarray) -> np.ndarray:
    """The next number above."""
    return np.nextafter(x, np.inf)


class Interval(NamedTuple):
    """Arrays of lower and upper ends. Operands are intervals, or exact numbers."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def exact(cls, values: np.ndarray) -> "Interval":
        """Intervals of width 0."""
        return cls(values, values)

    def at(self, *index) -> "Interval":
        """A part of both arrays."""
        return Interval(self.low[index], self.high[index])

    def __neg__(self) -> "Interval":
        return Interval(-self.high, -self.low)

    def __add__(self, other: "Operand") -> "Interval":  # type: ignore[override]
        low, high = _ends(other)
        return Interval(below(self.low + low), above(self.high + high))

    def __sub__(self, other: "Operand") -> "Interval":
        low, high = _ends(other)
        return Interval(below(self.low - high), above(self.high - low))

    def __mul__(self, other: "Operand") -> "Interval":  # type: ignore[override]
        low, high = _ends(other)
        products = self.low * low, self.low * high, self.high * low, self.high * high
        return Interval(below(np.minimum.reduce(products)), above(np.maximum.reduce(products)))

    def inverse(self) -> "Interval":
        """`1 / x` of positive numbers."""
        return Interval(below(1 / self.high), above(1 / self.low))

    def square(self) -> "Interval":
        """`x^2`."""
        low, high = self.low * self.low, self.high * self.high
        least = np.where((self.low <= 0) & (self.high >= 0), 0, np.minimum(low, high))
        return Interval(np.maximum(below(least), 0), above(np.maximum(low, high)))

    def root(self) -> "Interval":
        """`sqrt(x)` of numbers >= 0."""
        return Interval(np.maximum(below(np.sqrt(self.low)), 0), above(np.sqrt(self.high)))

    def meet(self, other: "Operand") -> "Interval":
        """What both contain."""
        low, high = _ends(other)
        return Interval(np.maximum(self.low, low), np.minimum(self.high, high))

    def total(self, axis: int) -> "Interval":
        """The sum along an axis."""
        sizes = np.maximum(np.abs(self.low), np.abs(self.high)).sum(axis)
        off = above((self.low.shape[axis] + 1) * _UNIT * above(1.01 * sizes))
        return Interval(below(self.low.sum(axis) - off), above(self.high.sum(axis) + off))

    def excludes_zero(self) -> np.ndarray:
        """Where 0 is outside; never where an end is NaN."""
        return (self.low > 0) | (self.high < 0)

    def size(self) -> np.ndarray:
        """The largest absolute value."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


Operand = Union[Interval, np.ndarray, float]  # noqa: UP007 - a forward reference in it


def _ends(value: Operand) -> tuple:
    return value if isinstance(value, Interval) else (value, value)
