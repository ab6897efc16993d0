"""A system at rest under a constant drive: the steady state that was found, and of what."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from organics.circuit.circuit import Circuit, State
from organics.printing import Lines, in_html, in_words, numbers, verdict

METHODS = ("closed form", "iteration", "newton", "relaxation", "given")
CLOSED_FORM, ITERATION, NEWTON, RELAXATION, GIVEN = range(len(METHODS))


class SteadyState(NamedTuple):
    """A steady state, and how far it can be trusted.

    Attributes
        state: `y` and `a`, each of shape (n,).
        residual: Euclidean norm of `circuit.imbalance`, the velocity scaled by the time constants.
        converged: whether this is a steady state. Each equation must balance, to within the
            tolerance of the terms that it sums; Newton's last step must have been small, and
            rounding must move the state as little. Never true where a parameter of the circuit is
            out of its domain. If false, there is no steady state nearby, or there are too few
            digits to tell, and `state` is the best that was found.
        iterations: total number of iterations of Algorithm 1 and of Newton.
        method: index into `METHODS` of what produced the state; `method_name` has the words.
    """

    state: State
    residual: Float[Array, ""]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]
    method: Int[Array, ""]

    def lines(self) -> Lines:
        """In words."""
        rows = [("y", numbers(self.state.y)), ("a", numbers(self.state.a))]
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
        """What produced the state: one of `METHODS`. Needs concrete values."""
        return METHODS[int(self.method)]


class OperatingPoint(eqx.Module):
    """A system at rest: what `steady_state` returns, and `stability`, `certify` and others ask for.

    A pytree, which can be handed to compiled functions. Mapped over many drives of one system it
    would hold a copy of the system for each: return what you need of it, such as `point.found`,
    from the function that is mapped.

    Attributes
        system: the circuit; one whose `W_r` is known to be the identity has `W_r=None` here.
        z: its input drive, shape (n,).
        found: the steady state, and how far it can be trusted.
    """

    system: Circuit
    z: Float[Array, "*batch n"]
    found: SteadyState

    @property
    def state(self) -> State:
        """`y` and `a`, each of shape (n,)."""
        return self.found.state

    @property
    def residual(self) -> Float[Array, "*batch"]:
        """Euclidean norm of what the equations leave over."""
        return self.found.residual

    @property
    def converged(self) -> Bool[Array, "*batch"]:
        """Whether that is a steady state: see `SteadyState`."""
        return self.found.converged

    @property
    def iterations(self) -> Int[Array, "*batch"]:
        """Of Algorithm 1 and of Newton, together."""
        return self.found.iterations

    @property
    def method_name(self) -> str:
        """What found the state: one of `METHODS`. Needs concrete values."""
        return self.found.method_name

    def lines(self) -> Lines:
        """In words."""
        return self.found.lines()

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def require_point(point: OperatingPoint) -> OperatingPoint:
    """The point, or a `ValueError` if it is none, such as a circuit or a steady state alone."""
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
