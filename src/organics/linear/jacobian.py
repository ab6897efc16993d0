"""The circuit's Jacobian, analytic in blocks, and its eigenvalues by the thousand."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from organics.circuit.circuit import Circuit, State, gate, root
from organics.machine.lapack import single_threaded_lapack
from organics.machine.processors import available


def imbalance_jacobian(
    circuit: Circuit, state: State, active: Float[Array, " n"] | None = None
) -> Float[Array, "two_n two_n"]:
    """Derivative of `circuit.imbalance` with respect to `(y, a)`: the Jacobian without `1/tau`.

    In the rectified model, neuron i counts as silent at exactly `y_i = 0` (the left slope, as in
    automatic differentiation), unless `active`, the derivative of `rectify` at each neuron, is
    given.
    """
    active = circuit.active(state.y) if active is None else active
    n, (y, a) = circuit.n, state
    s = root(a)
    q = circuit.rectify(y)
    identity = jnp.eye(n, dtype=y.dtype)
    W, W_r = circuit.pool.as_matrix(), circuit.recurrent.as_matrix()
    # d sqrt(relu(a)) / da is 0 where a <= 0, as in `root`
    slope = jnp.where(a > 0, 1 / jnp.where(a > 0, 2 * s, 1), 0)
    own = circuit.own_gain(a) * active - (1 - active)
    y_from_y = jnp.where(identity > 0, own[:, None], gate(a)[:, None] * W_r * active[None, :])
    y_from_a = jnp.diag(-circuit.recur(q) * slope)
    a_from_y = W * (2 * q * jax.nn.relu(a))[None, :]
    a_from_a = W * jnp.where(a > 0, jnp.square(q), 0)[None, :] - identity
    return jnp.block([[y_from_y, y_from_a], [a_from_y, a_from_a]])


def jacobian(
    circuit: Circuit, state: State, active: Float[Array, " n"] | None = None
) -> Float[Array, "two_n two_n"]:
    """Jacobian of `circuit.velocity` at `state`, rows and columns ordered `(y, a)`, in 1/ms.

    Defined at any state. It is the derivative of the flow where that is differentiable: for `a > 0`
    and, in the rectified model, `y != 0`. For `y_i = 0` and `active` see `imbalance_jacobian`.

    Source: Rawat et al. 2024; theory of the linearization for general `W_r`.
    """
    tau = jnp.concatenate([circuit.tau_y, circuit.tau_a])
    return imbalance_jacobian(circuit, state, active) / tau[:, None]


def rest_jacobian(
    circuit: Circuit,
    z: Float[Array, " n"],
    state: State,
    active: Float[Array, " n"] | None = None,
) -> Float[Array, "two_n two_n"]:
    """`jacobian` at the steady state for `z`. It is more accurate where `(1 - sqrt(a_i)) W_r,ii` or
    `W_ii y_i^2` is close to 1, so that a neuron nearly sustains itself.

    `active` as in `imbalance_jacobian`.
    """
    n = circuit.n
    active = circuit.active(state.y) if active is None else active
    tau = jnp.concatenate([circuit.tau_y, circuit.tau_a])
    J = imbalance_jacobian(circuit, state, active)
    own_y = jnp.where(active > 0, _own_gain(circuit, z, state), jnp.diagonal(J)[:n])
    own = jnp.concatenate([own_y, -own_leak(circuit, state)])
    return jnp.where(jnp.eye(2 * n, dtype=bool), own[:, None], J) / tau[:, None]


def _own_gain(circuit: Circuit, z: Float[Array, " n"], state: State) -> Float[Array, " n"]:
    """`Circuit.own_gain` at a steady state: computed directly, or, if this has smaller terms, as
    the other terms in the equation of `y_i`, divided by `-y_i`."""
    y, a = state
    q, own, g = circuit.rectify(y), circuit.own_recurrence, gate(a)
    size = jnp.minimum(jnp.abs(own - 1) + jnp.abs(own) * root(a), 1 + jnp.abs(own * g))
    heard = circuit.b * z + g * circuit.from_others(q)
    terms = jnp.abs(circuit.b * z) + jnp.abs(g) * circuit.from_others(q, sizes=True)
    better = (q != 0) & (terms < size * jnp.abs(q))
    return jnp.where(better, -heard / jnp.where(better, y, 1), circuit.own_gain(a))


def own_leak(circuit: Circuit, state: State) -> Float[Array, " n"]:
    """`1 - W_ii q_i^2` at a steady state, without cancellation: `a_i` times this equals the other
    terms in the equation of `a_i`, which are all positive."""
    pooled = jnp.square(root(state.a) * circuit.rectify(state.y))
    return (circuit.c + circuit.pool.apply_others(pooled)) / state.a


def determinant_sign(factors: Float[Array, "m m"], pivots: Int[Array, " m"]) -> Float[Array, ""]:
    """Sign of the determinant, 1, -1 or 0, from what `jax.scipy.linalg.lu_factor` returns."""
    swaps = jnp.sum(pivots != jnp.arange(len(pivots), dtype=pivots.dtype))
    return jnp.prod(jnp.sign(jnp.diagonal(factors))) * jnp.where(swaps % 2 == 0, 1, -1)


@jax.custom_jvp
def spectrum(J: Float[Array, "m m"]) -> Complex[Array, " m"]:
    """Eigenvalues by falling real part; among equal ones the larger imaginary part comes first.

    Computed in double precision, whatever the type of `J`, because rates may span many decades. Can
    be jitted, mapped, and differentiated once.
    """
    return _decompose(J, vectors=False)[0]


@spectrum.defjvp
def _(primals, tangents):
    (J,), (t_J,) = primals, tangents
    values, right, left = _decompose(J, vectors=True)
    return values, jnp.einsum("ij,jk,ki->i", left, t_J.astype(left.dtype), right)


def _decompose(J: Float[Array, "m m"], *, vectors: bool) -> tuple[Array, ...]:
    """Sorted eigenvalues; with `vectors` also eigenvectors as columns and, as rows, the inverse."""
    kind = np.result_type(J.dtype, np.complex64)
    # fast rates before slow ones: in this order the QR algorithm is most accurate for the slow ones
    order = jnp.argsort(-jnp.abs(jnp.diagonal(J)))
    J = J[order][:, order]
    with jax.enable_x64(True):
        double = J.astype(jnp.float64)
        if not vectors:
            values = jnp.linalg.eigvals(double)
            return (descending(values).astype(kind),)
        values, right = jnp.linalg.eig(double)
        first = jnp.argsort(-values)
        right = right[jnp.argsort(order)][:, first]
        return values[first].astype(kind), right.astype(kind), jnp.linalg.inv(right).astype(kind)


def eigenvalues(jacobians: Float[np.ndarray, "*batch m m"]) -> Complex[np.ndarray, "*batch m"]:
    """Eigenvalues of stacked matrices, by falling real part, computed on all processors.

    A matrix that is not finite gets NaN and does not affect the others.

    Runs NumPy's LAPACK with one matrix per core. For thousands of circuits this is several times
    faster than eigenvalues inside a compiled function.
    """
    cores = len(available())
    stack = jacobians.reshape(-1, *jacobians.shape[-2:])
    finite = np.isfinite(stack).all(axis=(1, 2))
    known = stack[finite]
    pieces = np.array_split(known, max(1, min(len(known), 8 * cores)))
    with single_threaded_lapack(), ThreadPoolExecutor(cores) as pool:
        parts = list(pool.map(np.linalg.eigvals, pieces))
    kind = np.result_type(jacobians.dtype, np.complex64)
    found = np.full(stack.shape[:-1], complex(np.nan, np.nan), kind)
    found[finite] = descending(np.concatenate(parts))
    return found.reshape(jacobians.shape[:-1])


def descending(values: Any) -> Any:
    """Complex values by falling real part along the last axis; the upper one of a conjugate pair
    first."""
    return -(np if isinstance(values, np.ndarray) else jnp).sort(-values)
