"""`wave_onsets`: how the waves of a uniform circuit grow as a parameter changes, and where they
begin to."""

import itertools
from operator import attrgetter
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from organics.arguments import nearest, require_whole
from organics.branches.continuation import as_system, require_bounds, require_valid_range
from organics.branches.family import as_line
from organics.circuit.circuit import Circuit, State
from organics.circuit.values import Values
from organics.circuit.weights import Convolution
from organics.errors import NoSteadyState
from organics.linear_stability.dispersion import Dispersion, Wave, dispersion

_WEIGHTS = "W", "W_r"
_PARAMETERS = "z", *_WEIGHTS, "b", "b0", "sigma", "tau_y", "tau_a"
_DIGITS = 1e-10
_ASIDE = 1e-9  # of the range, from a kink


class Onset(NamedTuple):
    """A value of the parameter at which the fastest wave neither grows nor decays.

    Attributes
        value: of the parameter.
        wave: that begins to grow on one side of it.
        rising: whether it grows above `value`, rather than below.
    """

    value: float
    wave: Wave
    rising: bool


class WaveOnsets(NamedTuple):
    """The waves of a uniform circuit over a parameter.

    Attributes
        parameter: its name.
        values: of the parameter.
        found: the dispersion relation at each.
        onsets: where the uniform state gains or loses its stability.
        ends: where, instead, the uniform state is lost, as at a fold, and the one that is followed
            beyond is another, whose stability is another.
    """

    parameter: str
    values: Float[np.ndarray, " k"]
    found: tuple[Dispersion, ...]
    onsets: tuple[Onset, ...]
    ends: tuple[float, ...] = ()


def wave_onsets(
    circuit: Circuit,
    z: Values,
    parameter: str = "z",
    bounds: tuple[float, float] = (0.0, 2.0),
    *,
    points: int = 41,
) -> WaveOnsets:
    """The dispersion relation at evenly spaced values of a parameter, and the onsets between them,
    by bisection to ten digits.

    The parameter is a factor on the drive ("z") or on the weights ("W", "W_r"), or an array of
    equal entries ("tau_a"). The uniform state is searched for at each value from the one
    before. Two onsets between neighbouring values cancel and are not seen.

    Raises `ValueError` for arguments other than these, and as `dispersion` does, and
    `NoSteadyState` where no uniform state is found.
    """
    low, high = require_bounds(bounds)
    require_whole("points", points, 2)
    if points > 100_000:
        raise ValueError(f"`points` must be from 2 to 100,000, not {points}.")
    name, at = _family(circuit, z, parameter, (low, high))
    values = np.linspace(low, high, points)
    found, state = [], None
    for value in values:
        found.append(_at(name, at, float(value), state))
        state = found[-1].point.state

    kinks = [one.at_kink for one in found]

    def beside(k: int, aside: float) -> Dispersion:
        """As found; at a kink, what the state is like in the interval."""
        if not kinks[k]:
            return found[k]
        return _at(name, at, float(values[k]) + aside, found[k].point.state)

    aside = _ASIDE * (high - low)
    pairs = [(beside(k, aside), beside(k + 1, -aside)) for k in range(points - 1)]
    changes = [
        _between(name, at, ends, [one, other], 1e-16 * (high - low))
        for ends, (one, other) in zip(itertools.pairwise(values.tolist()), pairs, strict=True)
        if (one.spectral_abscissa > 0) != (other.spectral_abscissa > 0)
    ]
    onsets = tuple(one for one in changes if isinstance(one, Onset))
    lost = tuple(one for one in changes if not isinstance(one, Onset))
    return WaveOnsets(name, values, tuple(found), onsets, lost)


def require_wave_parameter(parameter: Any) -> None:
    """Refuse what is not the same everywhere, such as an entry."""
    if not isinstance(parameter, str) or parameter.strip() not in _PARAMETERS:
        like = nearest(parameter, _PARAMETERS) if isinstance(parameter, str) else ""
        raise ValueError(
            f"`parameter` must be one of {', '.join(_PARAMETERS)}, not {parameter!r}{like or '.'}"
        )


def _family(circuit: Circuit, z: Values, parameter: str, bounds: tuple[float, float]) -> Any:
    """The parameter's name, and the circuit and drive at a value of it."""
    require_wave_parameter(parameter)
    if parameter in _WEIGHTS:
        weights = circuit.pool if parameter == "W" else circuit.recurrent
        if not isinstance(weights, Convolution):
            raise ValueError(
                f"`parameter` {parameter!r} is a factor on a `Convolution`, not on "
                f"{type(weights).__name__}."
            )
        if parameter == "W" and bounds[0] < 0:
            raise ValueError(f"`bounds` of a factor on `W` must be >= 0, not {bounds}.")
        where = attrgetter(parameter)
        return parameter, lambda v: (eqx.tree_at(where, circuit, weights.scaled(v)), z)
    system = as_system(circuit, z, parameter)
    line = as_line(system, parameter)
    require_valid_range(line, bounds)

    def at(value: float) -> tuple[Circuit, Values]:
        moved: Any = jax.tree.map(lambda b, s: jnp.asarray(b + value * s), line.base, line.slope)
        return moved.circuit, moved.z

    return line.name, at


def _at(name: str, at: Any, value: float, state: State | None) -> Dispersion:
    circuit, z = at(value)
    found = dispersion(circuit, z, start=state)
    if not found.point.converged and state is not None:
        found = dispersion(circuit, z)
    if not found.point.converged:
        raise NoSteadyState(f"no uniform steady state was found at {name} = {value:g}.")
    return found


def _between(
    name: str, at: Any, ends: tuple[float, float], known: list[Dispersion], least: float
) -> Onset | float:
    """By bisection between two values, with what is known there, to ten digits or to `least`: the
    onset, or the value at which the state is lost and the other one is another."""
    low, high = ends
    below, above = known
    rising = above.spectral_abscissa > 0
    while (
        high - low > max(least, _DIGITS * max(abs(low), abs(high)))
        and low < (middle := (low + high) / 2) < high
    ):
        try:
            one = _at(name, at, middle, below.point.state)
        except NoSteadyState:
            return middle
        if (one.spectral_abscissa > 0) == rising:
            high, above = middle, one
        else:
            low, below = middle, one
    close = 1e-6 if above.point.system.dtype == np.float64 else 1e-3
    jump = abs(above.spectral_abscissa - below.spectral_abscissa)
    if jump > close * np.max(np.abs(above.eigenvalues)):
        return (low + high) / 2
    return Onset((low + high) / 2, (above if rising else below).leading, rising)
