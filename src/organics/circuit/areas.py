"""What circuits and hierarchies of circuits have in common."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.circuit.values import Values


class State(NamedTuple):
    """Membrane potentials: `y` (principal neurons) and `a` (modulator neurons), each of shape (n,).

    Functions of this library also return stacked states, with leading axes for time or batch.
    """

    y: Float[Array, "*batch n"]
    a: Float[Array, "*batch n"]


class Areas(eqx.Module):
    """One area of the cortex, which is a `Circuit`, or a `Hierarchy` of several.

    A state is that of the circuit, or a tuple of states, one for each area.

    Attributes
        areas: the circuits.
        separable: whether, where feedback has no effect, each area behaves as its circuit.
    """

    areas: eqx.AbstractVar[tuple]
    separable: ClassVar[bool] = True

    @property
    @abstractmethod
    def is_cascade(self) -> bool:
        """Whether there is no feedback between areas at all."""

    @property
    @abstractmethod
    def valid(self) -> Bool[Array, ""]:
        """Whether all parameters are in their domains. Needed for traced or replaced parameters,
        which nothing else checks."""

    @abstractmethod
    def require_valid(self) -> None:
        """Raise `ValueError`, naming the parameter, if `eqx.tree_at`, which checks nothing, put an
        invalid value into it."""

    @abstractmethod
    def require_one(self) -> None:
        """Raise `ValueError` for a stack of systems, or parameters that do not fit together."""

    @abstractmethod
    def is_inert(self, states: tuple) -> Bool[Array, ""]:
        """Whether feedback changes neither the states of the areas nor their linearization."""

    @abstractmethod
    def never_acts(self, z: Values) -> bool:
        """Whether feedback changes no steady state under the drive `z`, on concrete values."""

    @abstractmethod
    def drives(self, states: tuple, z: Float[Array, " n"]) -> tuple:
        """The input drive of each area, `z` and then those from below."""

    @abstractmethod
    def by_area(self, state: Any) -> tuple:
        """A state, or other values like one, as a tuple with one entry for each area."""

    @abstractmethod
    def of_areas(self, values: tuple) -> Any:
        """What `by_area` takes apart."""

    @abstractmethod
    def names_of_areas(self, name: str) -> tuple:
        """What each area's part of an argument is called, in refusals."""

    @abstractmethod
    def known_identities(self) -> "Areas":
        """With `W_r=None` in each area whose recurrence is known to be the identity."""

    @abstractmethod
    def split(self, x: Float[Array | np.ndarray, "*batch m"]) -> Any:
        """The state of which `x` are the numbers along its last axis, as `joined` gives them."""

    def complete(self, state: Any) -> Any:
        """A state of `y` and `a` with whatever else the system has, at rest for these."""
        return state

    @abstractmethod
    def imbalance(self, state: Any, /, z: Float[Array, " n"]) -> Any:
        """Right-hand sides of all equations, before division by the time constants."""

    @abstractmethod
    def terms(self, state: Any, /, z: Float[Array, " n"]) -> Any:
        """For each equation, the sum of the absolute values of the terms in `imbalance`."""

    @property
    @abstractmethod
    def time_constants(self) -> Any:
        """Those of all neurons in ms, in the form of a state."""

    def velocity(self, state: Any, z: Float[Array, " n"]) -> Any:
        """Time derivative of the state per ms, for the input drive `z`."""
        return jax.tree.map(jnp.divide, self.imbalance(state, z), self.time_constants)

    @property
    def n(self) -> int:
        """Number of principal neurons of the first area, which receives the drive."""
        return self.areas[0].n

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the parameters."""
        return self.areas[0].dtype

    @property
    def sizes(self) -> tuple:
        """The number of principal neurons of each area."""
        return tuple(area.n for area in self.areas)

    @property
    def has_identity_recurrence(self) -> bool:
        """Whether that of every area is known to be the identity, so that without feedback the
        steady state is divisive normalization."""
        return all(area.has_identity_recurrence for area in self.areas)


def joined(state: Any) -> Float[Array, "*batch m"]:
    """A state as numbers along the last axis: `y` and `a` of the first area, of the second, ..."""
    return jnp.concatenate(jax.tree.leaves(state), axis=-1)


def modulators(state: Any) -> Any:
    """`a` of all areas, shape (..., n)."""
    if isinstance(state, State):
        return state.a
    return jnp.concatenate([area.a for area in state], axis=-1)


def named(state: Any) -> list[tuple[str, Any]]:
    """The potentials of a circuit or hierarchy by name."""
    if isinstance(state, State):
        return list(state._asdict().items())
    return [
        (f"{name} of area {k + 1}", values)
        for k, area in enumerate(state)
        for name, values in area._asdict().items()
    ]
