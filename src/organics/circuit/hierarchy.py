r"""Areas of the cortex: a chain of circuits, each driven by the one below and modulated by the one
above."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.arguments import require_among
from organics.circuit.areas import Areas
from organics.circuit.circuit import Circuit, State, gate
from organics.circuit.values import Values, as_real, require_values
from organics.names import FeedbackForm


class Feedback(eqx.Module):
    """What feedback does to one area.

    Attributes, each of shape (n,)
        input: `f`.
        share: how far feedback replaces the recurrence: `f / (relu(y) + f)`; 1 if additive.
        instead: by what: `gamma relu(y) - W_r q`; `gamma f` if additive.
        sizes: the sum of the absolute values of the terms of `added`.
    """

    input: Float[Array, " n"]
    share: Float[Array, " n"]
    instead: Float[Array, " n"]
    sizes: Float[Array, " n"]

    @property
    def added(self) -> Float[Array, " n"]:
        """`R - W_r q`: what feedback adds to the recurrent drive."""
        return self.share * self.instead


class Hierarchy(Areas):
    r"""A chain of K areas with feedback. Area k is a `Circuit` of n_k + n_k neurons,

        tau_y dy_k/dt = -y_k + b_k z_k + (1 - sqrt(a_k)) * R_k
        tau_a da_k/dt = -a_k + (b0 sigma)_k^2 + W_k (q_k^2 a_k),

    where `q_k` is `y_k`, or `relu(y_k)` if the area is rectified. The first area is driven by `z`
    and the others by the rates of the area below, `z_{k+1} = feedforward_k relu(y_k)^2`. Feedback
    comes from the area above and changes the recurrent drive `R_k`; the last area has none. Its
    form is

    * "balanced": `R = (W_r q + gamma f) relu(y) / (relu(y) + f)`, with `f = g feedback_k
      relu(y_{k+1})`. Feedback modulates: it cannot drive a silent neuron at rest. Without feedback
      the factor is 1. With `gamma = 1` and identity recurrence it changes nothing.
    * "additive": `R = W_r q + gamma f`, with `f = g feedback_k q_{k+1}`. Feedback drives, and is
      amplified as the recurrence is.

    Several areas on one level, such as V4 and V5 above V1, are one area with pools in blocks.

    Arguments
        areas: K >= 1 circuits, from below, of any sizes and of one floating-point type.
        feedforward: K - 1 matrices; the k-th, of shape (n_{k+1}, n_k), leads from area k to k + 1.
        feedback: K - 1 matrices; the k-th, of shape (n_k, n_{k+1}), leads back from area k + 1 to
            k, with entries >= 0 if the form is "balanced". `None` for an area without feedback, or
            in place of all: a cascade.
        gamma: weight of feedback, >= 0, one number or K - 1.
        g: gain of feedback, >= 0, one number or K - 1.
        form: "balanced" or "additive".

    Values are checked unless they are being traced. Raises `ValueError`, naming the argument, if a
    shape or a value is not as above.

    Source: Pal, Rawat, Heeger & Martiniani 2025 (bioRxiv 2025.07.15.664935), of whose circuit
    "balanced" has the steady states.
    """

    areas: tuple
    feedforward: tuple
    feedback: tuple
    gamma: Float[Array, "*batch k"]
    g: Float[Array, "*batch k"]
    form: FeedbackForm = eqx.field(static=True)

    def __init__(
        self,
        areas: Sequence[Circuit],
        feedforward: "Sequence[Values]" = (),
        feedback: "Sequence[Values | None] | None" = None,
        gamma: "Values" = 1.0,
        g: "Values" = 1.0,
        form: FeedbackForm = "balanced",
    ):
        require_among("form", form, FeedbackForm)
        if isinstance(areas, Circuit):
            raise ValueError("`areas` must be a sequence of circuits, not one circuit.")
        self.form = form
        self.areas = tuple(_area(k, area) for k, area in enumerate(areas))
        if not self.areas:
            raise ValueError("`areas` must hold at least one circuit.")
        for k, area in enumerate(self.areas):
            if area.dtype != self.dtype:
                raise ValueError(
                    f"`areas[{k}]` must be of the type of the first one, {self.dtype}, not "
                    f"{area.dtype}."
                )
        ups = list(zip(self.sizes[1:], self.sizes[:-1], strict=True))
        backs = (None,) * len(ups) if feedback is None else feedback
        self.feedforward = _matrices("feedforward", feedforward, ups, self.dtype)
        self.feedback = _matrices("feedback", backs, [(n, m) for m, n in ups], self.dtype)
        for k, matrix in enumerate(self.feedforward):
            if matrix is None:
                raise ValueError(f"`feedforward[{k}]` must be a matrix, not None.")
        for k, matrix in enumerate(self.feedback):
            if form == "balanced" and matrix is not None:
                name = f"feedback[{k}]"
                require_values(name, matrix, lambda M: M >= 0, "be >= 0 in the balanced form")
        self.gamma = _gains("gamma", gamma, len(ups), self.dtype)
        self.g = _gains("g", g, len(ups), self.dtype)

    @property
    def time_constants(self) -> tuple:
        """`tau_y` and `tau_a` of each area, in ms."""
        return tuple(area.time_constants for area in self.areas)

    @property
    def is_cascade(self) -> bool:
        """Whether there is no feedback at all."""
        return all(matrix is None for matrix in self.feedback)

    @property
    def valid(self) -> Bool[Array, ""]:
        """Whether all parameters are in their domains, see `Circuit.valid`."""
        found = jnp.all(self.gamma >= 0) & jnp.all(self.g >= 0)
        for area in self.areas:
            found &= area.valid
        for matrix in self.feedback:
            if matrix is not None and self.form == "balanced":
                found &= jnp.all(matrix >= 0)
        return found

    def is_inert(self, states: tuple) -> Bool[Array, ""]:
        """Whether feedback changes neither these states nor their linearization: there is none, its
        gain is 0, or it has the form and weight of which the class says so (and in the main model
        no `y` is negative)."""
        found = jnp.bool_(True)
        for k, (area, matrix) in enumerate(zip(self.areas[:-1], self.feedback, strict=True)):
            if matrix is None:
                continue
            silent = self.g[k] == 0
            if self.form == "additive":
                silent |= self.gamma[k] == 0
            elif area.has_identity_recurrence:
                unsigned = area.rectified | jnp.all(states[k].y >= 0)
                silent |= (self.gamma[k] == 1) & unsigned
            found &= silent
        return found

    def never_acts(self, z: Values) -> bool:
        """Whether feedback changes no steady state under the drive `z`, wherever they are: there is
        none, its gain is 0, or with identity recurrence it is additive with `gamma = 0`, or
        balanced with `gamma = 1` while no `y` can be negative at rest. On concrete values."""
        ups = (np.asarray(z), *map(np.asarray, self.feedforward))
        for k, (area, matrix) in enumerate(zip(self.areas[:-1], self.feedback, strict=True)):
            gamma, g = float(self.gamma[k]), float(self.g[k])
            if matrix is None or g == 0 or (self.form == "additive" and gamma == 0):
                continue
            positive = area.rectified or bool(np.all(ups[k] >= 0))
            unchanged = gamma == 1 and area.has_identity_recurrence and positive
            if self.form != "balanced" or not unchanged:
                return False
        return True

    def drives(self, states: tuple, z: Float[Array, " n"]) -> tuple:
        """The input drive of each area, `z` and then those from below."""
        rates = (self.rates(k, state.y) for k, state in enumerate(states[:-1]))
        return (z, *(M @ jnp.square(r) for M, r in zip(self.feedforward, rates, strict=True)))

    def rates(self, k: int, y: Float[Array, " n"]) -> Float[Array, " n"]:
        """Square roots of the firing rates of area k, `relu(y)`."""
        del k
        return jax.nn.relu(y)

    def hears_signs(self, k: int) -> bool:
        """Whether the equations have a kink where a `y` of area k is 0: it is rectified, or has to
        do with balanced feedback. (That rates are `relu(y)^2` makes none.)"""
        receives = k < len(self.feedback) and self.feedback[k] is not None
        feeds_back = k > 0 and self.feedback[k - 1] is not None
        balanced = self.form == "balanced" and (receives or feeds_back)
        return self.areas[k].rectified or balanced

    def received(self, states: tuple) -> tuple:
        """`Feedback` to each area; `None` to those without."""
        return (*(self._feedback(k, states) for k in range(len(self.gamma))), None)

    def _fed_back(self, k: int, y: Float[Array, " n"]) -> Float[Array, " n"]:
        """`q` of area k, which additive feedback brings to the area below."""
        return self.areas[k].rectify(y)

    def _feedback(self, k: int, states: tuple) -> Feedback | None:
        matrix, area = self.feedback[k], self.areas[k]
        if matrix is None:
            return None
        y, gamma = states[k].y, self.gamma[k]
        if self.form == "additive":
            q = self._fed_back(k + 1, states[k + 1].y)
            f = self.g[k] * (matrix @ q)
            sizes = jnp.abs(gamma * self.g[k]) * (jnp.abs(matrix) @ jnp.abs(q))
            return Feedback(f, jnp.ones_like(f), gamma * f, sizes)
        f = self.g[k] * (matrix @ self.rates(k + 1, states[k + 1].y))
        q, rate, own = area.rectify(y), self.rates(k, y), area.own_recurrence
        share = _share(rate, f)
        # a neuron's own weight is subtracted from `gamma`: nothing is left where both are 1
        instead = (gamma - own) * rate + own * (rate - q) - area.from_others(q)
        sizes = jnp.abs(gamma - own) * rate + jnp.abs(own * (rate - q))
        sizes = sizes + area.from_others(q, sizes=True)
        return Feedback(f, share, instead, share * sizes)

    def imbalance(self, states: tuple, z: Float[Array, " n"]) -> tuple:
        """Right-hand sides of all equations, before division by the time constants, as a `State`
        for each area."""
        found = []
        for area, state, drive, feedback in self._each(states, z):
            dy, da = area.imbalance(state, drive)
            if feedback is not None:
                dy = dy + gate(state.a) * feedback.added
            found.append(State(dy, da))
        return tuple(found)

    def terms(self, states: tuple, z: Float[Array, " n"]) -> tuple:
        """For each equation, the sum of the absolute values of the terms in `imbalance`."""
        found = []
        for area, state, drive, feedback in self._each(states, z):
            y, a = area.terms(state, drive)
            if feedback is not None:
                y = y + jnp.abs(gate(state.a)) * feedback.sizes
            found.append(State(y, a))
        return tuple(found)

    def by_area(self, state: Any) -> tuple:
        """The state itself, which is a tuple."""
        return state

    def of_areas(self, values: tuple) -> tuple:
        """The tuple itself."""
        return values

    def names_of_areas(self, name: str) -> tuple:
        """`name[0]`, and so on."""
        return tuple(f"{name}[{k}]" for k in range(len(self.areas)))

    def split(self, x: Float[Array | np.ndarray, "*batch m"]) -> tuple:
        """The state of each area."""
        parts = jnp.split(x, np.cumsum([2 * n for n in self.sizes])[:-1], axis=-1)
        each = zip(self.areas, parts, strict=True)
        return tuple(area.split(part) for area, part in each)

    def known_identities(self) -> "Hierarchy":
        """With `W_r=None` in each area whose recurrence is known to be the identity."""
        areas = tuple(area.known_identities() for area in self.areas)
        return eqx.tree_at(lambda h: h.areas, self, areas)

    def require_valid(self) -> None:
        """Refuse values that the class refuses, if `eqx.tree_at` put them into it."""
        for area in self.areas:
            area.require_valid()
        Hierarchy(self.areas, self.feedforward, self.feedback, self.gamma, self.g, self.form)

    def require_one(self) -> None:
        """Refuse a stack of hierarchies."""
        if self.gamma.ndim != 1:
            raise ValueError(
                "`hierarchy` must be one hierarchy, not a stack of them (`gamma` has shape "
                f"{self.gamma.shape}): map over them."
            )
        for area in self.areas:
            area.require_one()

    def _each(self, states: tuple, z: Float[Array, " n"]):
        return zip(self.areas, states, self.drives(states, z), self.received(states), strict=True)


class PieceOfHierarchy(Hierarchy):
    """The smooth hierarchy that is equal to another one where given neurons are active and the
    others silent. It counts them so whatever their `y`, and nothing hears the silent ones.

    Arguments
        whole: the other one.
        active: for each area that hears signs, which neurons are active, shape (n,); for others
            `None`.
    """

    active: tuple

    def __init__(self, whole: Hierarchy, active: tuple):
        self.areas = tuple(
            area.among(on) if area.rectified else area
            for area, on in zip(whole.areas, active, strict=True)
        )
        self.feedforward, self.feedback = whole.feedforward, whole.feedback
        self.gamma, self.g, self.form = whole.gamma, whole.g, whole.form
        self.active = active

    def rates(self, k: int, y: Float[Array, " n"]) -> Float[Array, " n"]:
        """`y` of active neurons."""
        return super().rates(k, y) if self.active[k] is None else self._fed_back(k, y)

    def _fed_back(self, k: int, y: Float[Array, " n"]) -> Float[Array, " n"]:
        active = self.active[k]
        return y if active is None else jnp.where(active, y, 0)


def _share(rate: Float[Array, " n"], f: Float[Array, " n"]) -> Float[Array, " n"]:
    """`f / (rate + f)`, 0 at 0/0."""
    some = rate + f != 0
    return jnp.where(some, f / jnp.where(some, rate + f, 1), 0)


def _area(k: int, area: Any) -> Circuit:
    if not isinstance(area, Circuit):
        raise ValueError(f"`areas[{k}]` must be a `Circuit`, not {area!r}.")
    return area


def _matrices(name: str, values: Any, shapes: list, dtype) -> tuple:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ValueError(f"`{name}` must be a list of matrices, not {values!r}.")
    if len(values) != len(shapes):
        raise ValueError(
            f"`{name}` must hold {len(shapes)} matrices, one between neighbours of "
            f"{len(shapes) + 1} areas, not {len(values)}."
        )
    found = []
    for k, (value, shape) in enumerate(zip(values, shapes, strict=True)):
        if value is None:
            found.append(None)
            continue
        matrix = as_real(f"{name}[{k}]", value, dtype)
        if matrix.shape != shape:
            raise ValueError(f"`{name}[{k}]` must have shape {shape}, not {matrix.shape}.")
        require_values(f"{name}[{k}]", matrix, np.isfinite, "be finite")
        found.append(matrix)
    return tuple(found)


def _gains(name: str, value: Values, k: int, dtype) -> Float[Array, " k"]:
    value = as_real(name, value, dtype)
    if value.shape not in ((), (k,)):
        raise ValueError(
            f"`{name}` must be one number, or one between neighbouring areas, shape ({k},), not "
            f"of shape {value.shape}."
        )
    require_values(name, value, lambda v: np.isfinite(v) & (v >= 0), "be finite and >= 0")
    return jnp.broadcast_to(value, (k,))
