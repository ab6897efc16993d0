"""Static classifiers on one frozen code of MNIST, as in the work that Table 1 cites.

The paper's 94.9 and 95.2 % of supralinear networks are those of Soo & Lengyel 2022. By their public
code, an autoencoder of 784-360-120-50 units is first trained without labels and then frozen. Each
excitatory unit is driven by one of the 50 numbers, inhibitory units by a constant, and their mean
potentials in noise are read out linearly. In `table1` the encoder of every network is trained with
it, and with that a dense layer is as good.

Here all networks read the same code, of an autoencoder with their sizes and loss (binary
cross-entropy, Adam at 0.001), in batches, from the training images alone; theirs has also seen the
test images. Two supralinear networks of 50:50 are trained: in the cited form, but without noise and
without the growth of the network during training; and in the form of `table1`, with weights from
the code to all units and rates read out. The circuit with `W_r = I` stands beside them, and a dense
ReLU layer and a linear readout. All have the same optimizer, rate, schedule and number of epochs.
The circuit with learned `W_r` is not among them: at this rate its training diverges.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from organics import data
from organics.machine.lapack import single_threaded_lapack
from organics.machine.side_by_side import call_each
from organics.models import StaticClassifier
from organics.models.static import Dense
from organics.names import DatasetName
from organics.nn import SSN, Normalization
from organics.nn.protocols import StaticLayer
from organics.settings import Settings
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import Piece, kept
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.runs import accuracies, lines, where
from organics.studies.networks.static import NEAR, PAPER, percent
from organics.training import Report, fit

CIRCUIT, CITED = "ORGaNICs 50:50, W_r = I", "SSN 50:50, cited form"
RELU = "dense ReLU 50"

_Layer = Callable[[int, PRNGKeyArray], StaticLayer]
_F = np.float32

LAYERS: dict[str, _Layer | None] = {
    CITED: lambda n, key: SSN(n, n, n, key=key, drive="one-to-one", output="potentials", dtype=_F),
    "SSN 50:50, form of table1": lambda n, key: SSN(n, n, n, key=key, dtype=_F),
    CIRCUIT: lambda n, key: Normalization(n, n, key=key, dtype=_F),
    RELU: lambda n, key: Dense(n, n, key=key, dtype=_F),
    "linear readout": None,
}
"""The layer between the code and the readout of each network; the slowest come first."""


@dataclass(frozen=True)
class Trainings(Settings):
    """Train the networks on the code."""

    dataset: DatasetName = "mnist"
    """Data set to train on."""
    encoder: tuple[int, ...] = (360, 120, 50)
    """Widths of the encoder; the last is the length of the code."""
    code_epochs: int = 15
    """Epochs of the autoencoder."""
    epochs: int = 40
    """Epochs of each network."""
    batch_size: int = 256
    """Images per step."""
    learning_rate: float = 0.01
    """Largest learning rate of the networks."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds: one run of each network for each, on the same code."""


def compute(job: Job) -> Outcome:
    """Train missing runs in the folder `frozen_code` of the runs."""
    whole = Trainings(seeds=tuple(job.seed + i for i in range(3)))
    quick = replace(
        whole, dataset="digits", encoder=(16, 8), code_epochs=2, epochs=1, batch_size=150,
        seeds=(job.seed,),
    )  # fmt: skip
    return conclude(measure(quick if job.quick else whole, job))


def measure(trainings: Trainings, job: Job) -> dict[str, Any]:
    """The accuracies of all networks."""
    job.progress(0.0, "the code")
    folder = job.runs[0] / ("frozen_code-quick" if job.quick else "frozen_code")
    code(trainings, folder)
    job.progress(0.1, "networks")
    calls = [(trainings, name, folder.resolve()) for name in LAYERS]
    groups = call_each(_group, calls, job.submit)
    rows = [_row(name, folder, group) for name, group in zip(LAYERS, groups, strict=True)]
    return {
        "settings": asdict(trainings),
        "rows": rows,
        **where([report for group in groups for report in group]),
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the accuracies; `found` is the result of `measure`."""
    rows = {row["network"]: row for row in found["rows"]}
    circuit, cited = rows[CIRCUIT], rows[CITED]
    paper = PAPER["ssn", (50, 50)]
    supralinear = [row for name, row in rows.items() if name.startswith("SSN")]
    best = max(supralinear, key=lambda row: row["mean_test_accuracy"])
    checks = [
        Check(
            "the circuit is ahead of both supralinear networks",
            f"{percent(circuit)}, {best['network']} {percent(best)}",
            circuit["mean_test_accuracy"] > best["mean_test_accuracy"] + NEAR,
            tolerance=f"its mean {100 * NEAR:g} points above theirs",
        ),
        Check(
            "the circuit is ahead of a dense ReLU layer of its size",
            f"{percent(circuit)}, {percent(rows[RELU])}",
            circuit["mean_test_accuracy"] > rows[RELU]["mean_test_accuracy"] + NEAR,
            tolerance=f"its mean {100 * NEAR:g} points above the other",
        ),
        Check(
            "the supralinear network in the cited form is as accurate as cited",
            percent(cited),
            cited["mean_test_accuracy"] >= paper - NEAR,
            paper=f"{paper:.1%}",
            tolerance=f"not more than {100 * NEAR:g} points below",
            decides=False,
        ),
        Check(
            "the networks have converged",
            f"at most {100 * max(row['late_gain'] for row in rows.values()):.2f} points gained",
            max(row["late_gain"] for row in rows.values()) <= NEAR,
            tolerance=f"validation accuracy: at most {100 * NEAR:g} points in the last quarter",
            decides=False,
        ),
    ]
    here = "; ".join(f"{name} {percent(row)}" for name, row in rows.items())
    columns = ("network", "parameters", "test accuracy", "cited", "images lost in training")
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in rows.values()]))


def code(trainings: Trainings, folder: Path) -> Piece:
    """The codes `train` and `test` of all images, from 0 to 1; kept in `folder`.

    The autoencoder always has the seed 0: the code belongs to the task.
    """
    sizes = "-".join(map(str, trainings.encoder))
    name = f"code-{trainings.dataset}-{sizes}-epochs{trainings.code_epochs}"
    return kept(folder, name, lambda: _encode(trainings))


def _encode(trainings: Trainings) -> Piece:
    dataset = data.load(trainings.dataset)
    train, test = (
        jnp.asarray(dataset.pixels(images).reshape(len(images), -1))
        for images in (dataset.train_images, dataset.test_images)
    )
    model = StaticClassifier(train.shape[1], [], trainings.encoder, key=jr.key(0), dtype=_F)
    state = _OPTIMIZER.init(eqx.filter(model, eqx.is_inexact_array))
    size = trainings.batch_size
    for epoch in range(1, trainings.code_epochs + 1):
        order = data.epoch_order(len(train), 0, epoch)[: len(train) // size * size]
        batches = jnp.asarray(order.reshape(-1, size), jnp.int32)
        model, state = _one_epoch(model, state, train, batches)
    encode = eqx.filter_jit(lambda model, x: jax.vmap(model.encode)(x))
    return {"train": np.asarray(encode(model, train)), "test": np.asarray(encode(model, test))}


_OPTIMIZER = optax.adam(1e-3)


@eqx.filter_jit
def _one_epoch(model: StaticClassifier, state: Any, pixels: Array, batches: Array) -> Any:
    """The autoencoder and the state of its optimizer after one epoch."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def step(carry, indices):
        arrays, state = carry
        gradient = jax.grad(_reconstruction_loss)(arrays, static, pixels[indices])
        change, state = _OPTIMIZER.update(gradient, state)
        return (eqx.apply_updates(arrays, change), state), None

    (arrays, state), _ = jax.lax.scan(step, (arrays, state), batches)
    return eqx.combine(arrays, static), state


def _reconstruction_loss(
    arrays: Any, static: Any, x: Float[Array, "batch pixels"]
) -> Float[Array, ""]:
    """Binary cross-entropy of the pixels."""
    q = jnp.clip(jax.vmap(eqx.combine(arrays, static))(x).reconstruction, 1e-7, 1 - 1e-7)
    return -jnp.mean(x * jnp.log(q) + (1 - x) * jnp.log1p(-q))


def _group(trainings: Trainings, name: str, folder: Path) -> list[Report]:
    """The reports of one network's runs; missing ones are trained."""
    codes, dataset = code(trainings, folder), data.load(trainings.dataset)
    reports = []
    for seed in trainings.seeds:
        with single_threaded_lapack():
            fitted = fit(
                network(name, trainings.encoder[-1], jr.key(seed)),
                codes["train"],
                dataset.train_labels,
                x_test=codes["test"],
                y_test=dataset.test_labels,
                out=_folder(folder, name, seed),
                resume=True,
                progress=False,
                standardize=False,
                validation_share=0.05,
                epochs=trainings.epochs,
                batch_size=trainings.batch_size,
                learning_rate=trainings.learning_rate,
                seed=seed,
            )
        reports.append(fitted.report)
    return reports


def network(name: str, size: int, key: PRNGKeyArray) -> StaticClassifier:
    """The network called `name`, for a code of `size` numbers."""
    k_layer, k_readout = jr.split(key)
    make = LAYERS[name]
    layers = [] if make is None else [make(size, k_layer)]
    return StaticClassifier(size, layers, (), size=size, decoder=False, key=k_readout, dtype=_F)


def _folder(folder: Path, name: str, seed: int) -> Path:
    words = "".join(letter if letter.isalnum() else "-" for letter in name)
    return folder / f"{words}-seed{seed}"


def _row(name: str, folder: Path, reports: list[Report]) -> dict[str, Any]:
    metrics = [lines(_folder(folder, name, report.seed), "metrics.jsonl") for report in reports]
    gains = []
    for line in metrics:
        validated = [epoch["validation_accuracy"] for epoch in line]
        early = validated[: max(1, len(validated) * 3 // 4)]
        gains.append(max(validated) - max(early))
    return {
        "network": name,
        "parameters": reports[0].parameters,
        **accuracies(reports),
        "late_gain": round(max(gains), 6),
        "lost_in_training": [
            round(float(np.mean([epoch.get("lost", 0.0) for epoch in line])), 6) for line in metrics
        ],
        "seconds_per_epoch": [round(report.seconds_per_epoch, 3) for report in reports],
    }


def _cells(row: dict[str, Any]) -> list[str]:
    cited = f"{100 * PAPER['ssn', (50, 50)]:.1f} %" if row["network"] == CITED else ""
    lost = ", ".join(f"{fraction:.3%}" for fraction in row["lost_in_training"])
    supralinear = row["network"].startswith("SSN")
    return [
        row["network"], f"{row['parameters']:,}", percent(row), cited, lost if supralinear else "",
    ]  # fmt: skip
