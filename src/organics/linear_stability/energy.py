"""The energy of a circuit with identity recurrence.

Source: Rawat, Heeger & Martiniani 2024, section on the energy function.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.circuit.circuit import Circuit, State, root
from organics.linear_stability.certificate import diagonal_certificate_at
from organics.linear_stability.oscillator import leak_and_rate, with_identity_recurrence
from organics.rest.point import OperatingPoint


def energy(point: OperatingPoint, state: State) -> Float[Array, ""]:
    """Energy of a state of a circuit with identity recurrence: 0 at rest, positive elsewhere.

    A weighted sum over the responding neurons of the squared distance of `y` from the normalized
    response, and of the squared mismatch between the input `b z` and its reconstruction
    `sqrt(a) y`; the potentials of neurons at rest do not count. It never increases along the
    linearized flow. Along the nonlinear flow it may increase, in third order of the distance from
    the steady state. `y` and `a` have shape (n,); use `jax.vmap` for several states.

    Raises `ValueError` if the recurrence is not the identity or the state has another shape.
    Source: Rawat et al. 2024, energy function; weights `T` from `certify`.
    """
    circuit = with_identity_recurrence("energy", point)
    state = State(*map(jnp.asarray, state))
    for name, value in zip(state._fields, state, strict=True):
        if value.shape != (circuit.n,):
            raise ValueError(
                f"`state.{name}` must have shape ({circuit.n},), not {value.shape}. "
                "For several states use `jax.vmap`."
            )
    return _energy(circuit, point.z, state, point.state)


@jax.jit
def _energy(circuit: Circuit, z: Float[Array, " n"], state: State, steady: State):
    T, _, _ = diagonal_certificate_at(circuit, steady)
    y_s, a_s = steady
    leak, q = leak_and_rate(circuit, y_s, a_s)
    response = jnp.where(q != 0, q, 1)  # divide by it before squaring: its square may underflow
    distance = jnp.square((state.y - y_s) / response) * leak * circuit.tau_y / circuit.tau_a
    mismatch = jnp.square((root(state.a) * state.y - circuit.b * z) / response)
    return jnp.sum(jnp.where(q != 0, T * a_s * (distance + mismatch), 0))
