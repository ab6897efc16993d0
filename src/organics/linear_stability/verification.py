"""An independent check of certificates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from organics.circuit.circuit import Circuit, State
from organics.circuit.values import in_float64
from organics.rest.point import OperatingPoint, require_point

_ROUNDINGS = 1e4  # times the number of neurons, that may add up
_LARGEST = 0.01  # imbalance of a state in a type of few digits, relative to its terms


class Verification(NamedTuple):
    """Outcome of `verify`: `valid`, the margin, and the list of failures (empty if valid)."""

    valid: bool
    margin: float
    failures: tuple[str, ...]

    def __str__(self) -> str:
        said = ("valid" if self.valid else "NOT valid", f"margin {self.margin:.6g}", *self.failures)
        return "\n  ".join(said)


class _Linearization(NamedTuple):
    """The Jacobian in blocks, and which neurons respond."""

    A11: Float[np.ndarray, "n n"]
    A12: Float[np.ndarray, "n n"]
    A21: Float[np.ndarray, "n n"]
    A22: Float[np.ndarray, "n n"]
    on: Bool[np.ndarray, " n"]


def verify(point: OperatingPoint, T: 'Float[ArrayLike, "..."]') -> Verification:
    """Check a diagonal certificate `T` without trusting how `T`, `B` and `K` were derived.

    Automatic differentiation of the velocity gives the Jacobian. Eliminating the modulators from it
    gives the damping `B` and the stiffness `K` of the responding neurons. Then `T B + B^T T` must
    be positive definite, and `K` diagonal and positive. Neurons that do not respond must decay and
    must not affect others. A `T` of another shape than (n,) counts as a failure, and so does a
    `point` that has not converged. Computed in float64, on concrete values.

    Raises `ValueError` if `T` is `None`, as in a certificate of kind "one pool" or "spectral".
    """
    circuit = require_point(point).system
    if T is None:
        raise ValueError(
            "`T` must be that of a certificate; one of the kind 'one pool' or 'spectral' has none."
        )
    y, a = (np.asarray(x, np.float64) for x in point.state)
    if not (np.all(np.isfinite(y)) and np.all(np.isfinite(a)) and np.all(a > 0)):
        return Verification(False, -np.inf, ("the steady state is not finite with a > 0",))
    linear, failures = _linearize(point, y, a)
    if not np.all(point.found.converged):
        failures.append("the steady state has not converged")
    T = np.asarray(T, np.float64)
    if T.shape != (circuit.n,) or not np.all(np.isfinite(T)) or not np.all(T > 0):
        return Verification(False, -np.inf, (*failures, "`T` is not a positive vector"))
    if not np.any(linear.on):
        return Verification(not failures, 1.0, tuple(failures))
    if not np.all(np.diag(linear.A12)[linear.on]):
        failures.append("a responding neuron has no gain from its modulator")
        return Verification(False, -np.inf, tuple(failures))
    to_x = (np.asarray(circuit.tau_y) * np.sqrt(a))[linear.on] / y[linear.on]
    B, more = _damping(linear, to_x)
    failures += more
    S = T[linear.on][:, None] * B
    S = S + S.T
    if not (np.all(np.isfinite(S)) and np.all(np.diag(S) > 0)):
        return Verification(False, -np.inf, (*failures, "the damping is not positive"))
    scaling = 1 / np.sqrt(np.diag(S))
    margin = float(np.linalg.eigvalsh(scaling[:, None] * S * scaling[None, :])[0])
    if margin <= 0:
        failures.append("T B + B^T T is not positive definite")
    return Verification(not failures, margin, tuple(failures))


def _linearize(point: OperatingPoint, y, a) -> tuple[_Linearization, list[str]]:
    """The linearization about the state, and failures: the state must be steady, and neurons that
    do not respond must decay."""
    circuit, failures = point.system, []
    with jax.enable_x64(True):
        given = in_float64((circuit, point.state, point.z))
        J, imbalance = jax.tree.map(np.asarray, _differentiated(*given))
    A11, A12, A21, A22 = (block for row in J for block in row)
    # the state was rounded to its own type
    tolerance = min(_ROUNDINGS * circuit.n * float(jnp.finfo(circuit.dtype).eps), _LARGEST)
    imbalance = np.abs(np.concatenate(imbalance))
    scale = np.concatenate([np.abs(y) + np.asarray(circuit.b) * np.abs(point.z), 2 * a])
    if not np.all(imbalance <= tolerance * np.maximum(scale, 1e-300)):
        failures.append("the velocity at the steady state is not zero")
    on = (y > 0) if circuit.rectified else (y != 0)
    # the columns of a neuron that does not respond may hold only its own decay rate: then the
    # spectrum is that of the responding neurons plus these rates
    to_others = (A11 - np.diag(np.diag(A11)), A12, A21, A22 - np.diag(np.diag(A22)))
    if any(np.any(block[:, ~on]) for block in to_others):
        failures.append("a neuron at rest is not decoupled")
    if not (np.all(np.diag(A11)[~on] < 0) and np.all(np.diag(A22)[~on] < 0)):
        failures.append("a neuron at rest does not decay")
    return _Linearization(A11, A12, A21, A22, on), failures


def _damping(linear: _Linearization, to_x) -> tuple[Float[np.ndarray, "m m"], list[str]]:
    """`B` of the responding neurons, in the coordinates `x`, and failures: `K` must be diagonal and
    positive."""
    A11, A12, A21, A22 = (block[np.ix_(linear.on, linear.on)] for block in linear[:4])
    failures, gain, ratio = [], np.diag(A12), to_x[:, None] / to_x[None, :]
    passed = A22 * gain[:, None] / gain[None, :]  # A12 A22 A12^-1, as A12 is diagonal
    K_terms = passed @ A11, gain[:, None] * A21
    K = (K_terms[0] - K_terms[1]) * ratio
    K_size = (np.abs(K_terms[0]) + np.abs(K_terms[1])) * np.abs(ratio)
    tolerance = _ROUNDINGS * len(K) * np.finfo(K.dtype).eps
    if np.any(np.abs(K - np.diag(np.diag(K))) > tolerance * K_size):
        failures.append("the stiffness is not diagonal")
    if not np.all(np.diag(K) > 0):
        failures.append("the stiffness is not positive")
    return -(A11 + passed) * ratio, failures


@jax.jit
def _differentiated(circuit: Circuit, state: State, z: Float[Array, " n"]):
    """The Jacobian of the velocity, in blocks; and the imbalance itself."""
    return jax.jacfwd(lambda s: circuit.velocity(s, z))(state), circuit.imbalance(state, z)
