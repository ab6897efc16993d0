"""Classifiers by name."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import PRNGKeyArray, PyTree

from organics.arguments import require_among, require_sizes
from organics.machine.memory import require_memory
from organics.models.sequence import SequenceClassifier
from organics.models.static import Dense, StaticClassifier
from organics.models.target import Target
from organics.names import ModelName, SequenceModelName, StaticRecurrence
from organics.nn.normalization import Normalization
from organics.nn.recurrent import ORGaNICs, trainable
from organics.nn.supralinear import SSN


def build(
    name: ModelName,
    input_size: int,
    *,
    layers: Sequence[int] = (50,),
    encoder: Sequence[int] = (360, 120, 40),
    recurrent: StaticRecurrence = "identity",
    target: Target = Target(),  # noqa: B008 - it cannot be changed
    decoder: bool = True,
    key: PRNGKeyArray,
    dtype: type | None = None,
) -> StaticClassifier:
    """The classifier called `name`, with random parameters. `target` and `decoder` are those of
    `StaticClassifier`.

    "organics": `layers` are the sizes of its circuit layers, each driven by the rates of the one
    before. "mlp": the control, with `Dense` layers of these sizes instead. "ssn": with one `SSN`
    instead; `layers` are the numbers of its E and I units.

    Raises `ValueError` for another name, a size below 1, or `layers` that an "ssn" cannot have.
    """
    require_among("name", name, ModelName)
    if not encoder:
        raise ValueError("`encoder` must have at least one width, that of the code.")
    for width in (*encoder, *layers):
        require_sizes(width=width)
    head = {"target": target, "decoder": decoder, "dtype": dtype}
    if name == "ssn":
        return _build_ssn(input_size, layers, encoder, key, head)
    k_network, *keys = jr.split(key, 1 + len(layers))
    sizes = (encoder[-1], *layers)
    stack = []
    for m, n, k in zip(sizes, sizes[1:], keys, strict=False):
        if name == "mlp":
            stack.append(Dense(m, n, key=k, dtype=dtype))
        else:
            stack.append(Normalization(m, n, key=k, recurrent=recurrent, dtype=dtype))
    return StaticClassifier(input_size, stack, encoder, size=sizes[-1], key=k_network, **head)


def _build_ssn(input_size, layers, encoder, key, head) -> StaticClassifier:
    if len(layers) != 2:
        raise ValueError(
            "`layers` of the model ssn must be two numbers, those of its E and I units, not "
            f"{tuple(layers)}."
        )
    excitatory, inhibitory = layers
    square = sum(layers) ** 2
    require_memory(8 * square, "layers", f"a matrix of {square:,} weights")  # allocated at once
    k_network, k_layer = jr.split(key)
    layer = SSN(encoder[-1], excitatory, inhibitory, key=k_layer, dtype=head["dtype"])
    return StaticClassifier(input_size, [layer], encoder, size=excitatory, key=k_network, **head)


def build_sequence(
    name: SequenceModelName,
    input_size: int,
    units: int,
    *,
    target: Target = Target(),  # noqa: B008 - it cannot be changed
    key: PRNGKeyArray,
    dtype: type | None = None,
    **options: Any,
) -> SequenceClassifier:
    """The classifier of sequences whose recurrent layer is called `name`, with random parameters.
    `target` is that of `SequenceClassifier`.

    `options` are the options of the layer, `organics.nn.ORGaNICs` or one of `organics.baselines`.

    Raises `ValueError` for another name or a size below 1, and whatever the layer raises.
    """
    require_among("name", name, SequenceModelName)
    require_sizes(input_size=input_size, units=units)
    k_layer, k_readout = jr.split(key)
    if name == "organics":
        layer = ORGaNICs(input_size, units, key=k_layer, dtype=dtype, **options)
    else:
        baselines = import_module("organics.baselines")
        layer = baselines.build(name, input_size, units, key=k_layer, dtype=dtype, **options)
    return SequenceClassifier(layer, target=target, key=k_readout, dtype=dtype)


def count_parameters(model: PyTree) -> int:
    """Number of trained parameters: floating-point entries of the `trainable` leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, trainable(model))))
