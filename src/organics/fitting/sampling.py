"""What samples and windows do to a spectrum: power from above half of the sampling rate is folded
back to below, and the window of a piece blurs what remains.

A piece of length `T` with a Hann window shows, in the mean, the spectrum `S` averaged over
neighbouring frequencies,

    sum_k c_k S(f + k / (2 T)),    c_k = |sinc(x) / (1 - x^2)|^2 / 3,    x = k / 2,

up to the fluctuations that last longer than the piece.

Source: A. M. Sykulski et al., Biometrika 106, 251 (2019), in the domain of frequencies.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

_FINER = 2  # nodes within 1 / T
_REACH = 7  # nodes on each side; those beyond have 1e-5 of the weight


class Blur(NamedTuple):
    """What a window makes of spectra at g nodes: those at f frequencies.

    Attributes
        node: which nodes are averaged, shape (f, k).
        sign: of the imaginary parts there: -1 for conjugates.
        weight: of each.
    """

    node: Int[Array, "f k"]
    sign: Float[Array, "f k"]
    weight: Float[Array, " k"]

    def of(self, S: Complex[Array, "stimuli g *rest"]) -> Complex[Array, "stimuli f *rest"]:
        """Those of spectra, or of their derivatives."""
        real, imaginary = 0.0, 0.0
        for node, sign, weight in zip(self.node.T, self.sign.T, self.weight, strict=True):
            at = S[:, node]
            real += weight * at.real
            imaginary += weight * sign.reshape(1, -1, *[1] * (S.ndim - 2)) * at.imag
        return jax.lax.complex(real, imaginary)


def folded(frequencies: Float[np.ndarray, " f"], interval: float | None) -> Float[np.ndarray, " f"]:
    """The sum of `1 / w^2` over all frequencies that samples at intervals do not tell from each of
    these, without these themselves."""
    if interval is None:
        return np.zeros(len(frequencies))
    w = 2 * np.pi * frequencies
    some = np.where(w > 0, w, 1)
    sum_of_others = (interval / 2) ** 2 / np.sin(some * interval / 2) ** 2 - 1 / some**2
    return np.where(w > 0, sum_of_others, interval**2 / 12)


def blurred(
    frequencies: Float[np.ndarray, " f"], segment: float | None, interval: float | None
) -> tuple[Float[np.ndarray, " g"], Blur | None]:
    """The nodes, and what a window of the length `segment` makes of spectra there; the frequencies
    themselves and `None` without a window.

    At negative frequencies a cross-spectrum is the conjugate of that at positive ones, and so it is
    beyond half of the sampling rate.
    """
    if segment is None:
        return frequencies, None
    steps = np.arange(-_REACH, _REACH + 1)
    weights = _hann(steps / _FINER)
    weights /= weights.sum()
    at = _FINER * segment * frequencies[:, None] + steps  # in distances of nodes
    mirrored = at < 0
    at = np.abs(at)
    if interval is not None:
        half = _FINER * segment / (2 * interval)
        mirrored ^= at > half
        at = np.where(at > half, 2 * half - at, at)
    at = np.round(at, 6)  # so that nodes of several frequencies are the same
    nodes, place = np.unique(at, return_inverse=True)
    signs = jnp.asarray(np.where(mirrored, -1.0, 1.0))
    blur = Blur(jnp.asarray(place.reshape(at.shape)), signs, jnp.asarray(weights))
    return nodes / (_FINER * segment), blur


def _hann(x: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The power of a Hann window's spectrum, at multiples of 1 over its length; 1 at 0."""
    at_one = np.abs(x) == 1
    rest = np.where(at_one, 0, x)
    return np.where(at_one, 0.5, np.sinc(rest) / (1 - rest**2)) ** 2
