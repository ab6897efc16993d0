"""Newton's method on the equations of rest, safeguarded: by factorizations, or by products."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import determinant_sign, imbalance_jacobian
from organics.linear.krylov import linearized, minimize_residual, neuron_blocks
from organics.machine.mesh import alike
from organics.rest.balance import Candidate, judge
from organics.rest.relaxation import select

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

    step: Float[Array, " two_n"]
    may_be_stable: Bool[Array, ""]
    blur: Float[Array, ""]


def newton(circuit: Circuit, z, tolerance, start: Candidate, wanted) -> Descent:
    """Each step by a factorization of the Jacobian."""

    def move(found):
        # in units of the terms: else what is rounding to one neuron is all there is of another
        t = found.terms
        scaled = imbalance_jacobian(circuit, found.state) * (t[None, :] / t[:, None])
        factors = jax.scipy.linalg.lu_factor(-scaled)
        solve = partial(jax.scipy.linalg.lu_solve, factors)
        # what rounding of the terms does to the state, for a few choices of its signs
        blur = 8 * jnp.finfo(t.dtype).eps * solve(_signs(t))
        step = t * solve(found.imbalance / t)
        return _Move(step, determinant_sign(*factors) > 0, jnp.max(jnp.abs(blur)))

    return _descend(circuit, z, tolerance, start, wanted, move, _STEPS)


def newton_krylov(circuit: Circuit, z, tolerance, start: Candidate) -> Descent:
    """The same, each step solved for by products with `W` and `W_r`."""

    def move(found):
        t = found.terms
        product, blocks = linearized(circuit, z, found.state), neuron_blocks(circuit, found.state)
        scaled = (lambda x: product(t * x) / t), (lambda x: blocks(t * x) / t)
        step, _ = minimize_residual(*scaled, -found.imbalance / t, _FORCING)
        return _Move(t * step, jnp.bool_(True), jnp.zeros((), t.dtype))

    return _descend(circuit, z, tolerance, start, jnp.bool_(True), move, _KRYLOV_STEPS)


def may_be_stable(circuit: Circuit, state: State) -> Bool[Array, ""]:
    """Whether `det(-J) > 0`, as at every stable state, at the cost of one factorization.

    It is negative at a saddle with one unstable direction, to which Newton goes as readily.
    """
    sign, _ = jnp.linalg.slogdet(-imbalance_jacobian(circuit, state))
    return sign > 0


def _signs(like: Float[Array, " m"]) -> Float[Array, "m 4"]:
    """Columns of 1 and -1, in no order."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(like), 4))
    return jnp.asarray(signs, like.dtype)


def _descend(
    circuit: Circuit,
    z,
    tolerance,
    start: Candidate,
    wanted,
    move: Callable[[Candidate], _Move],
    most: int,
) -> Descent:
    """At most so many steps by `move`, each shortened to keep `a > 0` and the imbalance falling.

    The fraction of the step taken is quartered when the imbalance rises and the step taken back.
    A steady state is found where every equation balances and the last step was small: else it may
    be far, or there may be none, as where two of them have just vanished; and where rounding moves
    it as little: not where `W_r` is singular and `a` large.
    """
    n = circuit.n
    small = tolerance ** (1 / 3)

    def unfinished(at):
        going = ~at.found.converged & (at.steps < most) & (at.fraction > _LEAST_FRACTION)
        return wanted & going

    def step(at):
        found, (y, a) = at.found, at.found.state
        moved = move(found)
        dy, da = moved.step[:n], moved.step[n:]
        near = jnp.all(jnp.abs(moved.step) <= small * found.terms) & (moved.blur <= small / 16)
        # of `y` as a whole, too: where terms cancel, a step that is small to them may be none to it
        near &= jnp.max(jnp.abs(dy)) <= small * jnp.max(jnp.abs(y))
        to_boundary = jnp.min(jnp.where(da < 0, -0.9 * a / jnp.where(da < 0, da, -1), jnp.inf))
        length = jnp.minimum(at.fraction, to_boundary)
        tried = judge(circuit, State(y + length * dy, a + length * da), z)
        # either, as the residual of a large neuron may hide all of a small one
        accept = (tried.error < found.error) | (~near & (tried.residual < found.residual))
        fraction = jnp.where(accept, jnp.minimum(4 * at.fraction, 1), at.fraction / 4)
        found = select(accept, tried, found)
        found = found._replace(converged=near & (found.error <= tolerance))
        return alike(Descent(found, moved.may_be_stable, fraction, at.steps + 1))

    begin = Descent(start, jnp.bool_(False), jnp.ones((), z.dtype), jnp.int32(0))
    return jax.lax.while_loop(unfinished, step, alike(begin))
