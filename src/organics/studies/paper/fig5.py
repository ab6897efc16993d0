"""Stability of a trained two-layer network at every test input.

The spectral abscissa (largest real part of the Jacobian's eigenvalues) of each layer's circuit at
its steady state for each test input, with time constants of 2 ms; also before training. Circuits
with an unstable steady state are simulated, and the worst one is written beside the results.

Source: Rawat et al. 2024, Figure 5.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from organics.circuit.file import save_circuit
from organics.files.plain import rounded
from organics.machine.lapack import single_threaded_lapack
from organics.plots import BLACK, BLUE, COLUMN, GREY, ORANGE, letter, style
from organics.rest.search import steady_state
from organics.simulation.resting import comes_to_rest
from organics.studies.harness.target import Check, Job, Outcome
from organics.studies.networks.two_layers import Spectrum, TwoLayers

PAPER = (-0.295, -0.23)  # of layer 1, read off the figure
NEAR = 0.03  # 1/ms, of either end
INPUTS, INITIAL, QUICK_INPUTS = 10_000, 2_000, 50  # as many as in Figure 6, to compile once
_TIME = 4000.0  # ms, simulated
_SIMULATED = 50  # at most, of each layer
_BIN = 0.0025  # 1/ms, its width


def compute(job: Job) -> Outcome:
    """Train the network if needed, and compute its spectra."""
    network = TwoLayers(job, share=0.3)
    inputs, initial = (QUICK_INPUTS,) * 2 if job.quick else (INPUTS, INITIAL)
    job.progress(0.3, "the trained network")
    best = network.best()
    trained = network.spectrum(best, inputs, "trained", job.folder)
    job.progress(0.9, "the initial network")
    untrained = network.spectrum(network.after(0), initial, "initial", job.folder)
    unstable = [row for layer in range(2) for row in _unstable(job, network, best, layer, trained)]
    return conclude(trained, untrained, network.report.test_accuracy, unstable)


def conclude(
    trained: Spectrum, initial: Spectrum, test_accuracy: float, unstable: list[dict[str, Any]]
) -> Outcome:
    """Checks of the spectra of the trained and the initial network, and of simulations of unstable
    circuits of the trained one."""
    found = {"trained": trained, "initial": initial}
    inputs, largest = trained.abscissa.shape[1], trained.abscissa.max(axis=1)
    quantiles = [0.0, 0.01, 0.5, 0.99, 1.0]
    numbers = {
        "test_accuracy": test_accuracy,
        "tau_ms": 2.0,
        "inputs": {name: spectrum.abscissa.shape[1] for name, spectrum in found.items()},
        "stable": {name: spectrum.stable.sum(axis=1) for name, spectrum in found.items()},
        "quantiles": quantiles,
        "abscissa_per_ms": {
            name: np.quantile(spectrum.abscissa, quantiles, axis=1).T.round(5)
            for name, spectrum in found.items()
        },
        "histograms": {"trained": _histograms(trained)},
        "unstable": unstable,
    }
    here = (
        f"test accuracy {test_accuracy:.1%}: "
        f"stable at {np.all(trained.stable, axis=0).sum():,} of {inputs:,} test inputs; largest "
        f"{largest[0]:.3f} (layer 1) and {largest[1]:.3f} (layer 2) per ms"
    )
    checks = [
        *(_layer_check(trained, layer) for layer in range(2)),
        _initial_check(initial),
        _place_check(trained),
        *([_rest_check(unstable)] if unstable else []),
    ]
    return Outcome(here, checks, numbers)


def _layer_check(trained: Spectrum, layer: int) -> Check:
    stable, abscissa = trained.stable[layer], trained.abscissa[layer]
    return Check(
        f"layer {layer + 1} of the trained network is stable at every test input",
        f"{stable.sum():,} of {len(stable):,}, largest abscissa {abscissa.max():.3f} per ms",
        bool(np.all(stable) and abscissa.max() < 0),
        paper="all",
        tolerance="steady state found, and max Re lambda < 0",
    )


def _initial_check(initial: Spectrum) -> Check:
    return Check(
        "so is the network before training",
        f"{np.all(initial.stable, axis=0).sum():,} of {initial.stable.shape[1]:,}, "
        f"largest abscissa {initial.abscissa.max():.3f} per ms",
        bool(np.all(initial.stable)),
        tolerance="the same, in both layers",
        decides=False,
    )


def _place_check(trained: Spectrum) -> Check:
    low, high = np.quantile(trained.abscissa[0], [0.01, 0.99])
    return Check(
        "after training, layer 1 is where the paper has it",
        f"98 % of the inputs from {low:.3f} to {high:.3f} per ms",
        bool(abs(low - PAPER[0]) <= NEAR and abs(high - PAPER[1]) <= NEAR),
        paper=f"about {PAPER[0]} to {PAPER[1]} per ms",
        tolerance=f"both ends within {NEAR:g} per ms",
        decides=False,
    )


def _rest_check(unstable: list[dict[str, Any]]) -> Check:
    resting = sum(row["comes_to_rest"] for row in unstable)
    return Check(
        "circuits whose steady state is unstable come to rest at another",
        f"{resting} of {len(unstable)}",
        resting == len(unstable),
        tolerance=f"in simulations of {_TIME / 1000:g} s from six states",
        decides=False,
    )


def _unstable(
    job: Job, network: TwoLayers, model: Any, layer: int, trained: Spectrum
) -> list[dict[str, Any]]:
    """Whether the unstable circuits of a layer, worst first, come to rest in simulations. Writes
    the worst one to a file for `organics analyze`."""
    order = np.argsort(-trained.abscissa[layer], kind="stable")
    inputs = order[~trained.stable[layer][order]][:_SIMULATED]
    if not len(inputs):
        return []
    with jax.enable_x64(True), single_threaded_lapack():
        circuits, drives = network.circuits(model, layer, inputs)
        states = jax.jit(jax.vmap(steady_state))(circuits, drives).state
        rests = comes_to_rest(circuits, drives, states, _TIME, seed=job.seed)
        worst, z = jax.tree.map(lambda leaf: leaf[0], (circuits, drives))
    file = Path("fig5") / f"layer{layer + 1}-input{inputs[0]}.json"
    (job.out / file).parent.mkdir(parents=True, exist_ok=True)
    save_circuit(job.out / file, worst, z)
    return [
        {
            "layer": layer + 1,
            "input": int(i),
            "abscissa_per_ms": rounded(trained.abscissa[layer, i]),
            "comes_to_rest": bool(rests[k]),
            "file": str(file) if k == 0 else None,
        }
        for k, i in enumerate(inputs)
    ]


@style()
def draw(outcome: Outcome) -> Figure:
    """Share of the test inputs by their spectral abscissa, a panel for each layer; its range
    before training, too narrow for a histogram; where the paper has layer 1 after training.
    """
    figure = Figure(figsize=(2 * COLUMN, 2.4))
    panels = figure.subplots(1, 2)
    for i, axes in enumerate(panels):
        least, *_, largest = outcome.numbers["abscissa_per_ms"]["initial"][i]
        axes.axvspan(least, largest, color=ORANGE, linewidth=1.5, label="range before training")
        histogram = outcome.numbers["histograms"]["trained"][i]
        counts = np.asarray(histogram["counts"])
        share = 100 * counts / counts.sum()
        edges = np.asarray(histogram["edges"])
        axes.stairs(share, edges, fill=True, color=BLUE, alpha=0.7, label="trained")
        axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", label="border of stability")
        axes.set(xlabel=r"$\max\,\mathrm{Re}\,\lambda$ (1/ms)")
        letter(axes, "ab"[i], f"layer {i + 1}")
    top = panels[0].get_ylim()[1]
    panels[0].plot(PAPER, [1.03 * top] * 2, color=GREY, linewidth=3, solid_capstyle="butt",
                   label="paper, trained")  # fmt: skip
    panels[0].set_ylabel("share of the test inputs (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _histograms(spectrum: Spectrum) -> list[dict[str, Any]]:
    """Histogram counts of each layer."""
    found = []
    for values in spectrum.abscissa:
        first, last = np.floor(values.min() / _BIN), np.ceil(values.max() / _BIN)
        edges = _BIN * np.arange(first, last + 1)
        counts, _ = np.histogram(values, edges)
        found.append({"counts": counts, "edges": edges.round(6)})
    return found
