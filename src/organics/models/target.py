"""What a network learns to say: classes or numbers, once for each example or at every step."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Num

from organics.arguments import require_among, require_sizes
from organics.kernels.padding import within
from organics.names import ReadAt, TargetKind


class Marks(NamedTuple):
    """Which steps of sequences count; at least one of each sequence.

    Attributes
        loss: the weight of each step in the loss, not negative.
        score: whether a step counts in the accuracy or the squared error.
    """

    loss: Float[Array, "*batch steps"]
    score: Bool[Array, "*batch steps"]


@dataclass(frozen=True)
class Target:
    """What the outputs of a network are.

    Arguments
        kind: "classes", the outputs are their scores; or "numbers", the outputs are these, in
            standard units.
        size: how many classes or numbers.
        at: whether there are outputs at the last step alone, (batch, size), or at every step,
            (batch, time, size).

    Raises `ValueError`, naming the argument, for a value other than these.
    """

    kind: TargetKind = "classes"
    size: int = 10
    at: ReadAt = "last"

    def __post_init__(self):
        require_among("kind", self.kind, TargetKind)
        require_among("at", self.at, ReadAt)
        require_sizes(size=self.size)

    def loss(
        self,
        outputs: Float[Array, "batch *time size"],
        wanted: Num[Array, "batch ..."],
        lengths: Int[Array, " batch"] | None = None,
        valid: Bool[Array, " batch"] | bool = True,
        marks: Marks | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss, and "accuracy" or "squared_error": means over the examples.

        For classes, `wanted` has their numbers, (batch,) or (batch, time), and the loss is the
        cross-entropy; only `valid` examples can count as right. For numbers, `wanted` has the shape
        of the outputs, and the loss is the mean squared error. At every step they are first
        averaged over the steps of each sequence: the first of its `lengths`, those that `marks`
        count, or all. Outputs that are not finite are never right.

        Raises `ValueError` if `wanted` has another shape, or has classes that are no whole numbers
        or not from 0 to `size - 1`. Where it is traced, the loss of such a class is NaN.
        """
        wanted = jnp.asarray(wanted)
        shape = outputs.shape if self.kind == "numbers" else outputs.shape[:-1]
        if wanted.shape != shape:
            raise ValueError(
                f"`wanted` must have shape {shape} for {self.kind}, as `outputs` have shape "
                f"{outputs.shape}, not {wanted.shape}."
            )
        goes = None
        if self.at == "every" and lengths is not None:
            goes = within(lengths, outputs.shape[1])
            # what comes after the end, even NaN, must not reach the gradient
            outputs = jnp.where(goes[..., None], outputs, 0)
            wanted = jnp.where(goes if wanted.ndim == 2 else goes[..., None], wanted, 0)
        if self.kind == "classes":
            _require_classes(wanted, self.size)
            scores = jax.nn.log_softmax(outputs)
            chosen = jnp.where(wanted < 0, self.size, wanted)[..., None]  # else from the end
            loss = -jnp.take_along_axis(scores, chosen, axis=-1, mode="fill")[..., 0]
            right = jnp.argmax(outputs, axis=-1).astype(wanted.dtype) == wanted
            right = right & jnp.all(jnp.isfinite(outputs), axis=-1)  # of NaN, `argmax` is 0
            if self.at == "last":
                right = right & valid
            name, measured = "accuracy", right.astype(outputs.dtype)
        else:
            loss = jnp.mean(jnp.square(outputs - wanted), axis=-1)
            name, measured = "squared_error", loss
        weights, counts = (goes, goes) if marks is None else marks
        return _mean(loss, weights), {name: _mean(measured, counts)}


def _require_classes(wanted: Num[Array, "batch ..."], size: int) -> None:
    if not jnp.issubdtype(wanted.dtype, jnp.integer):
        raise ValueError(f"`wanted` must be whole numbers for classes, not of {wanted.dtype}.")
    if isinstance(wanted, Tracer) or not wanted.is_fully_addressable:
        return
    found = np.asarray(wanted)
    bad = found[(found < 0) | (found >= size)]
    if bad.size:
        raise ValueError(f"`wanted` must be from 0 to {size - 1} for {size} classes, not {bad[0]}.")


def _mean(
    values: Float[Array, "..."],
    weights: Num[Array, "batch steps"] | Bool[Array, "batch steps"] | None,
) -> Float[Array, ""]:
    if weights is None:
        return jnp.mean(values)
    weights = weights.astype(values.dtype)
    return jnp.mean(jnp.sum(values * weights, axis=1) / jnp.sum(weights, axis=1))
