"""The arguments of recurrent layers in the form used for computing: time steps of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int32

from organics.kernels.padding import blank, going
from organics.nn.arguments import as_input, require_finite, require_type

Lengths = ArrayLike | Sequence[int]  # whole numbers, as is checked


class Sequences(NamedTuple):
    """A batch of sequences.

    Attributes
        steps: the inputs, the axis of time first; 0 after the end of a sequence.
        lengths: number of steps of each sequence; None if all have full length.
        batched: whether a batch was given, not a single sequence.
    """

    steps: Float[Array, "time batch m"]
    lengths: Int32[Array, " batch"] | None
    batched: bool

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.steps.shape[1]

    @property
    def goes(self) -> Bool[Array, "time batch 1"] | None:
        """Which steps are before the end of each sequence; None if all are."""
        return going(self.lengths, self.steps)

    def as_called(self, outputs: Float[Array, "time batch n"]) -> Float[Array, "*batch time n"]:
        """The outputs of all steps, with a batch axis if one was given."""
        return jnp.moveaxis(outputs, 0, 1) if self.batched else outputs[:, 0]


def as_sequences(
    x: Float[Array, "*batch time m"], lengths: Lengths | None, size: int, dtype: np.dtype
) -> Sequences:
    """`x` of shape (time, m) or (batch, time, m), with m = `size`, and its `lengths`.

    Raises `ValueError` for another shape or type, for impossible lengths, and if `x` is not finite
    before the ends of the sequences.
    """
    x = as_input(
        x,
        ("time", size),
        ("batch", "time", size),
        further="For further axes use `jax.vmap`.",
        fewer="For one step use `layer.step(x, state)`.",
    )
    require_type("x", x, dtype)
    batched = x.ndim == 3
    if lengths is None:
        require_finite("x", x)
    steps = jnp.moveaxis(x, 0, 1) if batched else x[:, None]
    given = Sequences(steps, as_lengths(lengths, x.shape[:-1]), batched)
    if lengths is not None:
        given = given._replace(steps=blank(given.goes, steps))
        require_finite("x", given.as_called(given.steps))
    return given


def as_rows(
    x: Float[Array, "*batch m"], size: int, dtype: np.dtype
) -> tuple[Float[Array, "batch m"], bool]:
    """`x` of shape (m,) or (batch, m), as rows, and whether a batch was given.

    Raises `ValueError` as `as_sequences` does.
    """
    x = as_input(x, (size,), ("batch", size), further="For further axes use `jax.vmap`.")
    require_type("x", x, dtype)
    require_finite("x", x)
    batched = x.ndim == 2
    return (x, True) if batched else (x[None], False)


def as_lengths(lengths: Lengths | None, shape: tuple[int, ...]) -> Int32[Array, " batch"] | None:
    """The lengths of one sequence, (time,), or of several, (batch, time).

    Raises `ValueError` for impossible lengths.
    """
    if lengths is None:
        return None
    try:
        numbers = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`lengths` must be whole numbers: {error}") from None
    if not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise ValueError(f"`lengths` must be whole numbers, not of type {numbers.dtype}.")
    *batch, steps = shape
    if numbers.shape != tuple(batch):
        words = "one for each sequence, of shape" if batch else "one number, of shape"
        raise ValueError(f"`lengths` must be {words} {tuple(batch)}, not {numbers.shape}.")
    if not isinstance(numbers, Tracer) and getattr(numbers, "is_fully_addressable", True):
        outside = [n for n in np.asarray(numbers).reshape(-1).tolist() if not 1 <= n <= steps]
        if outside:
            raise ValueError(f"`lengths` must be from 1 to {steps}, as `x` has, not {outside[0]}.")
    return jnp.asarray(numbers, jnp.int32).reshape(-1)
