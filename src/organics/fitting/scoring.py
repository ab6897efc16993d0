"""Fisher scoring with damped steps, from several starts at once.

Optimistix's `LevenbergMarquardt` minimizes sums of squares. The Whittle likelihood is none, but has
a Fisher matrix, which takes the place of `J^T J`: hence a loop of its own.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from organics.circuit.circuit import State
from organics.fitting.likelihood import Problem, Quadratic, quadratic

TOLERANCE = 1e-8
"""A fit has converged if its next step would improve the logarithm of the likelihood by less."""
_LARGEST_STEP = 1.5  # of a coordinate: a factor of 4.5 for a positive number
_LEAST_DAMPING, _MOST_DAMPING = 1e-8, 1e8


class Fitted(NamedTuple):
    """Where scoring ended.

    Attributes
        u: the coordinates.
        near: value, score and Fisher matrix there.
        converged: whether that is a minimum, to the tolerance.
        iterations: number of evaluations.
    """

    u: Float[Array, "*batch p"]
    near: Quadratic
    converged: Bool[Array, "*batch"]
    iterations: Int[Array, "*batch"]


class _Loop(NamedTuple):
    fitted: Fitted
    damping: Float[Array, ""]
    over: Bool[Array, ""]


@jax.jit
def scoring(
    problem: Problem,
    starts: Float[Array, "s p"],
    near: State,
    kept: Bool[Array, "s p"],
    most: Int[Array, ""],
    tolerance: float | Float[Array, ""] = TOLERANCE,
) -> Fitted:
    """Minimize from each start and its steady states, with the `kept` coordinates as they are, in
    at most so many evaluations."""
    one = partial(_scoring, problem, most, tolerance)
    return jax.vmap(one)(starts, near, kept)


@jax.jit
def settled(problem: Problem, starts: Float[Array, "s p"]) -> tuple[State, Bool[Array, " s"]]:
    """The steady states of each start, and whether each stimulus has one."""
    return jax.vmap(problem.model.from_rest)(starts)


def _scoring(problem: Problem, most, tolerance, start, near, kept) -> Fitted:
    def unfinished(loop: _Loop):
        return ~loop.over & (loop.fitted.iterations < most)

    def step(loop: _Loop) -> _Loop:
        u, near, _, iterations = loop.fitted
        score = jnp.where(kept, 0, near.score)
        fisher = jnp.where(kept[:, None] | kept[None, :], 0, near.fisher)
        scale = jnp.diagonal(fisher)
        scale = jnp.maximum(scale, 1e-12 * jnp.max(scale))
        scale = jnp.where(scale > 0, scale, 1)
        move = jnp.linalg.solve(fisher + jnp.diag(loop.damping * scale), score)
        move = move * jnp.minimum(1, _LARGEST_STEP / jnp.max(jnp.abs(move), initial=1e-30))
        expected = score @ move - move @ fisher @ move / 2
        there = quadratic(problem, u + move, near.states)
        gain = near.value - there.value
        rounding = 1e-13 * jnp.abs(there.value)
        better = gain > -rounding  # not for infinite values
        damping = jnp.where(
            better,
            jnp.where(gain > expected / 2, loop.damping / 10, loop.damping),
            4 * jnp.maximum(loop.damping, 1e-3),
        )
        damping = jnp.where(iterations > 0, jnp.maximum(damping, _LEAST_DAMPING), loop.damping)
        converged = better & (iterations > 0) & (expected < tolerance + rounding)
        new = Fitted(
            jnp.where(better, u + move, u),
            jax.tree.map(lambda new, old: jnp.where(better, new, old), there, near),
            converged,
            iterations + 1,
        )
        over = converged | (damping > _MOST_DAMPING) | ~jnp.isfinite(new.near.value)
        return _Loop(new, damping, over)

    # the first evaluation is that of a step of length 0, so that the likelihood is compiled once
    p = len(start)
    nowhere = Quadratic(
        jnp.full((), jnp.inf, start.dtype),
        jnp.zeros_like(start),
        jnp.eye(p, dtype=start.dtype),
        near,
    )
    begin = Fitted(start, nowhere, jnp.bool_(False), jnp.int32(0))
    loop = _Loop(begin, jnp.asarray(1e-2, start.dtype), jnp.bool_(False))
    return jax.lax.while_loop(unfinished, step, loop).fitted
