"""What a fit needs of a recording: means, spectra and time courses, for each stimulus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int

from organics.arguments import is_positive, require_among, require_entries, require_positive
from organics.names import Quantity

_HERMITIAN = 1e-6  # relative to the powers
APART = 2  # over the length of a piece with a Hann window: then frequencies are nearly independent


class Channel(NamedTuple):
    """One recorded signal.

    Attributes
        quantity: potential "y" or "a", "rate" (`relu(y)^2`), or "lfp" (the mean of all `y`).
        neuron: index into `Recording.neurons`; -1 for "lfp".
        gain_known: whether it is in the units of the model; otherwise it is a multiple of that,
            with an unknown gain.
    """

    quantity: Quantity
    neuron: int
    gain_known: bool = True


@dataclass(frozen=True)
class CrossSpectra:
    """Mean cross-periodograms of signals that were recorded together.

    Attributes
        stimuli: indices of the stimuli, shape (k,).
        channels: indices of the s channels.
        frequencies: in kHz, > 0, shape (f,); far enough apart to be independent.
        cross: two-sided densities, shape (k, f, s, s), as in `organics.cross_spectrum`.
        trials: number of independent periodograms behind each mean, shape (k,).
        interval: between samples, in ms: power from above the Nyquist frequency is folded back to
            below. None if a filter removed it before.
        segment: length of the pieces, in ms, each with a Hann window, which blurs spectra. None if
            they are not blurred.
    """

    stimuli: Int[np.ndarray, " k"]
    channels: tuple
    frequencies: Float[np.ndarray, " f"]
    cross: Complex[np.ndarray, "k f s s"]
    trials: Int[np.ndarray, " k"]
    interval: float | None = None
    segment: float | None = None


@dataclass(frozen=True)
class TimeCourses:
    """Mean responses after the onset of a stimulus at time 0, from rest without drive.

    Attributes
        stimuli: indices of the stimuli, shape (k,).
        channels: indices of the s channels.
        times: in ms, >= 0, increasing, shape (t,).
        mean, error: means and their standard errors, shape (k, t, s).
        correlated: for each stimulus and channel, how many samples in a row count as one, as their
            errors are alike, shape (k, s); by default every sample counts.
    """

    stimuli: Int[np.ndarray, " k"]
    channels: tuple
    times: Float[np.ndarray, " t"]
    mean: Float[np.ndarray, "k t s"]
    error: Float[np.ndarray, "k t s"]
    correlated: Float[np.ndarray, "k s"] | None = None

    @property
    def size(self) -> float:
        """How many independent numbers are in it."""
        if self.correlated is None:
            return self.mean.size
        return float(np.sum(len(self.times) / self.correlated))

    @property
    def weight(self) -> Float[np.ndarray, "k t s"]:
        """1 over the standard errors that independent samples would have if, together, they
        determined a smooth course as well."""
        together = 1.0 if self.correlated is None else self.correlated[:, None, :]
        return 1 / (self.error * np.sqrt(together))


@dataclass(frozen=True)
class Recording:
    """Responses of n neurons to k stimuli, in p channels.

    Attributes
        neurons: n names. Neurons without a channel are those that only a stimulus drives.
        stimuli: k names.
        drives: input drive of each stimulus, shape (k, n).
        channels: what was recorded.
        mean, error: steady responses and their standard errors, shape (k, p); NaN where there are
            none.
        spectra: one for each session, or none.
        courses: one for each session, or none.

    Raises `ValueError`, naming the field, for shapes or indices that do not fit, if a name or a
    channel is there twice, a value is not finite, a rate is negative, a standard error not above 0,
    a matrix of cross-spectra not Hermitian or a power below 0, if frequencies do not rise, are
    above half of the sampling rate, or nearer to each other or to 0 than 2 / `segment`, if times of
    a course do not rise from 0 or later, or if nothing was recorded.
    """

    neurons: tuple
    stimuli: tuple
    drives: Float[np.ndarray, "k n"]
    channels: tuple
    mean: Float[np.ndarray, "k p"]
    error: Float[np.ndarray, "k p"]
    spectra: tuple = ()
    courses: tuple = ()

    def __post_init__(self):
        for name in ("drives", "mean", "error"):
            object.__setattr__(self, name, _as_array(name, getattr(self, name)))
        self._require_shapes()
        _require_different("neurons", self.neurons)
        _require_different("stimuli", self.stimuli)
        _require_different("channels", [channel[:2] for channel in self.channels])
        require_entries("drives", self.drives, np.isfinite, "be finite")
        known = ~np.isnan(self.mean)
        require_entries("mean", self.mean[known], np.isfinite, "be finite")
        require_entries("error", self.error[known], is_positive, "be > 0 and finite")
        rates = self.mean[:, [quantity == "rate" for quantity, *_ in self.channels]]
        require_entries("mean", rates, lambda r: ~(r < 0), "be at least 0 for a rate")
        if not known.any() and not self.spectra and not self.courses:
            raise ValueError("`mean` must hold a response, as there are no spectra or courses.")
        for one in self.spectra:
            _require_spectra(one)
        for one in self.courses:
            require_entries("courses", one.mean, np.isfinite, "be finite")
            require_entries("error", one.error, is_positive, "be > 0 and finite")
            require_entries("times", one.times, lambda t: t >= 0, "be at least 0")
            require_entries("steps of times", np.diff(one.times), lambda t: t > 0, "be > 0")
            if one.correlated is not None:
                require_entries("correlated", one.correlated, lambda g: g >= 1, "be at least 1")

    def _require_shapes(self) -> None:
        n, k, p = len(self.neurons), len(self.stimuli), len(self.channels)
        for name, size in (("drives", n), ("mean", p), ("error", p)):
            _require_shape(name, getattr(self, name), (k, size))
        for quantity, neuron, _ in self.channels:
            require_among("channels", quantity, Quantity)
            _require_index("channels", neuron, n, "neurons", least=-1 if quantity == "lfp" else 0)
        for one in (*self.spectra, *self.courses):
            for i in np.asarray(one.stimuli).tolist():
                _require_index("stimuli", i, k, "stimuli")
            for i in one.channels:
                _require_index("channels", i, p, "channels")
        for one in self.spectra:
            s, shown = len(one.channels), (len(one.stimuli), len(one.frequencies))
            _require_shape("cross", one.cross, (*shown, s, s))
            _require_shape("trials", one.trials, shown[:1])
        for one in self.courses:
            shape = len(one.stimuli), len(one.times), len(one.channels)
            _require_shape("mean", one.mean, shape)
            _require_shape("error", one.error, shape)
            if one.correlated is not None:
                _require_shape("correlated", one.correlated, shape[::2])

    @property
    def size(self) -> int:
        """The number of independent real numbers in it."""
        return (
            int(np.sum(~np.isnan(self.mean)))
            + sum(one.cross.size for one in self.spectra)
            + round(sum(one.size for one in self.courses))
        )

    def channel_name(self, index: int) -> str:
        """A channel in words, such as "rate of 3"."""
        quantity, neuron, _ = self.channels[index]
        return quantity if neuron < 0 else f"{quantity} of {self.neurons[neuron]}"


def _require_spectra(one: CrossSpectra) -> None:
    require_entries("spectra", np.abs(one.cross), np.isfinite, "be finite")
    power = np.diagonal(one.cross, axis1=-2, axis2=-1)
    require_entries("power", np.real(power), lambda S: S >= 0, "be at least 0")
    size = np.sqrt(np.real(power))
    uneven = np.abs(one.cross - one.cross.conj().swapaxes(-1, -2))
    allowed = _HERMITIAN * size[..., :, None] * size[..., None, :]
    require_entries("cross", uneven, lambda u: u <= allowed, "be Hermitian, S_ij = conj(S_ji)")
    require_entries("frequencies", one.frequencies, lambda f: f > 0, "be > 0")
    require_entries("steps of frequencies", np.diff(one.frequencies), lambda d: d > 0, "be > 0")
    if one.segment is not None:
        require_positive(segment=one.segment)
        apart = np.diff(one.frequencies, prepend=0)
        least = APART / one.segment
        what = f"be {APART} / `segment`, {least:g} kHz, or more, also from 0"
        require_entries("steps of frequencies", apart, lambda d: d >= 0.999 * least, what)
    if one.interval is not None:
        require_positive(interval=one.interval)
        most = 0.5 / one.interval
        what = f"be below {most:g} kHz, half of the sampling rate"
        require_entries("frequencies", one.frequencies, lambda f: f < most, what)
    require_entries("trials", one.trials, lambda K: K >= 1, "be at least 1")


def _as_array(name: str, values: Any) -> Float[np.ndarray, "k p"]:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be numbers, not {values!r:.100}.") from None


def _require_different(name: str, words: Sequence) -> None:
    for i, word in enumerate(words):
        if word in words[:i]:
            raise ValueError(f"`{name}` must be different, not {word!r} twice.")


def _require_shape(name: str, array: np.ndarray, shape: tuple) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"`{name}` must have shape {shape}, not {np.shape(array)}.")


def _require_index(name: str, index: int, count: int, of: str, least: int = 0) -> None:
    if not least <= index < count:
        raise ValueError(f"`{name}` must be indices of the {count} {of}, from 0, not {index}.")
