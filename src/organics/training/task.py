"""The tasks of runs, by the kind of settings."""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from organics import data, models
from organics.data.own.content import Content, Part
from organics.data.own.meaning import meaning
from organics.data.own.preparation import Preparation
from organics.data.own.prepared import Prepared, Shares, prepared
from organics.data.own.read import read, sum_of
from organics.data.tasks import Stream, Trivial
from organics.data.tasks import Task as MadeTask
from organics.data.tasks import build as build_task
from organics.training.config import (
    AnyConfig,
    FileConfig,
    GivenConfig,
    OwnConfig,
    SequenceConfig,
    TaskConfig,
    TrainConfig,
)
from organics.training.made import Made, Noisy, Padded
from organics.training.shifted import Layout, Shifted
from organics.training.step import Examples, Source

# streams of noise after all images, of noise on inputs, and of shifts; those below are of trials
_ONCE, _NOISE, _SHIFT = 3, 4, 5


class Sets(NamedTuple):
    """A data set as the trainer takes it.

    Attributes
        name: of the data set.
        training, validation, test: the examples.
        preparation: how they were prepared; None for images and trials.
        noun: what they are, in the plural.
        trivial: what is reached without learning, if that is known.
    """

    name: str
    training: Source
    validation: Source
    test: Source
    preparation: Preparation | None = None
    noun: str = "images"
    trivial: Trivial | None = None


def varied(examples: Source, config: AnyConfig) -> Source:
    """The examples that train, with noise on their inputs and moved if the settings ask for it."""
    if isinstance(config, TrainConfig | SequenceConfig) and config.shift:
        stream = Stream(config.seed, _SHIFT)
        examples = Shifted.of(examples, stream, _layout(config), config.shift)
    if config.input_noise:
        examples = Noisy.of(examples, Stream(config.seed, _NOISE), config.input_noise)
    return examples


def _layout(config: TrainConfig | SequenceConfig) -> Layout:
    """Where the pixels of images are in the inputs."""
    if isinstance(config, TrainConfig):
        height, width, *colours = data.image_shape(config.dataset)
        order, steps = np.arange(height * width), height * width * math.prod(colours)
    else:
        order = data.pixel_order(config.task, config.resize)
        width = math.isqrt(len(order))
        steps, _ = data.sequence_shape(config.task, config.resize, config.rows)
    return Layout(width, order, steps)


def _require_shift(config: TrainConfig | SequenceConfig, side: int) -> None:
    """Refuse a shift that leaves nothing of an image."""
    if config.shift >= side:
        raise ValueError(f"`shift` must be below {side}, the side of images, not {config.shift}.")


@runtime_checkable
class Task(Protocol):
    """What the trainer needs of a task."""

    @property
    def config(self) -> Any:
        """The settings of the run."""
        ...

    def load(self) -> Any:
        """The data set, as the model takes it. Raises `ValueError` or
        `organics.data.DataUnavailable` if there is none."""
        ...

    def sets(self, dataset: Any) -> Sets:
        """Its examples, split."""
        ...

    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        ...

    def build(self) -> models.Model:
        """The untrained model. Its parameters are float32 whatever JAX's default is."""
        ...

    def setting_of_size(self, model: Any) -> str:
        """The setting that determines the size of the model, for messages."""
        ...

    def states_kept(self) -> int:
        """How many numbers besides the input must be in memory for each example of a batch."""
        ...


def task_of(config: AnyConfig) -> Task:
    """The task of a run with these settings."""
    return _TASKS[config.kind](config)


@dataclass(frozen=True)
class Images:
    """Images, all pixels at once, (pixels,)."""

    config: TrainConfig

    def load(self) -> data.Dataset:
        return data.load(self.config.dataset)

    def sets(self, dataset: data.Dataset) -> Sets:
        return _of_images(dataset, self.input_shape())

    def input_shape(self) -> tuple[int, ...]:
        shape = data.image_shape(self.config.dataset)
        _require_shift(self.config, min(shape[:2]))
        return (math.prod(shape),)

    def build(self) -> models.Model:
        config = self.config
        return models.build(
            config.model,
            self.input_shape()[0],
            layers=config.layers,
            encoder=config.encoder,
            recurrent=config.recurrent,
            key=jr.key(config.seed),
            dtype=np.float32,
        )

    def setting_of_size(self, model: Any) -> str:
        coders = bytes_of((model.encoder, model.decoder))
        return "encoder" if 2 * coders > bytes_of(model) else "layers"

    def states_kept(self) -> int:
        return 0


@dataclass(frozen=True)
class Sequences:
    """Images as sequences, (steps, values at each)."""

    config: SequenceConfig

    def load(self) -> data.Dataset:
        config = self.config
        found = data.load_sequences(config.task, config.resize, config.rows)
        return dataclasses.replace(found, max_value=1) if config.raw_pixels else found

    def sets(self, dataset: data.Dataset) -> Sets:
        shape = self._image_shape()
        found, steps = _of_images(dataset, shape), self.config.pad_to
        if steps is None:
            return found
        fresh = self.config.noise == "fresh"
        streams = _streams(self.config.seed)

        def pad(examples: Source, stream: Stream) -> Padded:
            assert isinstance(examples, Examples)
            return Padded.of(examples, stream if fresh else Stream(0, _ONCE), steps, fresh)

        parts = {"training": found.training, "validation": found.validation, "test": found.test}
        pairs = zip(parts.items(), streams, strict=True)
        return found._replace(**{name: pad(part, stream) for (name, part), stream in pairs})

    def input_shape(self) -> tuple[int, ...]:
        shape, steps = self._image_shape(), self.config.pad_to
        if steps is not None and steps <= shape[0]:
            raise ValueError(f"`pad_to` must be more than the {shape[0]} steps of an image.")
        pixels, _ = data.sequence_shape(self.config.task, self.config.resize)
        _require_shift(self.config, math.isqrt(pixels))
        return shape if steps is None else (steps, shape[1])

    def _image_shape(self) -> tuple[int, int]:
        return data.sequence_shape(self.config.task, self.config.resize, self.config.rows)

    def build(self) -> models.Model:
        config = self.config
        steps, size = self.input_shape()
        return models.build_sequence(
            config.model,
            size,
            config.units,
            key=jr.key(config.seed),
            dtype=np.float32,
            **config.layer_options(steps),
        )

    def setting_of_size(self, model: Any) -> str:
        del model
        return "units"

    def states_kept(self) -> int:
        return _states_kept(self.config, self.input_shape()[0])


_MEASURED = 1000  # trials that validate, and as many that test


def _streams(seed: int) -> tuple[Stream, Stream, Stream]:
    """Of the examples that train, validate and test; the last two are the same for all seeds, so
    that runs can be compared."""
    return Stream(seed, 0), Stream(0, 1), Stream(0, 2)


@dataclass(frozen=True)
class Trials:
    """Trials made on the fly, (steps, values at each)."""

    config: TaskConfig

    def load(self) -> MadeTask:
        config = self.config
        given = {name: getattr(config, name) for name in ("steps", "delay", "probability")}
        return build_task(config.task, constant_input=config.constant_input, **given)

    def sets(self, dataset: MadeTask) -> Sets:
        config = self.config
        counts = (config.epoch_steps * config.batch_size, _MEASURED, _MEASURED)
        pairs = zip(_streams(config.seed), counts, strict=True)
        training, validation, test = (Made.of(dataset, stream, n) for stream, n in pairs)
        return Sets(
            dataset.name,
            training,
            validation,
            test,
            noun="trials",
            trivial=dataset.trivial,
        )

    def input_shape(self) -> tuple[int, ...]:
        task = self.load()
        return (task.steps, task.input_size)

    def build(self) -> models.Model:
        config, task = self.config, self.load()
        return models.build_sequence(
            config.model,
            task.input_size,
            config.units,
            target=task.target,
            key=jr.key(config.seed),
            dtype=np.float32,
            **config.layer_options(task.steps),
        )

    def setting_of_size(self, model: Any) -> str:
        del model
        return "units"

    def states_kept(self) -> int:
        return _states_kept(self.config, self.input_shape()[0])


class Own:
    """Examples of the user, in a file; `content` are those of the file, if it was read before."""

    def __init__(self, config: FileConfig, content: Content | None = None):
        self.config = config
        self._content = content

    @property
    def content(self) -> Content:
        """What the file holds. Raises `ValueError` if it is not the one that the run is about."""
        if self._content is None:
            path, test = Path(self.config.data), Path(self.config.test_data)
            other = test if self.config.test_data else None
            require_unchanged(self.config, path, other)
            self._content = read(path, other)
        return self._content

    def load(self) -> Prepared:
        return prepare(self.config, self.content)

    def sets(self, dataset: Prepared) -> Sets:
        return _of_own(dataset)

    def input_shape(self) -> tuple[int, ...]:
        return self.config.input_shape

    def build(self) -> models.Model:
        config = self.config
        target = models.Target(config.target, config.outputs, config.at)
        options = {"target": target, "key": jr.key(config.seed), "dtype": np.float32}
        name: Any = config.model  # of those for sequences, or of the others
        if config.steps:
            more = config.layer_options(config.steps)
            return models.build_sequence(name, config.features, config.units, **options, **more)
        recurrent: Any = config.recurrent  # identity or bounded, as is checked
        return models.build(
            name,
            config.features,
            layers=config.sizes,
            encoder=config.encoder,
            recurrent=recurrent,
            decoder=False,
            **options,
        )

    def setting_of_size(self, model: Any) -> str:
        if self.config.steps or 2 * bytes_of(model.encoder) < bytes_of(model):
            return "units"
        return "encoder"

    def states_kept(self) -> int:
        return _states_kept(self.config, self.config.steps)


class Given:
    """A model and examples that were given in Python."""

    def __init__(
        self, config: GivenConfig, model: models.Predictor, content: Content | None = None
    ):
        self.config = config
        self.model = model
        self._content = content

    def load(self) -> Prepared:
        if self._content is None:
            raise ValueError("the examples of this run were given as arrays: give them again.")
        return prepare(self.config, self._content)

    def sets(self, dataset: Prepared) -> Sets:
        return _of_own(dataset)

    def input_shape(self) -> tuple[int, ...]:
        return self.config.input_shape

    def build(self) -> models.Model:
        return self.model

    def setting_of_size(self, model: Any) -> str:
        del model
        return "model"

    def states_kept(self) -> int:
        return 0


def prepare(config: OwnConfig, content: Content) -> Prepared:
    """The content of a file, or arrays, as the settings say.

    Raises `ValueError`, naming the source, if it cannot be learned from so.
    """
    meant = meaning(content, config.target, config.at)
    shares = Shares(config.test_share, config.validation_share, config.seed)
    name = Path(config.data).stem or "arrays"
    return prepared(name, content.source, meant, shares, config.standardize, content.features)


def sums_of(path: Path, test: Path | None) -> str:
    """The SHA-256 of a file, or of the check sums of two."""
    if test is None:
        return sum_of(path)
    return hashlib.sha256((sum_of(path) + sum_of(test)).encode()).hexdigest()


def require_unchanged(config: FileConfig, path: Path, test: Path | None) -> None:
    """Refuse files that are not those of the run."""
    if sums_of(path, test) != config.data_sha256:
        both = f"{path} and {test}" if test else f"{path}"
        raise ValueError(
            f"{both} changed since the run began: the SHA-256 is no longer {config.data_sha256}."
        )


def _given_elsewhere(config: GivenConfig) -> Task:
    raise ValueError(
        f"the model of this run, {config.model}, was given in Python: load it with "
        "`organics.load_run(folder, model)`, and go on with `organics.training.fit`."
    )


_TASKS: dict[str, Callable[[Any], Task]] = {
    "images": Images,
    "sequences": Sequences,
    "made": Trials,
    "file": Own,
    "given": _given_elsewhere,
}


def as_examples(
    images: np.ndarray, labels: np.ndarray, max_value: int, shape: tuple[int, ...] = (-1,)
) -> Examples:
    """Images and labels on the device, each image as a row of pixels, or in the given shape."""
    return Examples(
        jnp.asarray(images.reshape(len(images), *shape), images.dtype),
        jnp.asarray(labels, jnp.int32),
        jnp.int32(max_value),
    )


def _of_images(dataset: data.Dataset, shape: tuple[int, ...]) -> Sets:
    images, labels, largest = dataset.train_images, dataset.train_labels, dataset.max_value
    chosen, held_out = data.split(len(labels), dataset.n_validation)
    training, validation = (
        as_examples(images[i], labels[i], largest, shape) for i in (chosen, held_out)
    )
    test = as_examples(dataset.test_images, dataset.test_labels, largest, shape)
    return Sets(dataset.name, training, validation, test)


def _of_own(dataset: Prepared) -> Sets:
    return Sets(
        dataset.name,
        _of_part(dataset.training),
        _of_part(dataset.validation),
        _of_part(dataset.test),
        dataset.preparation,
        noun="examples",
    )


def _of_part(part: Part) -> Examples:
    lengths = None if part.lengths is None else jnp.asarray(part.lengths, jnp.int32)
    x, y = (jnp.asarray(array, array.dtype) for array in (part.x, part.y))
    return Examples(x, y, jnp.int32(1), lengths)


def _states_kept(config: Any, steps: int) -> int:
    if config.memory == "less":
        return 0
    # for each neuron and step: y, a, b0 and b; for other models at least one number
    each = 4 if config.model == "organics" else 1
    return steps * config.units * config.layers * each


def bytes_of(tree: Any) -> int:
    """Size in bytes of the arrays in a tree of `jax.ShapeDtypeStruct` (from
    `eqx.filter_eval_shape`)."""
    shapes = eqx.filter(tree, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
