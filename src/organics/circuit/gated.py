"""The published circuit of areas with feedback, in which gates and trackers have dynamics."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.circuit.areas import Areas, State
from organics.circuit.circuit import root
from organics.circuit.hierarchy import Hierarchy
from organics.circuit.values import Values, as_real, require_values
from organics.names import HierarchyForm


class GatedState(NamedTuple):
    """The potentials of one area, each of shape (n,): `y` and `a` as in a `State`, the gate `p` and
    the tracker `t` of each principal neuron."""

    y: Float[Array, "*batch n"]
    a: Float[Array, "*batch n"]
    p: Float[Array, "*batch n"]
    t: Float[Array, "*batch n"]


class GatedHierarchy(Areas):
    r"""A hierarchy with balanced feedback, of which each area has n gates and n trackers besides,

        tau_y dy/dt = -y + b z + (W_r q + gamma f) / (1 + p)
        tau_y dp/dt = -p + f / t + sqrt(a) + p sqrt(a) + alpha tau_y da/dt
        tau_y dt/dt = -t + sqrt(relu(y)^2 + floor)

    and `a`, the drives and the feedback `f` as in the hierarchy (0 in the last area). At rest
    `1 + p = (1 + f / y) / (1 - sqrt(a))`: with `floor = 0` its steady states with `y > 0` and
    `a < 1` are those of the hierarchy. The dynamics are not: gates lag.

    Arguments
        hierarchy: its form must be "balanced".
        alpha: how strongly changes of `a` drive the gates, one number.
        floor: keeps trackers of silent neurons away from 0, one number >= 0.

    Source: Pal, Rawat, Heeger & Martiniani 2025 (bioRxiv 2025.07.15.664935), and its code.
    """

    separable: ClassVar[bool] = False
    hierarchy: Hierarchy
    alpha: Float[Array, "*batch"]
    floor: Float[Array, "*batch"]

    def __init__(self, hierarchy: Hierarchy, alpha: "Values" = 10.0, floor: "Values" = 1e-6):
        if not isinstance(hierarchy, Hierarchy) or hierarchy.form != "balanced":
            raise ValueError(f"`hierarchy` must be a balanced `Hierarchy`, not {hierarchy!r}.")
        self.hierarchy = hierarchy
        self.alpha = as_real("alpha", alpha, hierarchy.dtype)
        self.floor = as_real("floor", floor, hierarchy.dtype)
        for name, value in (("alpha", self.alpha), ("floor", self.floor)):
            if value.ndim:
                raise ValueError(f"`{name}` must be one number, not of shape {value.shape}.")
        require_values("alpha", self.alpha, np.isfinite, "be finite")
        require_values("floor", self.floor, lambda v: np.isfinite(v) & (v >= 0), "be >= 0")

    @property
    def areas(self) -> tuple:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the hierarchy."""
        return self.hierarchy.areas

    @property
    def form(self) -> HierarchyForm:
        """ "published"."""
        return "published"

    @property
    def gamma(self) -> Float[Array, "*batch k"]:
        """That of the hierarchy."""
        return self.hierarchy.gamma

    @property
    def is_cascade(self) -> bool:
        """False: gates lag, also without feedback."""
        return False

    @property
    def valid(self) -> Bool[Array, ""]:
        """Whether all parameters are in their domains."""
        return self.hierarchy.valid & (self.floor >= 0)

    def require_valid(self) -> None:
        """Refuse values that the class refuses, if `eqx.tree_at` put them into it."""
        self.hierarchy.require_valid()
        GatedHierarchy(self.hierarchy, self.alpha, self.floor)

    def require_one(self) -> None:
        """Refuse a stack of hierarchies."""
        self.hierarchy.require_one()

    def is_inert(self, states: tuple) -> Bool[Array, ""]:
        """False, as for `is_cascade`."""
        del states
        return jnp.bool_(False)

    def never_acts(self, z: Values) -> bool:
        """Whether feedback changes no steady state of the hierarchy."""
        return self.hierarchy.never_acts(z)

    def drives(self, states: tuple, z: Float[Array, " n"]) -> tuple:
        """The input drive of each area."""
        return self.hierarchy.drives(states, z)

    def by_area(self, state: Any) -> tuple:
        """The state itself, which is a tuple."""
        return state

    def of_areas(self, values: tuple) -> tuple:
        """The tuple itself."""
        return values

    def names_of_areas(self, name: str) -> tuple:
        """`name[0]`, and so on."""
        return self.hierarchy.names_of_areas(name)

    def known_identities(self) -> "GatedHierarchy":
        """With `W_r=None` in each area whose recurrence is known to be the identity."""
        return eqx.tree_at(lambda g: g.hierarchy, self, self.hierarchy.known_identities())

    def split(self, x: Float[Array | np.ndarray, "*batch m"]) -> tuple:
        """The state of each area."""
        parts = jnp.split(x, np.cumsum([4 * n for n in self.sizes])[:-1], axis=-1)
        return tuple(GatedState(*jnp.split(part, 4, axis=-1)) for part in parts)

    @property
    def time_constants(self) -> tuple:
        """Gates and trackers have that of their principal neuron."""
        return tuple(
            GatedState(area.tau_y, area.tau_a, area.tau_y, area.tau_y) for area in self.areas
        )

    def complete(self, state: tuple) -> tuple:
        """With gates and trackers at rest in areas that have `y` and `a` alone."""
        each = zip(state, self._feedback(state), strict=True)
        return tuple(at if isinstance(at, GatedState) else self._at_rest(at, f) for at, f in each)

    def _at_rest(self, state: Any, f: Float[Array, " n"]) -> GatedState:
        y, a = state
        t, s = self._tracked(y), root(a)
        return GatedState(y, a, (_ratio(f, t) + s) / (1 - s), t)

    def _tracked(self, y: Float[Array, " n"]) -> Float[Array, " n"]:
        return root(jnp.square(jax.nn.relu(y)) + self.floor)

    def _feedback(self, states: tuple) -> tuple:
        """`f` of each area."""
        h, found = self.hierarchy, []
        for k, matrix in enumerate(h.feedback):
            rate = jax.nn.relu(states[k + 1].y)
            found.append(jnp.zeros_like(states[k].y) if matrix is None else h.g[k] * matrix @ rate)
        return (*found, jnp.zeros_like(states[-1].y))

    def hears_signs(self, k: int) -> Bool[Array, ""]:
        """Whether the equations have a kink where a `y` of area k is 0: it is rectified, feeds
        back, or has trackers without a floor."""
        feeds_back = k > 0 and self.hierarchy.feedback[k - 1] is not None
        return jnp.asarray(self.areas[k].rectified or feeds_back) | (self.floor == 0)

    def imbalance(self, states: tuple, z: Float[Array, " n"]) -> tuple:
        """Right-hand sides of all equations, before division by the time constants."""
        return self._each(states, z, lambda x: x, lambda area, at, z: area.imbalance(at, z).a)

    def terms(self, states: tuple, z: Float[Array, " n"]) -> tuple:
        """For each equation, the sum of the absolute values of the terms in `imbalance`."""
        return self._each(states, z, jnp.abs, lambda area, at, z: area.terms(at, z).a)

    def _each(self, states: tuple, z, of: Any, pooled: Any) -> tuple:
        """The sum of the terms of each equation, after `of` each of them."""
        found, gammas = [], (*self.hierarchy.gamma, 0.0)
        given = self.areas, states, self.drives(states, z), self._feedback(states), gammas
        for area, (y, a, p, t), drive, f, gamma in zip(*given, strict=True):
            s, q = root(a), area.rectify(y)
            da = pooled(area, State(y, a), drive)
            driven = (of(area.recur(q)) + of(gamma * f)) / of(1 + p)
            speed = of(self.alpha * area.tau_y / area.tau_a) * da
            found.append(
                GatedState(
                    of(-y) + of(area.b * drive) + driven,
                    da,
                    of(-p) + of(_ratio(f, t)) + s + of(p * s) + speed,
                    of(-t) + self._tracked(y),
                )
            )
        return tuple(found)


def _ratio(f: Float[Array, " n"], t: Float[Array, " n"]) -> Float[Array, " n"]:
    """`f / t`, and 0 where a silent neuron has `t = 0`."""
    return jnp.where(t > 0, f / jnp.where(t > 0, t, 1), 0)
