"""The frequency of a rhythm against contrast."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.signal
from jaxtyping import ArrayLike, Float

from organics.arguments import require_positive, require_whole
from organics.circuit.areas import Areas, joined
from organics.circuit.circuit import as_drive
from organics.responses.contrast import as_contrasts
from organics.rest.search import steady_state
from organics.spectra import Levels, power_spectrum

_GRID = 400  # frequencies at which power is compared, before the peak is refined


class Rhythm(NamedTuple):
    """The largest peak of a neuron's power spectrum at each contrast.

    Attributes
        contrast: shape (c,).
        hertz: frequency of the peak; NaN where the power has none within the range, or is NaN (see
            `power_spectrum`), shape (c,).
        power: at the peak, per kHz, two-sided; NaN where there is none, shape (c,).
    """

    contrast: Float[np.ndarray, " c"]
    hertz: Float[np.ndarray, " c"]
    power: Float[np.ndarray, " c"]


def gamma_peak(
    system: Areas,
    z: 'Float[ArrayLike, " n"]',
    contrasts: 'Float[ArrayLike, " c"]',
    noise: Levels,
    *,
    neuron: int = 0,
    low: float = 1.0,
    high: float = 250.0,
) -> Rhythm:
    """The peak of the power of one neuron for the drives `contrast z`.

    Power is compared at 400 frequencies between `low` and `high` Hz, evenly spaced on a logarithmic
    scale, and the largest local maximum is refined by Brent's method.

    Arguments
        z: drive at contrast 1, shape (n,).
        contrasts: >= 0, shape (c,).
        noise: as for `power_spectrum`.
        neuron: index into its neurons, `y` before `a`, area after area.

    Raises `ValueError`, naming the argument, if one is not as above, and `RuntimeError` if there is
    no stable steady state for a contrast.
    """
    require_positive(low=low, high=high)
    if not low < high:
        raise ValueError(f"`high` must be above `low`, {low:g} Hz, not {high:g}.")
    require_whole("neuron", neuron, 0)
    z = as_drive(system, z)
    levels = np.asarray(as_contrasts(contrasts, z.dtype), float)
    numbers = len(joined(system.time_constants))
    if neuron >= numbers:
        raise ValueError(f"`neuron` must be below {numbers}, not {neuron}.")
    hertz, found = np.geomspace(low, high, _GRID), []
    for contrast in levels:
        point = steady_state(system, contrast * z)
        power = np.asarray(power_spectrum(point, hertz / 1000, noise))
        found.append(_peak(point, noise, neuron, hertz, power[:, neuron]))
    return Rhythm(levels, *np.array(found).reshape(-1, 2).T)


def largest_peak(values: Float[np.ndarray, " f"]) -> int | None:
    """The place of the largest local maximum inside of the range, if one exceeds what is around it
    by more than rounding."""
    least = 1000 * np.finfo(values.dtype).eps * values.max()
    places, _ = scipy.signal.find_peaks(values, prominence=least)
    return int(places[values[places].argmax()]) if len(places) else None


def _peak(point, noise, neuron: int, hertz: np.ndarray, power: np.ndarray) -> tuple[float, float]:
    at = largest_peak(power)
    if at is None:
        return np.nan, np.nan

    def curve(f: float) -> float:
        return float(_power(point, jnp.asarray([f / 1000], point.z.dtype), noise)[0, neuron])

    return refined_peak(curve, hertz, at)


def refined_peak(
    curve: Callable[[float], float], hertz: Float[np.ndarray, " f"], at: int
) -> tuple[float, float]:
    """Where a curve is largest between the neighbours of a place of a grid, and its value there."""
    bounds = (hertz[at - 1], hertz[at + 1])
    options = {"xatol": min(1e-5, 1e-6 * hertz[at])}  # the default is absolute
    best = scipy.optimize.minimize_scalar(
        lambda f: -curve(f), bounds=bounds, method="bounded", options=options
    )
    return float(best.x), -float(best.fun)


@jax.jit
def _power(point, frequencies, noise):
    return power_spectrum(point, frequencies, noise)
