"""The demo: train on handwritten digits, certify the circuits at every test input, draw it."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from organics import data
from organics.files.lock import NAME as LOCK
from organics.files.lock import Taken, alone_in
from organics.linear.jacobian import eigenvalues, jacobian
from organics.linear_stability.certificate import diagonal_certificate
from organics.linear_stability.energy import energy
from organics.linear_stability.verification import verify
from organics.plots import abscissa_histogram, save_figure, style, training_curves, trajectory
from organics.rest.point import OperatingPoint
from organics.rest.search import steady_state
from organics.settings import Settings
from organics.simulation.ode import Trajectory, simulate
from organics.training import Report, TrainConfig, train
from organics.training.evaluation import load_model
from organics.training.run_folder import RunFolder


@dataclass(frozen=True)
class Demo(Settings):
    """Settings of the demo."""

    epochs: int = 150
    """Number of passes over the training images."""
    seed: int = 0
    """Seed of the initial parameters and of the order of the images."""

    @property
    def training(self) -> TrainConfig:
        """Two circuit layers behind a small encoder, on the embedded 8 x 8 digits."""
        return TrainConfig(
            dataset="digits",
            layers=(40, 20),
            encoder=(64, 40),
            epochs=self.epochs,
            batch_size=64,
            learning_rate=3e-3,
            schedule="cosine",
            seed=self.seed,
        )


class Proof(NamedTuple):
    """Certificates of one circuit layer at every test input, each array of shape (inputs,).

    `holds`: whether every inequality of the proof holds; `margin`: smallest eigenvalue of the
    scaled `T B + B^T T`; `abscissa`: largest real part of the Jacobian's eigenvalues, in 1/ms.
    """

    holds: np.ndarray
    margin: np.ndarray
    abscissa: np.ndarray


class Result(NamedTuple):
    """Outcome of the demo."""

    report: Report
    metrics: list[dict[str, Any]]
    proofs: list[Proof]
    verified: int  # number of certificates that an independent check confirmed
    relaxation: Trajectory
    energy: jax.Array


def compute(config: Demo, out: Path, progress: bool = True) -> Result:
    """Train in a folder below `out`, then certify.

    An interrupted demo continues, a complete one is repeated. Certificates and simulation use
    float64, with parameters trained in float32.
    """
    folder = out / f"run-epochs{config.epochs}-seed{config.seed}"
    _clear_if_complete(folder, config.training)
    report = train(config.training, folder, resume=True, progress=progress)
    run = RunFolder.open(folder)
    dataset = data.load("digits")
    with jax.enable_x64(True):
        model = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, float) if eqx.is_inexact_array(leaf) else leaf,
            jax.device_get(load_model(run)),
        )
        pixels = dataset.pixels(dataset.test_images).astype(np.float64)
        pixels = jnp.asarray(pixels.reshape(len(pixels), -1))
        certified = [certificates(model, pixels, i) for i in range(len(report.layers))]
        proofs = [proof for proof, _ in certified]
        verified = sum(verify_some(evidence, every=15) for _, evidence in certified)
        point = jax.tree.map(lambda leaf: leaf[0], certified[0][1][0])
        relaxation = simulate(point.system, point.z, 40.0)
        energies = _energies(point, relaxation)
    return Result(report, list(run.lines("metrics.jsonl")), proofs, verified, relaxation, energies)


def _clear_if_complete(folder: Path, training: TrainConfig) -> None:
    """Remove a complete run, so that it is repeated. A run in use by another process is left for
    `train` to refuse."""
    with suppress(Taken), alone_in(folder):
        if (folder / "report.json").exists() and RunFolder.open(folder).config == training:
            for path in [path for path in folder.iterdir() if path.name != LOCK]:
                path.unlink()


def certificates(model: Any, inputs: jax.Array, layer: int) -> tuple[Proof, tuple]:
    """Certificates of one circuit layer at every input; `inputs` has shape (inputs, pixels).

    Also returns the operating points and `T`, for `verify`.
    """
    J, holds, margin, evidence = _construct(model, inputs, layer)
    abscissa = np.real(eigenvalues(np.asarray(J))).max(axis=1)
    return Proof(np.asarray(holds) & (abscissa < 0), np.asarray(margin), abscissa), evidence


@eqx.filter_jit
def _construct(model: Any, inputs: jax.Array, layer: int):
    def at(x):
        circuit, z = model.circuits(x)[layer]
        point = steady_state(circuit, z)
        T, margin, checks = diagonal_certificate(point)
        holds = point.converged & jnp.all(jnp.stack(list(checks.values())))
        return jacobian(circuit, point.state), holds, margin, (point, T)

    return jax.vmap(at)(inputs)


def verify_some(evidence: tuple, every: int) -> int:
    """How many certificates an independent check accepts; raises `ArithmeticError` at a bad one."""
    evidence = jax.device_get(evidence)
    chosen = range(0, len(evidence[-1]), every)
    for i in chosen:
        outcome = verify(*jax.tree.map(lambda leaf, i=i: leaf[i], evidence))
        if not outcome.valid:
            raise ArithmeticError(f"a certificate was refused: {', '.join(outcome.failures)}.")
    return len(chosen)


@eqx.filter_jit
def _energies(point: OperatingPoint, relaxation: Trajectory):
    return jax.vmap(lambda state: energy(point, state))(relaxation.state)


@style()
def draw(result: Result) -> Figure:
    """Learning, stability at every test input, and one circuit coming to rest."""
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    (learning, spectrum), (potentials, energies) = figure.subplots(2, 2)
    epochs = [line["epoch"] for line in result.metrics]
    for name, label in (("accuracy", "training"), ("validation_accuracy", "validation")):
        learning.plot(epochs, [100 * line[name] for line in result.metrics], label=label)
    learning.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 101))
    learning.set_title("trained without gradient clipping")
    learning.legend(loc="lower right")
    names = [f"layer {i + 1} (n = {n})" for i, n in enumerate(result.report.layers)]
    abscissae = [proof.abscissa for proof in result.proofs]
    abscissa_histogram(dict(zip(names, abscissae, strict=True)), axes=spectrum)
    holds = np.concatenate([proof.holds for proof in result.proofs])
    spectrum.set_title(f"{holds.sum()} of {holds.size} circuits certified stable", pad=18)
    t, y = np.asarray(result.relaxation.t), np.asarray(result.relaxation.state.y)
    potentials.plot(t, y, linewidth=0.7)
    potentials.set(xlabel="time (ms)", ylabel="$y$", xlim=(t[0], t[-1]))
    potentials.set_title("layer 1 sees a digit and comes to rest")
    energies.semilogy(t, np.maximum(result.energy, 1e-16))
    energies.set(xlabel="time (ms)", ylabel="energy", xlim=(t[0], t[-1]))
    energies.set_title("its energy meanwhile")
    return figure


def save(result: Result, folder: Path) -> list[Path]:
    """Write the pictures into `folder`."""
    relaxation = result.relaxation
    y, a = np.asarray(relaxation.state.y), np.asarray(relaxation.state.a)
    names = [f"layer {i + 1}" for i in range(len(result.proofs))]
    abscissae = {name: p.abscissa for name, p in zip(names, result.proofs, strict=True)}
    figures = {
        "demo.png": draw(result),
        "training.png": training_curves(result.metrics),
        "stability.png": abscissa_histogram(abscissae),
        "relaxation.png": trajectory(np.asarray(relaxation.t), y, a),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    return [folder / name for name in figures]
