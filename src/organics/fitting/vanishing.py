"""Numbers that went to 0, or to a bound, in a fit.

A positive number is fitted as a logarithm, by which no prediction has a derivative once the number
is 0, whatever the data say about it. What they say shows a little away from there.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from organics.circuit.circuit import State
from organics.fitting.likelihood import Problem, evaluated
from organics.fitting.parameters import Parameters

_FAINT = 0.1  # of a derivative in units of errors: a standard error of 10 coordinates
_HALVINGS = 12


def brought_back(
    problem: Problem, u: Float[np.ndarray, " p"], states: State
) -> Float[np.ndarray, " p"]:
    """`u` with the coordinates that ran away moved towards the start, until predictions depend on
    them noticeably, or up to the start if they do not even there.

    To bring back a number that went to 0 hardly changes the likelihood: the number is then a small
    part of its standard error.
    """
    far, near = u, np.where(_may_run_away(problem.model.parameters), 0, u)
    ran_away = _faint(problem, u, states)
    if not ran_away[far != near].any():
        return u
    for _ in range(_HALVINGS):
        between = (far + near) / 2
        faint = _faint(problem, between, states)
        far, near = np.where(faint, between, far), np.where(faint, near, between)
    found = np.where(ran_away, near, u)
    return found if np.isfinite(evaluated(problem, jnp.asarray(found), states).value) else u


def _faint(problem: Problem, u, states: State) -> Bool[np.ndarray, " p"]:
    """Of each coordinate, whether predictions hardly depend on it."""
    return np.linalg.norm(np.asarray(evaluated(problem, jnp.asarray(u), states).R), axis=0) < _FAINT


def _may_run_away(layout: Parameters) -> Bool[np.ndarray, " p"]:
    ends = np.asarray(layout.positive | layout.bounded)
    return np.array([ends[at].all() for at in layout.groups()], bool)
