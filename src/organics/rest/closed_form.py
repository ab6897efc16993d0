"""The steady state for `W_r = I`, which is divisive normalization."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.circuit.circuit import Circuit, State, as_drive


def closed_form(circuit: Circuit, z: Float[Array, " n"]) -> State:
    """The unique steady state for `W_r = I`: divisive normalization of the drive `d = b z`.

    Main model: `a = (b0 sigma)^2 + W d^2`, `y = d / sqrt(a)`. Rectified model: `a` pools
    `relu(d)^2`, and `y = d` where `d < 0`. Source: Rawat et al. 2024.

    Raises `ValueError` if the circuit has a recurrent matrix, identity or not: pass `W_r=None`; and
    if `z` has the wrong shape or is not finite.
    """
    if not circuit.has_identity_recurrence:
        raise ValueError(
            "`closed_form` needs a circuit with `W_r=None` (identity recurrence); "
            "`steady_state` solves the general case."
        )
    d = circuit.b * as_drive(circuit, z)
    q = circuit.rectify(d)
    a = circuit.c + circuit.pool.apply(jnp.square(q))
    return State(q / jnp.sqrt(a) + (d - q), a)
