r"""The exact reduction of a circuit whose neurons share one pool.

Let all weights of `W` be the same number w, all `(b0 sigma)^2` the same c, all `tau_y` and all
`tau_a` the same, and `W_r = Q D(omega) Q^T`. All `a` are then equal at rest, and stay equal if they
begin so. With the modes `v = sqrt(w) Q^T y` and the drive `d = sqrt(w) Q^T (b z)`, the circuit is

    tau_y dv_j/dt = -v_j + d_j + (1 - sqrt(a)) omega_j v_j
    tau_a da/dt   = -a + c + a sum(v^2),

which is a circuit again: that with the recurrent weights `D(omega)`, and a pool of ones.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from organics.circuit.circuit import Circuit, as_drive
from organics.circuit.weights import Diagonal, LowRank

_ROUNDING = 16  # units in the last place by which equal parameters may differ


class Modes(eqx.Module):
    """A circuit whose neurons share one pool, in the eigenbasis of its symmetric `W_r`.

    A pytree: functions of it can be mapped over any of its fields, so that one decomposition of a
    matrix serves many circuits.

    Attributes
        omega: eigenvalues of `W_r`, rising, shape (n,).
        d: drive of each mode, shape (n,).
        c: `(b0 sigma)^2`, > 0.
        tau_y, tau_a: time constants, in ms.
    """

    omega: Float[Array | np.ndarray, "*batch n"]
    d: Float[Array | np.ndarray, "*batch n"]
    c: Float[Array | np.ndarray, "*batch"] | float
    tau_y: Float[Array | np.ndarray, "*batch"] | float
    tau_a: Float[Array | np.ndarray, "*batch"] | float

    def as_circuit(self) -> tuple[Circuit, Float[Array, " n"]]:
        """The circuit whose neurons are the modes, and its drive: for simulations, in which a step
        takes time in proportion to n."""
        ones = jnp.ones((len(self.omega), 1))
        circuit = Circuit(
            W=LowRank(ones, ones),
            W_r=Diagonal(self.omega),
            b=1.0,
            b0=1.0,
            sigma=jnp.sqrt(self.c),
            tau_y=self.tau_y,
            tau_a=self.tau_a,
        )
        return circuit, jnp.asarray(self.d)


class Reduction(NamedTuple):
    """The modes of a circuit, and the matrix by which they become `y`, shape (n, n)."""

    modes: Modes
    basis: Float[np.ndarray, "n n"]


def reduction(circuit: Circuit, z: 'Float[Array | np.ndarray, " n"]') -> Reduction:
    """The modes of `circuit` under the drive `z`, in float64, from concrete values.

    Raises `ValueError` if the circuit is not one of those above, with the reason.
    """
    z = np.asarray(as_drive(circuit, z), np.float64)
    circuit.require_valid()
    why = why_not(circuit)
    if why is not None:
        raise ValueError(
            "`circuit` must have one pool for all neurons and a symmetric `W_r`, but "
            f"{why}: see `organics.steady_state` for others."
        )
    W_r = np.asarray(circuit.recurrent, np.float64)
    omega, Q = np.linalg.eigh((W_r + W_r.T) / 2)
    scale = np.sqrt(float(np.asarray(circuit.pool).flat[0]))
    d = scale * (Q.T @ (np.asarray(circuit.b, np.float64) * z))
    numbers = (float(np.asarray(x)[0]) for x in (circuit.c, circuit.tau_y, circuit.tau_a))
    return Reduction(Modes(omega, d, *numbers), Q / scale)


def why_not(circuit: Circuit) -> str | None:
    """Why the reduction is not exact for a circuit with concrete values; `None` if it is."""
    if circuit.rectified:
        return "it is rectified"
    W = np.asarray(circuit.pool)
    if not W.flat[0] > 0 or not _equal(W):
        return "the weights `W` are not all the same number above 0"
    vectors = {"(b0 sigma)^2": circuit.c, "tau_y": circuit.tau_y, "tau_a": circuit.tau_a}
    for name, value in vectors.items():
        if not _equal(np.asarray(value)):
            return f"`{name}` differs between neurons"
    W_r = np.asarray(circuit.recurrent)
    apart, size = np.max(np.abs(W_r - W_r.T)), np.max(np.abs(W_r))
    if apart > _ROUNDING * np.finfo(W_r.dtype).eps * size:
        return "`W_r` is not symmetric"
    return None


def _equal(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * np.finfo(values.dtype).eps * values.flat[0])
