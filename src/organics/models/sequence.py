"""A classifier of sequences with a recurrent layer."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from organics.models.score import CLASSES, score
from organics.nn.protocols import Linearization, SequenceLayer

_AT_ONCE = 500  # sequences whose outputs are in memory at once


class SequenceClassifier(eqx.Module):
    """A recurrent layer and a linear readout of its last output, trained on the cross-entropy.

    Arguments
        layer: `ORGaNICs`, or another `SequenceLayer`.

    Source: Rawat et al. 2024, sequential classification.
    """

    layer: SequenceLayer
    readout: eqx.nn.Linear

    def __init__(self, layer: SequenceLayer, *, key: PRNGKeyArray, dtype: type | None = None):
        self.layer = layer
        self.readout = eqx.nn.Linear(layer.hidden_size, CLASSES, key=key, dtype=dtype)

    def __call__(self, x: Float[Array, "batch time m"]) -> Float[Array, "batch classes"]:
        """Class scores of each sequence."""
        last, _ = self.layer(x, sequence=False)
        return jax.vmap(self.readout)(last)

    def loss(
        self, inputs: Float[Array, "batch time m"], labels: Int[Array, " batch"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy of the classes."""
        cross_entropy, accuracy = score(self(inputs), labels)
        return cross_entropy, {"accuracy": accuracy}

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """The layer's measures of its parameters."""
        return self.layer.monitor()

    def diagnose(self, inputs: Float[Array, "batch time m"]) -> dict[str, int | float]:
        """Measures of the layer on some sequences: "output_min" and "output_max", the range of its
        outputs over all steps, and the layer's own measures."""
        ranges = [
            _output_range(self.layer, inputs[start : start + _AT_ONCE])
            for start in range(0, len(inputs), _AT_ONCE)
        ]
        low, high = np.asarray(ranges).T
        extremes = {"output_min": float(low.min()), "output_max": float(high.max())}
        return extremes | self.layer.diagnose(inputs)

    def circuit_sizes(self) -> list[int]:
        """Empty: the layer is read out while it moves."""
        return []

    def linearize(self, x: Float[Array, "time m"]) -> list[Linearization]:
        """Empty, likewise."""
        del x
        return []


@eqx.filter_jit
def _output_range(layer: Any, inputs: Array) -> tuple[Array, Array]:
    outputs, _ = layer(inputs)
    return jnp.min(outputs), jnp.max(outputs)
