"""Newton's method on the equations of rest, safeguarded: by factorizations, or by products."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from organics.linear.jacobian import determinant_sign
from organics.linear.krylov import minimize_residual
from organics.machine.mesh import alike
from organics.rest.balance import Candidate, judge
from organics.rest.relaxation import select
from organics.rest.system import System

_STEPS = 60
_KRYLOV_STEPS = 20  # where these do not do, the other routes begin
_LEAST_FRACTION = 1e-9  # of a step, below which Newton is stuck
_FORCING = 0.1  # how much of the imbalance a Newton-Krylov step may leave to the next


class Descent(NamedTuple):
    """Where Newton's method is.

    Attributes
        found: the state.
        may_be_stable: what the last factorization says of the state before: whether
            `det(-J) > 0`, as at every stable one.
        fraction: of the next step, that is to be taken.
        steps: how many were tried.
    """

    found: Candidate
    may_be_stable: Bool[Array, ""]
    fraction: Float[Array, ""]
    steps: Int[Array, ""]


class _Move(NamedTuple):
    """A step, whether the state before it may be stable, and how far rounding of the terms moves
    it, relative to them."""

    step: Float[Array, " m"]
    may_be_stable: Bool[Array, ""]
    blur: Float[Array, ""]


def newton(system: System, tolerance: ScalarLike, start: Candidate, wanted) -> Descent:
    """Each step by a factorization of the Jacobian."""

    def move(found):
        # in units of the terms: else what is rounding to one neuron is all there is of another
        t = found.terms
        scaled = system.jacobian(found.x) * (t[None, :] / t[:, None])
        factors = jax.scipy.linalg.lu_factor(-scaled)
        solve = partial(jax.scipy.linalg.lu_solve, factors)
        # what rounding of the terms does to the state, for a few choices of its signs
        blur = 8 * jnp.finfo(t.dtype).eps * solve(_signs(t))
        step = t * solve(found.imbalance / t)
        return _Move(step, determinant_sign(*factors) > 0, jnp.max(jnp.abs(blur)))

    return _descend(system, tolerance, start, wanted, move, _STEPS)


def newton_krylov(system: System, tolerance: ScalarLike, start: Candidate, wanted) -> Descent:
    """The same, each step solved for by products with the Jacobian."""

    def move(found):
        t = found.terms
        product, inverse = system.product(found.x), system.nearly_inverse(found.x)
        scaled = (lambda v: product(t * v) / t), (lambda v: inverse(t * v) / t)
        step, _ = minimize_residual(*scaled, -found.imbalance / t, _FORCING)
        return _Move(t * step, jnp.bool_(True), jnp.zeros((), t.dtype))

    return _descend(system, tolerance, start, wanted, move, _KRYLOV_STEPS)


def may_be_stable(system: System, x: Float[Array, " m"]) -> Bool[Array, ""]:
    """Whether `det(-J) > 0`, as at every stable state, at the cost of one factorization.

    It is negative at a saddle with one unstable direction, to which Newton goes as readily.
    """
    sign, _ = jnp.linalg.slogdet(-system.jacobian(x))
    return sign > 0


def _signs(like: Float[Array, " m"]) -> Float[Array, "m 4"]:
    """Columns of 1 and -1, in no order."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(like), 4))
    return jnp.asarray(signs, like.dtype)


def _descend(
    system: System,
    tolerance: ScalarLike,
    start: Candidate,
    wanted,
    move: Callable[[Candidate], _Move],
    most: int,
) -> Descent:
    """At most so many steps by `move`, each shortened to stay where the system may be and to keep
    the imbalance falling.

    The fraction of the step taken is quartered when the imbalance rises and the step taken back.
    A steady state is found where every equation balances and the last step was small: else it may
    be far, or there may be none, as where two of them have just vanished; and where rounding moves
    it as little: not where `W_r` is singular and `a` large.
    """
    small = tolerance ** (1 / 3)

    def unfinished(at):
        going = ~at.found.converged & (at.steps < most) & (at.fraction > _LEAST_FRACTION)
        return wanted & going

    def step(at):
        found = at.found
        moved = move(found)
        bound = jnp.minimum(found.terms, system.scales(found.x))
        near = jnp.all(jnp.abs(moved.step) <= small * bound) & (moved.blur <= small / 16)
        length = jnp.minimum(at.fraction, system.room(found.x, moved.step))
        tried = judge(system, found.x + length * moved.step)
        # either, as the residual of a large neuron may hide all of a small one
        accept = (tried.error < found.error) | (~near & (tried.residual < found.residual))
        fraction = jnp.where(accept, jnp.minimum(4 * at.fraction, 1), at.fraction / 4)
        found = select(accept, tried, found)
        found = found._replace(converged=near & (found.error <= tolerance))
        return alike(Descent(found, moved.may_be_stable, fraction, at.steps + 1))

    begin = Descent(start, jnp.bool_(False), jnp.ones((), start.x.dtype), jnp.int32(0))
    return jax.lax.while_loop(unfinished, step, alike(begin))
