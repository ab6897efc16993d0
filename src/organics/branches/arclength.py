"""Curves of solutions by pseudo-arclength: a step along the tangent, corrected by Newton's method.

A step of length `h` goes to `X + h t` and is corrected in the plane across the unit tangent `t`
there. The next length follows from the number of corrections and the angle between the tangents.
Lengths are measured in units of each number (`Curve.lengths`). Many curves are followed at once,
in one compiled program of fixed shape, which takes up the next curve where one has ended.

Where the equations have a kink, at zero of some number, a curve consists of smooth pieces. A step
uses the equations of its piece alone, and is cut where that ends; `kinks` says how it goes on.

Source: Keller 1977 (pseudo-arclength).
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event as Flag
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from organics.branches.kinks import leads_into, onward
from organics.machine.lapack import single_threaded_lapack
from organics.machine.processors import available

ENDS = (
    "was not followed further",
    "reached the lower bound",
    "reached the upper bound",
    "goes to infinity",
    "returned to its beginning",
    "is stuck: no smaller step converges",
    "ends in another kind of point",
    "loses its accuracy",
    "leaves the range of the other parameter",
    "ends at a kink, beyond which it does not go on",
)
GOING, LOWER, UPPER, INFINITE, CLOSED, STUCK, ELSEWHERE, INACCURATE, OUTSIDE, KINK = range(
    len(ENDS)
)

_CORRECTIONS = 6
_ACCURACY = 1e-9  # of the last correction but one, in units of each number
_LEFT = 1e-13  # of what is left to correct, in units
_LONGEST, _FIRST, _SHORTEST = 1.0, 0.05, 1e-9
_TURN, _MOST_TURN = 0.15, 0.5  # angle of the tangents of a step: wanted, and largest; radians
_APART = 1e-6  # a step this short may hold several events, or an unknown kink
TOUCH = 1e-9  # a number this near to its kink is on it, in units
_ATTEMPTS = 8  # in one call of a compiled program
_WIDTHS = (4, 32)  # how many curves one program follows: few sizes, as each is compiled
_NARROWINGS = 24  # evaluations of a test, in search of its zero
_SAME = 1e-5  # distance of two equal points, in units
EXACT = 1e-6  # of two that Newton's method has found, each to rounding
ONCE = {"xla_backend_optimization_level": 0}  # an option that every XLA knows
"""Of programs that take longer to compile than to run."""


class Mapped:
    """A function mapped over rows, compiled for one number of rows at a time. For few of them that
    takes longer than to run it, so the compiler need not optimise."""

    def __init__(self, function: Callable):
        mapped = jax.vmap(function)
        self._few = jax.jit(mapped, compiler_options=ONCE)
        self._many = jax.jit(mapped)
        self.__doc__, self.__name__ = function.__doc__, function.__name__

    def __call__(self, *trees: Any) -> Any:
        few = len(jax.tree.leaves(trees)[0]) <= _WIDTHS[0]
        return (self._few if few else self._many)(*trees)


class Curve(eqx.Module):
    """`k` equations in `k + 1` numbers, the last of which is the parameter.

    Attributes
        narrow: part of a step, or of a test, that is left when the zero of the test is located.
    """

    narrow: ClassVar[float] = 1e-12

    @abstractmethod
    def residual(self, X: Float[Array, " k1"]) -> Float[Array, " k"]:
        """0 on the curve."""

    @abstractmethod
    def lengths(self, X: Float[Array, " k1"]) -> Float[Array, " k1"]:
        """The unit of each number."""

    @abstractmethod
    def tests(
        self, X: Float[Array, " k1"], t: Float[Array, " k1"], M: Float[Array, "k1 k1"], more: Any
    ) -> tuple[Float[Array, " tests"], Any]:
        """Functions that change their sign at events, and what else is kept of a point, from its
        tangent, the Jacobian bordered by the tangent, both in units, and what `linearized` finds
        besides."""

    def jacobian(self, X: Float[Array, " k1"]) -> Float[Array, "k k1"]:
        """The derivative of `residual`."""
        return jax.jacfwd(self.residual)(X)

    def linearized(
        self, X: Float[Array, " k1"]
    ) -> tuple[Float[Array, " k"], Float[Array, "k k1"], Any]:
        """`residual` and `jacobian`, found together, and what else is found with them."""
        return self.residual(X), self.jacobian(X), None

    def kinks(self) -> np.ndarray:
        """The indices of the numbers at whose zero the equations have a kink; by default none."""
        return np.zeros(0, int)

    def piece(self, positive: Bool[Array, " kinks"]) -> "Curve":
        """The curve with the smooth equations that hold where the numbers with kinks have these
        signs."""
        del positive
        return self

    def room(self, X: Float[Array, " k1"], step: Float[Array, " k1"]) -> Float[Array, ""]:
        """The largest fraction of a step that stays in the domain."""
        del step
        return jnp.full((), jnp.inf, X.dtype)

    def end(self, before: "Point", after: "Point") -> Int[Array, ""]:
        """The end of the curve between two points, an index into `ENDS`; by default infinity, where
        a number is above 1e12."""
        del before
        return jnp.where(jnp.max(jnp.abs(after.X[:-1])) > 1e12, INFINITE, GOING)

    def separates(
        self,
        before: "Point",
        after: "Point",
        h: Float[Array, ""],
        slopes: Float[Array, " tests"],
    ) -> Bool[Array, ""]:
        """Whether the tests tell all that happens between two points, a step of length `h`; in the
        step before they changed by the `slopes` per length."""
        del before, after, h, slopes
        return jnp.bool_(True)


class Point(NamedTuple):
    """A point of a curve: `X`, unit tangent `t` in units of each number, tests, the rest, and the
    signs of the numbers with kinks, which say on which smooth piece it is."""

    X: Float[Array, "*batch k1"]
    t: Float[Array, "*batch k1"]
    tests: Float[Array, "*batch tests"]
    kept: Any
    positive: Bool[Array, "*batch kinks"]


class Walk(NamedTuple):
    """Where a walk along a curve is: its point, the slopes of the tests in its last step, 0 before
    there is one, the length of its next step, its first point, the number of its points after that,
    and its end, an index into `ENDS`."""

    point: Point
    slopes: Float[Array, "*batch tests"]
    h: Float[Array, "*batch"]
    first: Point
    steps: Int[Array, "*batch"]
    end: Int[Array, "*batch"]


class Corrected(NamedTuple):
    X: Float[Array, " k1"]
    size: Float[Array, ""]
    left: Float[Array, ""]
    tries: Int[Array, ""]
    failed: Bool[Array, ""]


def bordered(
    curve: Curve, X: Float[Array, " k1"], row: Float[Array, " k1"], U: Float[Array, " k1"]
) -> tuple[Float[Array, "k1 k1"], Float[Array, " k"], Float[Array, " k"], Any]:
    """The Jacobian in units, its rows scaled to their largest entries, above a further row; the
    residual, scaled alike; the scales; and what else is found."""
    left, J, more = curve.linearized(X)
    J = J * U[None, :]
    scale = jnp.max(jnp.abs(J), axis=1)
    scale = jnp.where(scale > 0, scale, 1)
    return jnp.concatenate([J / scale[:, None], row[None]]), left / scale, scale, more


def correct(
    curve: Curve,
    start: Float[Array, " k1"],
    row: Float[Array, " k1"],
    U: Float[Array, " k1"],
    wanted: ScalarLike = True,
) -> Corrected:
    """The point of the curve in the plane through `start` across `row`, by Newton's method."""

    def going(at):
        close = (at.size <= _ACCURACY) | (at.left <= _LEFT)
        return (~close | (at.tries == 0)) & (at.tries < _CORRECTIONS) & ~at.failed & wanted

    def step(at):
        M, left, _, _ = bordered(curve, at.X, row, U)
        d = -jnp.linalg.solve(M, jnp.append(left, jnp.dot(row, (at.X - start) / U)))
        size = jnp.linalg.norm(d)
        moved = U * d
        part = jnp.minimum(1, curve.room(at.X, moved))
        failed = ~jnp.isfinite(size) | (
            (at.tries > 0) & (size > 0.9 * at.size) & (size > _ACCURACY)
        )
        X = jnp.where(failed, at.X, at.X + part * moved)
        # by quadratic convergence the next step will be as long as this
        left = size * jnp.square(size / at.size) + (1 - part) * size
        return Corrected(X, size, jnp.where(at.tries > 0, left, jnp.inf), at.tries + 1, failed)

    none = jnp.bool_(False)
    infinite = jnp.full((), jnp.inf, start.dtype)
    begin = Corrected(start, infinite, infinite, jnp.int32(0), none)
    end = jax.lax.while_loop(going, step, begin)
    close = (end.size <= _ACCURACY) | (end.left <= _LEFT)
    return end._replace(failed=end.failed | ~close)


def as_point(
    curve: Curve,
    X: Float[Array, " k1"],
    along: Float[Array, " k1"],
    positive: Bool[Array, " kinks"],
) -> Point:
    """The point at `X` on a piece, whose tangent has the direction of `along`, in units at `X`."""
    curve, U = curve.piece(positive), curve.lengths(X)
    M, _, _, more = bordered(curve, X, along, U)
    t = jnp.linalg.solve(M, jnp.zeros_like(X).at[-1].set(1))
    t = t / jnp.linalg.norm(t)
    M = M.at[-1].set(t)
    return Point(X, t, *curve.tests(X, t, M, more), positive)


def tangent_in(curve: Curve, point: Point, U: Float[Array, " k1"]) -> Float[Array, " k1"]:
    """The unit tangent of a point in other units."""
    t = point.t * curve.lengths(point.X) / U
    return t / jnp.linalg.norm(t)


def begin(curves: Curve, X: Any, directions: Any, along_parameter: bool) -> tuple[Walk, Any]:
    """Walks from near the points `X` of stacked curves, and whether a point was found there.

    With `along_parameter`, a point keeps its parameter and the walk begins in the curve's own
    direction, on the side of the last entry of its direction. Else this is that of the walk, and
    the point is corrected across it.
    """
    walks, good, rows_, near = rows(_begin(curves, X, directions, along_parameter), slice(None))
    there = np.flatnonzero(near)
    if not len(there):
        return walks, good
    at = rows(walks, there)
    at = at._replace(point=at.point._replace(t=rows_[there]))
    onto = in_batches(_pass_kink, rows(curves, there), at, np.ones(len(there), bool))
    return jax.tree.map(partial(with_rows, there), walks, onto), good


@partial(jax.jit, static_argnames="along_parameter", compiler_options=ONCE)
@partial(jax.vmap, in_axes=(0, 0, 0, None))
def _begin(
    curve: Curve, X: Float[Array, " k1"], direction: Float[Array, " k1"], along_parameter: bool
) -> tuple[Walk, Bool[Array, ""], Float[Array, " k1"], Bool[Array, ""]]:
    """The walk, whether a point was found, its direction, and whether that is at a kink."""
    U = curve.lengths(X)
    row = direction / U
    row = jnp.zeros_like(X).at[-1].set(1) if along_parameter else row / jnp.linalg.norm(row)
    found = correct(curve, X, row, U)
    old, U = U, curve.lengths(found.X)
    positive = found.X[curve.kinks()] > TOUCH * U[curve.kinks()]
    if along_parameter:
        row = tangent(curve.piece(positive), found.X)
        row = row * jnp.where(row[-1] * direction[-1] < 0, -1, 1)
    else:
        row = row * old / U
    near = jnp.any(jnp.abs(found.X[curve.kinks()]) <= TOUCH * U[curve.kinks()])
    point = as_point(curve, found.X, row, positive)
    h = jnp.full((), _FIRST, X.dtype)
    return _first(point, h), ~found.failed, row, near


def _first(point: Point, h: Float[Array, ""]) -> Walk:
    """The walk that begins at a point."""
    return Walk(point, jnp.zeros_like(point.tests), h, point, jnp.int32(0), jnp.int32(GOING))


def tangent(curve: Curve, X: Float[Array, " k1"]) -> Float[Array, " k1"]:
    """The unit null vector of the Jacobian, in units, in either direction."""
    return jnp.linalg.svd(curve.jacobian(X) * curve.lengths(X)[None, :])[2][-1]


def across_kinks(
    curve: Curve,
    X: Float[Array, " k1"],
    t: Float[Array, " k1"],
    positive: Bool[Array, " kinks"],
    beginning: Bool[Array, ""],
) -> tuple[Float[Array, " k1"], Bool[Array, " kinks"], Bool[Array, ""]]:
    """How a curve that comes to `X` along `t`, or begins there, goes on if some numbers are on
    their kinks: the tangent, in units, and the piece; and whether that is known."""
    kinks = curve.kinks()
    if not len(kinks):
        return t, positive, jnp.bool_(True)
    U = curve.lengths(X)
    near = jnp.abs(X[kinks]) <= TOUCH * U[kinks]
    on = lambda positive: curve.piece(positive).jacobian(X) * U[None, :]  # noqa: E731
    return onward(on, kinks, near, t, positive, beginning)


def _attempt(curve: Curve, bounds: Float[Array, " 2"], walk: Walk) -> tuple[Walk, Bool[Array, ""]]:
    """One step, if it succeeds, and whether it did. It is cut at a bound, and at a kink."""
    at = walk.point
    curve = curve.piece(at.positive)
    U = curve.lengths(at.X)
    step = U * at.t
    h = jnp.minimum(walk.h, 0.5 * curve.room(at.X, step))
    going = walk.end == GOING
    found = correct(curve, at.X + h * step, at.t, U, going)
    low, high = bounds
    value, kinks = found.X[-1], curve.kinks()
    bound = jnp.where(value < low, low, high)
    borders = np.append(kinks, len(at.X) - 1)  # the numbers that may not go beyond some value
    values = jnp.append(jnp.zeros(len(kinks)), bound)
    beyond = jnp.append(_left(curve, at, found.X), (value < low) | (value > high))
    beyond &= going & ~found.failed

    first, U1 = walk.first, curve.lengths(walk.first.X)
    ahead = lambda X: jnp.dot(first.t, (X - first.X) / U1)  # noqa: E731
    near = jnp.linalg.norm((found.X - first.X) / U1) < 2 * h
    passing = going & ~found.failed & ~beyond[-1] & (walk.steps > 3) & near
    passing &= (ahead(at.X) < 0) & (ahead(found.X) >= 0)
    passing &= jnp.all(first.positive == at.positive)

    moved = (found.X - at.X)[borders]
    parts = jnp.clip((values - at.X[borders]) / jnp.where(moved == 0, 1, moved), 0, 1)
    first_border = jnp.argmin(jnp.where(beyond, parts, jnp.inf))
    cut, border = jnp.any(beyond) & ~passing, jnp.asarray(borders)[first_border]
    between = at.X + parts[first_border] * (found.X - at.X)
    between = between.at[border].set(values[first_border])

    # a second correction: at the border, or across the first point's tangent
    unit = jnp.zeros_like(at.X).at[border].set(1)
    back = found.X - ahead(found.X) * first.t * U1
    second = correct(
        curve, jnp.where(cut, between, back), jnp.where(cut, unit, first.t),
        jnp.where(cut, U, U1), cut | passing,
    )  # fmt: skip
    closed = passing & ~second.failed
    closed &= jnp.linalg.norm((second.X - first.X) / U1) < _SAME
    X = jnp.where(cut, second.X.at[border].set(values[first_border]), found.X)
    X = jnp.where(closed, first.X, X)
    outside = (X[-1] < low) | (X[-1] > high) | jnp.any(_left(curve, at, X))
    failed = found.failed | (cut & second.failed) | (jnp.any(beyond) & outside)

    point = as_point(curve, X, at.t * U / curve.lengths(X), at.positive)
    cosine = jnp.dot(at.t, tangent_in(curve, point, U))
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    finite = jnp.all(jnp.isfinite(point.t)) & jnp.all(jnp.isfinite(point.tests))
    good = ~failed & finite
    separated = curve.separates(at, point, h, walk.slopes)
    good &= ((angle < _MOST_TURN) & separated) | (h < _APART)
    good &= going

    on_bound = cut & (border == len(X) - 1)
    came = curve.end(at, point)
    moved = jnp.select(
        [came == INACCURATE, closed, on_bound & (bound == low), on_bound, cut],
        [INACCURATE, CLOSED, LOWER, UPPER, KINK],
        came,
    )
    stuck = jnp.where(h / 2 < _SHORTEST, STUCK, GOING)
    end = jnp.where(going, jnp.where(good, moved, stuck), walk.end).astype(jnp.int32)
    grow = jnp.clip(_TURN / jnp.maximum(angle, 1e-3), 0.5, 2.0)
    # as if the last step had been taken, too
    tries = found.tries + (found.size > _ACCURACY).astype(jnp.int32)
    grow = jnp.where(tries > 4, 0.5, jnp.where(tries > 3, jnp.minimum(grow, 1), grow))
    slopes = jnp.where(good, (point.tests - at.tests) / h, walk.slopes)
    h = jnp.where(good, jnp.minimum(_LONGEST, h * grow), h / 2)
    point = jax.tree.map(partial(jnp.where, good), point, at)
    return Walk(point, slopes, h, first, walk.steps + good.astype(jnp.int32), end), good


def _left(curve: Curve, at: Point, X: Float[Array, " k1"]) -> Bool[Array, " kinks"]:
    """Which numbers have left the piece of a point."""
    kinks = curve.kinks()
    side = jnp.where(at.positive, 1, -1)
    return side * X[kinks] < -TOUCH * curve.lengths(X)[kinks]


def begin_on(curves: Curve, X: Any, positive: Any) -> tuple[Walk, Any, Any]:
    """Walks from points at kinks into pieces of stacked curves, whether the curve goes on there,
    and the piece on which it would have come."""
    walks, good = rows(_begin_on(curves, X, positive), slice(None))
    back = walks._replace(point=walks.point._replace(t=-walks.point.t))
    come = in_batches(_pass_kink, curves, back, np.zeros(len(good), bool))
    return walks, good, come.point.positive


@Mapped
def _begin_on(
    curve: Curve, X: Float[Array, " k1"], positive: Bool[Array, " kinks"]
) -> tuple[Walk, Bool[Array, ""]]:
    kinks = curve.kinks()
    near = jnp.abs(X[kinks]) <= TOUCH * curve.lengths(X)[kinks]
    t = tangent(curve.piece(positive), X)
    forth, back = (leads_into(u, positive, near) for u in (t[kinks], -t[kinks]))
    t = jnp.where(forth, t, -t)
    point = as_point(curve, X, t, positive)
    h = jnp.full((), _FIRST, X.dtype)
    return _first(point, h), forth | back


@Mapped
def _pass_kink(curve: Curve, walk: Walk, beginning: Bool[Array, ""]) -> Walk:
    """The walk on the piece beyond the kink where it has come to, or begins."""
    at = walk.point
    t, positive, known = across_kinks(curve, at.X, at.t, at.positive, beginning)
    point = as_point(curve, at.X, t, positive)
    known &= jnp.all(jnp.isfinite(point.t)) & jnp.all(jnp.isfinite(point.tests))
    point = jax.tree.map(partial(jnp.where, known), point, at)
    back = jnp.linalg.norm((at.X - walk.first.X) / curve.lengths(at.X)) < _SAME
    back &= jnp.all(positive == walk.first.positive) & (jnp.dot(point.t, walk.first.t) > 0)
    end = jnp.select([~known, back & ~beginning], [KINK, CLOSED], GOING).astype(jnp.int32)
    first = jax.tree.map(partial(jnp.where, beginning), point, walk.first)
    steps = walk.steps + (~beginning).astype(jnp.int32)
    return Walk(point, jnp.zeros_like(point.tests), walk.h, first, steps, end)


@Mapped
def _advance(curve: Curve, bounds: Float[Array, " 2"], walk: Walk):
    """Several attempts, and what each came to."""

    def attempt(walk, _):
        walk, good = _attempt(curve, bounds, walk)
        return walk, (walk.point, good)

    return jax.lax.scan(attempt, walk, None, length=_ATTEMPTS)


class Path(NamedTuple):
    """The points of a walk in order, the first included, and its end, an index into `ENDS`."""

    points: Point
    end: int


def rows(tree: Any, index: Any) -> Any:
    """The rows of stacked values."""
    return jax.tree.map(lambda leaf: np.asarray(np.asarray(leaf)[index]), tree)


def stacked(tree: Any, count: int) -> Any:
    """Copies of one tree, stacked."""
    return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], count, axis=0), tree)


def in_batches(function: Callable, *trees: Any) -> Any:
    """A mapped function of stacked values, called on few different numbers of rows."""
    count = len(jax.tree.leaves(trees)[0])
    width = _width(count)
    parts = []
    for start in range(0, count, width):
        index = np.minimum(np.arange(start, start + width), count - 1)
        found = function(*rows(trees, index))
        parts.append(rows(found, np.arange(min(width, count - start))))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def passes(
    curve: Curve,
    X: Float[np.ndarray, "points k1"],
    point: Float[np.ndarray, " k1"],
    compared: Int[np.ndarray, " numbers"],
) -> bool:
    """Whether a curve, of which points in order are given, goes through a point, by some of its
    numbers: at the parameter of that point it is found between those beside it."""
    U = np.asarray(_lengths(curve, point))
    scaled, want = (X / U)[:, compared], (point / U)[compared]
    side = np.sign(X[:, -1] - point[-1])
    step = np.flatnonzero(side[1:] * side[:-1] <= 0)
    whole = X[step + 1] - X[step]
    part = (point[-1] - X[step, -1]) / np.where(whole[:, -1] == 0, 1, whole[:, -1])
    guess = X[step] + part[:, None] * whole
    guess[:, -1] = point[-1]
    off = np.linalg.norm((guess / U)[:, compared] - want, axis=1)
    near = off <= np.linalg.norm(scaled[step + 1] - scaled[step], axis=1)
    if not near.any():
        return False
    found, good = in_batches(_at_parameter, stacked(curve, int(near.sum())), guess[near])
    off = np.linalg.norm((found / U)[:, compared] - want, axis=1)
    return bool(np.any(good & (off < EXACT)))


@jax.jit
def _lengths(curve: Curve, X: Float[Array, " k1"]) -> Float[Array, " k1"]:
    return curve.lengths(X)


@Mapped
def _at_parameter(
    curve: Curve, X: Float[Array, " k1"]
) -> tuple[Float[Array, " k1"], Bool[Array, ""]]:
    """The point of the curve near `X` with its parameter, and whether it was found."""
    found = correct(curve, X, jnp.zeros_like(X).at[-1].set(1), curve.lengths(X))
    return found.X, ~found.failed


def follow(
    curves: Curve,
    walks: Walk,
    bounds: tuple[float, float],
    most: int,
) -> tuple[list[Path], bool]:
    """The paths of stacked walks on stacked curves, each up to its end or to `most` points; and
    whether Ctrl-C came meanwhile, so that they end where they were."""
    count = len(np.asarray(walks.h))
    curves, walks = rows(curves, slice(None)), rows(walks, slice(None))
    width = _width(count)
    ends = np.where(walks.end == GOING, _at_once(walks, bounds), walks.end).tolist()
    pending = deque(i for i in range(count) if ends[i] == GOING)
    found: list[list[Any]] = [[rows(walks.point, [i])] for i in range(count)]
    interrupted = Flag()

    def work() -> None:
        with jax.enable_x64(True):  # which holds in one thread alone
            work_in_double_precision()

    def work_in_double_precision() -> None:
        lanes = [pending.popleft() for _ in range(width) if pending]
        state = rows(walks, lanes)
        while lanes and not interrupted.is_set():
            padded = np.minimum(np.arange(width), len(lanes) - 1)
            limits = np.tile(np.asarray(bounds, float), (width, 1))
            made = _advance(rows(curves, np.asarray(lanes)[padded]), limits, rows(state, padded))
            state, (points, good) = rows(made, slice(None))
            state = rows(state, slice(0, len(lanes)))
            for lane, i in enumerate(lanes):
                found[i].append(rows(points, (lane, good[lane])))
            state = over_kinks(lanes, state)
            done = (state.end != GOING) | (state.steps >= most)
            for lane in np.flatnonzero(done):
                ends[lanes[lane]] = int(state.end[lane])
            fresh = [pending.popleft() for _ in range(int(done.sum())) if pending]
            kept = [lane for lane in range(len(lanes)) if not done[lane]]
            state = jax.tree.map(
                lambda *parts: np.concatenate(parts), rows(state, kept), rows(walks, fresh)
            )
            lanes = [lanes[lane] for lane in kept] + fresh

    def over_kinks(lanes: list[int], state: Walk) -> Walk:
        there = np.flatnonzero(np.asarray(state.end) == KINK)
        if not len(there) or not len(curves.kinks()):
            return state
        passing = rows(curves, np.asarray(lanes)[there]), rows(state, there)
        passed = in_batches(_pass_kink, *passing, np.zeros(len(there), bool))
        for row, lane in enumerate(there):
            found[lanes[lane]].append(rows(passed.point, [row]))
        return jax.tree.map(partial(with_rows, there), state, passed)

    threads = min(len(available()), max(1, -(-len(pending) // width)))
    with single_threaded_lapack(), ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(work) for _ in range(threads)]
        try:
            for job in jobs:
                job.result()
        except KeyboardInterrupt:
            interrupted.set()
    paths = [Path(_joined(parts), end) for parts, end in zip(found, ends, strict=True)]
    return paths, interrupted.is_set()


def _at_once(walks: Walk, bounds: tuple[float, float]) -> Int[np.ndarray, " walks"]:
    """The ends of walks that begin on a bound and lead out."""
    value, heading = walks.point.X[:, -1], walks.point.t[:, -1]
    out = [(value <= bounds[0]) & (heading < 0), (value >= bounds[1]) & (heading > 0)]
    return np.select(out, [LOWER, UPPER], GOING)


def with_rows(index: np.ndarray, whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """A copy of stacked values, some of them replaced."""
    copy = np.array(whole)
    copy[index] = part
    return copy


def _joined(parts: list[Point]) -> Point:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _width(count: int) -> int:
    return next((width for width in _WIDTHS if count <= width), _WIDTHS[-1])


def pairs(path: Path) -> Iterator[tuple[int, int]]:
    """The steps of a path on one piece, and the tests that change their sign in each."""
    signs = np.sign(path.points.tests)
    changed = signs[1:] * signs[:-1] <= 0
    changed &= signs[1:] != signs[:-1]
    changed[kinked(path)] = False
    for step, test in np.argwhere(changed):
        yield int(step), int(test)


def kinked(path: Path) -> Bool[np.ndarray, " steps"]:
    """Which steps of a path pass from one piece to another."""
    positive = path.points.positive
    return np.any(positive[1:] != positive[:-1], axis=1)


@Mapped
def point_between(
    curve: Curve, before: Point, after: Point, part: Float[Array, ""]
) -> tuple[Point, Bool[Array, ""]]:
    """The point at a part of the step between two others, and whether it was found."""
    return _between(curve, before, after)(part)


def _between(curve: Curve, before: Point, after: Point) -> Callable:
    curve = curve.piece(before.positive)
    U = curve.lengths(before.X)
    whole = jnp.dot(before.t, (after.X - before.X) / U)
    along = tangent_in(curve, after, U)

    def at(part):
        guess = before.X + part * (after.X - before.X)
        plane = guess + (part * whole - jnp.dot(before.t, (guess - before.X) / U)) * before.t * U
        found = correct(curve, plane, before.t, U)
        row = (1 - part) * before.t + part * along
        row = row * U / curve.lengths(found.X)
        return as_point(curve, found.X, row, before.positive), ~found.failed

    return at


@Mapped
def locate(curve: Curve, before: Point, after: Point, test: Int[Array, ""]):
    """The point between two of them where a test is 0, and whether it was found, by the Illinois
    method with points corrected onto the curve."""
    at = _between(curve, before, after)
    largest = jnp.maximum(jnp.abs(before.tests[test]), jnp.abs(after.tests[test]))

    def apart(loop):
        (a, b, *_), best, i = loop
        exact = best[1] & (jnp.abs(best[0].tests[test]) <= curve.narrow * largest)
        return (i < _NARROWINGS) & (b - a > curve.narrow) & ~exact

    def narrow(loop):
        (a, b, fa, fb, side), best, i = loop
        secant = (a * fb - b * fa) / jnp.where(fb == fa, 1, fb - fa)
        inside = (secant > a) & (secant < b) & (i % 4 != 3)
        c = jnp.where(inside, secant, (a + b) / 2)
        found = at(c)
        f = found[0].tests[test]
        left = (f * fb < 0) | ((fb == 0) & (f != 0))  # the zero lies in (c, b]
        now = jnp.where(left, -1.0, 1.0)
        half = jnp.where(side == now, 0.5, 1.0)
        ends = jnp.where(left, c, a), jnp.where(left, b, c)
        values = jnp.where(left, f, half * fa), jnp.where(left, half * fb, f)
        better = found[1] & (~best[1] | (jnp.abs(f) <= jnp.abs(best[0].tests[test])))
        best = jax.tree.map(partial(jnp.where, better), found, best)
        return (*ends, *values, now), best, i + 1

    start = jnp.zeros(()), jnp.ones(()), before.tests[test], after.tests[test], jnp.zeros(())
    begin = start, (before, jnp.bool_(False)), jnp.int32(0)
    return jax.lax.while_loop(apart, narrow, begin)[1]
