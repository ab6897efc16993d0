"""Fisher scoring with damped steps, from several starts at once.

Optimistix's `LevenbergMarquardt` minimizes sums of squares. The Whittle likelihood is none, but has
a Fisher matrix, which takes the place of `J^T J`: hence a loop of its own.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from organics.circuit.circuit import State
from organics.fitting.likelihood import Problem, Quadratic, quadratic
from organics.fitting.model import Model

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


def scoring(
    problem: Problem,
    starts: Float[Array | np.ndarray, "s p"],
    near: State,
    kept: Bool[Array | np.ndarray, "s p"],
    counted: Float[Array | np.ndarray, "s k"],
    lanes: int,
    most: int = 200,
    tolerance: float = TOLERANCE,
) -> Fitted:
    """Minimize from each start and its steady states, with the `kept` coordinates as they are and
    of the `counted` stimuli, in at most so many evaluations.

    So many `lanes` run at once: with the same number, all searches of a fit are one program.
    """
    given, count = jax.tree.map(np.asarray, (starts, near, kept, counted)), len(starts)
    found = []
    for first in range(0, count, lanes):
        at = np.minimum(np.arange(first, first + lanes), count - 1)
        part = jax.tree.map(lambda x, at=at: x[at], given)
        found.append(_in_lanes(problem, *part, jnp.int32(most), jnp.float64(tolerance)))
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *found)


def settled(model: Model, starts: Float[Array | np.ndarray, "s p"]) -> State:
    """The steady states of each start."""
    found = [_settled(model, jnp.asarray(u)) for u in np.asarray(starts)]
    return jax.tree.map(lambda *x: np.stack(x), *found)


@jax.jit
def _settled(model: Model, u) -> State:
    return model.from_rest(u)[0]


@jax.jit
def _in_lanes(problem: Problem, starts, near, kept, counted, most, tolerance) -> Fitted:
    def one(start, near, kept, counted):
        chosen = eqx.tree_at(lambda problem: problem.counted, problem, counted)
        return _scoring(chosen, most, tolerance, start, near, kept)

    return jax.vmap(one)(starts, near, kept, counted)


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
        # at a perfect fit the value is rounding alone
        rounding = jnp.maximum(1e-13 * jnp.abs(there.value), 1e-3 * tolerance)
        better = gain > -rounding  # not for infinite values
        damping = jnp.where(
            better,
            jnp.where(gain > expected / 2, loop.damping / 10, loop.damping),
            4 * jnp.maximum(loop.damping, 1e-3),
        )
        damping = jnp.where(iterations > 0, jnp.maximum(damping, _LEAST_DAMPING), loop.damping)
        # a step that is damped much expects little anywhere
        enough = expected * (1 + loop.damping) < tolerance + rounding
        converged = better & (iterations > 0) & enough
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
