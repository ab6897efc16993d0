"""What a fitted circuit predicts of its recording, and a figure of both."""

from itertools import cycle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from organics.fitting.fit import Fit
from organics.fitting.likelihood import predicted
from organics.plots import COLOURS, style

_MOST_CURVES = 6


class Prediction(NamedTuple):
    """Attributes
    mean: steady responses, shape (k, p).
    power: densities of the channels, shape (k', f, s), for each of the recording's spectra.
    courses: responses, shape (k', t, s), for each of its time courses.
    """

    mean: Float[np.ndarray, "k p"]
    power: tuple
    courses: tuple


def predict(fit: Fit) -> Prediction:
    """The predictions of the fitted circuit."""
    with jax.enable_x64(True):
        found = predicted(fit.problem, jnp.asarray(fit.u), fit.states)
        mean, spectra, courses = jax.tree.map(np.asarray, tuple(found))
        power = tuple(np.real(np.diagonal(S, axis1=-2, axis2=-1)) for S in spectra)
        return Prediction(mean, power, courses)


@style()
def draw(fit: Fit) -> Figure:
    """Steady responses, power spectra and time courses of the recording (points) and of the fitted
    circuit (lines or dashes); of spectra and courses those of the first channel, and of many
    stimuli some, evenly spread."""
    recording, shown = fit.recording, predict(fit)
    parts = [
        *(("steady", None),) * bool(np.isfinite(recording.mean).any()),
        *(("power", i) for i in range(len(recording.spectra))),
        *(("course", i) for i in range(len(recording.courses))),
    ]
    figure = Figure(figsize=(3.2 * len(parts), 2.6))
    every = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, (kind, i) in zip(every, parts, strict=True):
        if kind == "steady":
            _draw_means(axes, recording, shown.mean)
        elif kind == "power":
            _draw_power(axes, recording, recording.spectra[i], shown.power[i])
        else:
            _draw_courses(axes, recording, recording.courses[i], shown.courses[i])
    return figure


def _draw_means(axes, recording, mean) -> None:
    drives, places = recording.drives, np.arange(len(recording.stimuli))
    # stimuli that differ in strength alone are drawn against it
    scale = drives[:, 0] if np.linalg.matrix_rank(drives) == 1 else np.zeros(1)
    by_strength = bool((scale > 0).all() and len(np.unique(scale)) == len(scale))
    x = scale if by_strength else places
    order = np.argsort(x)
    for i, colour in zip(range(mean.shape[1]), cycle(COLOURS), strict=False):
        label = recording.channel_name(i)
        axes.errorbar(
            x, recording.mean[:, i], recording.error[:, i], fmt="o", ms=3, color=colour, label=label
        )
        axes.plot(x[order], mean[order, i], "-" if by_strength else "_", ms=8, color=colour)
    if by_strength:
        axes.set(xscale="log", xlabel="drive of the first neuron")
    else:
        axes.set_xticks(places, recording.stimuli, rotation=60)
        axes.set(xlabel="stimulus")
    axes.set(ylabel="steady response")
    axes.legend(ncols=1 + mean.shape[1] // 8)


def _draw_power(axes, recording, spectra, power) -> None:
    shown = _some(len(power))
    for k, colour in zip(shown, COLOURS, strict=False):
        hertz = 1000 * spectra.frequencies
        axes.loglog(hertz, spectra.cross[k, :, 0, 0].real / 1000, ".", ms=3, color=colour)
        label = recording.stimuli[spectra.stimuli[k]]
        axes.loglog(hertz, power[k, :, 0] / 1000, color=colour, label=label)
    name = recording.channel_name(spectra.channels[0])
    axes.set(xlabel="frequency (Hz)", ylabel=f"power of {name} (per Hz)")
    axes.legend(title=_title(len(shown), len(power)))


def _draw_courses(axes, recording, courses, predictions) -> None:
    shown = _some(len(predictions))
    for k, colour in zip(shown, COLOURS, strict=False):
        axes.plot(courses.times, courses.mean[k, :, 0], ".", ms=2, color=colour)
        label = recording.stimuli[courses.stimuli[k]]
        axes.plot(courses.times, predictions[k, :, 0], color=colour, label=label)
    name = recording.channel_name(courses.channels[0])
    axes.set(xlabel="time after onset (ms)", ylabel=name)
    axes.legend(title=_title(len(shown), len(predictions)))


def _some(count: int) -> list[int]:
    """Indices of the stimuli whose curves are drawn."""
    return np.linspace(0, count - 1, min(count, _MOST_CURVES)).round().astype(int).tolist()


def _title(shown: int, count: int) -> str:
    return "stimulus" if shown == count else f"stimulus ({shown} of {count})"
