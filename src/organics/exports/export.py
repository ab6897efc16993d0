"""The network of a run as a file that runs without this package."""

import dataclasses
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from organics.arguments import require_among
from organics.data.own.preparation import Preparation
from organics.errors import ExportFailed
from organics.files.atomic import require_folder_of, write_atomically
from organics.models import Predictor
from organics.names import ExportFormat
from organics.training.config import FileConfig, GivenConfig, SequenceConfig, TaskConfig
from organics.training.evaluation import build_model, input_shape
from organics.training.fitted import preparation_of
from organics.training.run_folder import RunFolder

TOLERANCE = 1e-5
_SAMPLES = 5  # for the comparison; another number than the formats are made with
_FILLED = 0.2
_LARGEST_PIXEL = 255
_HELD = 1e-3  # largest step between numbers in float32, in standard deviations


class Exported(NamedTuple):
    """What was written.

    Attributes
        path: the file.
        bytes: its size.
        input_shape, output_shape: of one call; "batch" and "steps" stand for any number.
        difference: the largest difference of an output from the network's own, for random inputs
            of two lengths, relative to 1 plus the largest output.
        checked_with: the program that ran the file for this comparison.
    """

    path: Path
    bytes: int
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    difference: float
    checked_with: str


class Network(NamedTuple):
    """A network from raw inputs to its outputs: class scores, or numbers in the units of `y`.

    Attributes
        model: its recurrence is plain.
        shape: of one input: (features,), or (steps, features), whose steps are those of training.
        preparation: how inputs and numbers were prepared; None for images.
    """

    model: Predictor
    shape: tuple[int, ...]
    preparation: Preparation | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes of inputs that may have any length."""
        return ("batch", "steps") if len(self.shape) == 2 else ("batch",)

    def __call__(self, inputs: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        prepared = self.preparation
        if prepared is None:
            return self.model.predict(inputs)
        mean, scale = _each(prepared.mean, inputs), _each(prepared.scale, inputs)
        found = self.model.predict((inputs - mean) / scale)
        if prepared.classes:
            return found
        return found * _each(prepared.target_scale, found) + _each(prepared.target_mean, found)


def export_run(path: str | Path, format: ExportFormat, out: str | Path) -> Exported:
    """Write the best network of a run to the file `out`: from raw inputs to class scores, or to
    numbers in the units of `y`, in float32.

    "stablehlo" is a program for `jax.export.deserialize`, "torch" one for `torch.export.load`, and
    "onnx" one for any ONNX runtime. Always the plain equations are exported, never a native kernel.
    It takes any number of inputs at once; sequences may have any length, the same for all of them.
    The file is run, on random inputs, before it gets its name.

    Raises `ValueError` if there is no such run or format, the format cannot hold the network, the
    numbers of the data are not held by float32, or a package is missing; and `ExportFailed` if the
    file's outputs differ by more than 1e-5.
    """
    require_among("format", format, ExportFormat)
    require_folder_of(Path(out))
    maker = import_module(f"organics.exports.as_{format}")
    folder = RunFolder.open(path)
    _require_exportable(folder)
    maker.require_packages()
    folder.verify()
    network = _network(folder)
    _require_held(folder, network.preparation)
    content = maker.make(network)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "network"
        file.write_bytes(content)
        run, checked_with = maker.runner(file)
        shapes, differences = [], []
        for shape in _shapes(network):
            inputs = _inputs(shape, network.preparation)
            if getattr(folder.config, "raw_pixels", False):
                inputs = _LARGEST_PIXEL * inputs
            want = np.asarray(eqx.filter_jit(Network.__call__)(network, jnp.asarray(inputs)))
            differences.append(_difference(run, inputs, want, network.preparation))
            shapes.append(want.shape)
    if not (difference := float(np.max(differences))) <= TOLERANCE:  # NaN, too
        raise ExportFailed(
            f"the exported file gives other outputs than the network in {path}: they differ "
            f"by {difference:.2g}, more than {TOLERANCE:g}. Nothing was written."
        )
    write_atomically(out, content)
    free = network.axes
    of_output = free if len(shapes[0]) == 3 else free[:1]
    return Exported(
        Path(out),
        len(content),
        (*free, *network.shape[len(free) - 1 :]),
        (*of_output, *shapes[0][len(of_output) :]),
        difference,
        checked_with,
    )


def _shapes(network: Network) -> list[tuple[int, ...]]:
    """Of batches for the comparison: as many steps as in training, then fewer and fewer inputs."""
    first = (_SAMPLES, *network.shape)
    if "steps" not in network.axes:
        return [first]
    steps, features = network.shape
    return [first, (_SAMPLES - 1, steps // 2 + 1, features)]


def _inputs(shape: tuple[int, ...], preparation: Preparation | None) -> np.ndarray:
    """Random numbers from 0 to 1, most of them 0, as in images of strokes; in the user's units, as
    the network takes them. Without zeros, a trained circuit may magnify rounding errors a thousand
    times along a sequence."""
    rng = np.random.default_rng(0)
    found = rng.uniform(size=shape) * (rng.uniform(size=shape) < _FILLED)
    if preparation is not None:
        found = found * np.array(preparation.scale) + np.array(preparation.mean)
    return found.astype(np.float32)


def _require_exportable(folder: RunFolder) -> None:
    """Refuse a run whose model only its own program can build."""
    if isinstance(folder.config, GivenConfig):
        raise ValueError(
            f"the run in {folder.path} trained a {folder.config.model} that was given in Python: "
            "export it there, by `jax.export`."
        )


def _require_held(folder: RunFolder, preparation: Preparation | None) -> None:
    """Refuse numbers that float32 does not hold to a small part of their deviation: the file takes
    and gives them in it, the network in Python takes them as they are."""
    if preparation is None:
        return
    given = (("x", preparation.mean, preparation.scale, preparation.features),
             ("y", preparation.target_mean, preparation.target_scale, ()))  # fmt: skip
    for name, means, scales, names in given:
        for i, (mean, scale) in enumerate(zip(means, scales, strict=True)):
            spacing = float(np.spacing(np.float32(abs(mean) + scale)))
            if not spacing <= _HELD * scale:
                what = f"`{names[i]}`" if names else f"number {i} of `{name}`"
                raise ValueError(
                    f"the run in {folder.path} cannot be exported: {what} is about {mean:.4g} with "
                    f"a deviation of {scale:.3g}, and float32, in which the file computes, has "
                    f"there only every {spacing:.3g}. Subtract an offset and train again."
                )


def _network(folder: RunFolder) -> Network:
    """The best model of a run, with its recurrence as plain equations."""
    config = folder.config
    of_sequences = isinstance(config, SequenceConfig | TaskConfig)
    if of_sequences or (isinstance(config, FileConfig) and config.steps):
        config = dataclasses.replace(config, backend="scan", memory="more", products="full")
    model = folder.load_model(eqx.filter_eval_shape(build_model, config))
    return Network(model, input_shape(config), preparation_of(folder))


def _difference(
    run: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    want: np.ndarray,
    preparation: Preparation | None,
) -> float:
    """The largest difference, relative to 1 plus the largest output; of numbers to be learned, in
    standard deviations."""
    got = run(inputs)
    if got.shape != want.shape:
        return float("inf")
    if preparation is not None and not preparation.classes:
        scale, mean = np.array(preparation.target_scale), np.array(preparation.target_mean)
        got, want = (got - mean) / scale, (want - mean) / scale
    return float(np.max(np.abs(got - want)) / (1 + np.max(np.abs(want))))


def _each(values: tuple[float, ...], like: Array) -> np.ndarray:
    """A number for each entry of the last axis of `like`."""
    return np.array(values, np.float32).reshape((1,) * (like.ndim - 1) + (-1,))
