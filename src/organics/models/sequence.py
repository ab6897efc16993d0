"""A classifier of sequences with a recurrent layer; or a predictor of numbers."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from organics.kernels.padding import within
from organics.models.target import Marks, Target
from organics.nn.protocols import Linearization, SequenceLayer

_AT_ONCE = 500  # sequences whose outputs are in memory at once


class SequenceClassifier(eqx.Module):
    """A recurrent layer and a linear readout, of its last output or of every one, trained on the
    cross-entropy of classes, or on the squared error of numbers.

    Arguments
        layer: `ORGaNICs`, or another `SequenceLayer`.
        target: what is read out; ten classes at the last step by default.

    Everywhere, `lengths` is the number of steps of each sequence, (batch,); later ones, even NaN,
    change nothing.

    Source: Rawat et al. 2024, sequential classification.
    """

    layer: SequenceLayer
    readout: eqx.nn.Linear
    target: Target = eqx.field(static=True)

    def __init__(
        self,
        layer: SequenceLayer,
        *,
        target: Target = Target(),  # noqa: B008 - it cannot be changed
        key: PRNGKeyArray,
        dtype: type | None = None,
    ):
        self.layer = layer
        self.readout = eqx.nn.Linear(layer.hidden_size, target.size, key=key, dtype=dtype)
        self.target = target

    def __call__(
        self, x: Float[Array, "batch time m"], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch *time outputs"]:
        """Class scores, or numbers in standard units, of each sequence, or of each of its steps.

        Raises `ValueError` if `x` has another number of axes, and as the layer does.
        """
        if x.ndim != 3:
            raise ValueError(f"`x` must have shape (batch, time, m), not {x.shape}.")
        if self.target.at == "every":
            outputs, _ = self.layer(x, **_if_any(lengths))
            return jax.vmap(jax.vmap(self.readout))(outputs)
        last, _ = self.layer(x, sequence=False, **_if_any(lengths))
        return jax.vmap(self.readout)(last)

    def predict(
        self, inputs: Float[Array, "batch time m"], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch *time outputs"]:
        """The same as the call."""
        return self(inputs, lengths)

    def loss(
        self,
        inputs: Float[Array, "batch time m"],
        labels: Num[Array, "batch ..."],
        lengths: Int[Array, " batch"] | None = None,
        marks: Marks | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of its `target`; `marks` say which steps count, by default all."""
        return self.target.loss(self(inputs, lengths), labels, lengths, marks=marks)

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """The layer's measures of its parameters."""
        return self.layer.monitor()

    def diagnose(
        self, inputs: Float[Array, "batch time m"], lengths: Int[Array, " batch"] | None = None
    ) -> dict[str, int | float]:
        """Measures of the layer on some sequences: "output_min" and "output_max", the range of its
        outputs over all steps, and the layer's own measures."""
        ranges = []
        for start in range(0, len(inputs), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            ends = None if lengths is None else lengths[some]
            ranges.append(_output_range(self.layer, inputs[some], ends))
        low, high = np.asarray(ranges).T
        extremes = {"output_min": float(low.min()), "output_max": float(high.max())}
        return extremes | self.layer.diagnose(inputs, **_if_any(lengths))

    def circuit_sizes(self) -> list[int]:
        """Empty: the layer is read out while it moves."""
        return []

    def linearize(self, x: Float[Array, "time m"]) -> list[Linearization]:
        """Empty, likewise."""
        del x
        return []


def _if_any(lengths: Array | None) -> dict[str, Any]:
    """The argument `lengths`, if there are any: a layer need not know them otherwise."""
    return {} if lengths is None else {"lengths": lengths}


@eqx.filter_jit
def _output_range(layer: Any, inputs: Array, lengths: Array | None) -> tuple[Array, Array]:
    outputs, _ = layer(inputs, **_if_any(lengths))
    if lengths is not None:
        goes = within(lengths, outputs.shape[1])
        outputs = jnp.where(goes[..., None], outputs, outputs[:, :1])
    return jnp.min(outputs), jnp.max(outputs)
