"""Limit cycles, followed from the Hopf points where they are born.

A cycle is a point `x` and a period `T` with `phi_T(x) = x`, where `phi` is the flow, and with `x`
at an extreme of one of its numbers (`f_k(x) = 0`), which fixes the phase. The flow and its
derivatives come from the variational equation, by the eighth-order method of Dormand and Prince
with equal steps. The Floquet multipliers are the eigenvalues of the derivative by `x`; one of them
is 1, and how far the computed one is from it measures the error.

Source: Kuznetsov, Elements of Applied Bifurcation Theory, sections 5.3 and 10.2; Hairer, Norsett
and Wanner, Solving Ordinary Differential Equations I (the method).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int
from scipy.integrate import DOP853

from organics.branches.arclength import ELSEWHERE, GOING, INACCURATE, INFINITE, Curve, Point
from organics.branches.family import Family
from organics.branches.steady import determinant, least_with_sign, rates, units

KINDS = ("fold of cycles", "branch point of cycles", "period doubling", "torus")
FOLD, BRANCH, DOUBLING, TORUS = range(len(KINDS))
ACCURACY = 1e-6
"""How far the trivial multiplier may be from 1."""
_MOST_PERIOD = 100.0  # times the first one; beyond, the period counts as infinite
_FASTEST = 5.0
"""Rate times step up to which what decays fast stays small in the flow; from 6.2 on it grows, and
the trivial multiplier does not tell."""

_STAGES = DOP853.n_stages
_SQUARINGS = 4


class Orbit(NamedTuple):
    """What is kept of a cycle: the Floquet multipliers by falling size, the extremes of all numbers
    over the period, the second derivative of the number whose extreme fixes the phase, and whether
    the flow had enough steps."""

    multipliers: Complex[Array, "*batch m"]
    low: Float[Array, "*batch m"]
    high: Float[Array, "*batch m"]
    curvature: Float[Array, "*batch"]
    accurate: Bool[Array, "*batch"]


class CycleCurve(Curve):
    """The limit cycles of a family of systems with one parameter; a point is `(x, T, value)`.

    Attributes
        k: the number whose extreme is at time 0.
        period: that at the Hopf point.
        steps: of the flow, for a period.
    """

    family: Family
    width: Float[Array | np.ndarray, "*batch"]
    k: Int[Array | np.ndarray, "*batch"]
    period: Float[Array | np.ndarray, "*batch"]
    steps: int = eqx.field(static=True)

    def residual(self, X: Float[Array, " k1"]) -> Float[Array, " k"]:
        """How far the flow is from closing, and `f_k`."""
        return self.linearized(X)[0]

    def jacobian(self, X: Float[Array, " k1"]) -> Float[Array, "k k1"]:
        """By the variational equation."""
        return self.linearized(X)[1]

    def linearized(
        self, X: Float[Array, " k1"]
    ) -> tuple[Float[Array, " k"], Float[Array, "k k1"], "Flow"]:
        """Both from one flow, and that."""
        x, T, value = X[:-2], X[-2], X[-1]
        flowed = flow(self.family, x, T, value, self.steps)
        end = flowed.x
        system = self.family.at(value)
        tau = system.time_constants()
        f = system.imbalance(x) / tau
        closing = jnp.concatenate(
            [
                flowed.by_x - jnp.eye(len(x)),
                (system.imbalance(end) / tau)[:, None],
                flowed.by_value[:, None],
            ],
            axis=1,
        )
        phase = jnp.concatenate(
            [rates(system, x)[self.k], jnp.zeros(1), _by_value(self.family, x, value)[self.k][None]]
        )
        left = jnp.append(end - x, f[self.k])
        return left, jnp.concatenate([closing, phase[None]]), flowed

    def lengths(self, X: Float[Array, " k1"]) -> Float[Array, " k1"]:
        """Those of steady states, and a fifth of the period."""
        U = units(self.family.at(X[-1]), X[:-2], self.width)
        return jnp.concatenate([U[:-1], 0.2 * X[-2:-1], U[-1:]])

    def room(self, X: Float[Array, " k1"], step: Float[Array, " k1"]) -> Float[Array, ""]:
        """That of the system, and of the period, which stays positive."""
        shrinks = jnp.where(step[-2] < 0, -0.5 * X[-2] / jnp.minimum(step[-2], -1e-300), jnp.inf)
        return jnp.minimum(shrinks, self.family.at(X[-1]).room(X[:-2], step[:-2]))

    def tests(
        self, X: Float[Array, " k1"], t: Float[Array, " k1"], M: Float[Array, "k1 k1"], more: "Flow"
    ) -> tuple[Float[Array, " 4"], Orbit]:
        """In the order of `FOLD`, `BRANCH`, `DOUBLING`, `TORUS`."""
        x, flowed = X[:-2], more
        multipliers = jnp.linalg.eigvals(flowed.by_x)
        multipliers = multipliers[jnp.argsort(-jnp.abs(multipliers))]
        doubling = determinant(flowed.by_x + jnp.eye(len(x)))
        others = multipliers[jnp.argsort(jnp.abs(multipliers - 1))][1:]  # without the trivial one
        torus = torus_test(others)
        system = self.family.at(X[-1])
        f = system.imbalance(x) / system.time_constants()
        closed = jnp.min(jnp.abs(multipliers - 1)) <= ACCURACY
        accurate = closed & (flowed.fastest * X[-2] / self.steps <= _FASTEST)
        curvature = (rates(system, x) @ f)[self.k]
        orbit = Orbit(multipliers, flowed.low, flowed.high, curvature, accurate)
        return jnp.stack([t[-1], determinant(M), doubling, torus]), orbit

    def end(self, before: Point, after: Point) -> Int[Array, ""]:
        """Where the flow needs more steps, where the extreme has turned over, as the cycle has
        shrunk to a steady state, and where the period is a hundred times that at the Hopf point."""
        shrunk = before.kept.curvature * after.kept.curvature <= 0
        slow = after.X[-2] > _MOST_PERIOD * self.period
        return jnp.select(
            [~after.kept.accurate, shrunk, slow], [INACCURATE, ELSEWHERE, INFINITE], GOING
        )


def torus_test(others: Complex[Array, " m"]) -> Float[Array, ""]:
    """0 where the product of two multipliers is 1: `1 - mu_i mu_j` of all pairs, each divided by
    the larger of 1 and `|mu|` for both, so that nothing overflows."""
    part = 1 / jnp.maximum(1, jnp.abs(others)).astype(others.dtype)
    i, j = np.triu_indices(len(others), 1)
    return least_with_sign(part[i] * part[j] - (others * part)[i] * (others * part)[j])


class Flow(NamedTuple):
    """The end of a flow, its derivatives by the beginning and by the parameter, the extremes on the
    way, and the fastest rate there."""

    x: Float[Array, " m"]
    by_x: Float[Array, "m m"]
    by_value: Float[Array, " m"]
    low: Float[Array, " m"]
    high: Float[Array, " m"]
    fastest: Float[Array, ""]


def flow(
    family: Family, x: Float[Array, " m"], T: Float[Array, ""], value: Float[Array, ""], steps: int
) -> Flow:
    """The flow over a time `T` in equal steps."""
    system = family.at(value)
    tau = system.time_constants()
    m = len(x)
    h = T / steps
    A, b = (jnp.asarray(c, x.dtype) for c in (DOP853.A[:_STAGES, :_STAGES], DOP853.B))

    def slope(state):
        """Of `x` and, in columns beside it, its derivatives."""
        x, V = state[:, 0], state[:, 1:]
        moved = rates(system, x) @ V
        moved = moved.at[:, -1].add(_by_value(family, x, value))
        return jnp.concatenate([(system.imbalance(x) / tau)[:, None], moved], axis=1)

    def stage(i, K, state):
        return K.at[i].set(slope(state + h * jnp.tensordot(A[i], K, 1)))

    def step(state, _):
        K = jnp.zeros((_STAGES, *state.shape))
        K = jax.lax.fori_loop(0, _STAGES, lambda i, K: stage(i, K, state), K)
        state = state + h * jnp.tensordot(b, K, 1)
        return state, (state[:, 0], _largest_rate(rates(system, state[:, 0])))

    begin = jnp.concatenate([x[:, None], jnp.eye(m), jnp.zeros((m, 1))], axis=1)
    end, (path, fastest) = jax.lax.scan(step, begin, None, length=steps)
    low, high = -_highest(-path), _highest(path)
    return Flow(end[:, 0], end[:, 1:-1], end[:, -1], low, high, jnp.max(fastest))


def _largest_rate(J: Float[Array, "m m"]) -> Float[Array, ""]:
    """The size of the largest eigenvalue, a little from above: the norm of a power, to its root."""
    size = jnp.linalg.norm(J)
    power = J / size
    for _ in range(_SQUARINGS):
        power = power @ power
    return size * jnp.linalg.norm(power) ** (0.5**_SQUARINGS)


def _highest(path: Float[Array, "steps m"]) -> Float[Array, " m"]:
    """The largest values of periodic samples, by parabolas through the samples beside them."""
    i = jnp.argmax(path, axis=0)
    before, at, after = (
        jnp.take_along_axis(path, ((i + k) % len(path))[None], axis=0)[0] for k in (-1, 0, 1)
    )
    bend = before - 2 * at + after
    return at - jnp.where(bend < 0, (after - before) ** 2 / (8 * jnp.where(bend < 0, bend, -1)), 0)


def _by_value(family: Family, x: Float[Array, " m"], value: Float[Array, ""]):
    """The derivative of the velocity by the parameter."""

    def velocity(value):
        system = family.at(value)
        return system.imbalance(x) / system.time_constants()

    return jax.jvp(velocity, (value,), (jnp.ones_like(value),))[1]
