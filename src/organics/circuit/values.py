"""Numbers given by the caller as arrays to compute with; anything else is refused by name."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, PyTree

from organics.arguments import require_entries, require_float_type

Values = ArrayLike | Sequence[Any]  # anything that makes an array; what it holds is checked


def as_real(name: str, value: Any, dtype: Any) -> Array:
    """`value` as an array of a floating-point type, by default its own or JAX's.

    Raises `ValueError`, naming the argument, for anything but real numbers.
    """
    if np.ma.is_masked(value):
        raise ValueError(f"`{name}` must have no masked entries.")
    try:
        # by NumPy if possible: without a type, `jnp.asarray` compiles a program for each shape
        of_jax = any(isinstance(leaf, Array) for leaf in jax.tree.leaves(value))
        value = jnp.asarray(value) if of_jax else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be an array of real numbers: {error}") from None
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise ValueError(f"`{name}` must be real, not of type {value.dtype}.")
    # NumPy counts durations, of any unit, among the numbers
    numbers = jnp.issubdtype(value.dtype, jnp.number) and value.dtype.kind != "m"
    if not (numbers or value.dtype == bool):
        raise ValueError(f"`{name}` must be an array of real numbers, not of type {value.dtype}.")
    if dtype is None:
        dtype = value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else np.dtype(float)
        require_float_type(name, dtype)
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jnp.asarray(value, dtype) if of_jax else jax.device_put(value.astype(dtype))


def require_values(
    name: str, value: Array | np.ndarray, valid: Callable[[np.ndarray], Any], what: str
) -> None:
    """Refuse `value` unless all entries are `valid`. Traced values are not checked.

    Uses NumPy, because JAX would compile a program for each shape.
    """
    if not isinstance(value, Tracer):
        require_entries(name, np.asarray(value), valid, what)


def in_float64(tree: PyTree) -> PyTree:
    """A tree with its floating-point arrays in float64, which must be switched on."""

    def convert(leaf):
        return leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(convert, tree)
