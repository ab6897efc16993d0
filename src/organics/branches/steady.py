"""Curves of steady states over one parameter, and what happens on them.

The tests are: `t_lambda`, the tangent's part along the parameter, 0 at a fold; the determinant
bordered by the tangent, 0 at a branch point; and the product of the sums of any two eigenvalues,
the determinant of the bialternate product, 0 at a Hopf point (and where two real eigenvalues cancel
each other).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from organics.branches.arclength import Curve, Point
from organics.branches.family import Family
from organics.linear.jacobian import unsorted_spectrum
from organics.rest.system import System

FOLD, BRANCH, HOPF = range(3)
_SHORT = 1e-3  # a step over a branch point or several events, in units
_NARROW = 0.02  # two events nearer to each other, in units, may be missed


class SteadyCurve(Curve):
    """The steady states of a family of systems with one parameter; a point is `(x, value)`."""

    narrow: ClassVar[float] = 1e-6  # as Newton's method does the rest
    family: Family
    width: Float[Array | np.ndarray, "*batch"]

    def kinks(self) -> np.ndarray:
        """Those of the system."""
        return self.family.base.kinks()

    def piece(self, positive: Bool[Array | np.ndarray, "*batch kinks"]) -> "SteadyCurve":
        """That of the system's piece."""
        return SteadyCurve(self.family.piece(positive), self.width)

    def residual(self, X: Float[Array, " k1"]) -> Float[Array, " k"]:
        """The imbalance."""
        return self.family.at(X[-1]).imbalance(X[:-1])

    def jacobian(self, X: Float[Array, " k1"]) -> Float[Array, "k k1"]:
        """The system's, and the derivative by the parameter."""
        x, value = X[:-1], X[-1]
        by_value = jax.jvp(
            lambda v: self.family.at(v).imbalance(x), (value,), (jnp.ones_like(value),)
        )[1]
        return jnp.concatenate([self.family.at(value).jacobian(x), by_value[:, None]], axis=1)

    def lengths(self, X: Float[Array, " k1"]) -> Float[Array, " k1"]:
        """Those of the system, so that a distance is their root mean square, and a twentieth of the
        range of the parameter."""
        return units(self.family.whole(X[-1]), X[:-1], self.width)

    def room(self, X: Float[Array, " k1"], step: Float[Array, " k1"]) -> Float[Array, ""]:
        """That of the system."""
        return self.family.at(X[-1]).room(X[:-1], step[:-1])

    def tests(
        self, X: Float[Array, " k1"], t: Float[Array, " k1"], M: Float[Array, "k1 k1"], more: Any
    ) -> tuple[Float[Array, " 3"], Complex[Array, " k"]]:
        """In the order of `FOLD`, `BRANCH`, `HOPF`; the eigenvalues are kept, in any order."""
        del more
        values = unsorted_spectrum(rates(self.family.at(X[-1]), X[:-1]))
        return jnp.stack([t[-1], determinant(M), pair_test(values)]), values

    def separates(
        self, before: Point, after: Point, h: Float[Array, ""], slopes: Float[Array, " 3"]
    ) -> Bool[Array, ""]:
        """Whether the number of unstable eigenvalues changes as the tests say. Only a short step
        tells a branch point, or several events, from a jump onto another branch nearby; or shows
        that nothing happens where the slopes foretell a zero of a test: there may be two."""
        flips = (jnp.sign(before.tests) != jnp.sign(after.tests)).astype(int)
        unstable = [jnp.sum(jnp.real(point.kept) > 0) for point in (before, after)]
        explained = flips[FOLD] + flips[BRANCH] + 2 * flips[HOPF]
        change = jnp.abs(unstable[1] - unstable[0])
        sure = ((flips[BRANCH] == 0) & (flips[FOLD] + flips[HOPF] < 2)) | (h < _SHORT)
        foretold = (before.tests + h * slopes) * before.tests < 0
        twice = jnp.any((foretold & (flips == 0))[jnp.array([BRANCH, HOPF])])
        return sure & (~twice | (h < _NARROW)) & (change <= explained)


def rates(system: System, x: Float[Array, " m"]) -> Float[Array, "m m"]:
    """The Jacobian of the velocity, in 1/ms."""
    return system.jacobian(x) / system.time_constants()[:, None]


def units(system: System, x: Float[Array, " m"], *widths: Any) -> Float[Array, " units"]:
    """Units of the numbers and of the parameters, whose ranges are `widths`."""
    return jnp.append(np.sqrt(len(x)) * system.lengths(x), jnp.stack(widths) / 20)


def determinant(M: Float[Array, "k k"]) -> Float[Array, ""]:
    """The determinant's sign times the k-th root of its size, which is always in range."""
    sign, size = jnp.linalg.slogdet(M)
    return sign * jnp.exp(size / len(M))


def pair_test(values: Complex[Array, " m"]) -> Float[Array, ""]:
    """The sign of the product of the sums of any two eigenvalues, times the smallest such sum."""
    i, j = np.triu_indices(len(values), 1)
    return least_with_sign(values[i] + values[j])


def least_with_sign(values: Complex[Array, " pairs"]) -> Float[Array, ""]:
    """The sign of the product, which is real, times the smallest size; 1 if there are none."""
    if not len(values):
        return jnp.ones((), values.real.dtype)
    size = jnp.abs(values)
    unit = jnp.where(size > 0, size, 1).astype(values.dtype)
    sign = jnp.sign(jnp.real(jnp.prod(values / unit)))
    return sign * jnp.min(size)
