"""Stability of a two-layer network while it is trained.

The network of Figure 5, after every epoch and before the first: the largest spectral abscissa of
each layer's circuit over 250 test inputs (1,000 in the paper), time constants 2 ms.

Source: Rawat et al. 2024, Figure 6.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from organics.plots import BLACK, BLUE, COLUMN, ORANGE, letter, style
from organics.studies.harness.target import Check, Job, Outcome
from organics.studies.networks.two_layers import Spectrum, TwoLayers

PAPER = ((-0.28, -0.22), (-0.27, -0.10))  # least and greatest of the maxima of either layer
NEAR = 0.03  # 1/ms, of the greatest
INPUTS, QUICK_INPUTS = 250, 50


def compute(job: Job) -> Outcome:
    """Train the network if needed, and compute its spectra after every epoch."""
    network = TwoLayers(job, share=0.1)
    epochs = network.config.epochs
    spectra = []
    for epoch in range(epochs + 1):
        job.progress(0.1 + 0.9 * epoch / (epochs + 1), f"the spectrum after epoch {epoch}")
        inputs = QUICK_INPUTS if job.quick else INPUTS
        name = f"epoch{epoch}"
        spectra.append(network.spectrum(network.after(epoch), inputs, name, job.folder))
    return conclude(spectra)


def conclude(spectra: list[Spectrum]) -> Outcome:
    """Checks of the spectra before the first epoch and after each one."""
    abscissa = np.stack([spectrum.abscissa for spectrum in spectra])
    stable = np.stack([spectrum.stable for spectrum in spectra])
    epochs, _, inputs = abscissa.shape
    largest = abscissa.max(axis=2)
    checks = []
    for i, (least, greatest) in enumerate(PAPER):
        found = f"{largest[1:, i].min():.3f} to {largest[1:, i].max():.3f} per ms"
        checks.append(
            Check(
                f"layer {i + 1} is stable at each of {inputs:,} test inputs, before training and "
                "after every epoch",
                f"at {stable[:, i].sum():,} of {epochs * inputs:,}; largest abscissa {found}",
                bool(np.all(stable[:, i])),
                paper="all",
                tolerance="steady state found, and max Re lambda < 0",
            )
        )
        checks.append(
            Check(
                f"layer {i + 1} comes as close to the border of stability as in the paper",
                f"the largest abscissae of the epochs are {found}",
                bool(abs(largest[1:, i].max() - greatest) <= NEAR),
                paper=f"about {least} to {greatest} per ms",
                tolerance=f"the greatest within {NEAR:g} per ms",
                decides=False,
            )
        )
    numbers = {
        "inputs": inputs,
        "tau_ms": 2.0,
        "epoch": list(range(epochs)),
        "stable": stable.sum(axis=2).T,
        "largest_per_ms": largest.T.round(5),
        "median_per_ms": np.median(abscissa, axis=2).T.round(5),
        "least_per_ms": abscissa.min(axis=2).T.round(5),
    }
    here = (
        f"stable at {np.all(stable, axis=1).sum():,} of {epochs * inputs:,} (epoch, input); "
        f"largest {largest[:, 0].max():.3f} (layer 1) and {largest[:, 1].max():.3f} (layer 2) "
        "per ms"
    )
    return Outcome(here, checks, numbers)


@style()
def draw(outcome: Outcome) -> Figure:
    """Largest, median and range of the spectral abscissa over the test inputs after every
    epoch, a panel for each layer; between the dotted lines is where the paper has the largest.
    """
    numbers = outcome.numbers
    figure = Figure(figsize=(2 * COLUMN, 2.5))
    panels = figure.subplots(1, 2, sharey=True)
    epoch = np.asarray(numbers["epoch"])
    for i, (axes, colour) in enumerate(zip(panels, (BLUE, ORANGE), strict=True)):
        largest, median, least = (
            np.asarray(numbers[f"{name}_per_ms"])[i] for name in ("largest", "median", "least")
        )
        axes.fill_between(epoch, least, largest, color=colour, alpha=0.2, linewidth=0)
        axes.plot(epoch, median, color=colour, linewidth=0.8)
        axes.plot(epoch, largest, color=colour, marker=".", markersize=4)
        for edge in PAPER[i]:
            axes.axhline(edge, color=BLACK, linewidth=0.6, linestyle=":")
        axes.axhline(0, color=BLACK, linewidth=0.8, linestyle="--")
        axes.set(xlabel="epoch")
        letter(axes, "ab"[i], f"layer {i + 1}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel(r"$\max\,\mathrm{Re}\,\lambda$ (1/ms)")
    first = panels[0]
    inputs = f"all {numbers['inputs']:,} test inputs"
    handles = [
        first.plot([], [], color="0.4", marker=".", markersize=4, label="largest")[0],
        first.plot([], [], color="0.4", linewidth=0.8, label="median")[0],
        first.fill_between([], [], color="0.4", alpha=0.2, label=inputs),
        first.plot([], [], color=BLACK, linewidth=0.6, linestyle=":",
                   label="range of the largest, paper")[0],
        first.plot([], [], color=BLACK, linewidth=0.8, linestyle="--",
                   label="border of stability")[0],
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.2)
    return figure
