"""Whether a run fits: into memory, and into the numbers that count its steps."""

import math

import equinox as eqx
import jax

from organics.machine.memory import require_memory
from organics.training.config import AnyConfig, SequenceConfig
from organics.training.evaluation import build_model, input_shape

_MOST_STEPS = 2**31 - 1  # the step is a whole number of 32 bits


def require_room_for_model(config: AnyConfig) -> None:
    """Refuse a model whose parameters, their gradient and Adam's two moments memory cannot hold.

    Raises `ValueError`, naming the setting. Nothing of that size is made.
    """
    model = eqx.filter_eval_shape(build_model, config)
    copies = 4 if config.averaging == 0 else 5
    size = copies * _bytes_of(model)
    if isinstance(config, SequenceConfig):
        name = "units"
    else:
        coders = _bytes_of((model.encoder, model.decoder))
        name = "encoder" if 2 * copies * coders > size else "layers"
    require_memory(size, name, "a model of this size in training")


def require_room_for_batches(config: AnyConfig, count: int) -> None:
    """Refuse batches of the `count` training examples that memory cannot hold, and too many steps.

    Raises `ValueError`, naming the setting. What is counted is what must be there at once, the
    inputs and, of circuits in motion, their states at all times; more may be needed.
    """
    steps = config.epochs * math.ceil(count / config.batch_size)
    if steps > _MOST_STEPS:
        raise ValueError(
            f"`epochs` must give at most {_MOST_STEPS} steps, not {steps}: {config.epochs} epochs "
            f"of batches of {config.batch_size}."
        )
    numbers = math.prod(input_shape(config))
    if isinstance(config, SequenceConfig) and config.model == "organics":
        numbers += input_shape(config)[0] * config.units * config.layers * _states_kept(config)
    batch = min(count, config.batch_size)
    require_memory(4 * batch * numbers, "batch_size", f"a batch of {batch}")


def _states_kept(config: SequenceConfig) -> int:
    """Of each neuron at each step: y, a, b0 and b, or with less memory only what comes out."""
    return 4 if config.memory == "more" else 1


def _bytes_of(tree) -> int:
    return sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")
    )
