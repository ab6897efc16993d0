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

from organics.branches.continuation import as_system, require_bounds, require_valid_range
from organics.branches.family import as_line
from organics.circuit.circuit import Circuit, State
from organics.circuit.values import Values
from organics.circuit.weights import Convolution
from organics.errors import NoSteadyState
from organics.linear_stability.dispersion import Dispersion, Wave, dispersion

_WEIGHTS = "W", "W_r"


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
        ends: values near which the uniform state ends, as at a fold, and another is followed; that
            one may have another stability, which is no onset.
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
    by bisection to 1e-10 of the range.

    The parameter is a factor on the drive ("z") or on the weights ("W", "W_r"), or an array of
    equal entries ("tau_a"). The uniform state is followed from each value to the next: by
    halves of the step where it is not where the slope leads, or the way back leads elsewhere. Two
    onsets between neighbouring values cancel and are not seen.

    Raises `ValueError` for arguments other than these, and as `dispersion` does, and
    `NoSteadyState` where no uniform state is found.
    """
    low, high = require_bounds(bounds)
    if not 2 <= points <= 100_000:
        raise ValueError(f"`points` must be from 2 to 100,000, not {points}.")
    name, at = _family(circuit, z, parameter, (low, high))
    values = np.linspace(low, high, points)
    walk = _Walk(name, at, 1e-10 * (high - low), [])
    found = [_at(name, at, float(values[0]), None)]
    for pair in itertools.pairwise(values.tolist()):
        found.append(walk.follow(found[-1], *pair))
    onsets = []
    for i, pair in enumerate(itertools.pairwise(values.tolist())):
        one, other = found[i : i + 2]
        if (one.spectral_abscissa > 0) != (other.spectral_abscissa > 0):
            onsets.append(walk.onset(one, other, *pair))
    known = tuple(onset for onset in onsets if onset is not None)
    return WaveOnsets(name, values, tuple(found), known, tuple(walk.ends))


def _family(circuit: Circuit, z: Values, parameter: str, bounds: tuple[float, float]) -> Any:
    """The parameter's name, and the circuit and drive at a value of it."""
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


class _Walk(NamedTuple):
    """Along a uniform state, in steps of at least `least`; `ends` collects where it ended."""

    name: str
    at: Any
    least: float
    ends: list[float]

    def follow(self, known: Dispersion, low: float, high: float) -> Dispersion:
        """At `high`, from what is known at `low`."""
        found = self.step(known, low, high)
        if found is not None:
            return found
        middle = (low + high) / 2
        if high - low <= self._least(known) or not low < middle < high:
            self.ends.append(middle)
            return _at(self.name, self.at, high, known.point.state)
        return self.follow(self.follow(known, low, middle), middle, high)

    def step(self, known: Dispersion, low: float, high: float) -> Dispersion | None:
        """The same in one step; None if it ends far from where the slope leads, or the way back
        does not lead to what is known."""
        part = 1e-3
        found = self._from(known, high)
        slope, back = self._from(known, low + part * (high - low)), self._from(found, low)
        here, there, near, again = (
            np.concatenate(one.point.state) for one in (known, found, slope, back)
        )
        size, change = np.max(np.abs(here)), (near - here) / part
        close = 1e-6 if known.point.system.dtype == np.float64 else 1e-3
        leads = np.max(np.abs(there - here - change)) <= (np.max(np.abs(change)) + 0.02 * size) / 2
        returns = np.max(np.abs(again - here)) <= close * size
        rests = all(bool(one.point.converged) for one in (found, slope, back))
        return found if leads and returns and rests else None

    def _from(self, known: Dispersion, value: float) -> Dispersion:
        circuit, z = self.at(value)
        return dispersion(circuit, z, start=known.point.state)

    def onset(self, known: Dispersion, other: Dispersion, low: float, high: float) -> Onset | None:
        """By bisection to `least`, with what is known at two values; None if it is a state's end
        that lies there."""
        rising = other.spectral_abscissa > 0
        wave = (other if rising else known).leading
        while high - low > self.least and low < (middle := (low + high) / 2) < high:
            one = _Walk(self.name, self.at, self.least, []).follow(known, low, middle)
            grows = one.spectral_abscissa > 0
            wave = one.leading if grows else wave
            if grows == rising:
                high = middle
            else:
                low, known = middle, one
        ends = any(low - self.least <= end <= high + self.least for end in self.ends)
        return None if ends else Onset((low + high) / 2, wave, rising)

    def _least(self, known: Dispersion) -> float:
        return self.least * (1 if known.point.system.dtype == np.float64 else 1e4)
