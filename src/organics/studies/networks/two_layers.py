"""The static classifier with layers of 120 and 60 that Figures 5 and 6 share."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from organics.circuit.circuit import Circuit
from organics.machine.lapack import single_threaded_lapack
from organics.models import Model
from organics.studies.harness.pieces import kept
from organics.studies.harness.target import Job
from organics.training import TrainConfig, train
from organics.training.checkpoint import load_tree, save_tree
from organics.training.evaluation import (
    as_examples,
    build_model,
    load_dataset,
    load_model,
    spectral_abscissae,
)
from organics.training.run_folder import RunFolder
from organics.training.step import Examples

EPOCHS = 45  # of the paper's Figure 6
LAYERS = (120, 60)
_AT_ONCE = 500  # test inputs to a piece


class Spectrum(NamedTuple):
    """The spectral abscissa (1/ms) of each layer at each test input, and whether it is stable."""

    abscissa: Float[np.ndarray, "layers inputs"]
    stable: Bool[np.ndarray, "layers inputs"]


class TwoLayers:
    """The trained network, with its model after every epoch and before the first.

    Its recurrent weights are learned, as in the paper, so no theorem says that it is stable. It is
    trained if needed; training is the fraction `share` of the job.
    """

    def __init__(self, job: Job, share: float):
        job.progress(0.0, "training")
        self.config = TrainConfig(layers=LAYERS, recurrent="bounded", epochs=EPOCHS, seed=job.seed)
        if job.quick:
            self.config = TrainConfig(
                dataset="digits",
                layers=(16, 16),  # of one size, which compiles faster
                recurrent="bounded",
                encoder=(32, 16),
                epochs=3,
                batch_size=135,  # divides the number of images, so only one batch size is compiled
                seed=job.seed,
            )
        name = "two-layers-learned-quick" if job.quick else "two-layers-learned"
        self.folder = job.runs[0] / f"{name}-seed{job.seed}"
        epochs = self.config.epochs

        def follow(epoch: int, model: Model) -> None:
            self._keep(epoch, model)
            job.progress(share * epoch / epochs, f"training, epoch {epoch} of {epochs}")

        self.report = train(self.config, self.folder, resume=True, progress=False, on_epoch=follow)

    def best(self) -> Any:
        """The model with the best validation accuracy, in float64."""
        return _in_float64(load_model(RunFolder.open(self.folder)))

    def after(self, epoch: int) -> Any:
        """The model after so many epochs, in float64."""
        path = self._path(epoch)
        if not path.exists():
            raise ValueError(
                f"{path} is missing, while the run in {self.folder} is complete: remove that "
                "folder to have it trained again."
            )
        like = eqx.filter_eval_shape(build_model, self.config)
        return _in_float64(load_tree(path, like)[0])

    def spectrum(self, model: Any, inputs: int, name: str, keep: Path) -> Spectrum:
        """The spectra of a model's circuits at the first `inputs` test inputs (at most all), in
        pieces kept in the folder `keep` under `name` and a digest of the model."""
        dataset = load_dataset(self.config)
        count = min(inputs, len(dataset.test_labels))
        arrays = map(np.ascontiguousarray, jax.tree.leaves(eqx.filter(model, eqx.is_array)))
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        name = f"{name}-{digest[:16]}"
        pieces = []
        with jax.enable_x64(True), single_threaded_lapack():
            for start in range(0, count, _AT_ONCE):
                stop = min(start + _AT_ONCE, count)
                chosen = dataset.test_images[start:stop], dataset.test_labels[start:stop]
                make = partial(_arrays, model, *chosen, dataset.max_value)
                pieces.append(kept(keep, f"{name}-{start}-{stop}", make))
        return Spectrum(
            *(np.concatenate([piece[key] for piece in pieces], axis=1) for key in Spectrum._fields)
        )

    def circuits(
        self, model: Any, layer: int, inputs: Int[np.ndarray, " inputs"]
    ) -> tuple[Circuit, Float[Array, "inputs n"]]:
        """A layer's circuits at some test inputs, stacked, and their drives, in float64."""
        dataset = load_dataset(self.config)
        examples = as_examples(
            dataset.test_images[inputs], dataset.test_labels[inputs], dataset.max_value
        )
        return _circuits(model, layer, examples)

    def _keep(self, epoch: int, model: Model) -> None:
        path = self._path(epoch)
        path.parent.mkdir(exist_ok=True)
        save_tree(path, model)

    def _path(self, epoch: int) -> Path:
        return self.folder / "epochs" / f"model-{epoch:06d}.safetensors"


@eqx.filter_jit
def _circuits(model: Any, layer: int, examples: Examples) -> tuple[Circuit, Array]:
    seen, _ = examples.take(jnp.arange(len(examples.labels)), np.float64)
    return jax.vmap(lambda x: model.circuits(x)[layer])(seen)


def _arrays(model, images, labels, max_value) -> dict[str, np.ndarray]:
    abscissae, stable = spectral_abscissae(model, as_examples(images, labels, max_value))
    return Spectrum(np.stack(abscissae), np.stack(stable))._asdict()


def _in_float64(model: Any) -> Any:
    with jax.enable_x64(True):
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), model)
