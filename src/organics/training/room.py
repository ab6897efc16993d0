"""Whether a run fits: into memory, and into the numbers that count its steps."""

import math

import equinox as eqx

from organics.machine.memory import require_memory
from organics.training.config import AnyConfig
from organics.training.evaluation import build_model
from organics.training.task import bytes_of, task_of

_MOST_STEPS = 2**31 - 1  # the step is a whole number of 32 bits


def require_room_for_model(config: AnyConfig) -> None:
    """Refuse a model whose parameters, their gradient and Adam's two moments memory cannot hold.

    Raises `ValueError`, naming the setting. Nothing of that size is made.
    """
    model = eqx.filter_eval_shape(build_model, config)
    copies = 4 if config.averaging == 0 else 5
    size, name = copies * bytes_of(model), task_of(config).setting_of_size(model)
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
    task = task_of(config)
    numbers = math.prod(task.input_shape()) + task.states_kept()
    batch = min(count, config.batch_size)
    require_memory(4 * batch * numbers, "batch_size", f"a batch of {batch}")
