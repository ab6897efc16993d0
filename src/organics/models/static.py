"""A classifier of images with circuits at rest."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from organics.circuit.circuit import Circuit
from organics.models.target import Target
from organics.nn.protocols import Linearization, Settled, StaticLayer


class Dense(eqx.Module):
    """`relu(W x + b)`: replaces a circuit layer in the control network."""

    linear: eqx.nn.Linear
    may_be_lost: ClassVar[bool] = False

    def __init__(self, input_size: int, size: int, *, key: PRNGKeyArray, dtype=None):
        self.linear = eqx.nn.Linear(input_size, size, key=key, dtype=dtype)

    @property
    def units(self) -> None:
        """None: it has no circuit."""

    def __call__(self, x: Float[Array, " m"]) -> Float[Array, " n"]:
        return jax.nn.relu(self.linear(x))

    def settle(self, x: Float[Array, " m"]) -> Settled:
        """The rates; `found` is always true."""
        return Settled(self(x), jnp.asarray(True))

    def circuit(self, x: Float[Array, " m"]) -> None:
        """None."""
        del x

    def linearize(self, x: Float[Array, " m"]) -> None:
        """None."""
        del x


class Prediction(NamedTuple):
    """The output of a `StaticClassifier` for one input.

    Attributes
        logits: class scores, (10,), or other outputs; all 0 if the input is lost.
        reconstruction: reconstruction of the input from the code, (input_size,); None without a
            decoder.
        lost: whether a layer that `may_be_lost`, an `SSN`, did not come to rest.
    """

    logits: Float[Array, " classes"]
    reconstruction: Float[Array, " pixels"] | None
    lost: Bool[Array, ""]


class StaticClassifier(eqx.Module):
    """Encoder, layers, linear readout; and, unless left out, a decoder that reconstructs the input
    from the code.

    The encoder's last layer is a sigmoid and the others ReLU, so the code, the input of the first
    layer, lies in (0, 1). The decoder mirrors the encoder. Trained on the cross-entropy of the
    classes plus the mean squared error of the reconstruction.

    An input for which an `SSN` does not come to rest is lost: all its class scores are equal, which
    counts as wrong and gives no gradient. It does not affect other inputs.

    Arguments
        input_size: number of pixels.
        layers: the layers between code and readout, in order; may be empty.
        encoder: widths of the encoder; the last is the length of the code. Without any, the input
            is the code.
        target: what is read out; ten classes by default.
        decoder: whether there is a decoder. Its outputs are from 0 to 1.

    Source: Rawat et al. 2024, static classification.
    """

    encoder: tuple[eqx.nn.Linear, ...]
    layers: tuple[StaticLayer, ...]
    readout: eqx.nn.Linear
    decoder: tuple[eqx.nn.Linear, ...]
    target: Target = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        layers: Sequence[StaticLayer],
        encoder: Sequence[int] = (360, 120, 40),
        *,
        size: int | None = None,
        target: Target = Target(),  # noqa: B008 - it cannot be changed
        decoder: bool = True,
        key: PRNGKeyArray,
        dtype: type | None = None,
    ):
        if target.at != "last":
            raise ValueError("`target` must be read at the last step: there are no steps.")
        k_encoder, k_readout, k_decoder = jr.split(key, 3)
        widths = (input_size, *encoder)
        self.encoder = _stack(widths, k_encoder, dtype)
        self.decoder = _stack(widths[::-1], k_decoder, dtype) if decoder else ()
        self.layers = tuple(layers)
        last = widths[-1] if size is None else size
        self.readout = eqx.nn.Linear(last, target.size, key=k_readout, dtype=dtype)
        self.target = target

    def encode(self, x: Float[Array, " pixels"]) -> Float[Array, " code"]:
        """The code of the input `x`, in (0, 1)."""
        return _sigmoid_network(self.encoder, x)

    def __call__(self, x: Float[Array, " pixels"]) -> Prediction:
        """The outputs, and the reconstruction, of one input."""
        code = self.encode(x)
        rates, lost = code, jnp.asarray(False)
        for layer in self.layers:
            rates, found = layer.settle(rates)
            lost = lost | ~found
        logits = jnp.where(lost, 0, self.readout(rates))
        decoded = _sigmoid_network(self.decoder, code) if self.decoder else None
        return Prediction(logits, decoded, lost)

    def predict(
        self, inputs: Float[Array, "batch pixels"], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch outputs"]:
        """Class scores, or numbers in standard units; NaN for an input that is lost.

        Raises `ValueError` if `inputs` have another shape.
        """
        del lengths  # there are no steps
        size = self.encoder[0].weight.shape[1] if self.encoder else None
        if inputs.ndim != 2 or (size is not None and inputs.shape[1] != size):
            wanted = "input_size" if size is None else size
            raise ValueError(f"`inputs` must have shape (batch, {wanted}), not {inputs.shape}.")
        logits, _, lost = jax.vmap(self)(inputs)
        return jnp.where(lost[:, None], jnp.nan, logits)

    def loss(
        self,
        inputs: Float[Array, "batch pixels"],
        labels: Num[Array, "batch ..."],
        lengths: Int[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of the target plus the mean squared reconstruction error, 1:1, and for classes
        both of them alone.

        With an `SSN`, also the fraction of the inputs that are "lost".
        """
        del lengths  # there are no steps
        logits, reconstruction, lost = jax.vmap(self)(inputs)
        # a lost input is never right
        loss, metrics = self.target.loss(logits, labels, valid=~lost)
        if reconstruction is not None:
            error = jnp.mean(jnp.square(reconstruction - inputs))
            name = "cross_entropy" if self.target.kind == "classes" else "prediction_error"
            metrics |= {name: loss, "reconstruction_error": error}
            loss = loss + error
        if any(layer.may_be_lost for layer in self.layers):
            metrics["lost"] = jnp.mean(lost.astype(loss.dtype))
        return loss, metrics

    def circuits(self, x: Float[Array, " pixels"]) -> list[tuple[Circuit, Float[Array, " n"]]]:
        """The circuit of each layer that has one, and its drive, for the input `x` of the
        network."""
        found = (layer.circuit(rates) for layer, rates in self._seen(x))
        return [pair for pair in found if pair is not None]

    def circuit_sizes(self) -> list[int]:
        """Number of principal neurons, or of units, of each layer that is a circuit."""
        return [layer.units for layer in self.layers if layer.units is not None]

    def linearize(self, x: Float[Array, " pixels"]) -> list[Linearization]:
        """Each of these layers linearized at rest, for the input `x` of the network."""
        found = (layer.linearize(rates) for layer, rates in self._seen(x))
        return [near for near in found if near is not None]

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """Empty: there are no measures of its parameters."""
        return {}

    def diagnose(
        self, inputs: Float[Array, "batch pixels"], lengths: Int[Array, " batch"] | None = None
    ) -> dict[str, int | float]:
        """Empty: it has no state."""
        del inputs, lengths
        return {}

    def _seen(self, x: Float[Array, " pixels"]) -> Iterator[tuple[StaticLayer, Array]]:
        """Each layer and its input, for the input `x` of the network."""
        rates = self.encode(x)
        for i, layer in enumerate(self.layers):
            if i > 0:
                rates = self.layers[i - 1](rates)
            yield layer, rates


@partial(jax.jit, static_argnums=(0, 2))  # one program instead of several for each layer
def _stack(widths: tuple[int, ...], key: PRNGKeyArray, dtype) -> tuple[eqx.nn.Linear, ...]:
    keys = jr.split(key, len(widths) - 1)
    pairs = zip(widths, widths[1:], keys, strict=False)
    return tuple(eqx.nn.Linear(m, n, key=k, dtype=dtype) for m, n, k in pairs)


def _sigmoid_network(layers: Sequence[eqx.nn.Linear], x: Array) -> Array:
    if not layers:
        return x
    for layer in layers[:-1]:
        x = jax.nn.relu(layer(x))
    return jax.nn.sigmoid(layers[-1](x))
