"""The compiled part of training: loss, gradient, update, and their record."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int, Num, PyTree

from organics.data.order import epoch_order
from organics.models import Model
from organics.nn import trainable
from organics.training.config import AnyConfig
from organics.training.group import AXIS, batch_spec

Metrics = dict[str, Array]

_SAME = PartitionSpec()  # the same on all devices


@runtime_checkable
class Source(Protocol):
    """Numbered examples, wherever they come from: a tree whose arrays may be on devices."""

    @property
    def size(self) -> int:
        """How many there are, in an epoch."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        ...

    def order(self, seed: int, epoch: int) -> Int[np.ndarray, " size"]:
        """The numbers of the examples of an epoch, in their order."""
        ...

    def part(self, start: int, stop: int) -> "Source":
        """Some of them, with numbers from 0."""
        ...

    def take(self, indices: Int[Array, " batch"], dtype: Any) -> tuple[Any, ...]:
        """The arguments of the loss of a model for some of them: inputs, labels, then, if there are
        any, `lengths` and what else there is."""
        ...


class Examples(NamedTuple):
    """Examples on the device, or about to be put there.

    Attributes
        inputs: pixels as integers from 0 to `max_value`, or other numbers, with a `max_value` of 1.
        labels: numbers of classes, or numbers to be predicted.
        lengths: number of steps of each sequence; None if all have full length.
    """

    inputs: Num[Array, "count ..."]
    labels: Num[Array, "count ..."]
    max_value: Int[Array, ""]
    lengths: Int[Array, " count"] | None = None

    @functools.partial(jax.jit, static_argnums=2)
    def take(self, indices: Int[Array, " batch"], dtype) -> tuple[Array, ...]:
        """What the loss of a model takes for some of the examples: inputs divided by `max_value`,
        labels, and `lengths` if there are any."""
        indices = indices % self.size
        inputs = self.inputs[indices].astype(dtype) / self.max_value.astype(dtype)
        labels = self.labels[indices]
        if jnp.issubdtype(labels.dtype, jnp.inexact):
            labels = labels.astype(dtype)
        return (inputs, labels, *([] if self.lengths is None else [self.lengths[indices]]))

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.inputs.shape[1:]

    def order(self, seed: int, epoch: int) -> Int[np.ndarray, " size"]:
        """All of them, in another order for every seed and epoch. The numbers modulo their count
        are those of the examples, and differ between epochs."""
        rounds = (2**31 - 1) // self.size  # that a number of 32 bits holds
        order = epoch_order(self.size, seed, epoch) + epoch % rounds * self.size
        return order.astype(np.int32)

    def part(self, start: int, stop: int) -> "Examples":
        """Those from `start` to before `stop`."""
        lengths = None if self.lengths is None else self.lengths[start:stop]
        some = slice(start, stop)
        return Examples(self.inputs[some], self.labels[some], self.max_value, lengths)


class TrainState(eqx.Module):
    """Everything that changes in training. All randomness is a function of the seed and `step`.

    `average` is the exponential average of the model's parameters over the steps, with decay
    `averaging` per step; `None` if that is 0.
    """

    model: Model
    average: Model | None
    optimizer: PyTree
    step: Int[Array, ""]
    averaging: float = eqx.field(static=True)

    @property
    def evaluated(self) -> Model:
        """The model that is validated, tested and saved: the average, if there is one."""
        return self.model if self.average is None else self.average


def make_optimizer(config: AnyConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer with weight decay, over a run of so many steps.

    If the settings say so (`clipped_at`), the gradient is first clipped to that norm.
    """
    kind = config.optimizer, config.momentum
    return _optimizer(kind, config.weight_decay, config.clipped_at, _course(config, steps))


def learning_rate(config: AnyConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of `steps` steps."""
    return _course(config, steps).schedule()


class _Course(NamedTuple):
    """The course of the learning rate, and the settings that decide it."""

    name: str
    rate: float
    steps: int = 0
    steps_per_epoch: int = 0
    drops: tuple[int, ...] = ()
    factor: float = 1.0

    def schedule(self) -> optax.Schedule:
        return _SCHEDULES[self.name](self)


def _course(config: AnyConfig, steps: int) -> _Course:
    course = _Course(config.schedule, config.learning_rate)
    if config.schedule == "constant":
        return course  # whatever the length of the run
    course = course._replace(steps=steps, steps_per_epoch=steps // config.epochs)
    if config.schedule != "drops":
        return course
    return course._replace(drops=config.drops, factor=config.drop_factor)


@functools.cache  # compiled programs are reused only with the same optimizer object
def _optimizer(
    kind: tuple[str, float], decay: float, clip_norm: float | None, course: _Course
) -> optax.GradientTransformation:
    (name, momentum), rate = kind, course.schedule()
    clip = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    if name == "adamw":
        return optax.chain(*clip, optax.adamw(rate, weight_decay=decay))
    if name == "adam":
        steps = optax.adam(rate)
    elif name == "sgd":
        steps = optax.sgd(rate, momentum or None)
    else:  # as its authors and PyTorch have it, from no gradients seen; here `eps` is in the root
        steps = optax.adagrad(rate, initial_accumulator_value=0.0, eps=1e-20)
    return optax.chain(*clip, optax.add_decayed_weights(decay), steps)


def _trapezoid(course: _Course) -> optax.Schedule:
    rate, steps = course.rate, course.steps
    warm, fall = steps // 20, steps - steps * 3 // 10
    parts = [
        optax.linear_schedule(rate / 10, rate, warm),
        optax.constant_schedule(rate),
        optax.linear_schedule(rate, 0, steps - fall),
    ]
    return optax.join_schedules(parts, [warm, fall])


_SCHEDULES: dict[str, Callable[[_Course], optax.Schedule]] = {
    "constant": lambda c: optax.constant_schedule(c.rate),
    "step": lambda c: optax.exponential_decay(c.rate, 30 * c.steps_per_epoch, 0.8, staircase=True),
    "drops": lambda c: optax.piecewise_constant_schedule(
        c.rate, {epoch * c.steps_per_epoch: c.factor for epoch in c.drops}
    ),
    "cosine": lambda c: optax.cosine_decay_schedule(c.rate, c.steps),
    "warmup-cosine": lambda c: optax.warmup_cosine_decay_schedule(
        c.rate / 10, c.rate, c.steps // 10, c.steps
    ),
    "trapezoid": _trapezoid,
}


def initial_state(
    model: Model, optimizer: optax.GradientTransformation, averaging: float = 0.0
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        model=model,
        average=model if averaging > 0 else None,
        optimizer=_begin(optimizer, _trained(model)),
        step=jnp.int32(0),
        averaging=averaging,
    )


@eqx.filter_jit
def _begin(optimizer: optax.GradientTransformation, parameters: PyTree) -> PyTree:
    return optimizer.init(parameters)


def floating_dtype(model: PyTree) -> jnp.dtype:
    """Floating-point type of the model's parameters."""
    return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))[0].dtype


@eqx.filter_jit  # traced once for `metric_dtypes` and `advance` together
def update(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    batch: tuple[Any, ...],
    axis: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One training step on a batch, the arguments of the model's loss, or on equal shares of it on
    the devices along `axis`.

    The metrics are "loss", "gradient_norm", those of the model's `loss` and those of its `monitor`,
    all for the model before the step.
    """

    def loss_of(model):
        found = model.loss(*batch)
        # average before differentiating, so that the gradient is that of the whole batch
        return found if axis is None else jax.lax.pmean(found, axis)

    (loss, metrics), gradient = eqx.filter_value_and_grad(loss_of, has_aux=True)(state.model)
    gradient = _trained(gradient)
    change, optimizer_state = optimizer.update(gradient, state.optimizer, _trained(state.model))
    model = eqx.apply_updates(state.model, change)
    metrics = {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradient),
        **metrics,
        **state.model.monitor(),
    }
    step = state.step + 1
    average = state.average
    if average is not None:
        average = _move(average, model, state.averaging, step)
    return TrainState(model, average, optimizer_state, step, state.averaging), metrics


def _move(average: Model, model: Model, averaging: float, step: Array) -> Model:
    # at first average only over the steps so far, to forget the random start
    taken = step.astype(floating_dtype(model))
    weight = 1 - jnp.minimum(averaging, taken / (9 + taken))

    # `optax.incremental_update` rounds differently, which would change existing results and
    # slightly move parameters that are not trained
    def move(old, new):
        return old + weight.astype(old.dtype) * (new - old) if eqx.is_inexact_array(old) else new

    return jax.tree.map(move, average, model)


@eqx.filter_jit
def advance(
    carry: tuple[TrainState, Metrics],
    optimizer: optax.GradientTransformation,
    examples: Source,
    order: Int[Array, "steps batch"],
    first: Int[Array, ""],
    last: Int[Array, ""],
    mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
    """Run the steps from `first` to before `last`; row i of `order` has the examples of batch i.

    `carry` is the state and the record: for every metric an array (steps,) that receives its
    values. The bounds are traced, so one compilation serves pieces of any length. The devices of
    `mesh` share every batch and all take the same step; a batch that cannot be shared equally is
    computed whole by each.
    """
    arrays, static = eqx.partition(carry[0], eqx.is_array)
    dtype = floating_dtype(carry[0].model)
    axis = None if mesh is None else AXIS

    def run(arrays, record, examples, order, first, last):
        def step(i, carry):
            arrays, record = carry
            batch = examples.take(order[i], dtype)
            state = eqx.combine(arrays, static)
            state, metrics = update(state, optimizer, batch, axis)
            record = {name: values.at[i].set(metrics[name]) for name, values in record.items()}
            return eqx.filter(state, eqx.is_array), record

        return jax.lax.fori_loop(first, last, step, (arrays, record))

    spec = batch_spec(order.shape[1], mesh, axis=1)
    everywhere = _on_all(run, mesh, (_SAME, _SAME, _SAME, spec, _SAME, _SAME))
    arrays, record = everywhere(arrays, carry[1], examples, order, first, last)
    return eqx.combine(arrays, static), record


def _on_all(function: Any, mesh: Mesh | None, specs: tuple[PartitionSpec, ...]) -> Any:
    """`function` on every device, with its arguments distributed as `specs` say.

    JAX checks that the results are the same on all devices.
    """
    if mesh is None:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=_SAME)


def metric_dtypes(
    state: TrainState, optimizer: optax.GradientTransformation, examples: Source, batch: int = 1
) -> dict[str, jnp.dtype]:
    """The names and types of the metrics that `update` returns for a batch."""

    def shape(state):
        taken = examples.take(jnp.zeros(batch, jnp.int32), floating_dtype(state.model))
        return update(state, optimizer, taken)[1]

    return {name: value.dtype for name, value in eqx.filter_eval_shape(shape, state).items()}


@eqx.filter_jit
def measure(
    model: Model,
    examples: Source,
    indices: Int[Array, " batch"],
    mesh: Mesh | None = None,
) -> Metrics:
    """The loss and the metrics of a model on some of the examples, shared as in `advance`."""
    arrays, static = eqx.partition(model, eqx.is_array)
    dtype = floating_dtype(model)

    def run(arrays, examples, indices):
        loss, metrics = eqx.combine(arrays, static).loss(*examples.take(indices, dtype))
        found = {"loss": loss, **metrics}
        return found if mesh is None else jax.lax.pmean(found, AXIS)

    everywhere = _on_all(run, mesh, (_SAME, _SAME, batch_spec(len(indices), mesh)))
    return everywhere(arrays, examples, indices)


def _trained(tree: PyTree) -> PyTree:
    """The trained leaves of a model or of a gradient; None elsewhere."""
    return eqx.filter(tree, trainable(tree))
