"""Constraints by construction: from free parameters to the values a circuit may have.

A layer stores the free parameter and reads the constrained one, so that no step of an optimizer
can leave the set on which stability is proven or conjectured. Pure functions of arrays.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.machine.lapack import never_divide
from organics.machine.mesh import whole

never_divide()  # before a program is compiled


def positive(log_W: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`exp(log_W)`: positive, not bounded above."""
    return jnp.exp(log_W)


def at_most_one(log_W: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`exp(log_W)` clamped to (0, 1].

    An entry with `log_W > 0` stays at 1 and gets no gradient: only weight decay brings it back.
    """
    return jnp.exp(jnp.minimum(log_W, 0))


def unit_interval(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The logistic sigmoid of `raw`, in (0, 1] and never below the smallest normal number."""
    return jnp.maximum(jax.nn.sigmoid(raw), jnp.finfo(raw.dtype).tiny)


def unit_norm(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """`x / ||x||`, and 0 with derivative 0 at `x = 0`, where the direction is undefined."""
    # divide by the largest entry first, so that squares neither overflow nor vanish
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    nonzero = largest != 0  # true for NaN, which stays NaN
    # the compiler may multiply by `1 / largest`, which must not vanish either
    factor = jnp.where(largest > 1, 2.0**-8, 1)
    x = jnp.where(nonzero, x * factor / jnp.where(nonzero, largest * factor, 1), 1)
    return jnp.where(nonzero, x / jnp.linalg.norm(x), 0)


def spectral_norm(W: Float[Array, "m n"]) -> Float[Array, ""]:
    """Largest singular value of `W`, exact (by SVD, not by power iteration).

    It is not differentiable where several singular values tie for the largest, as in an orthogonal
    matrix. The gradient is then the mean of the gradients of the tied ones, a subgradient.
    """
    return jnp.max(jnp.linalg.svd(whole(W), compute_uv=False))


def cap_spectral_norm(W: Float[Array, "m n"], bound: float = 1.0) -> Float[Array, "m n"]:
    """`W`, scaled down to spectral norm `bound` if its own is larger."""
    norm = spectral_norm(W)
    exceeds = norm > bound
    return jnp.where(exceeds, W * (bound / jnp.where(exceeds, norm, 1)), W)


def spectral_normalize(W: Float[Array, "m n"], bound: float = 1.0) -> Float[Array, "m n"]:
    """`W` scaled, up or down, to spectral norm `bound`. The zero matrix stays zero."""
    norm = spectral_norm(W)
    nonzero = norm > 0
    return jnp.where(nonzero, W * (bound / jnp.where(nonzero, norm, 1)), W)


def semidefinite(M: Float[Array, "n n"], bound: float = 1.0) -> Float[Array, "n n"]:
    """`M^T M`, scaled down to spectral norm `bound` if its own is larger: symmetric, with
    eigenvalues in [0, `bound`]."""
    capped = cap_spectral_norm(whole(M), bound**0.5)
    return capped.T @ capped


def orthogonal(M: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """`(I + A)^-1 (I - A)` with `A = M - M^T`, the Cayley transform: orthogonal, of determinant 1,
    without the eigenvalue -1.

    Used for recurrent weights by Helfrich, Willmott & Ye 2018.
    """
    M = whole(M)
    A, eye = M - M.T, jnp.eye(M.shape[0], dtype=M.dtype)
    return jnp.linalg.solve(eye + A, eye - A)
