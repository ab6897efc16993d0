"""Whether a steady state is the only one, and the others that are found."""

from typing import NamedTuple

import numpy as np

from organics.enumeration.reduced import Reduced
from organics.enumeration.search import is_among, newton
from organics.enumeration.states import MOST, of_the_principal_state, principal, steady_states
from organics.printing import numbers
from organics.rest.point import OperatingPoint, require_point


class Others(NamedTuple):
    """What is known about the other steady states.

    Attributes
        unique: `True` if there provably is no other, `False` if others were found, `None` if none
            was found but some may exist.
        why: the reason, in words.
        points: those found, by rising `|a|`.
    """

    unique: bool | None
    why: str
    points: list[OperatingPoint]


def other_states(point: OperatingPoint, *, seed: int = 0) -> Others:
    """Other steady states than that of `point`, as far as the search of `steady_states` finds them.

    Computed in float64, on concrete values. With more than 100 neurons none is searched for. Raises
    `ValueError` if `point` is no `OperatingPoint`.
    """
    circuit, z = require_point(point).system, point.z
    if circuit.n > MOST and not circuit.has_identity_recurrence:
        return Others(None, f"others may exist: they are searched for up to n = {MOST}", [])
    found = steady_states(circuit, z, seed=seed)
    system = Reduced.of(circuit, np.asarray(z))
    given = system.unknowns(point.state)
    own = np.stack([given, *_exactly(system, given, circuit.dtype)])
    points = [
        state.point for state in found.states if not is_among(system.unknowns(state.state), own)
    ]
    why = found.why
    if (i := principal(found.states)) is not None:  # not by its number, as others are left out
        state = found.states[i].state
        here = is_among(system.unknowns(state), own)
        which = "this state" if here else f"the state with y = {numbers(state.y)}"
        why = why.removesuffix(of_the_principal_state(found.states))
        why += f"; {which} is the principal one, and stable by the theorem on one pool"
    if found.proved:
        return Others(not points, why, points)
    return Others(False if points else None, why, points)


def _exactly(system: Reduced, given: np.ndarray, dtype: np.dtype) -> list[np.ndarray]:
    """The states in float64 that are `given`, as `dtype` holds it."""
    near = float(np.finfo(dtype).eps) ** 0.5 * np.linalg.norm(given)
    return [one for one in newton(system, given[None]) if np.linalg.norm(one - given) <= near]
