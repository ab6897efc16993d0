"""Classifiers by name.

A classifier is an Equinox module with

    loss(inputs, labels) -> (scalar, metrics)

for inputs in [0, 1] of shape (batch, input_size), or of sequences (batch, time, input_size), and
integer labels of shape (batch,); `metrics` is a dictionary of scalars with at least "accuracy",
each a mean over the batch. That is all that the trainer has to know of it. It may also have

    monitor() -> scalars by name
    diagnose(inputs) -> numbers by name

of which the first, compiled into every step, tells of its parameters, and the second, asked for
after every epoch, of where its state goes on inputs that it is not trained on, in about the time
that a step of training on them takes. One that is made of circuits at rest has

    circuits(x) -> a list of (Circuit, z)
    jacobians(x) -> a list of (Jacobian, whether the steady state was found, whether it is stable by
                    theorem, whatever eigenvalues are computed)

for one input x, so that stability can be asked of every part of it.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from organics.circuit.circuit import Circuit
from organics.linear.jacobian import jacobian
from organics.machine.memory import require_memory
from organics.nn.arguments import require_sizes
from organics.nn.dynamics import spectra
from organics.nn.normalization import Normalization, Recurrence
from organics.nn.recurrent import ORGaNICs, trainable
from organics.nn.supralinear import SSN
from organics.rest.search import steady_state

ModelName = Literal["organics", "mlp", "ssn"]
SequenceModelName = Literal[
    "organics", "lstm", "antisymmetric", "antisymmetric-gated", "cornn", "lipschitz", "rnn"
]

CLASSES = 10
_AT_ONCE = 500  # sequences whose outputs are in memory together
_MOST_MOMENTS = 64
# The eigenvalues at a moment take as long as training for so many time steps, times the number of
# neurons: of 64 neurons 20 ms on one core.
_STEPS_PER_NEURON = 200


class Dense(eqx.Module):
    """`relu(W x + b)`: what takes a circuit layer's place in the control network."""

    linear: eqx.nn.Linear

    def __init__(self, input_size: int, size: int, *, key: PRNGKeyArray, dtype=None):
        self.linear = eqx.nn.Linear(input_size, size, key=key, dtype=dtype)

    def __call__(self, x: Float[Array, " m"]) -> Float[Array, " n"]:
        return jax.nn.relu(self.linear(x))


Layer = Normalization | Dense | SSN


class Prediction(NamedTuple):
    """What a `StaticClassifier` makes of one input.

    Attributes
        logits: class scores, (10,); all 0 if the input is lost.
        reconstruction: the input as it is reconstructed from the code, (input_size,).
        lost: whether a layer that need not come to rest, an `SSN`, did not.
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
    layers: tuple[Layer, ...]
    readout: eqx.nn.Linear
    decoder: tuple[eqx.nn.Linear, ...]

    def __init__(
        self,
        input_size: int,
        layers: Sequence[Layer],
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
            if isinstance(layer, SSN):
                u, found = layer.rest(rates)
                rates, lost = layer.rates(u)[: layer.size], lost | ~found
            else:
                rates = layer(rates)
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
        if any(isinstance(layer, SSN) for layer in self.layers):
            metrics["lost"] = jnp.mean(lost.astype(error.dtype))
        return cross_entropy + error, metrics

    def circuits(self, x: Float[Array, " pixels"]) -> list[tuple[Circuit, Float[Array, " n"]]]:
        """The circuit of each circuit layer, and its drive, when the network sees the input `x`."""
        return [
            layer.circuit(rates)
            for layer, rates in self._seen(x)
            if isinstance(layer, Normalization)
        ]

    @property
    def circuit_sizes(self) -> list[int]:
        """Number of neurons of each layer that is a circuit: principal ones, or units."""
        return [
            layer.units if isinstance(layer, SSN) else layer.size
            for layer in self.layers
            if not isinstance(layer, Dense)
        ]

    def jacobians(
        self, x: Float[Array, " pixels"]
    ) -> list[tuple[Float[Array, "k k"], Bool[Array, ""], Bool[Array, ""]]]:
        """Of each layer that is a circuit, when the network sees the input `x`: the Jacobian at
        its steady state, in 1/ms, whether that was found, and whether it is stable by theorem, as
        with identity recurrence."""
        linearized = []
        for layer, rates in self._seen(x):
            if isinstance(layer, Normalization):
                circuit, z = layer.circuit(rates)
                steady = steady_state(circuit, z)
                J, by_theorem = jacobian(circuit, steady.state), jnp.asarray(circuit.W_r is None)
                linearized.append((J, steady.converged, by_theorem))
            elif isinstance(layer, SSN):
                u, found = layer.rest(rates)
                linearized.append((layer.jacobian(u), found, jnp.asarray(False)))
        return linearized

    def _seen(self, x: Float[Array, " pixels"]) -> Iterator[tuple[Any, Array]]:
        """Each layer, and what it sees when the network sees the input `x`."""
        rates = self.encode(x)
        for i, layer in enumerate(self.layers):
            if i > 0:
                rates = self.layers[i - 1](rates)
            yield layer, rates


class SequenceClassifier(eqx.Module):
    """A recurrent layer, and a linear readout of its last output. Trained on the cross-entropy.

    Arguments
        layer: `ORGaNICs`, or a module that is called in the same way and has its `hidden_size`.

    Source: Rawat et al. 2024, sequential classification.
    """

    layer: Any
    readout: eqx.nn.Linear

    def __init__(self, layer: Any, *, key: PRNGKeyArray, dtype: type | None = None):
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
        """What the layer says of its parameters, if it does."""
        return self.layer.monitor() if hasattr(self.layer, "monitor") else {}

    def diagnose(self, inputs: Float[Array, "batch time m"]) -> dict[str, float]:
        """Where the layer goes on some sequences.

        "output_min" and "output_max" are the range of its outputs at any step. Of ORGaNICs, whose
        outputs are `y`, also the largest spectral abscissa (the largest real part of an eigenvalue
        of the Jacobian of all equations, in 1/ms) and the largest magnitude of an eigenvalue of an
        Euler step, at `spectral_moments` moments, at most 64 and as many as take about the time of
        a step of training on these sequences; and the least, median and largest time constants of
        y, a, b0 and b over the neurons, in steps. What has overflowed is not finite.
        """
        ranges = [
            _output_range(self.layer, inputs[start : start + _AT_ONCE])
            for start in range(0, len(inputs), _AT_ONCE)
        ]
        low, high = np.asarray(ranges).T
        found = {"output_min": float(low.min()), "output_max": float(high.max())}
        if isinstance(self.layer, ORGaNICs):
            affordable = inputs.shape[0] * inputs.shape[1]
            affordable //= _STEPS_PER_NEURON * self.layer.hidden_size
            moments = max(1, min(affordable, _MOST_MOMENTS, len(inputs)))
            abscissae, radii = spectra(self.layer, inputs[:moments])
            found["spectral_moments"] = moments
            found["largest_spectral_abscissa"] = float(abscissae.max())
            found["largest_step_radius"] = float(radii.max())
            with np.errstate(divide="ignore"):  # a rate that underflows to 0 is of no motion
                steps = np.concatenate(
                    [1 / np.asarray(cell.rates) for cell in self.layer.cells], axis=1
                )
            for name, values in zip(("y", "a", "b0", "b"), steps, strict=True):
                found[f"tau_{name}_min"] = float(values.min())
                found[f"tau_{name}_median"] = float(np.median(values))
                found[f"tau_{name}_max"] = float(values.max())
        return found


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


def count_parameters(model: eqx.Module) -> int:
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
