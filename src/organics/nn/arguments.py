"""Checks of the arrays given to layers and of the layers' own; errors name the array."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

from organics.arguments import require_among, require_float_type, require_rounded
from organics.names import Backend, Memory, ProductType

Axes = tuple[int | str, ...]
Built = tuple[tuple[str, tuple[int, ...] | None], ...]


def require_execution(
    backend: Backend, memory: Memory, products: ProductType, dtype: np.dtype
) -> tuple[Backend, Memory, ProductType]:
    """All arguments but the type unchanged.

    Raises `ValueError` for an unknown word, and for products in bfloat16 where `dtype` is not
    float32.
    """
    require_among("backend", backend, Backend)
    require_among("memory", memory, Memory)
    require_among("products", products, ProductType)
    require_rounded(products, dtype)
    return backend, memory, products


def as_built(layer: eqx.Module) -> Built:
    """Shape of each array of a layer by name; None for an array that this layer does not have."""
    return tuple((name, _shape(leaf)) for name, leaf in _named(layer))


def require_as_built(layer: eqx.Module, built: Built) -> None:
    """Refuse a layer whose arrays do not match its options.

    `eqx.tree_at` may have replaced an array by one of another shape or by None, or all arrays may
    have been converted to a type that the layer does not compute in.
    """
    leaves = dict(_named(layer))
    if leaves.keys() != dict(built).keys():
        raise ValueError("the layer must have the parts that it was built with, and no others.")
    for name, want in built:
        have = _shape(leaves[name])
        if have == want:
            continue
        if have is None or want is None:
            raise ValueError(
                f"`{name}` must be {_words(want)}, as the layer was built, not {_words(have)}. "
                "Another layer has it: build it with other options."
            )
        stacked = len(have) > len(want) and have[len(have) - len(want) :] == want
        advice = " Map several layers with `equinox.filter_vmap`." if stacked else ""
        raise ValueError(f"`{name}` must have shape {want}, not {have}.{advice}")
    arrays = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    for name, array in arrays.items():
        require_float_type(name, array.dtype)
        require_type(name, array, next(iter(arrays.values())).dtype)


def _named(layer: eqx.Module) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(layer, is_leaf=lambda leaf: leaf is None)
    return [(jax.tree_util.keystr(where).removeprefix("."), leaf) for where, leaf in leaves]


def _shape(leaf: Any) -> tuple[int, ...] | None:
    return None if leaf is None else np.shape(leaf)


def _words(shape: tuple[int, ...] | None) -> str:
    return "None" if shape is None else f"an array of shape {shape}"


def require_type(name: str, value: Array, dtype: np.dtype) -> None:
    """Refuse an array whose type is not the layer's."""
    if value.dtype != dtype:
        raise ValueError(f"`{name}` must be of the layer's type {dtype}, not {value.dtype}.")


def as_input(
    x: ArrayLike | Sequence[Any],
    *shapes: Axes,
    name: str = "x",
    further: str = "For a batch use `jax.vmap`.",
    fewer: str = "",
) -> Array:
    """`x` as an array of one of the given shapes. An axis is a number, or a name for any length.

    Raises `ValueError` if `x` is not an array of real numbers or has another shape; the error
    says `name`; `further` and `fewer` are the advice for more or fewer axes.
    """
    of_jax = any(isinstance(leaf, Array) for leaf in jax.tree.leaves(x))
    try:
        # without a type, `jnp.asarray` compiles a program for each shape
        found = jnp.asarray(x) if of_jax else jax.device_put(np.asarray(x))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be an array of real numbers: {error}") from None
    if jnp.issubdtype(found.dtype, jnp.complexfloating):
        raise ValueError(f"`{name}` must be real, not of type {found.dtype}.")
    if not any(_fits(found.shape, axes) for axes in shapes):
        words = " or ".join(str(axes).replace("'", "") for axes in shapes)
        empty = ": no axis may be of length 0" if 0 in found.shape else ""
        too_many, too_few = found.ndim > max(map(len, shapes)), found.ndim < min(map(len, shapes))
        advice = further if too_many else fewer if too_few else ""
        refusal = f"`{name}` must have shape {words}, not {found.shape}{empty}."
        raise ValueError(f"{refusal} {advice}" if advice else refusal)
    return found


def _fits(shape: tuple[int, ...], axes: Axes) -> bool:
    return len(shape) == len(axes) and all(
        have > 0 if isinstance(want, str) else have == want
        for have, want in zip(shape, axes, strict=True)
    )


def require_finite(name: str, value: ArrayLike) -> None:
    """Refuse NaN and infinities, unless the values are being traced or lie on other machines."""
    if isinstance(value, Tracer) or not getattr(value, "is_fully_addressable", True):
        return
    found = np.asarray(value)
    bad = np.argwhere(~np.isfinite(found))
    if len(bad) and not found.ndim:
        raise ValueError(f"`{name}` must be finite, not {found}.")
    if len(bad):
        first = tuple(map(int, bad[0]))
        raise ValueError(
            f"`{name}` must be finite; entry {list(first)} is {found[first]} ({len(bad)} of "
            f"{found.size} entries invalid)."
        )


def require_state(
    name: str, value: Array, shape: tuple[int, ...], dtype: jnp.dtype, batch: int | None
) -> None:
    """Refuse a state array unless it is finite, of the layer's type, and one for all sequences or
    one for each of the `batch`."""
    if not eqx.is_array(value):
        raise ValueError(f"`{name}` must be an array, not {value!r}.")
    shapes = [shape] if batch is None else [shape, (batch, *shape)]
    if value.shape not in shapes:
        words = " or ".join(map(str, shapes))
        raise ValueError(f"`{name}` must have shape {words}, not {value.shape}.")
    require_type(name, value, dtype)
    require_finite(name, value)
