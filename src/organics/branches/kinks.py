"""How a curve goes on where its equations have kinks.

The equations are smooth where certain numbers have given signs. If the tangent `v` of the piece on
which a curve comes leads the number k through 0, the curve goes on along the tangent `v'` of the
next piece, with `v'_k` of the sign of `v_k`. If the parameter turns there, that is a nonsmooth
fold; else the branch persists.

In a corner several numbers are 0 at once. There the equations, taken as linear on each piece, are
moved aside by a small vector, so that the curve meets one kink after the other; the same rule leads
on, until no other kink lies ahead. The vector is always the same, so that a curve that comes on the
way out leaves on the way in.

Source: di Bernardo, Budd, Champneys and Kowalczyk 2008, Piecewise-smooth Dynamical Systems, chapter
5 (persistence and nonsmooth fold); Lemke 1965 (the way through a corner, complementary pivoting).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

_LEVEL = 1e-9  # of a unit tangent: the number does not move
_MOST = 1000  # kinks on the way through a corner


def leads_into(
    u: Float[Array, " kinks"], positive: Bool[Array, " kinks"], near: Bool[Array, " kinks"]
) -> Bool[Array, ""]:
    """Whether a tangent, of whose numbers with kinks `u` are, leads into a piece and stays there;
    numbers that do not move count as not positive."""
    return jnp.all(~near | (positive == (u > _LEVEL)))


class _Way(NamedTuple):
    """On which piece, where among the kinks, and in which direction."""

    positive: Bool[Array, " kinks"]
    q: Float[Array, " kinks"]
    v: Float[Array, " k1"]
    passed: Int[Array, ""]


def onward(
    jacobian: Callable,
    kinks: np.ndarray,
    near: Bool[Array, " kinks"],
    v: Float[Array, " k1"],
    positive: Bool[Array, " kinks"],
    beginning: Bool[Array, ""] | bool,
) -> tuple[Float[Array, " k1"], Bool[Array, " kinks"], Bool[Array, ""]]:
    """The tangent and the piece on which a curve goes on, and whether that is known.

    Arguments
        jacobian: gives that of a piece, (k, k + 1).
        kinks: the indices of the numbers that have kinks.
        near: which of them are at their kink; the others do not matter.
        v: the unit tangent along which the curve comes.
        positive: the piece on which it comes.
        beginning: whether it does not come, but begins, in the direction of `v`, on the piece where
            the numbers at their kinks are not positive.
    """

    def ahead(way):
        u = way.v[kinks]
        return near & (jnp.where(way.positive, -u, u) > _LEVEL), u

    def going(way):
        return jnp.any(ahead(way)[0]) & (way.passed < _MOST)

    def step(way):
        hits, u = ahead(way)
        times = jnp.where(hits, -way.q / jnp.where(hits, u, 1), jnp.inf)
        k = jnp.argmin(times)
        positive = way.positive.at[k].set(~way.positive[k])
        v = jnp.linalg.svd(jacobian(positive))[2][-1]
        v = v * jnp.where(v[kinks][k] * u[k] < 0, -1, 1)
        return _Way(positive, (way.q + times[k] * u).at[k].set(0), v, way.passed + 1)

    apart = np.random.default_rng(0).uniform(-1.5, -0.5, len(kinks))
    aside = jnp.zeros_like(v).at[kinks].set(jnp.where(near, apart, 0))
    moved = jacobian(positive & ~near) @ aside
    there = jnp.linalg.lstsq(jacobian(positive), moved)[0][kinks]
    speed = jnp.abs(v[kinks])
    small = 0.5 * jnp.min(jnp.where(near, speed / jnp.maximum(jnp.abs(there), 1e-300), jnp.inf))
    q = jnp.where(beginning, aside[kinks], jnp.where(positive, speed, -speed) + small * there)
    end = jax.lax.while_loop(going, step, _Way(positive, q, v, jnp.int32(0)))
    return end.v, end.positive, ~jnp.any(ahead(end)[0])
