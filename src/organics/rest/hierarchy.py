"""Steady states of hierarchies: the closed form area by area, and the search from there."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from organics.circuit.areas import joined
from organics.circuit.hierarchy import Hierarchy
from organics.machine.mesh import advising, alike
from organics.rest.algorithm1 import algorithm_1_start
from organics.rest.balance import Candidate, judge
from organics.rest.closed_form import closed_form
from organics.rest.newton import newton, newton_krylov
from organics.rest.point import CLOSED_FORM, NEWTON, RELAXATION
from organics.rest.relaxation import relax, select
from organics.rest.system import DrivenHierarchy

_STEP = 0.04  # largest change of `gamma` between two states on the way
_SMALL = 400  # up to this many numbers a factorization costs no more than products
_RELAXATION_TIME = 2000.0  # in units of the largest time constant


def cascade(hierarchy: Hierarchy, z: Float[Array, " n"]) -> tuple:
    """The steady states without feedback, area by area: divisive normalization for identity
    recurrence, else the first iterate of Algorithm 1."""
    states, drive = [], z
    for area, up in zip(hierarchy.areas, (*hierarchy.feedforward, None), strict=True):
        known = area.has_identity_recurrence
        states.append(closed_form(area, drive) if known else algorithm_1_start(area, drive))
        drive = z if up is None else up @ jnp.square(jax.nn.relu(states[-1].y))
    return tuple(states)


class _Way(NamedTuple):
    """The search so far.

    Attributes
        i: number of the next state on the way to `gamma`.
        x: the last state on the way.
        lost: whether to relax instead.
        best, method: the best state for `gamma` itself, and the method that found it.
        iterations: of Newton's method, in all.
        over: whether nothing is left to try.
    """

    i: Int[Array, ""]
    x: Float[Array, " m"]
    lost: Bool[Array, ""]
    best: Candidate
    method: Int[Array, ""]
    iterations: Int[Array, ""]
    over: Bool[Array, ""]


@advising
@partial(jax.jit, static_argnums=1)
def search(
    driven: DrivenHierarchy, tolerance: float, relaxation_steps: ScalarLike
) -> tuple[Candidate, Array, Array, Array]:
    """The steady state, its residual, the method that found it and the number of iterations.

    Newton's method follows the state from the value of `gamma` at which the closed form holds, in
    steps of at most 0.04. Where it is lost, or the largest singular value of a `W_r` exceeds 1, the
    hierarchy itself is integrated from near rest, and Newton's method begins where that ends.
    """
    hierarchy, z = driven.circuit, driven.z
    known = 1.0 if hierarchy.form == "balanced" else 0.0
    fed = jnp.asarray([matrix is not None for matrix in hierarchy.feedback], bool)
    moved = jnp.where(fed, hierarchy.gamma - known, 0)
    steps = jnp.ceil(jnp.max(jnp.abs(moved), initial=0) / _STEP).astype(jnp.int32)
    steps = jnp.maximum(steps, 1)
    first = judge(driven, joined(cascade(hierarchy, z)))
    exact = jnp.all(moved == 0) & hierarchy.has_identity_recurrence
    found = exact & (first.error <= tolerance)
    wild = [
        area.recurrent.norm() > 1 + 100 * float(jnp.finfo(z.dtype).eps)
        for area in hierarchy.areas
        if not area.has_identity_recurrence
    ]
    lost = jnp.any(jnp.stack(wild)) if wild else jnp.bool_(False)

    def on_the_way(i):
        gamma = hierarchy.gamma - moved * (1 - i / steps).astype(z.dtype)
        return eqx.tree_at(lambda driven: driven.circuit.gamma, driven, gamma)

    def go(way: _Way) -> _Way:
        wanted = ~way.over
        there = on_the_way(jnp.where(way.lost, steps, way.i))
        relaxed = _relax(driven, wanted & way.lost, relaxation_steps)
        start = judge(there, jnp.where(way.lost, relaxed, way.x))
        last = way.lost | (way.i == steps)
        accuracy = jnp.where(last, tolerance, tolerance**0.25)  # on the way less will do
        found, possible, count = _newton(there, accuracy, start, wanted, last)
        good = found.converged & possible
        closer = found.converged | ~(found.residual >= way.best.residual)
        better = last & (good | (~way.best.converged & closer))
        used = jnp.where(way.lost, RELAXATION, NEWTON).astype(jnp.int32)
        return _Way(
            i=way.i + 1,
            x=found.x,
            lost=~good,
            best=select(better, found, way.best),
            method=jnp.where(better, used, way.method),
            iterations=way.iterations + count,
            over=(last & good) | way.lost,
        )

    begin = _Way(
        i=jnp.int32(1),
        x=first.x,
        lost=lost,
        best=first._replace(converged=found),
        method=jnp.int32(CLOSED_FORM),
        iterations=jnp.int32(0),
        over=found,
    )
    end = jax.lax.while_loop(lambda way: ~way.over, go, alike(begin))
    best = end.best._replace(converged=end.best.converged & hierarchy.valid)
    return best, best.residual, end.method, end.iterations


def _newton(
    driven: DrivenHierarchy, tolerance, start: Candidate, wanted, last
) -> tuple[Candidate, Bool[Array, ""], Int[Array, ""]]:
    """The state, whether it may be stable, and the number of steps; on the way to the `last` state
    of a large hierarchy by products, as far as that goes."""
    if len(start.x) <= _SMALL:
        found, possible, _, count = newton(driven, tolerance, start, wanted)
        return found, possible, count
    near, _, _, products = newton_krylov(driven, tolerance, start, wanted & ~last)
    done = near.converged & ~last
    found, possible, _, count = newton(driven, tolerance, near, wanted & ~done)
    return select(done, near, found), possible | done, products + count


def _relax(driven: DrivenHierarchy, wanted, steps: ScalarLike) -> Float[Array, " m"]:
    """Where the hierarchy's own trajectory from `y = 0.01, a = c` hardly moves."""
    tau, dtype = driven.time_constants(), driven.z.dtype
    accuracy = 1e-6 if dtype == jnp.float64 else 1e-4

    def rests(x):
        imbalance = driven.imbalance(x)
        allowed = driven.terms(x) + jnp.max(jnp.abs(x))
        return jnp.all(jnp.abs(imbalance) <= 10 * accuracy * allowed), imbalance / tau

    begin = [
        part for area in driven.circuit.areas for part in (jnp.full_like(area.c, 0.01), area.c)
    ]
    return relax(
        rests,
        lambda rests: rests,
        jnp.concatenate(begin),
        step=0.01 * jnp.min(tau),
        longest=_RELAXATION_TIME * jnp.max(tau),
        most=steps,
        accuracy=accuracy,
        wanted=wanted,
    ).x
