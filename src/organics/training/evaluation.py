"""Evaluation of a trained model on the test set: accuracy and stability."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics import data
from organics.linear.jacobian import eigenvalues
from organics.models import Model, Predictor
from organics.names import ReadAt
from organics.nn.protocols import Linearization
from organics.training.config import AnyConfig, FileConfig
from organics.training.group import Group
from organics.training.run_folder import RunFolder
from organics.training.step import Examples, Source, floating_dtype, measure
from organics.training.task import Sets, Task, as_examples, task_of

__all__ = [
    "Evaluation", "as_examples", "build_model", "diagnose", "evaluate", "input_shape",
    "load_dataset", "load_model", "load_task", "mean_metrics", "spectral_abscissae",
]  # fmt: skip

_BATCH = 1000
_NUMBERS = 1 << 23  # of the inputs of a batch, at most
_STABILITY_BATCH = 200


class Evaluation(NamedTuple):
    """The evaluation of a trained model.

    Attributes
        summary: "dataset", "images" (of a user's data set "examples", of tasks made on the fly
            "trials", and for these "measure", "score" and "trivial_score"), "accuracy" (of numbers
            "error", as in the report), "loss" and the model's other metrics. For a user's data also
            "guessing" and, by class, the accuracies "classes", as in the report. For a model
            made of circuits also "stability": for each circuit layer its number of neurons `n`, the
            `largest_spectral_abscissa` (largest real part of any Jacobian eigenvalue at any test
            input, in 1/ms), its mean and least value over the inputs, and the fraction of test
            inputs that are `stable`. An input whose Jacobian is not finite is not stable and makes
            the values NaN. For a model of sequences, "dynamics": `SequenceClassifier.diagnose` of
            the test inputs.
        abscissae: for each circuit layer the spectral abscissa (1/ms) at every test input.
    """

    summary: dict[str, Any]
    abscissae: list[Float[np.ndarray, " inputs"]]


def evaluate(
    path: str | Path, *, with_stability: bool = True, data: str | Path | None = None
) -> Evaluation:
    """Evaluate the best model of a run on the test set, from the files in the run's folder.

    `data` is where the user's file is now, if it was moved since; a test set of its own is looked
    for beside it.

    Raises `ValueError` if the folder does not hold a run with a model, or is damaged, or if the
    user's file changed since, and `organics.data.DataUnavailable` if the data set is not available.
    """
    folder = RunFolder.open(path)
    folder.verify()
    task = task_of(folder.config if data is None else _moved(folder.config, Path(data)))
    model = load_model(folder)
    sets = task.sets(load_task(task))
    examples, count = sets.test, sets.test.size
    result = {"dataset": sets.name, sets.noun: count, **mean_metrics(model, examples, count)}
    result |= figures(model, sets, examples)
    if sets.trivial is not None:
        measure, score = sets.trivial
        result |= {"measure": measure, "score": result[measure], "trivial_score": score}
    if with_stability and (dynamics := diagnose(model, examples, count)):
        result["dynamics"] = dynamics
    sizes = model.circuit_sizes()
    if not (with_stability and sizes):
        return Evaluation(result, [])
    abscissae, stable = spectral_abscissae(model, examples)
    result["stability"] = [
        {
            "n": n,
            "largest_spectral_abscissa": float(np.max(abscissa)),
            "mean_spectral_abscissa": float(np.mean(abscissa)),
            "least_spectral_abscissa": float(np.min(abscissa)),
            "stable": float(np.mean(holds)),
        }
        for n, abscissa, holds in zip(sizes, abscissae, stable, strict=True)
    ]
    return Evaluation(result, abscissae)


def load_dataset(config: AnyConfig) -> data.Dataset:
    """The data set of a run, as its model takes it. Raises what `organics.data.load` raises."""
    return task_of(config).load()


def load_task(task: Task) -> Any:
    """The data set of a task."""
    return task.load()


def input_shape(config: AnyConfig) -> tuple[int, ...]:
    """The shape of one input: (pixels,), or (steps, values at each)."""
    return task_of(config).input_shape()


def build_model(config: AnyConfig) -> Model:
    """The untrained model of a run. Its parameters are float32 whatever JAX's default is."""
    return task_of(config).build()


def load_model(folder: RunFolder, epoch: int | None = None, task: Task | None = None) -> Any:
    """The best model of a run so far; it must be of `epoch`, if that is given. `task` builds the
    model, if the settings alone do not say how."""
    build = (task or task_of(folder.config)).build
    return folder.load_model(eqx.filter_eval_shape(build), epoch)


def figures(model: Any, sets: Sets, examples: Source) -> dict[str, Any]:
    """What there is to say about a user's data set besides the means of metrics.

    For classes: "classes", the accuracy for each of them by its name, and "guessing", that of
    always saying the commonest training class. For numbers: "error", the root mean squared error in
    the units of `y`, and "guessing", that of always saying the training mean. At every step they
    are over all steps, but what is guessed of classes is first averaged over those of each
    sequence, as the accuracy is. Empty for images.
    """
    preparation = sets.preparation
    if preparation is None:
        return {}
    assert isinstance(examples, Examples) and isinstance(sets.training, Examples)
    outputs = predictions(model, examples)
    counts = _counts(examples, model.target.at)
    wanted = np.asarray(examples.labels)[counts]
    if not preparation.classes:
        found, right = preparation.numbers(outputs[counts]), preparation.numbers(wanted)
        mean = np.array(preparation.target_mean)
        return {
            "error": _root_mean_square(found - right),
            "guessing": _root_mean_square(right - mean),
        }
    right = np.argmax(outputs, axis=-1)[counts] == wanted
    right &= np.all(np.isfinite(outputs[counts]), axis=-1)
    steps = _counts(sets.training, model.target.at)
    trained = np.asarray(sets.training.labels)[steps]
    by_class = {
        name: float(np.mean(right[wanted == i]))
        for i, name in enumerate(preparation.classes)
        if np.any(wanted == i)
    }
    guess = np.argmax(np.bincount(trained.reshape(-1), _shares(steps)))
    guessing = float(np.average((wanted == guess).reshape(-1), weights=_shares(counts)))
    return {"guessing": guessing, "classes": by_class}


def _shares(counts: Any) -> Float[np.ndarray, " steps"] | None:
    """How much each step that counts does, if all sequences do alike; `None` if all steps do."""
    if counts is ...:
        return None
    return (counts / counts.sum(axis=1, keepdims=True))[counts]


def predictions(model: Predictor, examples: Examples) -> Float[np.ndarray, "count ..."]:
    """The outputs of a model for all examples."""
    count = len(examples.labels)
    size = _at_once(examples)
    pieces = []
    for start in range(0, count, size):
        indices = jnp.arange(start, min(start + size, count), dtype=jnp.int32)
        pieces.append(np.asarray(_predict(model, examples, indices)))
    return np.concatenate(pieces)


def outputs_for(
    model: Predictor, inputs: np.ndarray, lengths: np.ndarray | None
) -> Float[np.ndarray, "count ..."]:
    """The outputs of a model for prepared inputs."""
    ends = None if lengths is None else jnp.asarray(lengths, jnp.int32)
    labels = jnp.zeros(len(inputs), jnp.int32)
    x = jnp.asarray(inputs, inputs.dtype)
    return predictions(model, Examples(x, labels, jnp.int32(1), ends))


@eqx.filter_jit
def _predict(model: Predictor, examples: Examples, indices: Array) -> Array:
    inputs, _, *lengths = examples.take(indices, floating_dtype(model))
    return model.predict(inputs, *lengths)


def _counts(examples: Examples, at: ReadAt) -> Any:
    """The index of the labels that count: at every step, those before the ends of sequences."""
    if examples.lengths is None or at == "last":
        return ...
    return np.arange(examples.inputs.shape[1]) < np.asarray(examples.lengths)[:, None]


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _at_once(examples: Source) -> int:
    """How many examples are evaluated at once."""
    return max(1, min(_BATCH, _NUMBERS // math.prod(examples.input_shape)))


def _moved(config: AnyConfig, path: Path) -> AnyConfig:
    if not isinstance(config, FileConfig):
        raise ValueError("`data` must only be given for a run on a file of your own.")
    test = str(path.with_name(Path(config.test_data).name)) if config.test_data else ""
    return dataclasses.replace(config, data=str(path), test_data=test)


def mean_metrics(
    model: Model, examples: Source, count: int, group: Group | None = None
) -> dict[str, float]:
    """Loss and metrics of a model over the first `count` examples.

    The devices of a `group`, which hold model and examples, share the work.
    """
    mesh = None if group is None else group.mesh
    totals: dict[str, float] = {}
    size = _at_once(examples)
    for start in range(0, count, size):
        stop = min(start + size, count)
        # always of one size, so that programs compiled for one set serve others
        batch = examples.part(start, stop)
        order = np.arange(stop - start, dtype=np.int32)
        indices = jnp.asarray(order, np.int32) if group is None else group.share(order)
        found = measure(model, batch, indices, mesh)
        for name, value in found.items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(order)
    return {name: total / count for name, total in totals.items()}


def diagnose(model: Model, examples: Source, count: int) -> dict[str, int | float]:
    """The model's measures of its state on the first `count` examples.

    Takes about as long as training on these examples.
    """
    indices = jnp.arange(count, dtype=jnp.int32)
    inputs, _, *further = examples.take(indices, floating_dtype(model))
    return model.diagnose(inputs, *further[:1])


def spectral_abscissae(
    model: Model, examples: Source
) -> tuple[list[Float[np.ndarray, " inputs"]], list[Bool[np.ndarray, " inputs"]]]:
    """For each circuit layer, the spectral abscissa (1/ms) at every example and whether stable."""
    pieces = []
    for indices in _batches(examples.size, _STABILITY_BATCH):
        layers = []
        for J, converged, by_theorem in jax.device_get(_linearize(model, examples, indices)):
            abscissa = np.max(np.real(eigenvalues(J)), axis=-1)
            decaying = (abscissa < 0) | (by_theorem & np.isfinite(abscissa))
            layers.append((abscissa, converged & decaying))
        pieces.append(layers)
    by_layer = [list(zip(*pairs, strict=True)) for pairs in zip(*pieces, strict=True)]
    return (
        [np.concatenate(abscissa) for abscissa, _ in by_layer],
        [np.concatenate(stable) for _, stable in by_layer],
    )


@eqx.filter_jit
def _linearize(model: Model, examples: Source, indices: Array) -> list[Linearization]:
    """`model.linearize` for each input."""
    return jax.vmap(model.linearize)(examples.take(indices, floating_dtype(model))[0])


def _batches(count: int, size: int) -> list[Array]:
    starts = range(0, count, size)
    return [jnp.arange(i, min(i + size, count), dtype=jnp.int32) for i in starts]
