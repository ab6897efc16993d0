"""Curves of folds and of Hopf points in two parameters, and the points where they change.

On a curve of folds, a cusp is where `p^T B(phi, phi)` vanishes, and a Bogdanov-Takens point where
`p^T D_tau phi` does, `p` the left null vector of `F_x`. On a curve of Hopf points, the first
Lyapunov coefficient vanishes at a generalized Hopf (Bautin) point; where the frequency vanishes, at
a Bogdanov-Takens point, the curve ends.

Source: Kuznetsov, Elements of Applied Bifurcation Theory, chapters 8 and 10.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from organics.branches.arclength import (
    CLOSED,
    ELSEWHERE,
    ENDS,
    GOING,
    KINK,
    OUTSIDE,
    TOUCH,
    Curve,
    Path,
    begin,
    follow,
    in_batches,
    locate,
    pairs,
    passes,
    rows,
    stacked,
)
from organics.branches.branch import Event, EventCurve, EventPoint
from organics.branches.defining import FoldSystem, HopfSystem, fold_system, hopf_system
from organics.branches.family import Family
from organics.branches.normal_forms import lyapunov

_CUSP, _TAKENS, _BAUTIN = "cusp", "bogdanov-takens", "generalized hopf"
_FREQUENCY = 1  # the test on a curve of Hopf points that ends it
_WORDS = {ELSEWHERE: "ends in a bogdanov-takens point"}
_ZERO, _ROUNDING = 1e-3, 1e-9  # of the smaller and the larger test at the ends of a step
_PER_MS = 1000 / (2 * np.pi)  # Hz for each rad/ms


class FoldCurve(FoldSystem, Curve):
    """Folds of a family with two parameters; a point is `(x, phi, value_1, value_2)`.

    Attributes
        limits: the range of the first parameter.
    """

    limits: Float[Array | np.ndarray, "*batch 2"]

    def tests(
        self, X: Float[Array, " k1"], t: Float[Array, " k1"], M: Float[Array, "k1 k1"], more: Any
    ) -> tuple[Float[Array, " 2"], Float[Array, ""]]:
        """0 at a cusp; 0 at a Bogdanov-Takens point."""
        del t, M, more
        x, phi, values = self.parts(X)
        system = self.family.at(*values)
        U = system.lengths(x)
        J = system.jacobian(x) * U[None, :]
        p = jnp.linalg.svd(J)[0][:, -1]
        border = jnp.append(
            jnp.concatenate([J, p[:, None]], axis=1), jnp.append(phi / U, 0)[None], 0
        )
        p = p * jnp.linalg.slogdet(border)[0]  # whose sign is then continuous along the curve
        cusp = jnp.dot(p, system.second(x, phi, phi))
        takens = jnp.dot(p, system.time_constants() * phi)
        return jnp.stack([cusp, takens]), jnp.zeros(())

    def end(self, before: Any, after: Any) -> Int[Array, ""]:
        """Where the first parameter leaves its range, at a kink, and at infinity."""
        return _end(self, after.X, Curve.end(self, before, after))


class HopfCurve(HopfSystem, Curve):
    """Hopf points of a family with two parameters; a point is `(x, Re q, Im q, w, value_1,
    value_2)`. `limits` as in `FoldCurve`."""

    limits: Float[Array | np.ndarray, "*batch 2"]

    def tests(
        self, X: Float[Array, " k1"], t: Float[Array, " k1"], M: Float[Array, "k1 k1"], more: Any
    ) -> tuple[Float[Array, " 2"], Float[Array, ""]]:
        """0 at a generalized Hopf point; 0 at a Bogdanov-Takens point. The first Lyapunov
        coefficient is kept."""
        del t, M, more
        x, q, w, values = self.parts(X)
        safe = jnp.where(jnp.abs(w) < 1e-9, 1e-9, w)
        l1 = lyapunov(self.family.at(*values), x, q, safe)[0]
        return jnp.stack([l1 * w**3, w]), l1  # l1 is odd in w

    def end(self, before: Any, after: Any) -> Int[Array, ""]:
        """Where the frequency changes its sign, and as for folds."""
        over = before.tests[1] * after.tests[1] <= 0
        return jnp.where(over, ELSEWHERE, _end(self, after.X, Curve.end(self, before, after)))


def _end(curve: FoldCurve | HopfCurve, X: Float[Array, " k1"], rest: Int[Array, ""]):
    limits, family = curve.limits, curve.family
    outside = (X[-2] < limits[0]) | (X[-2] > limits[1])
    kinks = family.base.kinks()
    assert family.positive is not None
    beyond = jnp.where(family.positive, -1, 1) * X[kinks] > TOUCH * curve.lengths(X)[kinks]
    return jnp.where(outside, OUTSIDE, jnp.where(jnp.any(beyond), KINK, rest))


def curves_through(
    family: Family, events: list[Event], own: float, bounds: tuple, most: int
) -> tuple[list[EventCurve], bool]:
    """The curves of the folds and Hopf points of a branch, which have the value `own` of the second
    parameter; each curve once. `bounds` are those of both parameters. And whether Ctrl-C came."""
    curves: list[EventCurve] = []
    for kind in ("fold", "hopf"):
        followed: list[tuple[Curve, Any]] = []
        for event in events:
            if event.kind != kind or not event.confirmed:
                continue
            curve, X = _begin_at(family, event, own, bounds)
            m = len(event.x)
            compared = np.r_[:m, (2 if kind == "fold" else 3) * m : len(X)]  # not the vectors
            if any(passes(other, along, np.asarray(X), compared) for other, along in followed):
                continue
            found, interrupted = _follow(curve, X, kind, bounds[1], most)
            if found is not None:
                curves.append(found[0])
                followed.append((curve, found[1]))
            if interrupted:
                return curves, True
    return curves, False


@jax.jit
def _fold_at(family: Family, x, phi, values, widths, limits) -> tuple[FoldCurve, Array]:
    system, X = fold_system(family, x, phi, values, widths)
    return FoldCurve(family, system.sizes, widths, limits), X


@jax.jit
def _hopf_at(family: Family, x, q, w, values, widths, limits) -> tuple[HopfCurve, Array]:
    system, X = hopf_system(family, x, q, w, values, widths)
    return HopfCurve(family, system.sizes, system.ell, system.w0, widths, limits), X


def _begin_at(family: Family, event: Event, own: float, bounds: tuple) -> tuple[Curve, Array]:
    values = np.array([event.parameter, own])
    family = family.piece(event.x[family.base.kinks()] > 0)
    widths = np.array([high - low for low, high in bounds])
    limits = np.array(bounds[0])
    if event.kind == "fold":
        return _fold_at(family, event.x, event.vector, values, widths, limits)
    assert event.frequency_hz is not None
    w = np.asarray(event.frequency_hz / _PER_MS)
    return _hopf_at(family, event.x, event.vector, w, values, widths, limits)


def _by_parameter(curves, X, heading):
    return begin(curves, X, heading, True)


def _follow(curve: Curve, X: Any, kind: str, bounds: tuple, most: int):
    """Both ways from a point: the curve, and its points with all their numbers; and whether Ctrl-C
    came."""
    twice = stacked(curve, 2)
    heading = np.zeros((2, len(X)))
    heading[:, -1] = -1, 1
    walks, good = in_batches(_by_parameter, twice, np.stack([X, X]), heading)
    if not good.all():
        return None, False
    paths, interrupted = follow(twice, walks, bounds, most)
    points = [_special(curve, path, kind) for path in paths]
    back, forth = (_inside(path) for path in paths)
    closed = paths[1].end == CLOSED
    parts = [forth] if closed else [rows(back, slice(None, 0, -1)), forth]
    special = points[1] if closed else points[0][::-1] + points[1]
    X = np.concatenate([part.X for part in parts])
    kept = np.concatenate([part.kept for part in parts])
    m = (X.shape[1] - 2) // (2 if kind == "fold" else 3)
    hopf = kind == "hopf"
    ends = tuple(_WORDS.get(path.end, ENDS[path.end]) for path in paths)
    found = EventCurve(
        kind, X[:, -2:], X[:, :m], X[:, -3] * _PER_MS if hopf else None,
        kept if hopf else None, special, ends,
    )  # fmt: skip
    return (found, X), interrupted


def _inside(path: Path) -> Any:
    """The points without the last one, if that is beyond the end."""
    beyond = path.end in (OUTSIDE, ELSEWHERE, KINK)
    return rows(path.points, slice(0, len(path.points.X) - beyond))


def _special(curve: Curve, path: Path, kind: str) -> list[EventPoint]:
    # the end of Hopf points is singular in their equations; the curve of folds locates it
    where = [pair for pair in pairs(path) if kind == "fold" or pair[1] != _FREQUENCY]
    if not where:
        return []
    step, test = np.array(where).T
    before, after = rows(path.points, step), rows(path.points, step + 1)
    points, good = in_batches(locate, stacked(curve, len(step)), before, after, test)
    names = (_CUSP, _TAKENS) if kind == "fold" else (_BAUTIN,)
    m = (points.X.shape[1] - 2) // (2 if kind == "fold" else 3)
    many = np.arange(len(step))
    good = good & _are_zeros(*(p.tests[many, test] for p in (before, points, after)))
    return [
        EventPoint(names[test[i]], tuple(map(float, X[-2:])), X[:m])
        for i, X in enumerate(points.X) if good[i] and _within(curve, X)
    ]  # fmt: skip


def _are_zeros(before: np.ndarray, at: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whether tests that change their sign are 0 between: at a pole, as the first Lyapunov
    coefficient has where an eigenvalue is 0, too, they are smallest at the ends of the step."""
    before, at, after = map(np.abs, (before, at, after))
    small = np.maximum(_ZERO * np.minimum(before, after), _ROUNDING * np.maximum(before, after))
    return at <= small


@jax.jit
def _within(curve: Any, X: Any) -> Any:
    """Whether a point is in the range of the first parameter and before the kink."""
    return _end(curve, X, jnp.int32(GOING)) == GOING
