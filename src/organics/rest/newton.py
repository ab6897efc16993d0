"""A safeguarded Newton method for steady states, by factorizations or by matrix-vector products."""

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
_KRYLOV_STEPS = 20  # after these the other routes begin
_LEAST_FRACTION = 1e-9  # of a step, below which Newton is stuck
_FORCING = 0.1  # how much of the imbalance a Newton-Krylov step may leave to the next


class Descent(NamedTuple):
    """The state of Newton's method.

    Attributes
        found: the state.
        may_be_stable: whether `det(-J) > 0`, as at every stable state; from the last factorization,
            hence about the state before.
        fraction: fraction of the next step to be taken.
        steps: number of steps tried.
    """

    found: Candidate
    may_be_stable: Bool[Array, ""]
    fraction: Float[Array, ""]
    steps: Int[Array, ""]


class _Move(NamedTuple):
    """A step, whether the state before it may be stable, and how far rounding of the terms moves
    the state, relative to the terms."""

    step: Float[Array, " m"]
    may_be_stable: Bool[Array, ""]
    blur: Float[Array, ""]


def newton(system: System, tolerance: ScalarLike, start: Candidate, wanted) -> Descent:
    """Newton's method; each step factorizes the Jacobian."""

    def move(found):
        # in units of the terms: the rounding error of one neuron may be the whole value of another
        t = found.terms
        scaled = system.jacobian(found.x) * (t[None, :] / t[:, None])
        factors = jax.scipy.linalg.lu_factor(-scaled)
        solve = partial(jax.scipy.linalg.lu_solve, factors)
        # the effect of rounding of the terms on the state, for a few random signs
        blur = 8 * jnp.finfo(t.dtype).eps * solve(_signs(t))
        step = t * solve(found.imbalance / t)
        return _Move(step, determinant_sign(*factors) > 0, jnp.max(jnp.abs(blur)))

    return _descend(system, tolerance, start, wanted, move, _STEPS)


def newton_krylov(system: System, tolerance: ScalarLike, start: Candidate, wanted) -> Descent:
    """Newton's method; each step is solved by products with the Jacobian."""

    def move(found):
        t = found.terms
        product, inverse = system.product(found.x), system.nearly_inverse(found.x)
        scaled = (lambda v: product(t * v) / t), (lambda v: inverse(t * v) / t)
        step, _ = minimize_residual(*scaled, -found.imbalance / t, _FORCING)
        return _Move(t * step, jnp.bool_(True), jnp.zeros((), t.dtype))

    return _descend(system, tolerance, start, wanted, move, _KRYLOV_STEPS)


def may_be_stable(system: System, x: Float[Array, " m"]) -> Bool[Array, ""]:
    """Whether `det(-J) > 0`, as at every stable state, at the cost of one factorization.

    It is negative at a saddle with one unstable direction, which Newton finds as easily as a stable
    state.
    """
    sign, _ = jnp.linalg.slogdet(-system.jacobian(x))
    return sign > 0


def _signs(like: Float[Array, " m"]) -> Float[Array, "m 4"]:
    """Columns of 1 and -1 in irregular order."""
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
    """At most so many steps by `move`, each shortened so that the state stays in the domain and the
    imbalance falls.

    If the imbalance rises, the step is undone and its fraction quartered. A steady state counts as
    found if every equation balances and the last step was small: otherwise it may be far, or may
    not exist, as just after two of them have merged and vanished. Rounding, too, must move it
    little, which fails where `W_r` is singular and `a` large.
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
        # either one, as the residual of a large neuron may hide that of a small one
        accept = (tried.error < found.error) | (~near & (tried.residual < found.residual))
        fraction = jnp.where(accept, jnp.minimum(4 * at.fraction, 1), at.fraction / 4)
        found = select(accept, tried, found)
        found = found._replace(converged=near & (found.error <= tolerance))
        return alike(Descent(found, moved.may_be_stable, fraction, at.steps + 1))

    begin = Descent(start, jnp.bool_(False), jnp.ones((), start.x.dtype), jnp.int32(0))
    return jax.lax.while_loop(unfinished, step, alike(begin))
