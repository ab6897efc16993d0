"""The paper's Algorithm 1, and sweeps, a variant without factorization."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, ScalarLike

from organics.circuit.circuit import Circuit, State, gate
from organics.machine.mesh import alike
from organics.rest.balance import Candidate, judge
from organics.rest.relaxation import select
from organics.rest.system import DrivenCircuit, as_state

_ITERATIONS = 6  # before Newton takes over: it gains a factor of 2 to 4 each time
_SWEEPS = 20  # each is a fifth of the work of a Newton-Krylov step
_PATIENCE = 4  # sweeps without progress before giving up: the first ones often make none


def algorithm_1_start(
    circuit: Circuit, z: Float[Array, " n"], norm: Float[Array, ""] | None = None
) -> State:
    """First iterate of the paper's Algorithm 1: exact if `W_r = I`.

    `y` is the exact response to `a` if `W_r` is a multiple of the identity. `norm` is the largest
    singular value of `W_r`, if it is already known.
    """
    norm = circuit.recurrent.norm() if norm is None else norm
    drive = circuit.recur(circuit.b * z)

    def response(a):
        scale = norm - norm**2 + norm**2 * jnp.sqrt(a)
        return drive / jnp.where(scale == 0, 1, scale)  # arbitrary where undefined

    a = circuit.c
    a = circuit.c + circuit.pool.apply(a * jnp.square(circuit.rectify(response(a))))
    return State(response(a), a)


def algorithm_1_step(circuit: Circuit, state: State, z: Float[Array, " n"]) -> State:
    """One iteration of the paper's Algorithm 1: the exact `y` for this `a`, then `a` from this `y`.

    In the rectified model `y` solves the equation of the neurons active before the step.
    """
    y, a = state
    gated = gate(a)[:, None] * circuit.recurrent.as_matrix() * circuit.active(y)[None, :]
    y = jnp.linalg.solve(jnp.eye(circuit.n, dtype=y.dtype) - gated, circuit.b * z)
    return State(y, circuit.c + circuit.pool.apply(jnp.square(circuit.rectify(y)) * a))


def iterate(
    driven: DrivenCircuit, tolerance: ScalarLike, first: Candidate, wanted
) -> tuple[Candidate, Array]:
    """The state after a few steps of the algorithm, and the number of steps."""

    def unfinished(carry):
        found, count = carry
        return wanted & (count < _ITERATIONS) & ~(found.error <= tolerance)

    def step(carry):
        found, count = carry
        state = algorithm_1_step(driven.circuit, as_state(found.x), driven.z)
        return judge(driven, jnp.concatenate(state)), count + 1

    return jax.lax.while_loop(unfinished, step, alike((first, jnp.int32(0))))


class _Sweeps(NamedTuple):
    """The state, the least residual so far, and the number of sweeps since."""

    found: Candidate
    least: Float[Array, ""]
    idle: Int[Array, ""]
    sweeps: Int[Array, ""]


def sweep(
    driven: DrivenCircuit, tolerance: ScalarLike, first: Candidate
) -> tuple[Candidate, Array]:
    """Algorithm 1 without its factorization, repeated while it reduces the residual.

    A sweep solves the equation of `y` for this `a` and the diagonal of `W_r`, limited to [0, 1];
    the rest of the recurrence takes the previous `y`.
    """
    circuit, z = driven.circuit, driven.z
    own = jnp.clip(circuit.own_recurrence, 0, 1)

    def unfinished(at):
        return ~(at.found.error <= tolerance) & (at.idle < _PATIENCE) & (at.sweeps < _SWEEPS)

    def step(at):
        y, a = as_state(at.found.x)
        q = circuit.rectify(y)
        others = circuit.b * z + gate(a) * (circuit.recur(q) - own * q)
        alone = others / ((1 - own) + own * jnp.sqrt(a))
        y = jnp.where(others > 0, alone, others) if circuit.rectified else alone
        a = circuit.c + circuit.pool.apply(jnp.square(circuit.rectify(y)) * a)
        found = judge(driven, jnp.concatenate([y, a]))
        falling = found.residual < 0.9 * at.least
        least = jnp.where(falling, found.residual, at.least)
        return _Sweeps(found, least, jnp.where(falling, 0, at.idle + 1), at.sweeps + 1)

    begin = _Sweeps(first, first.residual, jnp.int32(0), jnp.int32(0))
    end = jax.lax.while_loop(unfinished, step, alike(begin))
    closer = (end.found.error <= tolerance) | (end.found.residual < first.residual)
    return select(closer, end.found, first), end.sweeps
