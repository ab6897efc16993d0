"""The branches that meet at a branch point.

There the Jacobian `H_X` of a curve has two null vectors; the tangents are the combinations `v` with
`p^T H_XX(v, v) = 0`, `p` the left null vector (the algebraic branching equation).

Source: Keller 1977.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from organics.branches.arclength import Curve, Mapped, bordered


@Mapped
def directions(
    curve: Curve, X: Float[Array, " k1"]
) -> tuple[Float[Array, "2 k1"], Bool[Array, ""]]:
    """The unit tangents of both branches, in units, and whether there are two."""
    U = curve.lengths(X)
    M, _, scale, _ = bordered(curve, X, jnp.zeros_like(X), U)
    left, _, right = jnp.linalg.svd(M[:-1])
    p, v = left[:, -1] / scale, right[-2:]

    def bend(one, other):
        inner = lambda X: jax.jvp(curve.residual, (X,), (one * U,))[1]  # noqa: E731
        return jnp.dot(p, jax.jvp(inner, (X,), (other * U,))[1])

    mixed = bend(v[0], v[1])
    form = jnp.stack([jnp.stack([bend(v[0], v[0]), mixed]), jnp.stack([mixed, bend(v[1], v[1])])])
    (low, high), axes = jnp.linalg.eigh(form)
    crossing = (low < 0) & (high > 0) & (jnp.minimum(-low, high) > 1e-8 * jnp.maximum(-low, high))
    a, b = jnp.sqrt(jnp.maximum(high, 0)), jnp.sqrt(jnp.maximum(-low, 0))
    found = jnp.stack([a * axes[:, 0] + b * axes[:, 1], a * axes[:, 0] - b * axes[:, 1]]) @ v
    return found / jnp.linalg.norm(found, axis=1, keepdims=True), crossing
