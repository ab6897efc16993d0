"""A circuit of several neurons at rest over a range of contrasts, for the explorer."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from organics.circuit.circuit import Circuit, State, as_drive
from organics.circuit.values import Values
from organics.linear_stability.spectrum import stability
from organics.rest.search import steady_state
from organics.simulation.noise import Noise
from organics.spectra import power_spectrum

CONTRASTS = 10 ** (np.arange(-40, 21) / 20)
"""Factors of the drive: 0.01 to 10, and exactly 1 among them."""


class Responses(NamedTuple):
    """Steady state and linear theory for each contrast; NaN where no steady state was found.

    Attributes
        state: `y` and `a`, each of shape (contrasts, n).
        converged: whether a steady state was found.
        stable: whether it is linearly stable.
        eigenvalues: of the Jacobian, in 1/ms, shape (contrasts, 2n).
        power: power spectral densities of `y` per kHz, two-sided, shape (contrasts, f, n); NaN
            where the steady state is not stable.
    """

    state: State
    converged: Bool[Array, " contrasts"]
    stable: Bool[Array, " contrasts"]
    eigenvalues: Complex[Array, "contrasts two_n"]
    power: Float[Array, "contrasts f n"]


def responses(
    circuit: Circuit,
    z: "Values",
    frequencies: Float[np.ndarray, " f"],
    noise: Noise,
) -> Responses:
    """The steady state that `steady_state` finds for `CONTRASTS` times the drive `z`.

    Frequencies are in kHz. Raises `ValueError` as `steady_state` does.
    """
    drives = CONTRASTS[:, None] * np.asarray(as_drive(circuit, z), float)
    return _over(circuit, drives.astype(circuit.dtype), frequencies, noise)


@jax.jit
def _over(circuit: Circuit, drives, frequencies, noise: Noise) -> Responses:
    return jax.vmap(partial(_at, circuit, frequencies, noise))(drives)


def _at(circuit: Circuit, frequencies, noise: Noise, z) -> Responses:
    point = steady_state(circuit, z)
    linear = stability(point)
    power = power_spectrum(point, frequencies, noise)[:, : circuit.n]
    found = lambda values: jnp.where(point.converged, values, jnp.nan)  # noqa: E731
    state = State(found(point.state.y), found(point.state.a))
    return Responses(state, point.converged, linear.stable, found(linear.eigenvalues), power)
