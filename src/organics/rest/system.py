"""What the search for steady states needs to know of a system under its drive."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import fields
from functools import singledispatch
from operator import attrgetter
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.circuit.areas import Areas, joined, modulators
from organics.circuit.circuit import Circuit, State, root
from organics.circuit.gated import GatedHierarchy, GatedState
from organics.circuit.hierarchy import Hierarchy, PieceOfHierarchy
from organics.circuit.weights import diagonal_of
from organics.linear.jacobian import imbalance_blocks, imbalance_matrix
from organics.linear.krylov import Linear, inverse_within, neuron_blocks, solve_linearized


class System(eqx.Module):
    """Equations `tau dx/dt = F(x)` of m numbers, with fixed parameters and drive.

    Subclasses give the equations, and override the defaults below where needed.

    Attributes
        drive: the name of the array that a contrast multiplies.
    """

    drive: ClassVar[str] = "z"

    @abstractmethod
    def time_constants(self) -> Float[Array, " m"]:
        """`tau`, in ms."""

    @abstractmethod
    def imbalance(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`F(x)`, which is 0 at rest."""

    @abstractmethod
    def terms(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """For each number, the sum of the absolute values of the terms in `imbalance`."""

    @abstractmethod
    def jacobian(self, x: Float[Array, " m"]) -> Float[Array, "m m"]:
        """The derivative `J` of `F`."""

    def contains(self, x: Float[Array, " m"]) -> Bool[Array, ""]:
        """Whether `x` is in the domain of the system; by default all states are."""
        del x
        return jnp.bool_(True)

    def without_underflow(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`x` with 0 in place of numbers whose products underflow; by default `x` itself."""
        return x

    def room(self, x: Float[Array, " m"], step: Float[Array, " m"]) -> Float[Array, ""]:
        """The largest fraction of a step that stays in the domain; by default any."""
        del step
        return jnp.full((), jnp.inf, x.dtype)

    def scales(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """The scale of each number for judging whether a step is small, besides its terms, which
        may be large and cancel."""
        return jnp.full_like(x, jnp.max(jnp.abs(x)))

    def product(self, x: Float[Array, " m"]) -> Linear:
        """The map `v -> J v`."""
        return jax.linearize(self.imbalance, x)[1]

    def nearly_inverse(self, x: Float[Array, " m"]) -> Linear:
        """An approximation to `v -> J^-1 v` that is cheap to compute."""
        del x
        return lambda v: -v

    def solve(self, x: Float[Array, " m"], b: Float[Array, " m"]) -> Float[Array, " m"]:
        """`v` in `J v = b`."""
        return jnp.linalg.solve(self.jacobian(x), b)

    def second(
        self, x: Float[Array, " m"], u: Float[Array, " m"], v: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        """The second derivative of `F` along `u` and `v`."""
        return jax.jvp(lambda x: jax.jvp(self.imbalance, (x,), (u,))[1], (x,), (v,))[1]

    def third(
        self,
        x: Float[Array, " m"],
        u: Float[Array, " m"],
        v: Float[Array, " m"],
        w: Float[Array, " m"],
    ) -> Float[Array, " m"]:
        """The third derivative of `F` along `u`, `v` and `w`."""
        return jax.jvp(lambda x: self.second(x, u, v), (x,), (w,))[1]

    def lengths(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """A small change of each number, by which distances between states are measured."""
        return jnp.full_like(x, 0.2 * jnp.maximum(1, jnp.max(jnp.abs(x))))

    def kinks(self) -> np.ndarray:
        """The indices of the numbers at whose zero the equations are not smooth; by default none
        that is known."""
        return np.zeros(0, int)

    def names_of_kinks(self) -> list[int | str]:
        """What the numbers with kinks are called; by default they are counted from 0."""
        return list(range(len(self.kinks())))

    def piece(self, positive: Bool[Array, " kinks"]) -> "System":
        """The smooth system that is equal to this one where the numbers with kinks have these
        signs."""
        del positive
        return self

    def parameters(self) -> dict[str, Callable]:
        """The arrays by name, each with the function that reads it from such a system."""
        arrays = (field.name for field in fields(self) if eqx.is_array(getattr(self, field.name)))
        return {name: attrgetter(name) for name in arrays}

    def require_valid(self) -> None:
        """Raise `ValueError`, naming the parameter, if one is out of its domain."""


def smallest(dtype: jnp.dtype) -> float:
    """Below this, numbers of the type have lost digits to underflow."""
    return float(jnp.finfo(dtype).tiny / jnp.finfo(dtype).eps)


class Driven(System):
    """A circuit or hierarchy under the input drive `z`; its numbers are `joined` states."""

    circuit: Areas
    z: Float[Array, " n"]

    def states(self, x: Float[Array | np.ndarray, " m"]) -> tuple:
        """The state of each area."""
        return self.circuit.by_area(self.circuit.split(x))

    def imbalance(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`circuit.imbalance`."""
        return joined(self.circuit.imbalance(self.circuit.split(x), self.z))

    def terms(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`circuit.terms`."""
        return joined(self.circuit.terms(self.circuit.split(x), self.z))

    def jacobian(self, x: Float[Array, " m"]) -> Float[Array, "m m"]:
        """Analytic."""
        return imbalance_matrix(self.circuit, self.circuit.split(x))

    def time_constants(self) -> Float[Array, " m"]:
        """`tau_y`, then `tau_a`, of each area."""
        return joined(self.circuit.time_constants)

    def contains(self, x: Float[Array, " m"]) -> Bool[Array, ""]:
        """Whether `a > 0`."""
        return jnp.all(modulators(self.circuit.split(x)) > 0)

    def without_underflow(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """0 for such a `y`."""
        least = smallest(x.dtype)
        shown = [at._replace(y=jnp.where(jnp.abs(at.y) < least, 0, at.y)) for at in self.states(x)]
        return joined(tuple(shown))

    def room(self, x: Float[Array, " m"], step: Float[Array, " m"]) -> Float[Array, ""]:
        """The fraction at which no `a` falls by more than nine tenths."""
        a, da = (modulators(self.circuit.split(v)) for v in (x, step))
        return jnp.min(jnp.where(da < 0, -0.9 * a / jnp.where(da < 0, da, -1), jnp.inf))

    def scales(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """For every `y` the largest `y` of its area; for `a` the terms are enough, as they are
        positive and do not cancel."""
        scales = [
            jax.tree.map(lambda v: jnp.full_like(v, jnp.inf), at)._replace(
                y=jnp.full_like(at.y, jnp.max(jnp.abs(at.y)))
            )
            for at in self.states(x)
        ]
        return joined(tuple(scales))

    def lengths(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """Fifths, in each area: of `a`, and of the bound `W_ii^-1/2` on every `y_i` at rest; of
        trackers as of `y`, and of gates those of `1 + p`."""
        each = zip(self.circuit.areas, self.states(x), strict=True)
        return joined(tuple(_lengths(area, at) for area, at in each))

    def parameters(self) -> dict[str, Callable]:
        """`z` and the arrays of each circuit; those of a hierarchy are named as `areas[1].W`."""
        found: dict[str, Callable] = {"z": attrgetter("z")}
        for k, (area, prefix) in enumerate(zip(self.circuit.areas, self.prefixes, strict=True)):
            for name in ("W", "W_r", "b", "b0", "sigma", "tau_y", "tau_a"):
                if eqx.is_array(getattr(area, name)):
                    found[prefix + name] = lambda d, k=k, name=name: getattr(
                        d.circuit.areas[k], name
                    )
        return found

    @property
    def prefixes(self) -> tuple:
        """What stands before the name of an array of each area."""
        return ("",)

    def with_matrices(self, *names: str) -> "Driven":
        """With a matrix in place of `W_r=None` in areas of whose `W_r` one of the names speaks."""
        driven = self
        for k, (area, prefix) in enumerate(zip(self.circuit.areas, self.prefixes, strict=True)):
            named = any(name.startswith(f"{prefix}W_r") for name in names)
            if named and area.has_identity_recurrence:
                driven = eqx.tree_at(
                    lambda d, k=k: d.circuit.areas[k].W_r,
                    driven,
                    jnp.eye(area.n, dtype=area.dtype),
                    is_leaf=lambda leaf: leaf is None,
                )
        return driven

    def require_valid(self) -> None:
        """As the circuit or hierarchy does."""
        self.circuit.require_valid()


def _lengths(circuit: Circuit, state: Any) -> Any:
    y, own = state.y, jnp.max(circuit.pool.diagonal())
    bounded = own > 0
    most = jnp.where(bounded, jax.lax.rsqrt(jnp.where(bounded, own, 1)), jnp.max(jnp.abs(y)))
    size = 0.2 * jnp.full_like(y, most + 1e-3)
    scaled = jax.tree.map(lambda value: 0.2 * value, state)._replace(y=size)
    if not isinstance(state, GatedState):
        return scaled
    return scaled._replace(p=0.2 * (1 + jnp.abs(state.p)), t=size)


class DrivenCircuit(Driven):
    """A circuit under the input drive `z`; its numbers are `y`, then `a`.

    With `by_products`, `J v = b` is solved by products with `W` and `W_r`.
    """

    circuit: Circuit  # pyright: ignore[reportIncompatibleVariableOverride]
    by_products: bool = eqx.field(static=True, default=False)

    def nearly_inverse(self, x: Float[Array, " m"]) -> Linear:
        """The inverse of the part of `J` within each neuron."""
        return neuron_blocks(self.circuit, as_state(x))

    def second(
        self, x: Float[Array, " m"], u: Float[Array, " m"], v: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        """Analytic; at `y_i = 0` of the rectified model that of the left side."""
        circuit, (y, a), s = self.circuit, as_state(x), root(as_state(x).a)
        active, q = circuit.active(y), circuit.rectify(y)
        (b1, a1), (b2, a2) = ((active * b, a) for b, a in (as_state(u), as_state(v)))
        recur = circuit.recur
        return jnp.concatenate(
            [
                -(a1 * recur(b2) + a2 * recur(b1)) / (2 * s) + recur(q) * a1 * a2 / (4 * s**3),
                2 * circuit.pool.apply(a * b1 * b2 + q * (b1 * a2 + b2 * a1)),
            ]
        )

    def third(
        self,
        x: Float[Array, " m"],
        u: Float[Array, " m"],
        v: Float[Array, " m"],
        w: Float[Array, " m"],
    ) -> Float[Array, " m"]:
        """Analytic; at `y_i = 0` of the rectified model that of the left side."""
        circuit, y, s = self.circuit, as_state(x).y, root(as_state(x).a)
        active, q = circuit.active(y), circuit.rectify(y)
        (b1, a1), (b2, a2), (b3, a3) = ((active * b, a) for b, a in map(as_state, (u, v, w)))
        recur = circuit.recur
        mixed = recur(b1) * a2 * a3 + recur(b2) * a3 * a1 + recur(b3) * a1 * a2
        return jnp.concatenate(
            [
                mixed / (4 * s**3) - 3 * recur(q) * a1 * a2 * a3 / (8 * s**5),
                2 * circuit.pool.apply(b1 * b2 * a3 + b1 * b3 * a2 + b2 * b3 * a1),
            ]
        )

    def kinks(self) -> np.ndarray:
        """`y` of the rectified model."""
        return np.arange(self.circuit.n if self.circuit.rectified else 0)

    def piece(self, positive: Bool[Array, " kinks"]) -> System:
        """The main model in which nothing hears the neurons whose `y` is not positive."""
        if not self.circuit.rectified:
            return self
        return DrivenCircuit(self.circuit.among(positive), self.z, self.by_products)

    def solve(self, x: Float[Array, " m"], b: Float[Array, " m"]) -> Float[Array, " m"]:
        """By a factorization, or by products."""
        if self.by_products:
            return solve_linearized(self.circuit, self.z, as_state(x), b)
        return super().solve(x, b)


class _DrivenAreas(Driven):
    """Several areas under the drive `z` of the first one."""

    @property
    @abstractmethod
    def hierarchy(self) -> Hierarchy:
        """Which holds the areas and what is between them."""

    @property
    def prefixes(self) -> tuple:
        """`areas[0].`, and so on."""
        return tuple(f"areas[{k}]." for k in range(len(self.circuit.areas)))

    def parameters(self) -> dict[str, Callable]:
        """Those of the areas, `gamma` and `g` and the matrices between areas, as `feedback[0]`."""
        found: dict[str, Callable] = {
            name: attrgetter(f"hierarchy.{name}") for name in ("gamma", "g")
        }
        for name in ("feedforward", "feedback"):
            for k, matrix in enumerate(getattr(self.hierarchy, name)):
                if matrix is not None:
                    found[f"{name}[{k}]"] = lambda d, name=name, k=k: getattr(d.hierarchy, name)[k]
        return super().parameters() | found


class DrivenHierarchy(_DrivenAreas):
    """A hierarchy under the drive `z` of its first area; its numbers are `(y_1, a_1, y_2, ...)`."""

    circuit: Hierarchy  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def hierarchy(self) -> Hierarchy:
        """The circuit itself."""
        return self.circuit

    def kinks(self) -> np.ndarray:
        """`y` of the areas that hear signs."""
        return np.concatenate([np.zeros(0, int), *(part for part in self._kinks() if len(part))])

    def piece(self, positive: Bool[Array, " kinks"]) -> System:
        """A `PieceOfHierarchy`."""
        ends = np.cumsum([len(part) for part in self._kinks()])[:-1]
        parts = jnp.split(positive, ends)
        active = tuple(part if len(part) else None for part in parts)
        return DrivenHierarchy(PieceOfHierarchy(self.circuit, active), self.z)

    def names_of_kinks(self) -> list[int | str]:
        """Such as "2.y1" for the first neuron of the second area."""
        return [
            f"{k + 1}.y{i + 1}" for k, part in enumerate(self._kinks()) for i in range(len(part))
        ]

    def _kinks(self) -> list[np.ndarray]:
        """Of each area."""
        starts = np.cumsum([0, *(2 * n for n in self.circuit.sizes)])
        return [
            start + np.arange(n if self.circuit.hears_signs(k) else 0)
            for k, (start, n) in enumerate(zip(starts, self.circuit.sizes, strict=False))
        ]

    def nearly_inverse(self, x: Float[Array, " m"]) -> Linear:
        """The inverse of the part of `J` within each neuron."""
        blocks = imbalance_blocks(self.circuit, self.states(x))
        inverses = [inverse_within(*_within(block)) for block in blocks.within]

        def inverse(v):
            each = zip(inverses, self.states(v), strict=True)
            return joined(tuple(solve(*part) for solve, part in each))

        return inverse


class DrivenGatedHierarchy(_DrivenAreas):
    """The published circuit of areas under the drive `z` of the first one; its numbers are `(y_1,
    a_1, p_1, t_1, y_2, ...)`."""

    circuit: GatedHierarchy  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def hierarchy(self) -> Hierarchy:
        """That to which gates and trackers are added."""
        return self.circuit.hierarchy

    def parameters(self) -> dict[str, Callable]:
        """Also `alpha` and `floor`."""
        own = {name: attrgetter(f"circuit.{name}") for name in ("alpha", "floor")}
        return super().parameters() | own


def _within(block: Float[Array, "two_n two_n"]) -> tuple:
    """The entries of an area's block within each neuron."""
    n = len(block) // 2
    rows = (block[:n, :n], block[:n, n:]), (block[n:, :n], block[n:, n:])
    return tuple(diagonal_of(part) for row in rows for part in row)


@singledispatch
def driven_by(circuit: Areas, z: Float[Array, " n"]) -> Driven:
    """The circuit or hierarchy under the drive `z`, as a `System`."""
    raise TypeError(f"{type(circuit).__name__} under {z} is no system.")


driven_by.register(Circuit, DrivenCircuit)
driven_by.register(Hierarchy, DrivenHierarchy)
driven_by.register(GatedHierarchy, DrivenGatedHierarchy)


def as_state(x: Float[Array, " two_n"]) -> State:
    """`y` and `a` of a circuit's numbers."""
    return State(*jnp.split(x, 2))
