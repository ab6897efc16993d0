"""The rightmost eigenvalues of a large circuit's Jacobian `J`, by products with its weights only.

Arnoldi's method finds the largest eigenvalues of a matrix, in absolute value. Those of `exp(J t)`
are the rightmost of `J`, so that it is given a polynomial in `J`, the steps of a Runge-Kutta method
for `dx/dt = J x`. Eigenvalues are then those of `J` itself on the space of the vectors found.

The method is restarted with half of its vectors, and stops when the first eigenvalue is good enough
or enough products are spent. (ARPACK keeps as few vectors as eigenvalues are asked for, and returns
none of those that have not converged. Where waves of similar length have similar eigenvalues, as in
all large circuits, it takes many times as long.)

Source: Krylov-Schur, Stewart 2001; exponential transformation, Goldhirsch, Orszag & Maulik 1987.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, ScalarLike
from scipy.linalg import schur

from organics.circuit.circuit import Circuit, State, gate, root
from organics.linear.krylov import linearized
from organics.machine.lapack import single_threaded_lapack

_ORDER = 8  # of the Taylor polynomial of a step
_REACH = 2.0  # a step times the bound on |eigenvalues|: the polynomial is exp(.) to 3 digits
_VECTORS = 80  # of Arnoldi's method
_ACCURACY = 1e-7  # residual, relative to the bound on |eigenvalues|, that is good enough
_PRODUCTS = 5000  # with `J`, at most; about

Advance = Callable[[Float[np.ndarray, " m"]], Float[np.ndarray, " m"]]


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


def rightmost(
    circuit: Circuit,
    z: Float[Array, " n"],
    state: State,
    count: int = 6,
    products: int = _PRODUCTS,
) -> Rightmost:
    """About `count` rightmost eigenvalues of the Jacobian at a state, in double precision, after at
    most about so many products.

    In the rectified model the slope at `y_i = 0` is the left one, as in `jacobian`.
    """
    # threads that wait for each other would take most of the time of such small products
    with jax.enable_x64(True), single_threaded_lapack():
        system = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (circuit, z, state))
        step = _REACH / float(eigenvalue_bound(system[0], system[2]))

        def advance(x):
            return np.asarray(_propagate(system, jnp.asarray(x), step))

        basis, steps = _dominant(advance, 2 * circuit.n, count, products // _ORDER)
        images = np.asarray(_products(system, jnp.asarray(basis.T))).T
        values, weights = np.linalg.eig(basis @ images.T)
        residuals = np.linalg.norm(images.T @ weights - basis.T @ (weights * values), axis=0)
        order = np.lexsort((-np.imag(values), -np.real(values)))
        spent = _ORDER * steps + len(basis)
        return Rightmost(values[order].astype(complex), residuals[order], spent)


def _dominant(
    advance: Advance, m: int, count: int, most: int
) -> tuple[Float[np.ndarray, "k m"], int]:
    """An orthonormal basis of the space of about `count` eigenvectors of the linear map `advance`
    with the largest absolute values, as rows, and how often it was called. Of equal eigenvalues it
    may hold a single eigenvector.

    Between restarts `advance(V[j]) = sum_i S[i, j] V[i]`, with one vector more on the right.
    """
    size = min(_VECTORS, m)
    V, S = np.empty((size + 1, m)), np.zeros((size + 1, size))
    start = np.random.default_rng(0).normal(size=m)
    V[0] = start / np.linalg.norm(start)
    known = steps = 0
    while True:
        for j in range(known, size):
            V[j + 1], S[: j + 2, j] = _orthogonal(advance(V[j]), V[: j + 1])
            steps += 1
            if not S[j + 1, j]:  # `advance` leads nowhere else: few eigenvalues are different
                kept, _ = _schur(S[: j + 1, : j + 1], count)
                return kept.T @ V[: j + 1], steps
        values, vectors = np.linalg.eig(S[:size])
        first = np.argmax(np.abs(values))
        left_over = abs(S[size] @ vectors[:, first]) / abs(values[first])
        if left_over <= _REACH * _ACCURACY or steps >= most or size == m:
            kept, _ = _schur(S[:size], count)
            return kept.T @ V[:size], steps
        kept, upper = _schur(S[:size], size // 2)
        known = kept.shape[1]
        last = S[size] @ kept
        V[:known], V[known] = kept.T @ V[:size], V[size]
        S[:] = 0
        S[:known, :known], S[known, :known] = upper, last


def _orthogonal(
    x: Float[np.ndarray, " m"], V: Float[np.ndarray, "k m"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " k_plus_1"]]:
    """The direction of `x` that is new among the rows of `V`, and what `x` is made of."""
    size = np.linalg.norm(x)
    parts = np.zeros(len(V))
    for _ in range(2):  # once more for the rounding errors
        shares = V @ x
        x = x - shares @ V
        parts += shares
    new = np.linalg.norm(x)
    if new <= 1e-14 * size:  # nothing but rounding errors is left
        return np.zeros_like(x), np.append(parts, 0.0)
    return x / new, np.append(parts, new)


def _schur(
    S: Float[np.ndarray, "k k"], count: int
) -> tuple[Float[np.ndarray, "k p"], Float[np.ndarray, "p p"]]:
    """Schur vectors and triangular factor of the `count` eigenvalues of largest absolute value;
    one more, where that would divide a pair."""
    sizes = np.sort(np.abs(np.linalg.eigvals(S)))[::-1]
    least = sizes[min(count, len(sizes)) - 1] * (1 - 1e-10)
    found: Any = schur(S, output="real", sort=lambda re, im: np.hypot(re, im) >= least)
    upper, vectors, p = found
    return vectors[:, :p], upper[:p, :p]


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


def _product(system: tuple) -> Callable:
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
    """Nearly `exp(J step) x`."""
    product = _product(system)

    def add(k, carry):
        term, total = carry
        term = step / k * product(term)
        return term, total + term

    return jax.lax.fori_loop(1, _ORDER + 1, add, (x, x))[1]
