"""Checks whether a run fits into memory, and its steps into a 32-bit counter."""

import math

import equinox as eqx

from organics.machine.memory import require_memory
from organics.training.task import Task, bytes_of

_MOST_STEPS = 2**31 - 1  # the step is a whole number of 32 bits


def require_room_for_model(task: Task) -> None:
    """Refuse a model if its parameters, their gradient and what the optimizer keeps of it do not
    fit into memory.

    Raises `ValueError`, naming the setting, without allocating anything of that size.
    """
    model = eqx.filter_eval_shape(task.build)
    config = task.config
    moments = {"sgd": int(config.momentum > 0), "adagrad": 1}.get(config.optimizer, 2)
    copies = 2 + moments + (config.averaging > 0)
    size, name = copies * bytes_of(model), task.setting_of_size(model)
    require_memory(size, name, "a model of this size in training")


def require_room_for_batches(task: Task, count: int) -> None:
    """Refuse batches of the `count` training examples that do not fit into memory, and too many
    steps.

    Raises `ValueError`, naming the setting. Counts what must be in memory at once: the inputs and,
    for recurrent layers, the states at all steps; more may be needed.
    """
    config = task.config
    steps = config.epochs * math.ceil(count / config.batch_size)
    if steps > _MOST_STEPS:
        raise ValueError(
            f"`epochs` must give at most {_MOST_STEPS} steps, not {steps}: {config.epochs} epochs "
            f"of batches of {config.batch_size}."
        )
    numbers = math.prod(task.input_shape()) + task.states_kept()
    batch = min(count, config.batch_size)
    require_memory(4 * batch * numbers, "batch_size", f"a batch of {batch}")
