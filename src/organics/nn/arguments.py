"""What the layers require of their arguments and of their own arrays: each is refused by name."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

from organics.arguments import float_type as float_type
from organics.arguments import require_float_type, require_whole

Axes = tuple[int | str, ...]
Built = tuple[tuple[str, tuple[int, ...] | None], ...]


def as_built(layer: eqx.Module) -> Built:
    """Name and shape of each array that a layer may have; None of one that it has not."""
    return tuple((name, _shape(leaf)) for name, leaf in _named(layer))


def require_as_built(layer: eqx.Module, built: Built) -> None:
    """Refuse a layer with other arrays than its options say.

    Nothing looks when `eqx.tree_at` replaces an array by one of another shape, or by None, or when
    all are converted to a type in which the layer does not compute.
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
    """Refuse an array of another type than a layer's."""
    if value.dtype != dtype:
        raise ValueError(f"`{name}` must be of the layer's type {dtype}, not {value.dtype}.")


def require_sizes(**values: int) -> None:
    """Refuse, by name, what is no whole number above 0."""
    for name, value in values.items():
        require_whole(name, value)


def require_positive(**values: int | float) -> None:
    """Refuse, by name, what is no number, not positive, or infinite."""
    for name, value in values.items():
        _require_number(name, value)
        if not value > 0:
            raise ValueError(f"`{name}` must be > 0, not {value}.")
        require_finite(name, value)


def require_not_negative(**values: float) -> None:
    """Refuse, by name, what is no number, below 0, or infinite."""
    for name, value in values.items():
        _require_number(name, value)
        if not value >= 0:
            raise ValueError(f"`{name}` must be >= 0, not {value}.")
        require_finite(name, value)


def _require_number(name: str, value: Any) -> None:
    if isinstance(value, str) or np.ndim(value):
        raise ValueError(f"`{name}` must be one number, not {value!r}.")


def require_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False: every text would be true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False, not {value!r}.")


def require_among(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        words = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {words}, not {value!r}.")


def as_input(
    x: ArrayLike | Sequence[Any], *shapes: Axes, further: str = "For a batch use `jax.vmap`."
) -> Array:
    """`x` as an array of one of the shapes, whose axes are numbers or, of any length, names.

    Raises `ValueError` for other shapes, with what to do about `further` axes, and if `x` is no
    array of real numbers.
    """
    of_jax = any(isinstance(leaf, Array) for leaf in jax.tree.leaves(x))
    try:
        # without a type, `jnp.asarray` compiles a program for each shape
        found = jnp.asarray(x) if of_jax else jax.device_put(np.asarray(x))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`x` must be an array of real numbers: {error}") from None
    if jnp.issubdtype(found.dtype, jnp.complexfloating):
        raise ValueError(f"`x` must be real, not of type {found.dtype}.")
    if not any(_fits(found.shape, axes) for axes in shapes):
        words = " or ".join(str(axes).replace("'", "") for axes in shapes)
        too_many = found.ndim > max(map(len, shapes))
        raise ValueError(
            f"`x` must have shape {words}, with none of them 0, not {found.shape}."
            + (f" {further}" if too_many else "")
        )
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
            f"{found.size} entries are refused)."
        )


def require_state(name: str, value: Array, size: int, dtype: jnp.dtype, batch: int | None) -> None:
    """Refuse a state, or a part of one, that is neither one for all sequences nor one for each of
    the `batch`, if there is one; or is not of a layer's type, or not finite."""
    if not eqx.is_array(value):
        raise ValueError(f"`{name}` must be an array, not {value!r}.")
    shapes = [(size,)] if batch is None else [(size,), (batch, size)]
    if value.shape not in shapes:
        words = " or ".join(map(str, shapes))
        raise ValueError(f"`{name}` must have shape {words}, not {value.shape}.")
    require_type(name, value, dtype)
    require_finite(name, value)
