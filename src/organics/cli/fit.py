"""`organics fit`"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from organics.cli.answer import Answer, note
from organics.cli.circuits import FIGURES, check_outputs, describe, in_double_precision
from organics.names import FittedRecurrence, Samples

if TYPE_CHECKING:
    from organics.fitting import Comparison, CrossSpectra, Fit, TimeCourses
    from organics.fitting.prediction import Prediction

_CIRCUITS = (".json", ".npz")


@dataclass(frozen=True)
class FitData:
    """The parameters of a circuit from a recording: steady responses, spectra and time courses.

    The data are a table of the columns session, trial, stimulus, neuron, quantity (y, a, rate or
    lfp), value, and optionally time_ms or time_s, unit and se; or an NWB file. The stimuli are a
    table of stimulus, neuron, z, or of stimulus, contrast, mask_contrast.

    What the data cannot tell is named, and has no interval. Where b, b0 or a gain is "fixed" at 1
    that is a convention: these data tell only ratios to it.

    Example: organics fit examples/contrast_responses.csv --stimuli examples/contrasts.csv
    """

    data: Annotated[Path, tyro.conf.Positional]
    """Recording, .csv or .nwb."""
    stimuli: Path
    """Table of the stimuli, .csv."""
    recurrence: FittedRecurrence = "identity"
    """Recurrent weights: identity; free; half, which is (I + K) / 2 with a norm of K below 1; or
    feedback, which is the identity and weights > 0 between neurons."""
    rectified: bool = False
    """Fit the rectified model."""
    compare: tuple[FittedRecurrence, ...] = ()
    """Other recurrent weights to compare with, by AIC, BIC and held-out stimuli."""
    fix: tuple[str, ...] = ()
    """Values to keep, such as tau_y=10 or W[2,1]=0; b=free frees what is fixed by convention."""
    bound: tuple[str, ...] = ()
    """Lowest and highest value, such as tau_y=1:100."""
    tie: tuple[str, ...] = ()
    """What is one number, such as tau_y, or tau_y+tau_a for both."""
    samples: Samples = "spectra"
    """Whether rows with a time show fluctuations at rest, or courses after an onset at time 0."""
    settled: float = 0.0
    """For spectra: when a trial has settled, in ms; earlier samples are left out."""
    segment: float | None = None
    """For spectra: length of the pieces of a trial, in ms; by default it is not cut."""
    low: float = 0.0
    """Lowest frequency, in Hz."""
    high: float | None = None
    """Highest frequency, in Hz; by default a quarter of the sampling rate."""
    filtered: bool = False
    """What lies above half of the sampling rate was removed before sampling, as by an amplifier."""
    starts: int = 8
    """Number of starts of the search."""
    seed: int = 0
    """Seed of the starts."""
    level: float = 0.9
    """Level of the intervals."""
    out: tuple[Path, ...] = ()
    """Files to write: the fitted circuit (.json, .npz), or a figure (.png, .svg, .pdf)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        check_outputs(self.out, (*_CIRCUITS, *FIGURES), [self.data, self.stimuli])
        fixed = {name: _value(name, text) for name, text in _pairs("fix", self.fix)}
        bounds = {name: _bounds(name, text) for name, text in _pairs("bound", self.bound)}
        from organics.data.recordings.summary import Settings, read_recording

        settings = Settings(
            self.samples, self.settled, self.segment, self.low, self.high, self.filtered
        )
        recording = read_recording(self.data, self.stimuli, settings)
        in_double_precision()
        from organics import fitting
        from organics.circuit.file import save_circuit
        from organics.fitting.fit import require_search
        from organics.fitting.prediction import draw, predict
        from organics.fitting.resolved import left_out
        from organics.plots import save_figure

        options: dict[str, Any] = {
            "rectified": self.rectified,
            "fixed": fixed,
            "bounds": bounds,
            "ties": self.tie,
            "starts": self.starts,
            "seed": self.seed,
            "level": self.level,
        }
        every = tuple(dict.fromkeys((self.recurrence, *self.compare)))
        silent = left_out(recording, every)
        require_search(self.starts, self.seed, self.level)
        _require_options(recording, every, fixed, bounds, self.tie)
        note("fitting: the first time, programs are compiled for up to a minute.")
        models: tuple[Comparison, ...] = ()
        several = len(recording.stimuli) > 1
        if self.compare:
            models = fitting.compare(recording, every, hold_out=several, **options)
            found = next(one.fit for one in models if one.recurrence == self.recurrence)
        else:
            found = fitting.fit(recording, recurrence=self.recurrence, **options)
        for path in self.out:
            if path.suffix.lower() in FIGURES:
                save_figure(draw(found), path)
            else:
                save_circuit(path, found.circuit, recording.drives)
        document = _as_document(self, found, predict(found)) | {"spectra_left_out": silent}
        text = [f"{self.data}: {describe(found.circuit)}", str(found)]
        if found.recording.spectra and any(p.suffix.lower() in _CIRCUITS for p in self.out):
            text.append(_without_noise(found))
        if silent:
            text.append(f"spectra left out, as there are no fluctuations: {', '.join(silent)}")
        if models:
            document["models"] = [_model(one) for one in models]
            text.append(_table(models))
            if not several:
                text.append("No stimulus was held out, as there is only one.")
            text += [_warning(one) for one in models if one.is_erratic]
            text += [_lost(one) for one in models if one.not_converged]
        return Answer(document, text, wrote=self.out)


def _pairs(argument: str, words: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [word.partition("=") for word in words]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise ValueError(f"`{argument}` must be NAME=VALUE, not {name + sign + value!r}.")
    names = [name for name, _, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"`{argument}` must give each name once, not {twice!r} again.")
    return [(name, value) for name, _, value in pairs]


def _value(name: str, text: str) -> float | None:
    return None if text == "free" else _number("fix", name, text)


def _bounds(name: str, text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon:
        raise ValueError(f"`bound` of {name} must be LOWEST:HIGHEST, not {text!r}.")
    return _number("bound", name, low), _number("bound", name, high)


def _number(argument: str, name: str, text: str) -> float:
    from organics.data.own.text import finite

    return finite(text, f"`{argument}` of {name}")


def _as_document(command: FitData, found: "Fit", shown: "Prediction") -> dict[str, Any]:
    recording = found.recording
    return {
        "file": command.data,
        "stimuli": recording.stimuli,
        "neurons": recording.neurons,
        "recurrence": command.recurrence,
        "estimates": [one._asdict() for one in found.estimates],
        "undetermined": [one._asdict() for one in found.undetermined],
        "chi2": found.chi2,
        "degrees_of_freedom": found.degrees_of_freedom,
        "parameters": found.rank,
        "aic": found.aic,
        "bic": found.bic,
        "converged": found.converged,
        "starts": found.agreeing[1],
        "starts_that_agree": found.agreeing[0],
        "level": found.level,
        "responses": [
            {
                "stimulus": recording.stimuli[k],
                "channel": recording.channel_name(i),
                "mean": recording.mean[k, i],
                "se": recording.error[k, i],
                "predicted": shown.mean[k, i],
            }
            for k in range(len(recording.stimuli))
            for i in range(len(recording.channels))
        ],
        "spectra": [
            place
            | {
                "frequencies_hz": 1000 * one.frequencies,
                "power_per_hz": power[k, :, i] / 1000,
                "measured_per_hz": one.cross[k, :, i, i].real / 1000,
            }
            for one, power in zip(recording.spectra, shown.power, strict=True)
            for k, i, place in _places(found, one)
        ],
        "courses": [
            place
            | {
                "times_ms": one.times,
                "predicted": course[k, :, i],
                "measured": one.mean[k, :, i],
                "se": one.error[k, :, i],
                "correlated": None if one.correlated is None else one.correlated[k, i],
            }
            for one, course in zip(recording.courses, shown.courses, strict=True)
            for k, i, place in _places(found, one)
        ],
    }


def _places(found: "Fit", one: "CrossSpectra | TimeCourses") -> Iterator[tuple[int, int, dict]]:
    """Indices of each stimulus and channel of samples, with the names of both."""
    recording = found.recording
    for k, stimulus in enumerate(one.stimuli):
        for i, channel in enumerate(one.channels):
            name = recording.channel_name(channel)
            yield k, i, {"stimulus": recording.stimuli[stimulus], "channel": name}


def _without_noise(found: "Fit") -> str:
    """What a circuit file lacks of a fit."""
    levels = {
        option: " ".join(f"{one.value:.6g}" for one in found.estimates if one.name.startswith(name))
        for option, name in (("noise", "noise_y["), ("noise-a", "noise_a["))
    }
    options = " ".join(f"--{option} {values}" for option, values in levels.items())
    return f"The file of the circuit has no noise and no gains; for `organics spectrum`: {options}"


def _model(one: "Comparison") -> dict[str, Any]:
    return {
        "recurrence": one.recurrence,
        "aic": one.fit.aic,
        "bic": one.fit.bic,
        "chi2": one.fit.chi2,
        "parameters": one.fit.rank,
        "converged": one.fit.converged,
        "held_out": one.held_out,
        "held_out_uncertainty": one.uncertainty,
        "held_out_is_erratic": one.is_erratic,
        "held_out_not_converged": one.not_converged,
    }


def _warning(one: "Comparison") -> str:
    return (
        f"W_r {one.recurrence}: {one.fit.rank} parameters of {one.fit.recording.size} numbers are "
        "too many to be predicted from the other stimuli: its chi2 of held-out stimuli is erratic, "
        "whatever the circuit."
    )


def _require_options(recording: Any, recurrences: tuple, fixed: Any, bounds: Any, ties: Any):
    """Refuse names and values in the words of the command line, before any work."""
    from organics.fitting.problem import layout_of

    for recurrence in recurrences:
        try:
            layout_of(recording, recurrence, fixed=fixed, bounds=bounds, ties=ties, guess={})
        except ValueError as error:
            words = str(error)
            for name, option in (("fixed", "fix"), ("bounds", "bound"), ("ties", "tie")):
                words = words.replace(f"`{name}`", f"`{option}`")
            raise ValueError(words) from None


def _lost(one: "Comparison") -> str:
    return (
        f"W_r {one.recurrence}: fits did not converge without one of the stimuli "
        f"{', '.join(one.not_converged)}; the chi2 of held-out stimuli may be too large."
    )


def _table(models: "tuple[Comparison, ...]") -> Any:
    from rich.table import Table

    several = len(models[0].held_out) > 1  # of one stimulus none can be held out
    columns = ["W_r", "parameters", "AIC", "BIC"]
    if several:
        columns += ["chi2 of held-out stimuli", "expected of it from the parameters"]
    table = Table(*columns, title="models, best AIC first", title_justify="left", box=None)
    for one in models:
        numbers = [one.fit.aic, one.fit.bic]
        if several:
            numbers += [one.held_out.sum(), one.uncertainty.sum()]
        table.add_row(one.recurrence, str(one.fit.rank), *(f"{x:.6g}" for x in numbers))
    return table


COMMANDS = FitData
