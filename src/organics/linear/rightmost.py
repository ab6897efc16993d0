"""The rightmost eigenvalues of a large circuit's Jacobian `J`, by products with its weights only.

Arnoldi's method finds the largest eigenvalues of a matrix, in absolute value. Those of `exp(J t)`
are the rightmost of `J`, so that it is given a polynomial in `J`, the steps of a Runge-Kutta method
for `dx/dt = J x`. Eigenvalues are then those of `J` itself on the space of the vectors found.

Source: restarted Arnoldi, Lehoucq, Sorensen & Yang 1998 (ARPACK); exponential transformation,
Goldhirsch, Orszag & Maulik 1987.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, ScalarLike
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from organics.circuit.circuit import Circuit, State, gate, root
from organics.linear.krylov import linearized

_ORDER = 8  # of the Taylor polynomial of a step
_REACH = 2.0  # a step times the bound on |eigenvalues|: the polynomial is exp(.) to 3 digits
_STEPS = 4  # in a product of Arnoldi's method
_VECTORS = 40  # that it keeps
_RESTARTS = 60
_TOLERANCES = (1e-9, 1e-6, 1e-3)  # of Arnoldi's method, relative; the next if one is not reached


class Rightmost(NamedTuple):
    """Eigenvalues found, and how well.

    Attributes
        values: eigenvalues in 1/ms, by falling real part.
        residuals: `|J v - value v|` for the unit vector `v` found with each, in 1/ms: each value is
            an eigenvalue of a matrix that is so close to `J`.
        products: number of products with `J`.
    """

    values: Complex[np.ndarray, " k"]
    residuals: Float[np.ndarray, " k"]
    products: int


def rightmost(circuit: Circuit, z: Float[Array, " n"], state: State, count: int = 6) -> Rightmost:
    """About `count` rightmost eigenvalues of the Jacobian at a state, in double precision.

    In the rectified model the slope at `y_i = 0` is the left one, as in `jacobian`.
    """
    with jax.enable_x64(True):
        system = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (circuit, z, state))
        m = 2 * circuit.n
        step = _REACH / float(eigenvalue_bound(system[0], system[2]))
        products = 0

        def advance(x: np.ndarray) -> np.ndarray:
            nonlocal products
            products += _ORDER * _STEPS
            return np.asarray(_propagate(system, jnp.asarray(x.reshape(-1)), step))

        operator = LinearOperator((m, m), matvec=advance, dtype=np.float64)  # pyright: ignore[reportCallIssue]
        vectors = _largest(operator, min(count, m - 2))
        parts = np.column_stack([vectors.real, vectors.imag])
        size, basis = np.linalg.svd(parts, full_matrices=False)[1::-1]
        basis = basis[:, size > 1e-6 * size[0]]
        images = np.asarray(_products(system, jnp.asarray(basis)))
        products += basis.shape[1]
        values, weights = np.linalg.eig(basis.T @ images)
        residuals = np.linalg.norm(images @ weights - basis @ (weights * values), axis=0)
        order = np.lexsort((-values.imag, -values.real))
        return Rightmost(values[order].astype(complex), residuals[order], products)


def _largest(operator: LinearOperator, count: int) -> Complex[np.ndarray, "m k"]:
    """Eigenvectors of the eigenvalues that are largest in absolute value."""
    m = operator.shape[0]
    start = np.random.default_rng(0).normal(size=m)
    for tolerance in _TOLERANCES:
        try:
            return eigs(
                operator,
                count,
                which="LM",
                ncv=min(_VECTORS, m),
                v0=start,
                maxiter=_RESTARTS,
                tol=tolerance,
            )[1]
        except ArpackNoConvergence as error:
            if error.eigenvectors.shape[1]:
                return error.eigenvectors
    return start[:, None].astype(complex)


@jax.jit
def eigenvalue_bound(circuit: Circuit, state: State) -> Float[Array, ""]:
    """An upper bound on the absolute values of the Jacobian's eigenvalues, in 1/ms: its largest row
    of absolute values, in units of `y` and `a` in which its couplings are as large as each other.
    """
    y, a = state
    q, ones = circuit.rectify(y), jnp.ones_like(y)
    own = jnp.maximum(jnp.abs(circuit.own_gain(a)), 1)
    heard = jnp.abs(gate(a)) * circuit.from_others(ones, sizes=True)
    y_from_y = (own + heard) / circuit.tau_y
    a_from_a = (1 + circuit.pool.apply(jnp.square(q))) / circuit.tau_a
    slope = jnp.where(a > 0, 1 / jnp.where(a > 0, 2 * root(a), 1), 0)
    y_from_a = jnp.max(jnp.abs(circuit.recur(q)) * slope / circuit.tau_y)
    a_from_y = jnp.max(2 * circuit.pool.apply(jnp.abs(q) * jax.nn.relu(a)) / circuit.tau_a)
    coupling = jnp.sqrt(y_from_a * a_from_y)
    return jnp.maximum(jnp.max(y_from_y), jnp.max(a_from_a)) + coupling


def _product(system: tuple):
    """The map `x -> J x`."""
    circuit, z, state = system
    product = linearized(circuit, z, state)
    tau = jnp.concatenate(circuit.time_constants)
    return lambda x: product(x) / tau


@jax.jit
def _products(system: tuple, x: Float[Array, "m k"]) -> Float[Array, "m k"]:
    return jax.vmap(_product(system), 1, 1)(x)


@jax.jit
def _propagate(system: tuple, x: Float[Array, " m"], step: ScalarLike) -> Float[Array, " m"]:
    """Nearly `exp(J t) x`, after a few steps."""
    product = _product(system)

    def advance(_, x):
        term = total = x
        for k in range(1, _ORDER + 1):
            term = step / k * product(term)
            total = total + term
        return total

    return jax.lax.fori_loop(0, _STEPS, advance, x)
