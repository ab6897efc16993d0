"""Evaluation of a trained model on the test set: accuracy and stability."""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics import data
from organics.linear.jacobian import eigenvalues
from organics.models import Model
from organics.nn.protocols import Linearization
from organics.training.config import AnyConfig
from organics.training.group import Group
from organics.training.run_folder import RunFolder
from organics.training.step import Examples, floating_dtype, measure
from organics.training.task import task_of

_BATCH = 1000
_STABILITY_BATCH = 200


class Evaluation(NamedTuple):
    """The evaluation of a trained model.

    Attributes
        summary: "dataset", "images", "accuracy", "loss" and the model's other metrics. For a model
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


def evaluate(path: str | Path, *, with_stability: bool = True) -> Evaluation:
    """Evaluate the best model of a run on the test set, from the files in the run's folder.

    Raises `ValueError` if the folder does not hold a run with a model, or is damaged, and
    `organics.data.DataUnavailable` if the data set is not available.
    """
    folder = RunFolder.open(path)
    folder.verify()
    model = load_model(folder)
    dataset = load_dataset(folder.config)
    shape = input_shape(folder.config)
    examples = as_examples(dataset.test_images, dataset.test_labels, dataset.max_value, shape)
    count = len(dataset.test_labels)
    result = {"dataset": dataset.name, "images": count, **mean_metrics(model, examples, count)}
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


def input_shape(config: AnyConfig) -> tuple[int, ...]:
    """The shape of one input: (pixels,), or (steps, values at each)."""
    return task_of(config).input_shape()


def build_model(config: AnyConfig) -> Model:
    """The untrained model of a run. Its parameters are float32 whatever JAX's default is."""
    return task_of(config).build()


def load_model(folder: RunFolder, epoch: int | None = None) -> Any:
    """The best model of a run so far; it must be of `epoch`, if that is given."""
    return folder.load_model(eqx.filter_eval_shape(build_model, folder.config), epoch)


def as_examples(
    images: np.ndarray, labels: np.ndarray, max_value: int, shape: tuple[int, ...] = (-1,)
) -> Examples:
    """Images and labels on the device, each image as a row of pixels, or in the given shape."""
    return Examples(
        jnp.asarray(images.reshape(len(images), *shape), images.dtype),
        jnp.asarray(labels, jnp.int32),
        jnp.int32(max_value),
    )


def mean_metrics(
    model: Model, examples: Examples, count: int, group: Group | None = None
) -> dict[str, float]:
    """Loss and metrics of a model over the first `count` examples.

    The devices of a `group`, which hold model and examples, share the work.
    """
    mesh = None if group is None else group.mesh
    totals: dict[str, float] = {}
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        pixels, labels, max_value = examples
        # always of one size, so that programs compiled for one set serve others
        batch = Examples(pixels[start:stop], labels[start:stop], max_value)
        order = np.arange(stop - start, dtype=np.int32)
        indices = jnp.asarray(order, np.int32) if group is None else group.share(order)
        found = measure(model, batch, indices, mesh)
        for name, value in found.items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(order)
    return {name: total / count for name, total in totals.items()}


def diagnose(model: Model, examples: Examples, count: int) -> dict[str, int | float]:
    """The model's measures of its state on the first `count` examples.

    Takes about as long as training on these examples.
    """
    indices = jnp.arange(count, dtype=jnp.int32)
    return model.diagnose(examples.take(indices, floating_dtype(model))[0])


def spectral_abscissae(
    model: Model, examples: Examples
) -> tuple[list[Float[np.ndarray, " inputs"]], list[Bool[np.ndarray, " inputs"]]]:
    """For each circuit layer, the spectral abscissa (1/ms) at every example and whether stable."""
    pieces = []
    for indices in _batches(len(examples.labels), _STABILITY_BATCH):
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
def _linearize(model: Model, examples: Examples, indices: Array) -> list[Linearization]:
    """`model.linearize` for each input."""
    return jax.vmap(model.linearize)(examples.take(indices, floating_dtype(model))[0])


def _batches(count: int, size: int) -> list[Array]:
    starts = range(0, count, size)
    return [jnp.arange(i, min(i + size, count), dtype=jnp.int32) for i in starts]
