"""Steady states of hierarchies: the closed form area by area, and the search from there."""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from organics.circuit.circuit import require_valid
from organics.circuit.hierarchy import Hierarchy, joined, split
from organics.linear.jacobian import as_matrix, imbalance_blocks, time_constants
from organics.linear.krylov import Linear, inverse_within
from organics.machine.mesh import advising, alike
from organics.rest.algorithm1 import algorithm_1_start
from organics.rest.balance import Candidate, judge
from organics.rest.closed_form import closed_form
from organics.rest.newton import newton, newton_krylov
from organics.rest.point import (
    CLOSED_FORM,
    NEWTON,
    RELAXATION,
    OperatingPoint,
    SteadyState,
    require_any_point,
)
from organics.rest.relaxation import relax, select
from organics.rest.system import DrivenCircuit, System, as_state

_STEP = 0.04  # largest change of `gamma` between two states on the way
_SMALL = 400  # up to this many numbers a factorization costs no more than products
_RELAXATION_TIME = 2000.0  # in units of the largest time constant


class DrivenHierarchy(System):
    """A hierarchy under the drive `z`; its numbers are `(y_1, a_1, y_2, a_2, ...)`."""

    hierarchy: Hierarchy
    z: Float[Array, " n"]

    def imbalance(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`Hierarchy.imbalance`."""
        return joined(self.hierarchy.imbalance(split(self.hierarchy, x), self.z))

    def terms(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`Hierarchy.terms`."""
        return joined(self.hierarchy.terms(split(self.hierarchy, x), self.z))

    def jacobian(self, x: Float[Array, " m"]) -> Float[Array, "m m"]:
        """Analytic."""
        return as_matrix(imbalance_blocks(self.hierarchy, split(self.hierarchy, x)))

    def time_constants(self) -> Float[Array, " m"]:
        """`tau_y`, then `tau_a`, of each area."""
        return time_constants(self.hierarchy)

    def contains(self, x: Float[Array, " m"]) -> Bool[Array, ""]:
        """Whether `a > 0`."""
        return jnp.all(jnp.stack([jnp.all(a > 0) for _, a in split(self.hierarchy, x)]))

    def without_underflow(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """0 for such a `y`."""
        least = float(jnp.finfo(x.dtype).tiny / jnp.finfo(x.dtype).eps)
        states = split(self.hierarchy, x)
        return joined(tuple(s._replace(y=jnp.where(jnp.abs(s.y) < least, 0, s.y)) for s in states))

    def room(self, x: Float[Array, " m"], step: Float[Array, " m"]) -> Float[Array, ""]:
        """The fraction at which no `a` falls by more than nine tenths."""
        each = zip(split(self.hierarchy, x), split(self.hierarchy, step), strict=True)
        fractions = [
            jnp.min(jnp.where(da < 0, -0.9 * a / jnp.where(da < 0, da, -1), jnp.inf))
            for (_, a), (_, da) in each
        ]
        return jnp.min(jnp.stack(fractions))

    def scales(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """For every `y` the largest `y` of its area; for `a` the terms are enough."""
        scales = [
            s._replace(y=jnp.full_like(s.y, jnp.max(jnp.abs(s.y))), a=jnp.full_like(s.a, jnp.inf))
            for s in split(self.hierarchy, x)
        ]
        return joined(tuple(scales))

    def nearly_inverse(self, x: Float[Array, " m"]) -> Linear:
        """The inverse of the part of `J` within each neuron."""
        blocks = imbalance_blocks(self.hierarchy, split(self.hierarchy, x))
        inverses = [inverse_within(*_within(block)) for block in blocks.within]

        def inverse(v):
            each = zip(inverses, split(self.hierarchy, v), strict=True)
            return joined(tuple(solve(*part) for solve, part in each))

        return inverse

    def lengths(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """Those of the areas as circuits by themselves."""
        return joined(
            tuple(
                as_state(DrivenCircuit(area, state.y).lengths(jnp.concatenate(state)))
                for area, state in zip(self.hierarchy.areas, split(self.hierarchy, x), strict=True)
            )
        )

    def parameters(self) -> dict[str, Callable]:
        """`z`, `gamma` and `g`, the matrices between areas and the arrays of each area, such as
        `feedback0` and `areas1_W`."""
        found: dict[str, Callable] = {"z": attrgetter("z")}
        found |= {name: attrgetter(f"hierarchy.{name}") for name in ("gamma", "g")}
        for name in ("feedforward", "feedback"):
            for k, matrix in enumerate(getattr(self.hierarchy, name)):
                if matrix is not None:
                    found[f"{name}{k}"] = lambda d, name=name, k=k: getattr(d.hierarchy, name)[k]
        for k, area in enumerate(self.hierarchy.areas):
            for name in ("W", "W_r", "b", "b0", "sigma", "tau_y", "tau_a"):
                if eqx.is_array(getattr(area, name)):
                    found[f"areas{k}_{name}"] = lambda d, name=name, k=k: getattr(
                        d.hierarchy.areas[k], name
                    )
        return found

    def require_valid(self) -> None:
        """As `Hierarchy` does."""
        h = self.hierarchy
        for area in h.areas:
            require_valid(area)
        Hierarchy(h.areas, h.feedforward, h.feedback, h.gamma, h.g, h.form)


def _within(block: Float[Array, "two_n two_n"]) -> tuple:
    """The entries of an area's block within each neuron."""
    n = len(block) // 2
    rows = (block[:n, :n], block[:n, n:]), (block[n:, :n], block[n:, n:])
    return tuple(jnp.diagonal(part) for row in rows for part in row)


def cascade(hierarchy: Hierarchy, z: Float[Array, " n"]) -> tuple:
    """The steady states without feedback, area by area: divisive normalization for identity
    recurrence, else the first iterate of Algorithm 1."""
    states, drive = [], z
    for area, up in zip(hierarchy.areas, (*hierarchy.feedforward, None), strict=True):
        known = area.has_identity_recurrence
        states.append(closed_form(area, drive) if known else algorithm_1_start(area, drive))
        drive = z if up is None else up @ jnp.square(jax.nn.relu(states[-1].y))
    return tuple(states)


def area_points(point: OperatingPoint) -> tuple:
    """Each area of a hierarchy at rest as a circuit at rest under its own drive; a point of
    `steady_state` for that circuit where feedback is inert."""
    hierarchy, states = require_any_point(point).system, point.state
    if not isinstance(hierarchy, Hierarchy):
        raise ValueError("`point` must be that of a `Hierarchy`, not of a circuit.")
    points, found = [], point.found
    for area, state, drive in zip(
        hierarchy.areas, states, hierarchy.drives(states, point.z), strict=True
    ):
        residual = jnp.linalg.norm(jnp.concatenate(area.imbalance(state, drive)))
        steady = SteadyState(state, residual, found.converged, found.iterations, found.method)
        points.append(OperatingPoint(area, drive, steady))
    return tuple(points)


class _Way(NamedTuple):
    """The search so far.

    Attributes
        i: number of the next state on the way to `gamma`.
        x: the last state on the way.
        lost: whether to relax instead.
        best, method: the best state for `gamma` itself, and the method that found it.
        iterations: of Newton's method, in all.
        over: whether nothing is left to try.
    """

    i: Int[Array, ""]
    x: Float[Array, " m"]
    lost: Bool[Array, ""]
    best: Candidate
    method: Int[Array, ""]
    iterations: Int[Array, ""]
    over: Bool[Array, ""]


@advising
@partial(jax.jit, static_argnums=1)
def search(
    driven: DrivenHierarchy, tolerance: float, relaxation_steps: ScalarLike
) -> tuple[Candidate, Array, Array, Array]:
    """The steady state, its residual, the method that found it and the number of iterations.

    Newton's method follows the state from the value of `gamma` at which the closed form holds, in
    steps of at most 0.04. Where it is lost, or the largest singular value of a `W_r` exceeds 1, the
    hierarchy itself is integrated from near rest, and Newton's method begins where that ends.
    """
    hierarchy, z = driven.hierarchy, driven.z
    known = 1.0 if hierarchy.form == "balanced" else 0.0
    fed = jnp.asarray([matrix is not None for matrix in hierarchy.feedback], bool)
    moved = jnp.where(fed, hierarchy.gamma - known, 0)
    steps = jnp.ceil(jnp.max(jnp.abs(moved), initial=0) / _STEP).astype(jnp.int32)
    steps = jnp.maximum(steps, 1)
    first = judge(driven, joined(cascade(hierarchy, z)))
    exact = jnp.all(moved == 0) & hierarchy.has_identity_recurrence
    found = exact & (first.error <= tolerance)
    wild = [
        area.recurrent.norm() > 1 + 100 * float(jnp.finfo(z.dtype).eps)
        for area in hierarchy.areas
        if not area.has_identity_recurrence
    ]
    lost = jnp.any(jnp.stack(wild)) if wild else jnp.bool_(False)

    def on_the_way(i):
        gamma = hierarchy.gamma - moved * (1 - i / steps).astype(z.dtype)
        return eqx.tree_at(lambda driven: driven.hierarchy.gamma, driven, gamma)

    def go(way: _Way) -> _Way:
        wanted = ~way.over
        there = on_the_way(jnp.where(way.lost, steps, way.i))
        relaxed = _relax(driven, wanted & way.lost, relaxation_steps)
        start = judge(there, jnp.where(way.lost, relaxed, way.x))
        last = way.lost | (way.i == steps)
        accuracy = jnp.where(last, tolerance, tolerance**0.25)  # on the way less will do
        found, possible, count = _newton(there, accuracy, start, wanted, last)
        good = found.converged & possible
        closer = found.converged | ~(found.residual >= way.best.residual)
        better = last & (good | (~way.best.converged & closer))
        used = jnp.where(way.lost, RELAXATION, NEWTON).astype(jnp.int32)
        return _Way(
            i=way.i + 1,
            x=found.x,
            lost=~good,
            best=select(better, found, way.best),
            method=jnp.where(better, used, way.method),
            iterations=way.iterations + count,
            over=(last & good) | way.lost,
        )

    begin = _Way(
        i=jnp.int32(1),
        x=first.x,
        lost=lost,
        best=first._replace(converged=found),
        method=jnp.int32(CLOSED_FORM),
        iterations=jnp.int32(0),
        over=found,
    )
    end = jax.lax.while_loop(lambda way: ~way.over, go, alike(begin))
    best = end.best._replace(converged=end.best.converged & hierarchy.valid)
    return best, best.residual, end.method, end.iterations


def _newton(
    driven: DrivenHierarchy, tolerance, start: Candidate, wanted, last
) -> tuple[Candidate, Bool[Array, ""], Int[Array, ""]]:
    """The state, whether it may be stable, and the number of steps; on the way to the `last` state
    of a large hierarchy by products, as far as that goes."""
    if len(start.x) <= _SMALL:
        found, possible, _, count = newton(driven, tolerance, start, wanted)
        return found, possible, count
    near, _, _, products = newton_krylov(driven, tolerance, start, wanted & ~last)
    done = near.converged & ~last
    found, possible, _, count = newton(driven, tolerance, near, wanted & ~done)
    return select(done, near, found), possible | done, products + count


def _relax(driven: DrivenHierarchy, wanted, steps: ScalarLike) -> Float[Array, " m"]:
    """Where the hierarchy's own trajectory from `y = 0.01, a = c` hardly moves."""
    tau, dtype = driven.time_constants(), driven.z.dtype
    accuracy = 1e-6 if dtype == jnp.float64 else 1e-4

    def rests(x):
        imbalance = driven.imbalance(x)
        allowed = driven.terms(x) + jnp.max(jnp.abs(x))
        return jnp.all(jnp.abs(imbalance) <= 10 * accuracy * allowed), imbalance / tau

    begin = [
        part for area in driven.hierarchy.areas for part in (jnp.full_like(area.c, 0.01), area.c)
    ]
    return relax(
        rests,
        lambda rests: rests,
        jnp.concatenate(begin),
        step=0.01 * jnp.min(tau),
        longest=_RELAXATION_TIME * jnp.max(tau),
        most=steps,
        accuracy=accuracy,
        wanted=wanted,
    ).x
