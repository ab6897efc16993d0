"""Sequences of unequal length in one batch: entries after a sequence's end change nothing."""

from typing import TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

_Values = TypeVar("_Values", bound=Array | None)


def within(lengths: Int32[Array, " batch"], steps: int) -> Bool[Array, "batch steps"]:
    """Whether each of so many steps is before its sequence's end."""
    return jnp.arange(steps, dtype=lengths.dtype)[None] < lengths[:, None]


def going(
    lengths: Int32[Array, " batch"] | None, x: Float[Array, "steps batch m"]
) -> Bool[Array, "steps batch 1"] | None:
    """Whether each step of `x` is before its sequence's end; None if all are."""
    if lengths is None:
        return None
    return within(lengths, x.shape[0]).T[..., None]


def blank(goes: Bool[Array, "steps batch 1"] | None, values: _Values) -> _Values:
    """The values (steps, batch, n), with 0 and no gradient after the end of each sequence."""
    return values if goes is None or values is None else jnp.where(goes, values, 0)


def hold(
    goes: Bool[Array, "batch 1"] | None,
    after: Float[Array, "batch k"],
    before: Float[Array, "batch k"],
) -> Float[Array, "batch k"]:
    """The state `after` a step, or `before` it where the sequence has ended."""
    return after if goes is None else jnp.where(goes, after, before)
