"""Images that are moved by a few pixels, another way every time."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int

from organics.data.tasks import Stream
from organics.training.made import Varied, keys_of
from organics.training.step import Source


class Layout(NamedTuple):
    """Where the pixels of an image are in an input: the width of the image; the number of the
    pixel, row by row, at each place; and the length of the first axis of the input that they take.
    """

    width: int
    order: Int[np.ndarray, " pixels"]
    steps: int


class Shifted(Varied):
    """Images moved by up to `most` pixels, up or down and to a side; what comes in from outside is
    0.

    Attributes
        pixels: the number of the pixel at each place, row by row.
        places: the place of each pixel.
        width, steps: of `Layout`.
    """

    pixels: Int[Array, " pixels"]
    places: Int[Array, " pixels"]
    width: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    most: int = eqx.field(static=True)

    @staticmethod
    def of(examples: Source, stream: Stream, layout: Layout, most: int) -> "Shifted":
        """Images moved by the numbers of a stream."""
        pixels = jnp.asarray(layout.order, jnp.int32)
        places = jnp.asarray(np.argsort(layout.order), jnp.int32)
        key = jr.key_data(stream.key())
        sizes = layout.width, layout.steps, most
        return Shifted(examples, key, jnp.int32(0), pixels, places, *sizes)

    def take(self, indices: Int[Array, " batch"], dtype) -> tuple[Any, ...]:
        """As that of the examples."""
        inputs, *others = self.examples.take(indices, dtype)
        keys = keys_of(self.key, self.first + indices)
        draw = lambda key: jr.randint(key, (2,), -self.most, self.most + 1, jnp.int32)  # noqa: E731
        shifts = jax.vmap(draw)(keys)
        whole = inputs[:, : self.steps]
        image = whole.reshape(len(indices), len(self.pixels), -1)
        row, column = jnp.divmod(self.pixels[None], self.width)
        row, column = row - shifts[:, :1], column - shifts[:, 1:]
        inside = (row >= 0) & (row < len(self.pixels) // self.width)
        inside &= (column >= 0) & (column < self.width)
        place = self.places[jnp.where(inside, row * self.width + column, 0)]
        moved = jnp.take_along_axis(image, place[..., None], axis=1)
        moved = jnp.where(inside[..., None], moved, 0).reshape(whole.shape)
        return (jnp.concatenate([moved, inputs[:, self.steps :]], axis=1), *others)
