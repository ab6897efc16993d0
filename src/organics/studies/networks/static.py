"""The static classifiers of the paper's Table 1: accuracy over seeds, stability at test inputs.

Circuits in one layer of 50, one of 80, and two of 120 and 60; multilayer perceptrons of the same
sizes; stabilized supralinear networks of 50 excitatory and 50 inhibitory units, and of 80 and 20.
Complete runs are kept, and an interrupted run continues from its last epoch.

Source: Rawat et al. 2024, Table 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from organics.machine.cluster import Submit
from organics.machine.side_by_side import call_each
from organics.names import DatasetName, ModelName, StaticRecurrence
from organics.settings import Settings
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Job
from organics.studies.networks.runs import accuracies, in_common, lines, where
from organics.training import Report, TrainConfig, evaluate, train
from organics.training.run_folder import RunFolder

SIZES: dict[ModelName, tuple[tuple[int, ...], ...]] = {
    "organics": ((50,), (80,), (120, 60)),
    "mlp": ((50,), (80,), (120, 60)),
    "ssn": ((50, 50), (80, 20)),
}
PAPER: dict[tuple[ModelName, tuple[int, ...]], float] = {
    ("organics", (50,)): 0.981,
    ("organics", (80,)): 0.982,
    ("organics", (120, 60)): 0.981,
    ("ssn", (50, 50)): 0.949,
    ("ssn", (80, 20)): 0.952,
}
"""Test accuracies of the paper's Table 1."""

NEAR = 0.005
"""How far below the paper's accuracy counts as the paper's."""


@dataclass(frozen=True)
class Networks(Settings):
    """Train the static classifiers of the paper's Table 1, with several seeds each."""

    out: Path = Path("runs/mnist_static")
    """Folder in which each run has a folder."""
    dataset: DatasetName = "mnist"
    """Data set to train on."""
    models: tuple[ModelName, ...] = ("organics", "mlp", "ssn")
    """Networks to train."""
    sizes: int | None = None
    """Only the first so many sizes of each network; by default all."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds: one run of each network and size for each ..."""
    mlp_seeds: int | None = None
    """... except the multilayer perceptrons, if given: so many of these."""
    recurrent: StaticRecurrence = "identity"
    """Recurrent weights of the circuits; the paper's are "bounded"."""
    epochs: int = 40
    """Most epochs of each run ..."""
    ssn_epochs: int = 10
    """... except the supralinear networks, whose steps take several times as long."""
    patience: int = 10
    """Epochs in a row without a better validated model, after which a run stops."""
    batch_size: int = 256
    """Images per step."""
    averaging: float = 0.999
    """Decay of the average of the parameters over the steps; 0, no average, as in the paper."""
    stability: tuple[ModelName, ...] | None = ("organics", "ssn")
    """Networks for which to compute the Jacobian's eigenvalues in every layer at every test input,
    which takes minutes."""


def quick_networks(job: Job) -> Networks:
    """Small ones, on the digits, which learn something within seconds."""
    return Networks(
        out=job.runs[0] / "mnist_static-quick",
        dataset="digits",
        models=("organics",),
        sizes=1,
        seeds=(job.seed,),
        epochs=15,
        ssn_epochs=4,
        batch_size=135,  # divides the number of images, so only one batch size is compiled
        averaging=0.9,
        stability=None,
    )


def on_data(found: dict[str, Any]) -> str:
    """The data set in words, if it is not the paper's."""
    name = found["settings"]["dataset"]
    return "" if name == "mnist" else f"on {name}, not on MNIST: "


def percent(row: dict[str, Any]) -> str:
    """Mean and standard deviation of a row's test accuracy."""
    sd = row["sd_test_accuracy"]
    mean = f"{100 * row['mean_test_accuracy']:.2f}"
    return f"{mean} %" if sd is None else f"{mean} ± {100 * sd:.2f} %"


def train_all(
    networks: Networks,
    tell: Callable[[float, str], None] | None = None,
    submit: Submit | None = None,
) -> dict[str, Any]:
    """Train and evaluate the runs that are not complete, and return the results.

    `tell` is called now and then with the fraction done and a word on the networks done; for
    `submit` see `organics.machine.side_by_side.call_each`.
    """
    if submit is not None:  # workers of a cluster have another working directory
        networks = replace(networks, out=networks.out.resolve())
    settings = [setting for model in networks.models for setting in _settings(networks, model)]
    sizes = dict.fromkeys((setting.model, setting.layers) for setting in settings)
    todo = [[s for s in settings if (s.model, s.layers) == size] for size in sizes]
    todo.sort(key=lambda group: -sum(map(_work, group)))
    call_each(
        _complete,
        [(networks, group) for group in todo],  # each group compiles its program once
        submit,
        watch=None if tell is None else partial(_watch, networks, settings, tell),
    )
    return _summary(networks, [_outcome(networks, setting) for setting in settings])


def _complete(networks: Networks, settings: list[TrainConfig]) -> None:
    for setting in settings:
        _outcome(networks, setting)


def _outcome(
    networks: Networks, setting: TrainConfig
) -> tuple[TrainConfig, Report, dict[str, Any] | None]:
    """A run's report and, if wanted, its evaluation; computed if missing."""
    folder = _folder(networks, setting)
    report = train(setting, folder, resume=True, progress=False)
    asked = setting.model in (networks.stability or ())
    return setting, report, _evaluation(folder) if asked else None


def _watch(
    networks: Networks, settings: list[TrainConfig], tell: Callable[[float, str], None]
) -> None:
    """Report the progress of the runs, from their folders."""
    done, complete = 0.0, 0
    for setting in settings:
        over, epochs = _progress(_folder(networks, setting))
        complete += over
        done += _work(setting) * (1.0 if over else epochs / setting.epochs)
    tell(done / sum(map(_work, settings)), f"{complete} of {len(settings)} networks")


def _settings(networks: Networks, model: ModelName) -> list[TrainConfig]:
    return [
        TrainConfig(
            dataset=networks.dataset,
            model=model,
            layers=layers,
            recurrent=networks.recurrent if model == "organics" else "identity",
            epochs=networks.ssn_epochs if model == "ssn" else networks.epochs,
            patience=networks.patience,
            batch_size=networks.batch_size,
            averaging=networks.averaging,
            seed=seed,
        )
        for layers in SIZES[model][: networks.sizes]
        for seed in networks.seeds[: networks.mlp_seeds if model == "mlp" else None]
    ]


def _work(setting: TrainConfig) -> float:
    """Approximate length of a run, in epochs of a network without recurrence."""
    if setting.model == "ssn":
        return 3.0 * setting.epochs
    learns = setting.model == "organics" and setting.recurrent != "identity"
    return setting.epochs * (1 + sum(setting.layers) / 130 if learns else 1.0)


def _progress(folder: Path) -> tuple[bool, int]:
    """Whether a run is complete, and the number of its complete epochs."""
    epochs = len(lines(folder, "metrics.jsonl"))
    return bool(epochs) and RunFolder.open(folder).load_report() is not None, epochs


def _folder(networks: Networks, setting: TrainConfig) -> Path:
    sizes = "-".join(str(n) for n in setting.layers)
    kind = setting.model + ("" if setting.recurrent == "identity" else f"-{setting.recurrent}")
    name = f"{kind}-{sizes}-averaging{networks.averaging:g}-patience{networks.patience}"
    return networks.out / f"{name}-seed{setting.seed}"


def _evaluation(folder: Path) -> dict[str, Any]:
    """The evaluation of a run, which takes minutes and is kept in its folder."""
    return kept_document(folder / "evaluation.json", lambda: evaluate(folder).summary)


def _summary(networks: Networks, runs) -> dict[str, Any]:
    rows = []
    for model in networks.models:
        for layers in SIZES[model][: networks.sizes]:
            group = [run for run in runs if (run[0].model, run[0].layers) == (model, layers)]
            if group:
                rows.append(_row(networks, model, layers, group))
    differing = ("model", "layers", "recurrent", "epochs", "seed")
    return {
        "settings": in_common(runs[0][0], differing),
        "rows": rows,
        **where([report for _, report, _ in runs]),
    }


def _row(networks: Networks, model: ModelName, layers: tuple[int, ...], group) -> dict[str, Any]:
    reports = [report for _, report, _ in group]
    row = {
        "model": model,
        "layers": list(layers),
        "recurrent": group[0][0].recurrent if model == "organics" else None,
        "parameters": reports[0].parameters,
        "epochs": group[0][0].epochs,
        "trained_epochs": [report.epochs for report in reports],
        **accuracies(reports),
        "paper_test_accuracy": PAPER.get((model, layers)),
        "seconds_per_epoch": [round(report.seconds_per_epoch, 3) for report in reports],
    }
    if model == "ssn":
        lost = [_lost(_folder(networks, setting)) for setting, _, _ in group]
        row["lost_in_training"] = [round(float(np.mean(steps)), 6) for steps in lost]
        row["lost_at_most_in_a_step"] = [round(float(np.max(steps)), 6) for steps in lost]
        row["lost_steps"] = [int(np.count_nonzero(steps)) for steps in lost]
        row["steps"] = [len(steps) for steps in lost]
    evaluations = [found["stability"] for _, _, found in group if found and "stability" in found]
    if evaluations:
        row["test_inputs"] = group[0][2]["images"]
        row["stability"] = [
            {
                "layer": i + 1,
                "n": layer["n"],
                "largest_spectral_abscissa_per_ms": [
                    found[i]["largest_spectral_abscissa"] for found in evaluations
                ],
                "stable_fraction": [found[i]["stable"] for found in evaluations],
            }
            for i, layer in enumerate(evaluations[0])
        ]
    return row


def _lost(folder: Path) -> list[float]:
    """The fraction of lost images at every step of a run."""
    return [fraction for line in lines(folder, "steps.jsonl") for fraction in line["lost"]]
