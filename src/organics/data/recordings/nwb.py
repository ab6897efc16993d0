"""Recordings in files of Neurodata Without Borders (`.nwb`)."""

from array import array
from pathlib import Path
from typing import Any

import numpy as np

from organics.data.recordings.rows import Key, Signal
from organics.files.atomic import naming

_STIMULUS = ("stimulus", "stimulus_name", "condition", "contrast")
_BAND = "LFP"


def read_nwb(path: Path) -> dict[Key, Signal]:
    """The spike rates of units, in each trial, and the local field potential during trials.

    The table of trials needs `start_time`, `stop_time` (in seconds) and a column `stimulus` (or
    `stimulus_name`, `condition`, `contrast`); numbers in it are names such as 0.1 and 1. Each unit
    becomes a neuron, named by its id, whose rate is its number of spikes per second of the trial;
    trials that its `obs_intervals`, if it has any, do not cover are left out. An electrical series
    named LFP, or in an interface of that name, becomes the `lfp`: the mean over its electrodes, in
    volts as `data * conversion * channel_conversion + offset`, at equal intervals. Where trials
    differ by one sample, the longer ones lose their last one.

    Raises `ValueError`, naming the file, if `pynwb` is missing or the file does not have these, and
    `OSError` if it cannot be read.
    """
    try:
        import pynwb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"{path}: NWB files need the package pynwb: `pip install 'organics[nwb]'`."
        ) from None
    with naming(path, "read"):
        path.stat()
        try:
            with pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True) as stream:
                return _signals(path, stream.read())
        except (ValueError, FileNotFoundError):
            raise
        except Exception as error:  # HDF5 and its schema have many
            raise ValueError(f"{path} is no NWB file that can be read: {error}.") from None


def _signals(path: Path, file: Any) -> dict[Key, Signal]:
    names = getattr(file.trials, "colnames", ())
    column = next((name for name in _STIMULUS if name in names), None)
    if column is None:
        raise ValueError(
            f"{path} needs a table of trials with a column {' or '.join(_STIMULUS)}; it has "
            f"{', '.join(names) or 'none'}."
        )
    trials, found = file.trials, {}
    series, units = _series(file), list(_units(file))
    for i in range(len(trials)):
        start, stop = float(trials["start_time"][i]), float(trials["stop_time"][i])
        if not -np.inf < start < stop < np.inf:
            raise ValueError(f"{path}, trial {i}: `stop_time` {stop:g} must be after {start:g}.")
        stimulus = _name(trials[column][i])
        key = Key(file.identifier, stimulus, str(i), "", "rate")
        for unit, spikes, observed in units:
            if len(observed) and not np.any((observed[:, 0] <= start) & (stop <= observed[:, 1])):
                continue
            count = np.searchsorted(spikes, stop) - np.searchsorted(spikes, start)
            rate = array("d", [count / (stop - start)])
            found[key._replace(neuron=unit)] = Signal(i, "1/s", values=rate, noun="trial")
        if series is not None:
            found[key._replace(quantity="lfp")] = _samples(path, series, i, start, stop)
    if not found:
        raise ValueError(f"{path} has neither units with spike times nor an {_BAND}.")
    _make_even([signal for signal in found.values() if signal.times])
    return found


def _make_even(trials: list[Signal]) -> None:
    """Cut trials to the shortest one's length, if they are longer by one sample: the limits of
    equally long trials fall between samples."""
    lengths = [len(trial.times) for trial in trials]
    if len(set(lengths)) == 2 and max(lengths) - min(lengths) == 1:
        for trial in trials:
            trial.times, trial.values = trial.times[: min(lengths)], trial.values[: min(lengths)]


def _name(stimulus: Any) -> str:
    """A number in its shortest form, such as 0.1 and 1."""
    if isinstance(stimulus, float | np.floating):
        return np.format_float_positional(stimulus, trim="-")
    return str(stimulus)


def _units(file: Any):
    if file.units is None or "spike_times" not in file.units.colnames:
        return
    limited = "obs_intervals" in file.units.colnames
    for row, unit in enumerate(file.units.id[:]):
        observed = file.units["obs_intervals"][row] if limited else []
        spikes = np.sort(file.units["spike_times"][row])
        yield str(unit), spikes, np.asarray(observed, float).reshape(-1, 2)


def _series(file: Any) -> Any:
    """The electrical series of the field potential, if there is one."""
    for one in file.objects.values():
        if _type(one) == "ElectricalSeries" and _BAND in (one.name, _type(one.parent)):
            return one
    return None


def _type(part: Any) -> str:
    return getattr(part, "neurodata_type", "")


def _samples(path: Path, series: Any, trial: int, start: float, stop: float) -> Signal:
    if series.rate is None:
        stamps = np.asarray(series.timestamps)
        first, last = np.searchsorted(stamps, [start, stop])
        times = stamps[first:last]
        steps = np.diff(times)
        covered = len(steps) and max(times[0] - start, stop - times[-1]) <= 1.001 * steps.max()
        if covered and np.ptp(steps) > 1e-3 * steps[0] + 1e-9:
            raise ValueError(
                f"{path}, trial {trial}: the timestamps of the field potential must have equal "
                f"intervals, not from {1000 * steps.min():g} to {1000 * steps.max():g} ms."
            )
        times = times - times[:1]
    else:
        rate, begin = float(series.rate), float(series.starting_time)
        first, last = (int(np.ceil((t - begin) * rate - 1e-6)) for t in (start, stop))
        times, covered = np.arange(last - first) / rate, first >= 0
    if not covered or last > len(series.data) or last - first < 2:
        raise ValueError(f"{path}, trial {trial}: the field potential does not cover the trial.")
    volts = np.asarray(series.data[first:last], float).reshape(last - first, -1)
    if series.channel_conversion is not None:
        volts = volts * np.asarray(series.channel_conversion, float)
    volts = (volts * series.conversion + series.offset).mean(axis=1)
    if not np.all(np.isfinite(volts)):
        raise ValueError(f"{path}, trial {trial}: the field potential must be finite.")
    return Signal(trial, "uV", array("d", 1000 * times), array("d", 1e6 * volts), noun="trial")
