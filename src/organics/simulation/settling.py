"""Where a trajectory ends under a constant drive: at rest, in a rhythm, or at infinity."""

from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Float

from organics.circuit.areas import joined
from organics.circuit.circuit import Circuit, State, as_drive
from organics.rest.system import Driven, driven_by
from organics.simulation.ode import DIVERGENCE, NONE, Trajectory

Kind = Literal["rests", "decays", "oscillates", "grows", "moves", "diverges"]

TOLERANCE = 1e-4
"""Imbalance, relative to the terms, of a state that counts as at rest."""

_FLOOR = 0.01  # of the lengths
_RESOLVED = 1e-4  # with the default tolerances
_STEADY = 0.8  # least ratio of speeds, last quarter to the one before, of lasting activity
_CYCLES = 3  # least number of cycles for a rhythm


class Settling(NamedTuple):
    """Where a trajectory ends.

    Attributes
        kind: "rests" at a steady state; "decays" towards one; "oscillates" steadily; "grows";
            "diverges" to infinity; or "moves", if the simulation is too short to tell.
        frequency_hz: of the cycles in the second half; 0 if there are fewer than three.
    """

    kind: Kind
    frequency_hz: float

    def __str__(self) -> str:
        words = {"rests": "at rest", "decays": "still decaying", "oscillates": "oscillating"}
        words |= {"grows": "growing", "moves": "moving", "diverges": "diverging"}
        rhythm = f", {self.frequency_hz:.3g} Hz" if self.frequency_hz else ""
        return words[self.kind] + rhythm


@jax.jit
def unrest(system: Driven, x: Float[jax.Array, " m"]) -> Float[jax.Array, ""]:
    """How far a state is from rest: the largest imbalance of an equation relative to its terms.
    Terms count as at least a hundredth of the system's lengths, and as what a simulation resolves.
    """
    imbalance, terms = jax.numpy.abs(system.imbalance(x)), system.terms(x)
    least = jax.numpy.maximum(_FLOOR * system.lengths(x), _RESOLVED)
    return jax.numpy.max(imbalance / jax.numpy.maximum(terms, least))


@jax.jit
def _speeds(circuit: Circuit, z, states: State) -> Float[jax.Array, "t two_n"]:
    imbalance = jax.vmap(circuit.imbalance, (0, None))(states, z)
    return jax.numpy.concatenate(imbalance, axis=1)


def settling(
    circuit: Circuit,
    z: Float[ArrayLike, " n"],
    trajectory: Trajectory,
    *,
    since: float = -np.inf,
    tolerance: float = TOLERANCE,
) -> Settling:
    """Where a trajectory ends whose drive is constant, `z`, from the time `since` (ms) on.

    It rests if each equation's imbalance (`circuit.imbalance`, the velocity scaled by the time
    constants) is at most `tolerance` of its terms at the end. Otherwise the largest Euclidean norm
    of the imbalance in the last quarter of that time is compared with that in the quarter before.
    Each cycle needs a few save times. A trajectory that begins beside an unstable state may rest.

    Needs concrete values, and no noise. Raises `ValueError` if the trajectory failed in another way
    than by diverging, has fewer than 8 save times after `since`, or none in the last quarter but
    one.
    """
    failure, t = int(trajectory.failure), np.asarray(trajectory.t)
    if failure == DIVERGENCE:
        return Settling("diverges", 0.0)
    if failure != NONE:
        raise ValueError(f"`trajectory` must not have failed: {trajectory.failure_name!r}.")
    after = t >= since
    if np.sum(after) < 8:
        raise ValueError(f"`trajectory` must have at least 8 save times, not {np.sum(after)}.")
    t, states = t[after], jax.tree.map(lambda x: np.asarray(x)[after], trajectory.state)
    velocity = np.asarray(_speeds(circuit, as_drive(circuit, z), states))
    speed = np.linalg.norm(velocity, axis=1)
    last = jax.tree.map(lambda x: x[-1], states)
    if float(unrest(driven_by(circuit, as_drive(circuit, z)), joined(last))) <= tolerance:
        return Settling("rests", 0.0)
    half = t >= (t[0] + t[-1]) / 2
    last = t >= (t[0] + 3 * t[-1]) / 4
    if not np.any(half & ~last):
        raise ValueError("`trajectory` must have save times in both of the last quarters.")
    kept = np.max(speed[last]) / np.max(speed[half & ~last])
    if kept < _STEADY:
        return Settling("decays", _frequency(t[half], velocity[half]))
    if kept > 1 / _STEADY:
        return Settling("grows", _frequency(t[half], velocity[half]))
    frequency = _frequency(t[half], np.concatenate(states, axis=1)[half])
    return Settling("oscillates" if frequency else "moves", frequency)


def _frequency(t: Float[np.ndarray, " t"], values: Float[np.ndarray, "t m"]) -> float:
    """Frequency, in Hz, of the column that varies most, from its upward crossings of the mean; 0 if
    there are too few."""
    x = values[:, np.argmax(np.std(values, axis=0))]
    x = x - np.mean(x)
    rises = np.flatnonzero((x[:-1] < 0) & (x[1:] >= 0))
    if len(rises) <= _CYCLES:
        return 0.0
    moments = t[rises] - x[rises] * (t[rises + 1] - t[rises]) / (x[rises + 1] - x[rises])
    return float(1000 * (len(rises) - 1) / (moments[-1] - moments[0]))
