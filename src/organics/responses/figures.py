"""Figures of responses, as physiologists draw them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from organics.plots import COLOURS, COLUMN, figure_of, style
from organics.responses.contrast import NakaRushton, Responses
from organics.responses.onset import Onset
from organics.responses.rhythm import Rhythm


def _require_neuron(neuron: int, n: int) -> None:
    if not 0 <= neuron < n:
        raise ValueError(f"`neuron` must be from 0 to {n - 1}, not {neuron}.")


def _axes(axes: Axes | None) -> Axes:
    return Figure(figsize=(COLUMN, 2.4)).add_subplot() if axes is None else axes


@style()
def draw_contrast(
    responses: Sequence[Responses],
    fits: Sequence[NakaRushton | None] = (),
    *,
    neuron: int = 0,
    labels: Sequence[str] = (),
    axes: Axes | None = None,
) -> Figure:
    """Rates of one neuron against contrast, on a logarithmic scale: points, and their fits as
    lines.

    Raises `ValueError` if there is no such neuron.
    """
    for one in responses:
        _require_neuron(neuron, one.rates.shape[1])
    axes = _axes(axes)
    for k, one in enumerate(responses):
        colour = COLOURS[k % len(COLOURS)]
        contrast = np.asarray(one.contrast)
        shown = contrast > 0
        label = labels[k] if k < len(labels) else None
        axes.plot(
            100 * contrast[shown], np.asarray(one.rates)[shown, neuron], "o", ms=3, color=colour,
            label=label,
        )  # fmt: skip
        fit = fits[k] if k < len(fits) else None
        if fit is not None:
            fine = np.geomspace(contrast[shown].min(), contrast[shown].max(), 100)
            alone = NakaRushton(*(np.asarray(values)[[neuron]] for values in fit))
            axes.plot(100 * fine, alone(fine)[:, 0], color=colour)
    axes.set(xscale="log", xlabel="contrast (%)", ylabel="firing rate (relative)")
    if labels:
        axes.legend()
    return figure_of(axes)


@style()
def draw_onset(
    onsets: Sequence[Onset],
    *,
    neuron: int = 0,
    labels: Sequence[str] = (),
    axes: Axes | None = None,
) -> Figure:
    """Rates of one neuron after the onset, with the times at which half of the peak is reached.

    Raises `ValueError` if there is no such neuron.
    """
    for one in onsets:
        _require_neuron(neuron, one.rates.shape[1])
    axes = _axes(axes)
    for k, one in enumerate(onsets):
        colour = COLOURS[k % len(COLOURS)]
        label = labels[k] if k < len(labels) else None
        axes.plot(one.t, one.rates[:, neuron], color=colour, label=label)
        axes.plot(one.latency[neuron], one.peak[neuron] / 2, "o", ms=3, color=colour)
    axes.set(xlabel="time after onset (ms)", ylabel="firing rate (relative)")
    if labels:
        axes.legend()
    return figure_of(axes)


@style()
def draw_rhythm(rhythm: Rhythm, *, axes: Axes | None = None) -> Figure:
    """Frequency of the peak against contrast, both on logarithmic scales."""
    axes = _axes(axes)
    axes.loglog(100 * rhythm.contrast, rhythm.hertz, "o-", ms=3)
    axes.set(xlabel="contrast (%)", ylabel="peak of the power (Hz)")
    return figure_of(axes)
