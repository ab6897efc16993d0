"""A step of a system on its way to rest: third-order Runge-Kutta, of a length that fits.

Source: Bogacki & Shampine 1989, with its embedded estimate of the error.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def try_step(
    slope: Callable[[Array], Array],
    judge: Callable[[Array], tuple[Any, Array]],
    x: Float[Array, " n"],
    begin: Float[Array, " n"],
    length: Float[Array, ""],
    accuracy: float,
) -> tuple[Bool[Array, ""], tuple[Float[Array, " n"], Float[Array, " n"], Any], Float[Array, ""]]:
    """Whether a step from `x`, where the slope is `begin`, is accurate enough to be taken; where it
    leads, the slope there, and what else `judge` says of that, which gives it with the slope; and
    the length to try next.

    The error allowed is `accuracy`, relative to `0.01 + |x|`.
    """
    k2 = slope(x + length / 2 * begin)
    k3 = slope(x + 3 * length / 4 * k2)
    moved = x + length / 9 * (2 * begin + 3 * k2 + 4 * k3)
    judged, k4 = judge(moved)
    error = length / 72 * (-5 * begin + 6 * k2 + 8 * k3 - 9 * k4)
    size = jnp.max(jnp.abs(error) / (accuracy * (0.01 + jnp.abs(x))))
    change = jnp.clip(0.9 * jnp.maximum(size, 1e-9) ** (-1 / 3), 0.2, 5)
    following = length * jnp.where(jnp.isfinite(change), change, 0.2)
    return size <= 1, (moved, k4, judged), following  # NaN is not, and shortens the step


def select(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """`yes` or `no`, trees of arrays of the same structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
