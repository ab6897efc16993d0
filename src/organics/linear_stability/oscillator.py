"""A circuit with identity recurrence as coupled damped oscillators.

Linearized about its steady state it is

    x'' + B x' + K x = 0,    x = tau_y sqrt(a_s) (y - y_s) / y_s    (elementwise),

where the stiffness `K` is diagonal and positive and the damping `B` a nonsingular M-matrix. This
makes the circuit stable whatever its parameters.

Source: Rawat, Heeger & Martiniani 2024, section on unconditional stability.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import own_leak
from organics.rest.point import OperatingPoint, require_point


class Oscillator(NamedTuple):
    """Coupled damped oscillators `x'' + B x' + K x = 0` with the circuit's own spectrum.

    Attributes
        B: damping, shape (n, n), in 1/ms; off-diagonal entries <= 0.
        K: stiffness, shape (n, n), diagonal, positive, in 1/ms^2.
        coupled: which neurons respond (`y_s != 0`, or `y_s > 0` in the rectified model), shape
            (n,). A neuron i that does not respond has no effect on others (column i of `B` is zero
            off the diagonal). It has no coordinate `x_i`, but `B` and `K` carry its two real
            eigenvalues, `-1/tau_a` and `-sqrt(a_s)/tau_y` (`-1/tau_y` if silenced by
            rectification).
    """

    B: Float[Array, "n n"]
    K: Float[Array, "n n"]
    coupled: Bool[Array, " n"]

    @property
    def companion(self) -> Float[Array, "two_n two_n"]:
        """First-order form `[[0, I], [-K, -B]]`; its eigenvalues are those of the Jacobian."""
        return _companion(self)


@partial(jax.jit, inline=True)
def _companion(oscillator: Oscillator) -> Array:
    B, K = oscillator.B, oscillator.K
    identity = jnp.eye(B.shape[0], dtype=B.dtype)
    return jnp.block([[jnp.zeros_like(identity), identity], [-K, -B]])


def oscillator(point: OperatingPoint) -> Oscillator:
    """A circuit with identity recurrence, at rest, as coupled damped oscillators.

    Raises `ValueError` if the recurrence is not the identity.
    """
    return oscillator_at(with_identity_recurrence("oscillator", point), point.state)


@jax.jit
def oscillator_at(circuit: Circuit, state: State) -> Oscillator:
    leak, q = leak_and_rate(circuit, *state)
    own = leak / circuit.tau_y + own_leak(circuit, state) / circuit.tau_a
    others = -circuit.pool.as_matrix() * jnp.square(q)[None, :] / circuit.tau_a[:, None]
    B = jnp.where(jnp.eye(circuit.n, dtype=bool), own[:, None], others)
    return Oscillator(B, jnp.diag(leak / (circuit.tau_y * circuit.tau_a)), q != 0)


def leak_and_rate(circuit: Circuit, y, a):
    """Effective leak of `y` (`sqrt(a)`, or 1 for a silent rectified neuron) and the rate that other
    neurons receive."""
    q = circuit.rectify(y)
    leak = jnp.where(y > 0, jnp.sqrt(a), 1) if circuit.rectified else jnp.sqrt(a)
    return leak, q


def with_identity_recurrence(name: str, point: OperatingPoint) -> Circuit:
    """The circuit of a point. Refuses, by name, a circuit whose recurrence is not the identity."""
    if not require_point(point).system.has_identity_recurrence:
        raise ValueError(
            f"`{name}` exists only for identity recurrence (`W_r=None`): the oscillator form and "
            "its energy are not known for a general `W_r`. Use `stability` for the spectrum."
        )
    return point.system
