"""The response to the onset of a stimulus."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from organics.arguments import require_positive
from organics.circuit.areas import Areas
from organics.responses.contrast import rates_of
from organics.simulation.ode import simulate

_SAMPLES = 2001


class Onset(NamedTuple):
    """Rates after a stimulus appears at time 0, from rest without drive, for m neurons.

    Attributes
        t: times in ms, shape (t,).
        rates: `relu(y)^2`, shape (t, m).
        steady: the rates at the end, shape (m,).
        peak, peak_time: the largest rate, and when it is reached, in ms, shape (m,).
        latency: when half of the peak is reached, in ms, shape (m,); NaN for a silent neuron.
    """

    t: Float[np.ndarray, " t"]
    rates: Float[np.ndarray, "t m"]
    steady: Float[np.ndarray, " m"]
    peak: Float[np.ndarray, " m"]
    peak_time: Float[np.ndarray, " m"]
    latency: Float[np.ndarray, " m"]

    @property
    def overshoot(self) -> Float[np.ndarray, " m"]:
        """Peak over steady rate, which is `a / c` for slow modulators and `W_r = I`; NaN for a
        silent neuron."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.peak / self.steady


def onset_response(system: Areas, z: 'Float[ArrayLike, " n"]', duration: float = 500.0) -> Onset:
    """Simulate the onset of the drive `z`, shape (n,), for `duration` ms.

    Times are those of 2,001 samples, between which rates are linear. Raises `ValueError`, naming
    the argument, if one is not as above, and `RuntimeError` as `simulate` does.
    """
    require_positive(duration=duration)
    path = simulate(system, z, np.linspace(0, duration, _SAMPLES), rtol=1e-8, atol=1e-11)
    rates, t = np.asarray(_rates(path.state), float), np.asarray(path.t, float)
    peak = rates.max(axis=0)
    latency = np.full(len(peak), np.nan)
    for i, top in enumerate(peak):
        if top > 0:
            after = int(np.argmax(rates[:, i] >= top / 2))
            before = max(after - 1, 0)
            latency[i] = np.interp(top / 2, rates[[before, after], i], t[[before, after]])
    return Onset(t, rates, rates[-1], peak, t[rates.argmax(axis=0)], latency)


@jax.jit
def _rates(states) -> Float[Array, "t m"]:
    return jax.vmap(rates_of)(jax.tree.map(jnp.asarray, states))
