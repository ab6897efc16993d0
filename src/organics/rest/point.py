"""A system at rest under a constant drive: the system, its drive and the steady state found."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from organics.circuit.areas import joined, named
from organics.circuit.circuit import Circuit, State
from organics.printing import Lines, in_html, in_words, numbers, verdict

METHODS = ("closed form", "iteration", "newton", "relaxation", "given")
CLOSED_FORM, ITERATION, NEWTON, RELAXATION, GIVEN = range(len(METHODS))


class SteadyState(NamedTuple):
    """A steady state, and how far it can be trusted.

    Attributes
        state: `y` and `a`, each of shape (n,); of a hierarchy a tuple of them, one for each area.
        residual: Euclidean norm of `circuit.imbalance`, the velocity scaled by the time constants.
        converged: whether this is a steady state: each equation balances to within the tolerance,
            relative to its terms; Newton's last step was small; and rounding moves the state as
            little. Never true if a parameter of the circuit is out of its domain. If false, no
            steady state is near, or the precision is too low to tell, and `state` is the best one
            found.
        iterations: total number of iterations of Algorithm 1 and of Newton.
        method: index into `METHODS` of the method that produced the state; `method_name` is its
            name.
    """

    state: Any
    residual: Float[Array, ""]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]
    method: Int[Array, ""]

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        rows = [(name, numbers(values)) for name, values in named(self.state)]
        rows.append(("residual", numbers(self.residual)))
        if np.ndim(self.method) == 0:
            rows.append(("found by", f"{self.method_name}, {int(self.iterations)} iterations"))
        return Lines(verdict(self.converged, "at rest", "no steady state found"), tuple(rows))

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)

    @property
    def method_name(self) -> str:
        """The method that produced the state, one of `METHODS`. Needs concrete values."""
        return METHODS[int(self.method)]


class OperatingPoint(eqx.Module):
    """A system at rest: returned by `steady_state`, taken by `stability`, `certify` and others.

    A pytree, so compiled functions can take and return it. If you map over many drives of one
    system, return only what you need, such as `point.found`: a stack of points holds a copy of the
    system for each drive.

    Attributes
        system: the circuit or hierarchy, with `W_r=None` where `W_r` is known to be the identity.
        z: its input drive, shape (n,).
        found: the steady state, and how far it can be trusted.
    """

    system: Any
    z: Float[Array, "*batch n"]
    found: SteadyState

    @property
    def state(self) -> Any:
        """`y` and `a`, each of shape (n,); of a hierarchy a tuple of such states."""
        return self.found.state

    @property
    def residual(self) -> Float[Array, "*batch"]:
        """Euclidean norm of `circuit.imbalance`."""
        return self.found.residual

    @property
    def converged(self) -> Bool[Array, "*batch"]:
        """Whether the state is a steady state: see `SteadyState`."""
        return self.found.converged

    @property
    def iterations(self) -> Int[Array, "*batch"]:
        """Total number of iterations of Algorithm 1 and of Newton."""
        return self.found.iterations

    @property
    def method_name(self) -> str:
        """The method that found the state, one of `METHODS`. Needs concrete values."""
        return self.found.method_name

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        return self.found.lines()

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def require_point(point: OperatingPoint) -> OperatingPoint:
    """The point of a circuit. Raises `ValueError` for anything else, such as a `SteadyState` or the
    point of a hierarchy."""
    if not isinstance(require_any_point(point).system, Circuit):
        raise ValueError(
            "`point` must be that of a `Circuit`; for a hierarchy of areas this does not exist."
        )
    return point


def area_points(point: OperatingPoint) -> tuple:
    """Each area of a circuit or hierarchy at rest as a circuit at rest under its own drive; a point
    of `steady_state` for that circuit where feedback is inert."""
    system, found = require_any_point(point).system, point.found
    states = system.by_area(point.state)
    points = []
    for area, at, drive in zip(system.areas, states, system.drives(states, point.z), strict=True):
        state = State(at.y, at.a)
        residual = jnp.linalg.norm(joined(area.imbalance(state, drive)))
        steady = SteadyState(state, residual, found.converged, found.iterations, found.method)
        points.append(OperatingPoint(area, drive, steady))
    return tuple(points)


def require_any_point(point: OperatingPoint) -> OperatingPoint:
    """The point of a circuit or a hierarchy. Raises `ValueError` for anything else."""
    if not isinstance(point, OperatingPoint):
        raise ValueError(
            "`point` must be an `OperatingPoint`, as `steady_state(circuit, z)` returns it, not "
            f"{type(point).__name__}."
        )
    if point.z.ndim != 1:
        raise ValueError(
            f"`point` must be one operating point, not a stack of them (`z` has shape "
            f"{point.z.shape}): map over them, as in `jax.vmap(stability)(points)`."
        )
    return point
