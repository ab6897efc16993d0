"""`organics spectrum`"""

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.cli.answer import Answer
from organics.cli.circuits import (
    FIGURES,
    about,
    check_correlation_time,
    check_noise,
    check_outputs,
    describe,
    levels_of,
    load,
    one_drive,
)

_SHOWN = 6  # neurons by default


@dataclass(frozen=True)
class Spectrum:
    """Power spectra of the fluctuations of a circuit or hierarchy about its steady state, or their
    coherence.

    By linear theory, for additive noise, `tau dx = f dt + level sqrt(tau) dB`. Densities are per Hz
    (in Python per kHz) and two-sided: their integral over positive and negative frequencies is the
    variance.

    Example: organics spectrum examples/orientation_ring.json --drive 2 --neurons y1 y6 a6
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Circuit file, .json or .npz."""
    drive: int = 0
    """Which of the file's input drives, from 0."""
    noise: tuple[float, ...] = (0.1,)
    """Level of additive noise in the principal neurons, or one for each of them."""
    noise_a: tuple[float, ...] = (0.0,)
    """Level of additive noise in the modulator neurons, or one for each of them."""
    tau_f: float | None = None
    """Correlation time of the noise in ms: it is low-pass filtered; white by default."""
    neurons: tuple[str, ...] = ()
    """Neurons such as y1 or a2, in a hierarchy such as 2.y1 for y1 of area 2; by default the first
    ones of both kinds, at most six."""
    coherence: bool = False
    """Coherence of each pair of these neurons, instead of their power."""
    low: float = 1.0
    """Lowest frequency, in Hz."""
    high: float = 200.0
    """Highest frequency, in Hz."""
    points: int = 400
    """Number of frequencies, evenly spaced on a logarithmic scale."""
    out: tuple[Path, ...] = ()
    """Files to write: a figure (.png, .svg, .pdf), or the values (.csv, .npz)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        self._require()
        ((circuit, drives),) = load(self.file)
        import equinox as eqx
        import numpy as np

        from organics import plots, spectra
        from organics.cli.tables import write_table
        from organics.responses.rhythm import largest_peak, refined_peak
        from organics.rest.search import steady_state
        from organics.simulation.noise import Noise

        z = one_drive(drives, self.drive)
        chosen = _chosen(self.neurons, circuit.by_area(circuit.time_constants))
        hertz = np.geomspace(self.low, self.high, self.points)
        level_y = levels_of("noise", self.noise, circuit)
        level_a = levels_of("noise_a", self.noise_a, circuit)
        noise = Noise(level_y, level_a, tau_f=self.tau_f)
        point = steady_state(circuit, z)
        if self.coherence:
            pairs = list(combinations(chosen, 2))
            names = [f"{one} and {other}" for one, other in pairs]
            columns: Any = tuple(
                np.array([(chosen[i], chosen[j]) for i, j in pairs], int).reshape(-1, 2).T
            )
            spectrum, scale, draw = spectra.coherence, 1, plots.coherences
        else:
            names = list(chosen)
            columns = (list(chosen.values()),)
            spectrum, scale, draw = spectra.power_spectrum, 1000, plots.power_spectra

        def at(frequencies, spectrum=spectrum):
            found = np.asarray(spectrum(point, np.asarray(frequencies) / 1000, noise))
            return found[:, *columns] / scale

        values, quick = at(hertz), partial(at, spectrum=eqx.filter_jit(spectrum))
        lost = [name for name, column in zip(names, values.T, strict=True) if np.isnan(column[0])]
        places = {
            name: None if name in lost else largest_peak(column)
            for name, column in zip(names, values.T, strict=True)
        }
        peaks = {
            name: None
            if place is None
            else refined_peak(lambda f, k=k: float(quick([f])[0, k]), hertz, place)[0]
            for k, (name, place) in enumerate(places.items())
        }
        # no power has no logarithm
        drawn = np.ones(len(names), bool) if self.coherence else np.any(values, axis=0)
        silent = [name for name, some in zip(names, drawn, strict=True) if not some]
        drawn &= [name not in lost for name in names]
        pictures = [path for path in self.out if path.suffix.lower() in FIGURES]
        if pictures and not drawn.any():
            raise ValueError(
                f"`out` must not be a figure here: there is no power of {', '.join(names)}."
            )
        for path in self.out:
            if path in pictures:
                shown = values[:, drawn] * (1 if self.coherence else 1000)
                labels = [name for name, some in zip(names, drawn, strict=True) if some]
                plots.save_figure(draw(hertz / 1000, shown, labels=labels), path)
            else:
                columns = dict(zip(names, values.T, strict=True))
                write_table(path, {"frequency_hz": hertz} | columns)
        document = about(self.file, circuit) | {
            "z": z,
            "noise": level_y,
            "noise_a": level_a,
            "tau_f_ms": self.tau_f,
            "frequencies_hz": hertz,
            "coherence" if self.coherence else "power_per_hz": dict(
                zip(names, values.T, strict=True)
            ),
            "peaks_hz": peaks,
        }
        what = "coherence" if self.coherence else "power"
        text = [f"{self.file}: {describe(circuit)}"]
        for name, peak in peaks.items():
            said = f"{what} {_in_words(peak)}"
            if name in silent:
                said = "no noise reaches it"
            elif name in lost:
                said = "no linear theory, as a neuron is at y = 0"
            text.append(f"{name}: {said}")
        return Answer(document, text, wrote=self.out)

    def _require(self) -> None:
        check_outputs(self.out, (*FIGURES, ".csv", ".npz"), [self.file])
        check_noise(noise=self.noise, noise_a=self.noise_a)
        check_correlation_time(self.tau_f)
        if not any(self.noise) and not any(self.noise_a):
            raise ValueError(
                "`noise` or `noise_a` must be above 0: without noise there is no power."
            )
        if not 0 < self.low < self.high < float("inf"):
            raise ValueError(
                f"`low` and `high` must be rising frequencies above 0 Hz, not {self.low} and "
                f"{self.high}."
            )
        if not 2 <= self.points <= 100_000:
            raise ValueError(f"`points` must be from 2 to 100,000, not {self.points}.")
        if len(set(self.neurons)) < len(self.neurons):
            raise ValueError(f"`neurons` must be different ones, not {' '.join(self.neurons)}.")
        if self.coherence and len(self.neurons) == 1:
            raise ValueError("`neurons` must be at least two for `coherence`, not one.")


def _chosen(names: tuple[str, ...], areas: tuple[Any, ...]) -> dict[str, int]:
    """The neurons' indices by name; `areas` are like states. Raises `ValueError` for an unknown
    one."""
    shown = min(len(areas[0].y), _SHOWN // 2)
    first = [f"{kind}{i + 1}" for kind in "ya" for i in range(shown)]
    labels = [""] if len(areas) == 1 else [f"{k + 1}." for k in range(len(areas))]
    every = [
        f"{label}{kind}{i + 1}"
        for label, area in zip(labels, areas, strict=True)
        for kind, values in area._asdict().items()
        for i in range(len(values))
    ]
    places = {name: place for place, name in enumerate(every)}
    names = names or tuple(labels[0] + name for name in first)
    unknown = next((name for name in names if name not in places), None)
    if unknown is not None:
        raise ValueError(f"`neurons` must be of {_ranges(labels, areas)}, not {unknown!r}.")
    return {name: places[name] for name in names}


def _ranges(labels: list[str], areas: tuple[Any, ...]) -> str:
    """The names of all neurons, in words."""
    each = [
        f"{label}{kind}1 to {label}{kind}{len(values)}"
        for label, area in zip(labels, areas, strict=True)
        for kind, values in area._asdict().items()
    ]
    return " and ".join(each) if len(each) == 2 else f"{', '.join(each[:-1])} and {each[-1]}"


def _in_words(peak: float | None) -> str:
    return "has no peak in this range" if peak is None else f"peaks at {peak:.3g} Hz"


COMMANDS = Spectrum
