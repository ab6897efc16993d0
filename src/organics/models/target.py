"""What a network learns to say: classes or numbers, once for each example or at every step."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from organics.arguments import require_among, require_sizes
from organics.kernels.padding import within
from organics.names import ReadAt, TargetKind


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
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss, and "accuracy" or "squared_error": means over the examples.

        For classes, `wanted` has their numbers, (batch,) or (batch, time), and the loss is the
        cross-entropy; only `valid` examples can count as right. For numbers, `wanted` has the shape
        of the outputs, and the loss is the mean squared error. At every step they are first
        averaged over the steps of each sequence: the first of its `lengths`, or all.
        """
        goes = None
        if self.at == "every" and lengths is not None:
            goes = within(lengths, outputs.shape[1])
            # what comes after the end, even NaN, must not reach the gradient
            outputs = jnp.where(goes[..., None], outputs, 0)
            wanted = jnp.where(goes if wanted.ndim == 2 else goes[..., None], wanted, 0)
        if self.kind == "classes":
            scores = jax.nn.log_softmax(outputs)
            loss = -jnp.take_along_axis(scores, wanted[..., None], axis=-1)[..., 0]
            right = jnp.argmax(outputs, axis=-1).astype(wanted.dtype) == wanted
            if self.at == "last":
                right = right & valid
            name, measured = "accuracy", right.astype(outputs.dtype)
        else:
            loss = jnp.mean(jnp.square(outputs - wanted), axis=-1)
            name, measured = "squared_error", loss
        return _mean(loss, goes), {name: _mean(measured, goes)}


def _mean(values: Float[Array, "..."], goes: Bool[Array, "batch steps"] | None) -> Float[Array, ""]:
    if goes is None:
        return jnp.mean(values)
    steps = jnp.sum(goes, axis=1, dtype=values.dtype)
    return jnp.mean(jnp.sum(jnp.where(goes, values, 0), axis=1) / steps)
