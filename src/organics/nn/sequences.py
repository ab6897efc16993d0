"""What the recurrent layers are called with, as they compute with it: steps of a batch."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from organics.nn.arguments import as_input, require_finite, require_type


class Sequences(NamedTuple):
    """A batch of sequences.

    Attributes
        steps: the inputs, the axis of time first.
        batched: whether there was a batch; else `steps` is one sequence.
    """

    steps: Float[Array, "time batch m"]
    batched: bool

    @property
    def count(self) -> int:
        """Number of sequences."""
        return self.steps.shape[1]

    def as_called(self, outputs: Float[Array, "time batch n"]) -> Float[Array, "*batch time n"]:
        """The outputs of all steps, with a batch if there was one."""
        return jnp.moveaxis(outputs, 0, 1) if self.batched else outputs[:, 0]


def as_sequences(x: Float[Array, "*batch time m"], size: int, dtype: np.dtype) -> Sequences:
    """`x` of shape (time, m) or (batch, time, m), m being `size`.

    Raises `ValueError` for another shape or type, or if `x` is not finite.
    """
    x = as_input(
        x, ("time", size), ("batch", "time", size), further="For further axes use `jax.vmap`."
    )
    require_type("x", x, dtype)
    require_finite("x", x)
    batched = x.ndim == 3
    return Sequences(jnp.moveaxis(x, 0, 1) if batched else x[:, None], batched)


def as_rows(
    x: Float[Array, "*batch m"], size: int, dtype: np.dtype
) -> tuple[Float[Array, "batch m"], bool]:
    """`x` of shape (m,) or (batch, m), as rows, and whether there was a batch.

    Raises `ValueError` as `as_sequences` does.
    """
    x = as_input(x, (size,), ("batch", size), further="For further axes use `jax.vmap`.")
    require_type("x", x, dtype)
    require_finite("x", x)
    batched = x.ndim == 2
    return (x, True) if batched else (x[None], False)
