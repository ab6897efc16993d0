"""The network of a run as a file that runs without this package."""

import dataclasses
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from organics.arguments import require_among
from organics.errors import ExportFailed
from organics.files.atomic import write_atomically
from organics.models import StaticClassifier
from organics.names import ExportFormat
from organics.training.config import SequenceConfig
from organics.training.evaluation import build_model, input_shape
from organics.training.run_folder import RunFolder

TOLERANCE = 1e-5
_SAMPLES = 5  # for the comparison; another number than the formats are made with
_FILLED = 0.2


class Exported(NamedTuple):
    """What was written.

    Attributes
        path: the file.
        bytes: its size.
        input_shape, output_shape: of one call; "batch" stands for any number.
        difference: the largest difference of a class score from the network's own, for random
            inputs, relative to 1 plus the largest score.
        checked_with: the program that ran the file for this comparison.
    """

    path: Path
    bytes: int
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    difference: float
    checked_with: str


def export_run(path: str | Path, format: ExportFormat, out: str | Path) -> Exported:
    """Write the best network of a run to the file `out`: from inputs to class scores, in float32.

    "stablehlo" is a program for `jax.export.deserialize`, "torch" one for `torch.export.load`, and
    "onnx" one for any ONNX runtime. Always the plain equations are exported, never a native kernel.
    The file is run, on random inputs, before it gets its name.

    Raises `ValueError` if there is no such run or format, the format cannot hold the network, or a
    package is missing; and `ExportFailed` if the file's scores differ by more than 1e-5.
    """
    require_among("format", format, ExportFormat)
    maker = import_module(f"organics.exports.as_{format}")
    folder = RunFolder.open(path)
    maker.require_packages()
    folder.verify()
    model, shape = _plain(folder), input_shape(folder.config)
    content = maker.make(model, shape)
    inputs = _inputs((_SAMPLES, *shape))
    want = np.asarray(eqx.filter_jit(scores)(model, jnp.asarray(inputs)))
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "network"
        file.write_bytes(content)
        run, checked_with = maker.runner(file)
        difference = _difference(run, inputs, want)
    if not difference <= TOLERANCE:
        raise ExportFailed(
            f"the exported file gives other class scores than the network in {path}: they differ "
            f"by {difference:.2g}, more than {TOLERANCE:g}. Nothing was written."
        )
    write_atomically(out, content)
    shapes = ("batch", *shape), ("batch", want.shape[1])
    return Exported(Path(out), len(content), *shapes, difference, checked_with)


def _inputs(shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers from 0 to 1, most of them 0, as in images of strokes. Without zeros, a trained
    circuit may magnify rounding errors a thousand times along a sequence."""
    rng = np.random.default_rng(0)
    return (rng.uniform(size=shape) * (rng.uniform(size=shape) < _FILLED)).astype(np.float32)


def scores(model: Any, inputs: Float[Array, "batch ..."]) -> Float[Array, "batch classes"]:
    """The class scores of a network of either kind."""
    if isinstance(model, StaticClassifier):
        return jax.vmap(lambda x: model(x).logits)(inputs)
    return model(inputs)


def _plain(folder: RunFolder) -> Any:
    """The best model of a run, with its recurrence as plain equations."""
    config = folder.config
    if isinstance(config, SequenceConfig):
        config = dataclasses.replace(config, backend="scan", memory="more")
    return folder.load_model(eqx.filter_eval_shape(build_model, config))


def _difference(
    run: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, want: np.ndarray
) -> float:
    got = run(inputs)
    if got.shape != want.shape:
        return float("inf")
    return float(np.max(np.abs(got - want)) / (1 + np.max(np.abs(want))))
