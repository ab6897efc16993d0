"""Classifiers by name, and what the trainer asks of any."""

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from organics.circuit.circuit import Circuit
from organics.machine.memory import require_memory
from organics.nn.arguments import require_sizes
from organics.nn.normalization import Normalization, Recurrence
from organics.nn.protocols import Linearization, SequenceLayer, Settled, StaticLayer
from organics.nn.recurrent import ORGaNICs, trainable
from organics.nn.supralinear import SSN

ModelName = Literal["organics", "mlp", "ssn"]
SequenceModelName = Literal[
    "organics", "lstm", "antisymmetric", "antisymmetric-gated", "cornn", "lipschitz", "rnn"
]

CLASSES = 10
_AT_ONCE = 500  # sequences whose outputs are in memory together


@runtime_checkable
class Model(Protocol):
    """What the trainer asks of a classifier, which is an Equinox module.

    Inputs are in [0, 1], of shape (batch, m), or of sequences (batch, time, m); labels are whole
    numbers (batch,).
    """

    def loss(
        self, inputs: Float[Array, "batch ..."], labels: Int[Array, " batch"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean over the batch of what is made small, and that of some metrics by name, with at
        least "accuracy"."""
        ...

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """What it says of its parameters, by name; compiled into every step."""
        ...

    def diagnose(self, inputs: Float[Array, "batch ..."]) -> dict[str, int | float]:
        """Where its state goes on inputs that it is not trained on, by name; asked for after every
        epoch, so in about the time that a step of training on them takes."""
        ...

    def circuit_sizes(self) -> list[int]:
        """Number of neurons of each layer that comes to rest; none if it has no such layers."""
        ...

    def linearize(self, x: Float[Array, "..."]) -> list[Linearization]:
        """Each of these layers near rest, when the network sees the input `x`."""
        ...


class Dense(eqx.Module):
    """`relu(W x + b)`: what takes a circuit layer's place in the control network."""

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
        """The rates, which there always are."""
        return Settled(self(x), jnp.asarray(True))

    def circuit(self, x: Float[Array, " m"]) -> None:
        """None."""
        del x

    def linearize(self, x: Float[Array, " m"]) -> None:
        """None."""
        del x


class Prediction(NamedTuple):
    """What a `StaticClassifier` makes of one input.

    Attributes
        logits: class scores, (10,); all 0 if the input is lost.
        reconstruction: the input as it is reconstructed from the code, (input_size,).
        lost: whether a layer that `may_be_lost`, an `SSN`, did not come to rest.
    """

    logits: Float[Array, " classes"]
    reconstruction: Float[Array, " pixels"]
    lost: Bool[Array, ""]


class StaticClassifier(eqx.Module):
    """Encoder, layers, linear readout; and a decoder that reconstructs the input from the code.

    The encoder's last layer is a sigmoid, its others are ReLU, so the code that the first layer
    receives lies in (0, 1); the decoder mirrors the encoder. Trained on the cross-entropy of the
    classes plus the mean squared error of the reconstruction.

    An input at which an `SSN` does not come to rest is lost: it gets the same score in all classes,
    which counts as wrong, and its class teaches nothing; the others are as good as without it.

    Arguments
        input_size: number of pixels.
        layers: the layers between code and readout, in order; may be empty.
        encoder: widths of the encoder; the last is the length of the code.

    Source: Rawat et al. 2024, static classification.
    """

    encoder: tuple[eqx.nn.Linear, ...]
    layers: tuple[StaticLayer, ...]
    readout: eqx.nn.Linear
    decoder: tuple[eqx.nn.Linear, ...]

    def __init__(
        self,
        input_size: int,
        layers: Sequence[StaticLayer],
        encoder: Sequence[int] = (360, 120, 40),
        *,
        size: int | None = None,
        key: PRNGKeyArray,
        dtype: type | None = None,
    ):
        k_encoder, k_readout, k_decoder = jr.split(key, 3)
        widths = (input_size, *encoder)
        self.encoder = _stack(widths, k_encoder, dtype)
        self.decoder = _stack(widths[::-1], k_decoder, dtype)
        self.layers = tuple(layers)
        last = widths[-1] if size is None else size
        self.readout = eqx.nn.Linear(last, CLASSES, key=k_readout, dtype=dtype)

    def encode(self, x: Float[Array, " pixels"]) -> Float[Array, " code"]:
        """The code of the input `x`, in (0, 1)."""
        return _sigmoid_network(self.encoder, x)

    def __call__(self, x: Float[Array, " pixels"]) -> Prediction:
        """Class scores and reconstruction of one input."""
        code = self.encode(x)
        rates, lost = code, jnp.asarray(False)
        for layer in self.layers:
            rates, found = layer.settle(rates)
            lost = lost | ~found
        logits = jnp.where(lost, 0, self.readout(rates))
        return Prediction(logits, _sigmoid_network(self.decoder, code), lost)

    def loss(
        self, inputs: Float[Array, "batch pixels"], labels: Int[Array, " batch"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy plus mean squared reconstruction error, 1:1, and both of them alone.

        With an `SSN`, also the fraction of the inputs that are "lost".
        """
        logits, reconstruction, lost = jax.vmap(self)(inputs)
        # no class is that of a lost input
        cross_entropy, accuracy = _score(logits, labels, valid=~lost)
        error = jnp.mean(jnp.square(reconstruction - inputs))
        metrics = {
            "accuracy": accuracy,
            "cross_entropy": cross_entropy,
            "reconstruction_error": error,
        }
        if any(layer.may_be_lost for layer in self.layers):
            metrics["lost"] = jnp.mean(lost.astype(error.dtype))
        return cross_entropy + error, metrics

    def circuits(self, x: Float[Array, " pixels"]) -> list[tuple[Circuit, Float[Array, " n"]]]:
        """The circuit of each layer that has one, and its drive, when the network sees `x`."""
        found = (layer.circuit(rates) for layer, rates in self._seen(x))
        return [pair for pair in found if pair is not None]

    def circuit_sizes(self) -> list[int]:
        """Number of neurons of each layer that is a circuit: principal ones, or units."""
        return [layer.units for layer in self.layers if layer.units is not None]

    def linearize(self, x: Float[Array, " pixels"]) -> list[Linearization]:
        """Each of these layers near rest, when the network sees the input `x`."""
        found = (layer.linearize(rates) for layer, rates in self._seen(x))
        return [near for near in found if near is not None]

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """Nothing is said of its parameters."""
        return {}

    def diagnose(self, inputs: Float[Array, "batch pixels"]) -> dict[str, int | float]:
        """Nothing: it has no state."""
        del inputs
        return {}

    def _seen(self, x: Float[Array, " pixels"]) -> Iterator[tuple[StaticLayer, Array]]:
        """Each layer, and what it sees when the network sees the input `x`."""
        rates = self.encode(x)
        for i, layer in enumerate(self.layers):
            if i > 0:
                rates = self.layers[i - 1](rates)
            yield layer, rates


class SequenceClassifier(eqx.Module):
    """A recurrent layer, and a linear readout of its last output. Trained on the cross-entropy.

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
        cross_entropy, accuracy = _score(self(inputs), labels)
        return cross_entropy, {"accuracy": accuracy}

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """What the layer says of its parameters."""
        return self.layer.monitor()

    def diagnose(self, inputs: Float[Array, "batch time m"]) -> dict[str, int | float]:
        """Where the layer goes on some sequences: "output_min" and "output_max", the range of its
        outputs at any step, and what the layer itself says of it."""
        ranges = [
            _output_range(self.layer, inputs[start : start + _AT_ONCE])
            for start in range(0, len(inputs), _AT_ONCE)
        ]
        low, high = np.asarray(ranges).T
        extremes = {"output_min": float(low.min()), "output_max": float(high.max())}
        return extremes | self.layer.diagnose(inputs)

    def circuit_sizes(self) -> list[int]:
        """None: the layer is read while it moves."""
        return []

    def linearize(self, x: Float[Array, "time m"]) -> list[Linearization]:
        """None, likewise."""
        del x
        return []


def build(
    name: ModelName,
    input_size: int,
    *,
    layers: Sequence[int] = (50,),
    encoder: Sequence[int] = (360, 120, 40),
    recurrent: Recurrence = "identity",
    key: PRNGKeyArray,
    dtype: type | None = None,
) -> StaticClassifier:
    """The classifier called `name`, with random parameters.

    "organics": `layers` are the sizes of its circuit layers, each fed by the rates of the one
    before. "mlp": the same network with `Dense` layers of these sizes instead, the control.
    "ssn": with one `SSN` instead, and `layers` are the numbers of its E and I units.

    Raises `ValueError` for another name, a size below 1, or `layers` that an "ssn" cannot have.
    """
    if name not in get_args(ModelName):
        known = ", ".join(get_args(ModelName))
        raise ValueError(f"`model` must be one of {known}, not {name!r}.")
    if not encoder:
        raise ValueError("`encoder` must have at least one width, that of the code.")
    for width in (*encoder, *layers):
        require_sizes(width=width)
    if name == "ssn":
        return _build_ssn(input_size, layers, encoder, key, dtype)
    k_network, *keys = jr.split(key, 1 + len(layers))
    sizes = (encoder[-1], *layers)
    stack = []
    for m, n, k in zip(sizes, sizes[1:], keys, strict=False):
        if name == "mlp":
            stack.append(Dense(m, n, key=k, dtype=dtype))
        else:
            stack.append(Normalization(m, n, key=k, recurrent=recurrent, dtype=dtype))
    return StaticClassifier(input_size, stack, encoder, size=sizes[-1], key=k_network, dtype=dtype)


def _build_ssn(input_size, layers, encoder, key, dtype) -> StaticClassifier:
    if len(layers) != 2:
        raise ValueError(
            "`layers` of the model ssn must be two numbers, those of its E and I units, not "
            f"{tuple(layers)}."
        )
    excitatory, inhibitory = layers
    square = sum(layers) ** 2
    require_memory(8 * square, "layers", f"a matrix of {square:,} weights")  # made at once
    k_network, k_layer = jr.split(key)
    layer = SSN(encoder[-1], excitatory, inhibitory, key=k_layer, dtype=dtype)
    return StaticClassifier(
        input_size, [layer], encoder, size=excitatory, key=k_network, dtype=dtype
    )


def build_sequence(
    name: SequenceModelName,
    input_size: int,
    units: int,
    *,
    key: PRNGKeyArray,
    dtype: type | None = None,
    **options: Any,
) -> SequenceClassifier:
    """The classifier of sequences whose recurrent layer is called `name`, with random parameters.

    `options` are those of the layer: of `organics.nn.ORGaNICs`, or of one of
    `organics.baselines`.

    Raises `ValueError` for another name or a size below 1, and what the layer raises.
    """
    if name not in get_args(SequenceModelName):
        known = ", ".join(get_args(SequenceModelName))
        raise ValueError(f"`model` must be one of {known}, not {name!r}.")
    require_sizes(input_size=input_size, units=units)
    k_layer, k_readout = jr.split(key)
    if name == "organics":
        layer = ORGaNICs(input_size, units, key=k_layer, dtype=dtype, **options)
    else:
        baselines = import_module("organics.baselines")
        layer = baselines.build(name, input_size, units, key=k_layer, dtype=dtype, **options)
    return SequenceClassifier(layer, key=k_readout, dtype=dtype)


def count_parameters(model: PyTree) -> int:
    """Number of trainable parameters: the floating-point entries of what is `trainable`."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, trainable(model))))


@eqx.filter_jit
def _output_range(layer: Any, inputs: Array) -> tuple[Array, Array]:
    outputs, _ = layer(inputs)
    return jnp.min(outputs), jnp.max(outputs)


def _score(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"] | bool = True,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy, and accuracy, to which only what is `valid` can add."""
    scores = jax.nn.log_softmax(logits)
    cross_entropy = -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))
    correct = (jnp.argmax(logits, axis=1).astype(labels.dtype) == labels) & valid
    return cross_entropy, jnp.mean(correct.astype(logits.dtype))


@partial(jax.jit, static_argnums=(0, 2))  # one program, instead of several for each layer
def _stack(widths: tuple[int, ...], key: PRNGKeyArray, dtype) -> tuple[eqx.nn.Linear, ...]:
    keys = jr.split(key, len(widths) - 1)
    pairs = zip(widths, widths[1:], keys, strict=False)
    return tuple(eqx.nn.Linear(m, n, key=k, dtype=dtype) for m, n, k in pairs)


def _sigmoid_network(layers: Sequence[eqx.nn.Linear], x: Array) -> Array:
    for layer in layers[:-1]:
        x = jax.nn.relu(layer(x))
    return jax.nn.sigmoid(layers[-1](x))
