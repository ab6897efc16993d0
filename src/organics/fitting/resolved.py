"""The spectra of a recording that linear theory can describe.

The spectrum of a channel that does not fluctuate is 0, which has no likelihood; nor have the
cross-spectra of channels that are multiples or sums of each other. Courses of such channels would
count twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from organics.data.recordings.recording import Channel, CrossSpectra, Recording, TimeCourses
from organics.names import FittedRecurrence

_SINGULAR = 1e-12  # an eigenvalue of coherences, or a singular value of readouts, that counts as 0


def resolved(recording: Recording, recurrences: Sequence[FittedRecurrence]) -> Recording:
    """The recording without the spectra of channels that are `silent` for a stimulus.

    Raises `ValueError` if it is no recording, and, naming stimulus and channels, if others are
    multiples or sums of each other.
    """
    if not isinstance(recording, Recording):
        raise ValueError(
            f"`recording` must be a `Recording`, as `read_recording` makes it, not "
            f"{type(recording).__name__}."
        )
    parts = [part for one in recording.spectra for part in _parts(recording, one, recurrences)]
    for one in parts:
        _require_independent(recording, one)
        _require_regular(recording, one)
    for one in recording.courses:
        _require_different(recording, one)
    if not (parts or recording.courses or np.isfinite(recording.mean).any()):
        raise ValueError(
            "`spectra` must be of some channel that fluctuates, as there is nothing else to fit: "
            f"by linear theory there are none of {', '.join(left_out(recording, recurrences))}."
        )
    return replace(recording, spectra=tuple(parts))


def left_out(recording: Recording, recurrences: Sequence[FittedRecurrence]) -> list[str]:
    """What `resolved` leaves out, in words."""
    return [
        f"{recording.channel_name(one.channels[i])} for {recording.stimuli[one.stimuli[k]]!r}"
        for one in recording.spectra
        for k, i in np.argwhere(silent(recording, one, recurrences))
    ]


def silent(
    recording: Recording, one: CrossSpectra, recurrences: Sequence[FittedRecurrence]
) -> Bool[np.ndarray, "k s"]:
    """Which channels do not fluctuate, for each stimulus: as measured, or by linear theory for one
    of these recurrences. `relu(y)^2` does not where `y <= 0`, as under a blank stimulus, and for
    identity recurrence wherever the neuron's drive is not positive."""
    drives = recording.drives[one.stimuli]
    if "identity" in recurrences:
        resting = drives <= 0
    else:
        resting = np.repeat(~drives.any(axis=1, keepdims=True), drives.shape[1], axis=1)
    found = np.einsum("kfss->ks", np.abs(one.cross)) == 0
    for i, channel in enumerate(one.channels):
        quantity, neuron, _ = recording.channels[channel]
        if quantity == "rate":
            found[:, i] |= resting[:, neuron]
    return found


def _parts(recording: Recording, one: CrossSpectra, recurrences) -> Iterator[CrossSpectra]:
    """The spectra of each set of channels that fluctuate together, the largest first."""
    fluctuates = ~silent(recording, one, recurrences)
    for chosen in np.unique(fluctuates, axis=0)[::-1]:
        at, channels = (fluctuates == chosen).all(axis=1), np.flatnonzero(chosen)
        if len(channels):
            yield replace(
                one,
                stimuli=one.stimuli[at],
                channels=tuple(one.channels[i] for i in channels),
                cross=one.cross[at][:, :, channels][..., channels],
                trials=one.trials[at],
            )


def _require_independent(recording: Recording, one: CrossSpectra) -> None:
    """Raises `ValueError` if what the channels show of `(y, a)` is linearly dependent."""
    n = len(recording.neurons)
    shown = np.array([_readout(recording.channels[i], n) for i in one.channels])
    values, vectors = np.linalg.eigh(shown @ shown.T)
    if values[0] < _SINGULAR:
        null = vectors[:, values < _SINGULAR]
        raise ValueError(
            f"`spectra` of {_in_words(recording, one, null)} for stimulus "
            f"{recording.stimuli[one.stimuli[0]]!r} must be of independent channels, but these are "
            "multiples or sums of each other (an lfp is the mean of all y): leave out the samples "
            "of one."
        )


def _require_different(recording: Recording, one: TimeCourses) -> None:
    """Raises `ValueError` if measured courses are multiples or sums of each other, which would
    count twice."""
    rows = one.mean.reshape(-1, one.mean.shape[-1])
    if len(rows) < rows.shape[1]:
        return
    size = np.linalg.norm(rows, axis=0)
    values, vectors = np.linalg.svd(rows / np.where(size > 0, size, 1), full_matrices=False)[1:]
    if values[-1] < _SINGULAR and size.all():
        null = vectors[values < _SINGULAR].T
        raise ValueError(
            f"`courses` of {_in_words(recording, one, null)} must not be multiples or sums of each "
            "other, as measured: leave out the samples of one."
        )


def _readout(channel: Channel, n: int) -> Float[np.ndarray, " m"]:
    """The direction in `(y, a)` of what a channel shows of fluctuations."""
    unit = np.eye(2 * n)
    if channel.quantity == "lfp":
        return unit[:n].mean(axis=0)
    return unit[channel.neuron + n * (channel.quantity == "a")]


def _require_regular(recording: Recording, one: CrossSpectra) -> None:
    """Raises `ValueError` if measured spectra are singular though there are trials enough."""
    power = np.einsum("kfss->kfs", one.cross).real
    size = np.sqrt(np.where(power > 0, power, 1))
    values, vectors = np.linalg.eigh(one.cross / (size[..., None] * size[..., None, :]))
    bad = (values[..., 0] < _SINGULAR) & (one.trials >= len(one.channels))[:, None]
    if bad.any():
        k, f = np.argwhere(bad)[0]
        null = vectors[k, f][:, values[k, f] < _SINGULAR]
        raise ValueError(
            f"`spectra` of {_in_words(recording, one, null)} for stimulus "
            f"{recording.stimuli[one.stimuli[k]]!r} must not be singular, as measured at "
            f"{1000 * one.frequencies[f]:g} Hz: leave out the samples of one of these channels, or "
            "of this stimulus."
        )


def _in_words(recording: Recording, one: CrossSpectra | TimeCourses, null: np.ndarray) -> str:
    """The channels that take part in null vectors."""
    used = np.flatnonzero(np.abs(null).max(axis=1) > np.sqrt(_SINGULAR))
    return ", ".join(recording.channel_name(one.channels[i]) for i in used)
