"""From recorded signals to means, spectra and time courses."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from organics.arguments import require_among, require_not_negative, require_positive
from organics.data.recordings.correlated import samples_together
from organics.data.recordings.recording import APART, Channel, CrossSpectra, Recording, TimeCourses
from organics.data.recordings.rows import ROUNDED, Key, Signal, read_rows
from organics.data.recordings.stimuli import MASK, Stimuli, read_stimuli
from organics.names import Samples
from organics.spectra import mean_periodogram

_ENOUGH = 10  # trials, from which on the variance of each response is its own
_HIGH = 0.25  # of the sampling rate
_SAME_IN_ALL = "is the same in all trials of a stimulus, and so has no standard error; leave it out"


@dataclass(frozen=True)
class Settings:
    """How samples are summarized.

    Arguments
        samples: "spectra" if they show fluctuations about a steady state, "courses" if they show
            the response after the onset of a stimulus at time 0, from rest without drive.
        settled: when the response is steady, in ms; earlier samples do not count for spectra.
        segment: length of the pieces that a trial is cut into for spectra, in ms; by default it is
            not cut.
        low, high: range of frequencies, in Hz; `high` is by default a quarter of the sampling rate.
        filtered: whether what lies above half of the sampling rate was removed before sampling.

    Raises `ValueError`, naming the argument, if one is not as above.
    """

    samples: Samples = "spectra"
    settled: float = 0.0
    segment: float | None = None
    low: float = 0.0
    high: float | None = None
    filtered: bool = False

    def __post_init__(self):
        require_among("samples", self.samples, Samples)
        if self.samples == "courses":
            for name in ("settled", "segment", "low", "high", "filtered"):
                if getattr(self, name) != getattr(Settings, name):
                    raise ValueError(f"`{name}` must only be given for spectra, not for courses.")
        require_not_negative(settled=self.settled, low=self.low)
        if self.segment is not None:
            require_positive(segment=self.segment)
        if self.high is not None and not self.low < self.high < np.inf:
            raise ValueError(f"`high` must be above `low`, {self.low:g} Hz, not {self.high!r}.")


def read_recording(
    path: str | Path, stimuli: str | Path, settings: Settings | None = None
) -> Recording:
    """A recording from a table, or an NWB file, and the table of its stimuli.

    Raises `ValueError`, naming file and line, for what cannot be right, `OSError` if a file cannot
    be read.
    """
    path, stimuli = Path(path), Path(stimuli)
    if path.suffix.lower() == ".nwb":
        from organics.data.recordings.nwb import read_nwb

        signals = read_nwb(path)
    else:
        signals = read_rows(path)
    return summarized(str(path), signals, read_stimuli(stimuli), settings or Settings())


def summarized(
    source: str, signals: Mapping[Key, Signal], stimuli: Stimuli, settings: Settings
) -> Recording:
    """The recording of these signals. `source` is named in errors."""
    neurons, drives = _drives(source, signals, stimuli)
    channels = _channels(source, signals, neurons)
    place = {(c.quantity, c.neuron): i for i, c in enumerate(channels)}
    in_words = [
        f"{q}" if neuron < 0 else f"{q} of {neurons[neuron]!r:.60}" for q, neuron, _ in channels
    ]
    stimulus_of = {name: i for i, name in enumerate(stimuli.names)}
    values: dict[tuple[int, int], list[float]] = defaultdict(list)
    given: dict[tuple[int, int], float] = {}
    sampled: dict[str, dict] = defaultdict(lambda: defaultdict(dict))
    for key, signal in signals.items():
        neuron = neurons.index(key.neuron) if key.quantity != "lfp" else -1
        cell = stimulus_of[key.stimulus], place[key.quantity, neuron]
        if signal.times:
            sampled[key.session][cell[0], key.trial][cell[1]] = signal
        else:
            if cell in given or (np.isfinite(signal.error) and values[cell]):
                raise ValueError(f"{source}, {signal.place}: a value with `se` must be alone.")
            values[cell].append(signal.values[0])
            if np.isfinite(signal.error):
                given[cell] = signal.error
    spectra, courses = [], []
    for trials in sampled.values():
        x, times = _stacked(source, trials)
        if settings.samples == "courses":
            courses.append(_course(source, x, times, in_words))
            continue
        settled = times >= settings.settled - ROUNDED
        x = {key: rows[:, :, settled] for key, rows in x.items()}
        spectra.append(_spectrum(source, x, times[settled], settings))
        for (stimulus, chosen), rows in x.items():
            for i, channel in enumerate(chosen):
                if channels[channel].quantity != "lfp":  # recorded without its mean
                    if (stimulus, channel) in given:
                        raise ValueError(
                            f"{source}: the response to {stimuli.names[stimulus]!r} must not have "
                            "both samples and a value with `se`."
                        )
                    values[stimulus, channel] += rows[:, i].mean(axis=1).tolist()
    mean, error = _means(source, values, given, in_words, stimuli.names)
    return Recording(
        neurons=neurons,
        stimuli=stimuli.names,
        drives=drives,
        channels=channels,
        mean=mean,
        error=error,
        spectra=tuple(spectra),
        courses=tuple(courses),
    )


def _drives(source: str, signals: Mapping[Key, Signal], stimuli: Stimuli) -> tuple[tuple, Any]:
    """The neurons and their drives. Refuses signals of neurons and stimuli that there are not."""
    for key, signal in signals.items():
        if key.stimulus not in stimuli.names:
            raise ValueError(
                f"{source}, {signal.place}: `stimulus` {key.stimulus[:50]!r} is none of "
                f"{', '.join(stimuli.names)[:200]}."
            )
        if stimuli.neurons is not None and key.neuron and key.neuron not in stimuli.neurons:
            raise ValueError(
                f"{source}, {signal.place}: `neuron` {key.neuron[:50]!r} is none of "
                f"{', '.join(stimuli.neurons)[:200]}."
            )
    if stimuli.neurons is not None:
        return stimuli.neurons, stimuli.drives
    recorded = tuple(dict.fromkeys(key.neuron for key in signals if key.neuron)) or ("1",)
    drives = np.repeat(stimuli.drives[:, :1], len(recorded), axis=1)
    if stimuli.drives.shape[1] == 1 or not stimuli.drives[:, 1].any():
        return recorded, drives
    if MASK in recorded:
        raise ValueError(
            f"{source}: no neuron may be named {MASK!r}: a mask drives one of its own."
        )
    return (*recorded, MASK), np.column_stack([drives, stimuli.drives[:, 1]])


def _channels(source: str, signals: Mapping[Key, Signal], neurons: tuple) -> tuple:
    found: dict[tuple[str, int], bool] = {}
    for key, signal in signals.items():
        which = key.quantity, -1 if key.quantity == "lfp" else neurons.index(key.neuron)
        if found.setdefault(which, signal.unit == "1") != (signal.unit == "1"):
            raise ValueError(
                f"{source}, {signal.place}: `unit` of {key.quantity} of {key.neuron} must be "
                "the same in all rows."
            )
    return tuple(Channel(q, i, known) for (q, i), known in sorted(found.items()))  # pyright: ignore[reportArgumentType]


def _stacked(source: str, trials: dict) -> tuple[dict, np.ndarray]:
    """The samples of each stimulus, shape (trials, channels, times), by stimulus and channels."""
    first = next(iter(trials.values()))
    chosen = tuple(sorted(first))
    times = np.array(first[chosen[0]].times)
    found: dict[tuple[int, tuple], list] = defaultdict(list)
    for (stimulus, trial), by_channel in trials.items():
        if tuple(sorted(by_channel)) != chosen:
            place = next(iter(by_channel.values())).place
            raise ValueError(
                f"{source}, {place}: trial {trial[:50]!r} must have the signals of the first "
                "one of its session."
            )
        rows = []
        for channel in chosen:
            signal = by_channel[channel]
            if (
                len(signal.times) != len(times)
                or np.abs(np.array(signal.times) - times).max() > ROUNDED
            ):
                raise ValueError(
                    f"{source}, {signal.place}: trial {trial[:50]!r} must have the times of "
                    "the first one of its session."
                )
            rows.append(signal.values)
        found[stimulus, chosen].append(np.array(rows))
    if len(times) < 2:
        raise ValueError(f"{source}: a signal with times must have several samples.")
    return {key: np.stack(rows) for key, rows in found.items()}, times


def _spectrum(source: str, x: dict, times: np.ndarray, settings: Settings) -> CrossSpectra:
    if len(times) < 8:
        raise ValueError(
            f"{source}: a trial must have 8 samples or more after `settled`, {settings.settled:g} "
            f"ms, not {len(times)}."
        )
    dt = (times[-1] - times[0]) / (len(times) - 1)
    size = len(times) if settings.segment is None else int(settings.segment / dt * (1 + 1e-6))
    if not 8 <= size <= len(times):
        raise ValueError(
            f"{source}: `segment` must leave 8 samples or more of {dt:g} ms, and fit into the "
            f"{len(times)} samples of a trial, not {size}."
        )
    found = [mean_periodogram(rows, dt, size, size) for rows in x.values()]
    frequencies = found[0][0]
    chosen = chosen_frequencies(frequencies, size, settings)
    if not chosen.any():
        raise ValueError(
            f"{source}: no frequency lies between `low` and `high`; try longer pieces."
        )
    return CrossSpectra(
        stimuli=np.array([stimulus for stimulus, _ in x]),
        channels=next(iter(x))[1],
        frequencies=frequencies[chosen],
        cross=np.stack([cross[chosen] for _, cross, _ in found]),
        trials=np.array([trials for _, _, trials in found]),
        interval=None if settings.filtered else float(dt),
        segment=float(size * dt),
    )


def chosen_frequencies(
    frequencies: Float[np.ndarray, " f"], size: int, settings: Settings
) -> Bool[np.ndarray, " f"]:
    """Which frequencies of periodograms of so many samples, with a Hann window, are independent and
    in the range that is asked for."""
    nyquist = frequencies[1] * size / 2  # in kHz
    high = 2000 * nyquist * _HIGH if settings.high is None else settings.high
    chosen = (frequencies * 1000 >= settings.low) & (frequencies * 1000 <= high)
    # at 0 the mean is missing, and at the Nyquist frequency there is no phase
    return (
        chosen
        & (np.arange(len(frequencies)) % APART == 0)
        & (frequencies > 0)
        & (frequencies < 0.999 * nyquist)
    )


def _course(source: str, x: dict, times: np.ndarray, channels: list[str]) -> TimeCourses:
    after = times >= -ROUNDED
    if not after.any() or times[after][-1] <= 0:
        raise ValueError(f"{source}: courses need times after the onset at 0.")
    means, errors, together = [], [], []
    for (_, chosen), rows in x.items():
        rows = rows[:, :, after]
        if len(rows) < 2:
            raise ValueError(f"{source}: courses need two trials or more of each stimulus.")
        # one error for all times of a signal: those of few trials scatter
        spread = np.sqrt(np.mean(_variance(rows), axis=-1) / len(rows))
        if not spread.all():
            silent = channels[chosen[int(np.argmin(spread))]]
            raise ValueError(f"{source}: {silent} {_SAME_IN_ALL}.")
        means.append(rows.mean(axis=0).T)
        errors.append(np.broadcast_to(spread, means[-1].shape))
        together.append([samples_together(trials) for trials in rows.swapaxes(0, 1)])
    return TimeCourses(
        stimuli=np.array([stimulus for stimulus, _ in x]),
        channels=next(iter(x))[1],
        times=np.maximum(times[after], 0),
        mean=np.stack(means),
        error=np.stack(errors),
        correlated=np.array(together),
    )


def _variance(trials: np.ndarray) -> Any:
    """Over the first axis; exactly 0 of equal numbers, whose mean may be rounded."""
    return np.where(np.ptp(trials, axis=0) > 0, np.var(trials, axis=0, ddof=1), 0.0)


def _means(
    source: str, values: dict, given: dict, channels: list[str], stimuli: tuple
) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard errors, for these names. Responses of few trials, or without a variance of
    their own, share that of their channel."""
    shape = (len(stimuli), len(channels))
    mean, error = np.full(shape, np.nan), np.full(shape, np.nan)
    for channel in range(shape[1]):
        of_channel = {k: np.array(v) for (k, c), v in values.items() if c == channel and v}
        squares = sum((len(v) - 1) * _variance(v) for v in of_channel.values() if len(v) > 1)
        spare = sum(len(v) - 1 for v in of_channel.values())
        for k, v in of_channel.items():
            mean[k, channel] = v.mean()
            if (k, channel) in given:
                error[k, channel] = given[k, channel]
                continue
            if not spare:
                raise ValueError(
                    f"{source}: {channels[channel]} for stimulus {stimuli[k]!r} has no standard "
                    "error: it needs several trials, or, for values without time, a column `se`."
                )
            own = _variance(v) if len(v) >= _ENOUGH else 0.0
            # many trials may be equal, as without a spike
            error[k, channel] = np.sqrt((own or squares / spare) / len(v))
            if not error[k, channel] > 0:
                raise ValueError(f"{source}: {channels[channel]} {_SAME_IN_ALL}.")
    return mean, error
