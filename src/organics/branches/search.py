"""Follows branches from given states, finds the events on them, and switches to the branches that
meet them."""

import itertools
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from organics.branches.arclength import (
    ENDS,
    EXACT,
    TOUCH,
    Path,
    Walk,
    begin,
    begin_on,
    follow,
    in_batches,
    kinked,
    locate,
    pairs,
    passes,
    point_between,
    rows,
    stacked,
    with_rows,
)
from organics.branches.branch import Branch, Event
from organics.branches.defining import (
    polish_branch_point,
    polish_fold,
    polish_hopf,
    polish_kink,
)
from organics.branches.family import Family
from organics.branches.normal_forms import fold_form, hopf_form
from organics.branches.steady import BRANCH, FOLD, HOPF, SteadyCurve
from organics.branches.switching import directions
from organics.linear.jacobian import descending

_OFF = 0.02  # distance from a branch point at which another branch begins, in units
_SAME = 1e-4  # distance of two finds of one event, in units
_FAR = 0.5  # a point where an event is confirmed may not be so far from where it was located
_ALONG = 0.95  # cosine of two directions that count as one
_MOST_IN_CORNER = 8  # numbers, for all ways out of it to be looked for
_ROUNDING = 1e-12  # of an eigenvalue, relative to the largest, beyond which its sign is sure
_HALVINGS = 30  # of a step
_FLAT = 1e-6  # of a direction along the parameter
_COMPLEX = 1e-10  # imaginary part of a pair that is not two real ones, relative to the largest
_MULTIPLE = "multiple bifurcation"
_PER_MS = 1000 / (2 * np.pi)  # Hz for each rad/ms


class Crossing(NamedTuple):
    """An event on a path: which path, the step, the point `X` of the curve and its units; of a
    branch point the directions of both branches, the path's first; and of a kink both pieces."""

    event: Event
    path: int
    step: int
    X: np.ndarray
    U: np.ndarray
    directions: np.ndarray | None = None
    pieces: np.ndarray | None = None


class Traced(NamedTuple):
    """Branches, and the crossings on each."""

    branches: list[Branch]
    crossings: list[list[Crossing]]
    interrupted: bool


def curves_of(family: Family, width: float, count: int) -> SteadyCurve:
    """Stacked curves of a stack of families."""
    return SteadyCurve(family, np.full(count, width))


def through(
    curves: SteadyCurve, starts: Float[np.ndarray, "starts k1"], bounds: tuple, most: int
) -> Traced:
    """Branches through given points, one on each of stacked curves, in both directions."""
    heading = np.zeros((2 * len(starts), starts.shape[1]))
    heading[::2, -1], heading[1::2, -1] = -1, 1
    twice = rows(curves, np.repeat(np.arange(len(starts)), 2))
    walks, _ = in_batches(_by_parameter, twice, np.repeat(starts, 2, axis=0), heading)
    return _trace(twice, walks, bounds, most)


def away_from(curves: SteadyCurve, points: Any, ways: Any, bounds: tuple, most: int) -> Traced:
    """Branches from branch points in both senses of a direction, given in units."""
    twice = rows(curves, np.repeat(np.arange(len(points)), 2))
    sign = np.tile([-1.0, 1.0], len(points))[:, None]
    ways, points = np.repeat(ways, 2, axis=0) * sign, np.repeat(points, 2, axis=0)
    walks, found = in_batches(_across, twice, points + _OFF * ways, ways)
    good = np.flatnonzero(found.reshape(-1, 2).all(axis=1))
    kept = (2 * good[:, None] + np.arange(2)).ravel()
    if not len(kept):
        return Traced([], [], False)
    return _trace(rows(twice, kept), rows(walks, kept), bounds, most)


def _by_parameter(curves, X, heading):
    return begin(curves, X, heading, True)


def _across(curves, X, heading):
    return begin(curves, X, heading, False)


def _trace(curves: SteadyCurve, walks: Walk, bounds: tuple, most: int) -> Traced:
    paths, interrupted = follow(curves, walks, bounds, most)
    for i in range(0, len(paths), 2):
        paths[i + 1] = _with_its_beginning(paths[i], paths[i + 1])
    try:
        crossings = find_crossings(curves, paths)
    except KeyboardInterrupt:
        crossings, interrupted = [], True
    branches, grouped = [], []
    for i in range(0, len(paths), 2):
        back = [_turned(c) for c in crossings if c.path == i][::-1]
        forth = [c for c in crossings if c.path == i + 1]
        if paths[i].end == paths[i + 1].end == ENDS.index("returned to its beginning"):
            back = []  # both ways are the whole of a closed curve
        grouped.append(_once(back + forth))
        branches.append(_joined(paths[i], paths[i + 1], grouped[-1]))
    return Traced(branches, grouped, interrupted)


def _with_its_beginning(back: Path, forth: Path) -> Path:
    """A path with, before its first point, that of the path the other way, if it is on another
    piece."""
    first = rows(back.points, [0])
    if np.array_equal(first.positive[0], forth.points.positive[0]):
        return forth
    turned = first._replace(t=-first.t)
    points = jax.tree.map(lambda *parts: np.concatenate(parts), turned, forth.points)
    return forth._replace(points=points)


def _joined(back: Path, forth: Path, crossings: list[Crossing]) -> Branch:
    closed = back.end == forth.end == ENDS.index("returned to its beginning")
    parts = [forth.points] if closed else [rows(back.points, slice(None, 0, -1)), forth.points]
    X = np.concatenate([part.X for part in parts])
    values = descending(np.concatenate([part.kept for part in parts]))
    events = [crossing.event for crossing in crossings]
    return Branch(X[:, -1], X[:, :-1], values, events, (ENDS[back.end], ENDS[forth.end]))


def _turned(crossing: Crossing) -> Crossing:
    """As the path has it the other way."""
    event = crossing.event
    if event.unstable is None:
        return crossing
    return crossing._replace(event=event._replace(unstable=event.unstable[::-1]))


def _once(crossings: list[Crossing]) -> list[Crossing]:
    """Each event once: one where two steps meet counts in both, a pitchfork as a fold of one of its
    branches, and a multiple bifurcation as others of its step that are not confirmed."""
    kept: list[Crossing] = []
    for crossing in sorted(crossings, key=_rank):
        step = crossing.path, crossing.step
        near = [
            c
            for c in kept
            if _distance(c, crossing) < _SAME
            or (c.event.kind == _MULTIPLE and (c.path, c.step) == step)
        ]
        if not any(
            _is_one(c, crossing)
            or (c.directions is not None and c.event.confirmed)
            or (c.event.kind == _MULTIPLE and not crossing.event.confirmed)
            for c in near
        ):
            kept.append(crossing)
    return [crossing for crossing in crossings if any(crossing is k for k in kept)]


def _is_one(one: Crossing, other: Crossing) -> bool:
    """Whether two finds nearby, of one kind, are one: two that are confirmed may be apart."""
    kinds = [(c.event.kind, c.event.switched) for c in (one, other)]
    sure = one.event.confirmed and other.event.confirmed
    return kinds[0] == kinds[1] and not (sure and _distance(one, other) > EXACT)


def _rank(crossing: Crossing) -> tuple[bool, bool]:
    return crossing.event.kind != _MULTIPLE, crossing.directions is None


def _distance(one: Crossing, other: Crossing) -> float:
    return float(np.linalg.norm((one.X - other.X) / one.U))


def find_crossings(curves: SteadyCurve, paths: list[Path]) -> list[Crossing]:
    """The events on paths, each on the curve of the same index, in order."""
    found = [*_smooth_crossings(curves, paths), *_kinks(curves, paths)]
    found += _unexplained(curves, paths, [crossing for _, crossing in found])
    found.sort(key=lambda item: (item[1].path, item[1].step, item[0]))
    return [crossing for _, crossing in found]


def _steps(paths: list[Path], where: list) -> tuple[Any, Any]:
    """The points before and after steps, each of a path."""
    return tuple(
        jax.tree.map(lambda *leaves: np.stack(leaves), *(
            rows(paths[i].points, j + k) for i, j, *_ in where)) for k in (0, 1)
    )  # fmt: skip


def _unexplained(
    curves: SteadyCurve, paths: list[Path], found: list[Crossing]
) -> list[tuple[float, Crossing]]:
    """The steps on one piece in which more eigenvalues cross the imaginary axis than at the events
    that were found, as where symmetry makes two cross 0 at once."""
    explained = Counter()
    for crossing in found:
        explained[crossing.path, crossing.step] += 2 if crossing.event.kind == "hopf" else 1
    where, counts = [], []
    for i, path in enumerate(paths):
        values, corners = path.points.kept, kinked(path)
        rounding = _ROUNDING * np.max(np.abs(values), axis=1, keepdims=True)
        least, most = (np.sum(np.real(values) > s * rounding, axis=1) for s in (1, -1))
        begin = 0
        for j in range(1, len(values)):
            if corners[j - 1]:
                begin = j
                continue
            goes_on = j + 1 < len(values) and not corners[j]
            if least[j] < most[j] and goes_on:
                continue  # the next point at which all signs are sure decides
            crossed = max(least[j] - most[begin], least[begin] - most[j])
            if crossed > sum(explained[i, step] for step in range(begin, j)):
                where.append((i, j - 1))
                counts.append((int(least[begin]), int(least[j])))
            begin = j
    if not where:
        return []
    before, after = _steps(paths, where)
    test = np.full(len(where), HOPF)  # two real eigenvalues that change their signs change it twice
    those = rows(curves, [i for i, _ in where])
    points, good = in_batches(locate, those, before, after, test)
    # where several eigenvalues are 0 no point can be corrected, but on a line they all are
    left, from_, to = (p.tests[:, HOPF] for p in (points, before, after))
    worse = ~good | (np.abs(left) > 0.1 * np.minimum(np.abs(from_), np.abs(to)))
    part = (from_ / np.where(from_ == to, 1, from_ - to))[:, None]
    on_line = before.X + np.clip(part, 0, 1) * (after.X - before.X)
    X = np.where(worse[:, None], on_line, points.X)
    along, U = np.linalg.norm(X - before.X, axis=1), np.asarray(_lengths(those, X))
    crossings = []
    for i in range(len(where)):
        event = Event(_MULTIPLE, float(X[i, -1]), X[i, :-1], False, np.nan, unstable=counts[i])
        path, step = where[i]
        crossings.append((float(along[i]), Crossing(event, path, step, X[i], U[i])))
    return crossings


def _kinks(curves: SteadyCurve, paths: list[Path]) -> list[tuple[float, Crossing]]:
    """Where paths pass from one piece to another, and how far along the step."""
    where = [(i, int(j)) for i, path in enumerate(paths) for j in np.flatnonzero(kinked(path))]
    if not where:
        return []
    path, step = np.array(where).T
    before, after = _steps(paths, where)
    changed = before.positive != after.positive
    curves = rows(curves, path).piece(before.positive)
    U = np.asarray(_lengths(curves, after.X))
    k, names = curves.kinks()[np.argmax(changed, axis=1)], curves.family.base.names_of_kinks()
    polished = in_batches(polish_kink, curves, after.X, k)
    unstable = [np.sum(np.real(point.kept) > 0, axis=1) for point in (before, after)]
    crossings = []
    for i in range(len(where)):
        near = np.linalg.norm((polished.Z[i] - after.X[i]) / U[i]) < _SAME
        event = Event(
            "switch" if before.t[i, -1] * after.t[i, -1] > 0 else "nonsmooth fold",
            float(after.X[i, -1]), after.X[i, :-1], bool(polished.good[i] and near),
            float(polished.error[i]), switched=tuple(names[j] for j in np.flatnonzero(changed[i])),
            unstable=(int(unstable[0][i]), int(unstable[1][i])),
        )  # fmt: skip
        pieces = np.stack([before.positive[i], after.positive[i]])
        crossings.append((0.0, Crossing(event, *where[i], after.X[i], U[i], pieces=pieces)))
    return crossings


def _smooth_crossings(curves: SteadyCurve, paths: list[Path]) -> list[tuple[float, Crossing]]:
    """The events on the pieces of paths, and how far along the step."""
    where = [(i, *pair) for i, path in enumerate(paths) for pair in pairs(path)]
    if not where:
        return []
    path, step, test = np.array(where).T
    before, after = _steps(paths, where)
    points, good = in_batches(locate, rows(curves, path), before, after, test)
    along = np.linalg.norm(points.X - before.X, axis=1)
    crossings: list[tuple[float, Crossing]] = []
    for kind, find in ((FOLD, _folds), (BRANCH, _branch_points), (HOPF, _hopfs)):
        chosen = np.flatnonzero(test == kind)
        if kind == HOPF:
            points, good = _at_pairs(curves, path, chosen, (before, after), (points, good))
            chosen = np.array([i for i in chosen if _is_pair(points.kept[i])], int)
        if not len(chosen):
            continue
        piece = rows(curves, path[chosen]).piece(before.positive[chosen])
        found = find(piece, rows(points, chosen), good[chosen])
        crossings += [(float(along[i]), Crossing(event, int(path[i]), int(step[i]), *rest))
                      for i, (event, *rest) in zip(chosen, found, strict=True)
                      if event is not None]  # fmt: skip
    return crossings


def _at_pairs(
    curves: SteadyCurve, path: np.ndarray, chosen: np.ndarray, ends: tuple, found: tuple
) -> tuple[Any, np.ndarray]:
    """The points found, those where two real eigenvalues cancel each other replaced, by bisection,
    by those of their steps where two cross the imaginary axis, if some do."""
    counts = [np.sum(np.real(end.kept) > 0, axis=1) for end in ends]
    crossed = np.abs(counts[1] - counts[0]) >= 2
    wrong = np.array([i for i in chosen if crossed[i] and not _is_pair(found[0].kept[i])], int)
    if not len(wrong):
        return found
    those, before, after = rows(curves, path[wrong]), rows(ends[0], wrong), rows(ends[1], wrong)
    low, high = np.zeros(len(wrong)), np.ones(len(wrong))
    points, good = rows(found, wrong)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        points, good = in_batches(point_between, those, before, after, middle)
        same = np.sum(np.real(points.kept) > 0, axis=1) == counts[0][wrong]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return jax.tree.map(partial(with_rows, wrong), found, (points, good))


def _cancelling(values: np.ndarray) -> tuple[int, int]:
    """The two eigenvalues whose sum is nearest to 0."""
    i, j = np.triu_indices(len(values), 1)
    nearest = np.argmin(np.abs(values[i] + values[j]))
    return int(i[nearest]), int(j[nearest])


def _is_pair(values: np.ndarray) -> bool:
    """Whether the two eigenvalues that cancel each other are a complex pair."""
    one = values[_cancelling(values)[0]]
    imaginary = abs(np.imag(one))
    return bool(imaginary > _COMPLEX * np.max(np.abs(values)) and imaginary > abs(one) / 2)


def _unstable_besides(values: np.ndarray) -> int:
    """How many of the others have a positive real part."""
    others = np.delete(values, _cancelling(values))
    return int(np.sum(np.real(others) > _ROUNDING * np.max(np.abs(values))))


def _confirmed(curves: SteadyCurve, points, Z, found, good):
    """Whether the polished point is near the located one and on its piece, and which of both is
    taken."""
    U, kinks = np.asarray(_lengths(curves, points.X)), curves.kinks()
    near = np.linalg.norm((Z - points.X) / U, axis=1) < _FAR
    out = np.where(points.positive, -1, 1) * Z[:, kinks] > TOUCH * U[:, kinks]
    sure = good & found.good & near & np.isfinite(Z).all(axis=1) & ~out.any(axis=1)
    return np.where(sure[:, None], Z, points.X), sure, U


@jax.jit
@jax.vmap
def _lengths(curve: SteadyCurve, X):
    return curve.lengths(X)


def _folds(curves, points, good):
    found, fold = in_batches(polish_fold, curves, points.X)
    Z = np.concatenate([fold.x, fold.values], axis=1)
    X, sure, U = _confirmed(curves, points, Z, found, good)
    numbers = in_batches(fold_form, curves.family, fold)
    for i in range(len(X)):
        size = {"coefficient": float(numbers[i]), "vector": fold.phi[i]} if sure[i] else {}
        event = Event(
            "fold", float(X[i, -1]), X[i, :-1], bool(sure[i]), float(found.error[i]), **size
        )
        yield event, X[i], U[i]


def _hopfs(curves, points, good):
    found, hopf = in_batches(polish_hopf, curves, points.X)
    Z = np.concatenate([hopf.x, hopf.values], axis=1)
    X, sure, U = _confirmed(curves, points, Z, found, good)
    form = in_batches(hopf_form, curves.family, hopf)
    for i in range(len(X)):
        size = {}
        if sure[i]:
            size = {
                "frequency_hz": float(hopf.w[i] * _PER_MS),
                "first_lyapunov": float(form.first_lyapunov[i]),
                "also_unstable": _unstable_besides(points.kept[i]),
                "speed": float(form.speed[i]),
                "vector": hopf.q[i],
            }
        event = Event(
            "hopf", float(X[i, -1]), X[i, :-1], bool(sure[i]), float(found.error[i]), **size
        )
        yield event, X[i], U[i]


def _branch_points(curves, points, good):
    found, Z = in_batches(polish_branch_point, curves, points.X)
    X, sure, U = _confirmed(curves, points, Z, found, good)
    ways, two = in_batches(directions, curves, X)
    for i in range(len(X)):
        both = ways[i]
        if abs(both[1] @ points.t[i]) > abs(both[0] @ points.t[i]):
            both = both[::-1]
        flat = np.abs(both[:, -1]) < _FLAT
        if two[i] and flat.all():  # folds of both: two eigenvalues are 0, as `_unexplained` says
            yield None, X[i], U[i], None
            continue
        kind = "pitchfork" if two[i] and flat.any() else "branch point"
        event = Event(
            kind, float(X[i, -1]), X[i, :-1], bool(sure[i] and two[i]), float(found.error[i])
        )
        yield event, X[i], U[i], both if two[i] else None


def switch(curve: SteadyCurve, traced: Traced, bounds: tuple, most: int) -> Traced:
    """All branches that can be reached from those given over branch points and corners, the given
    ones included."""
    known: list[tuple[Crossing, list[np.ndarray]]] = []
    corners: list[Crossing] = []
    fresh = traced.crossings
    while not traced.interrupted:
        new = [c for group in fresh for c in group]
        found = [
            _switched(curve, new, known, bounds, most),
            _out_of_corners(curve, new, corners, bounds, most),
        ]
        before = len(traced.branches)
        traced = without_twins(
            curve,
            Traced(
                traced.branches + [branch for more in found for branch in more.branches],
                traced.crossings + [group for more in found for group in more.crossings],
                any(more.interrupted for more in found),
            ),
            before,
        )
        fresh = traced.crossings[before:]
        if not fresh:
            break
    return traced


def without_twins(curve: SteadyCurve, traced: Traced, distinct: int = 0) -> Traced:
    """Each branch once, if several starts lie on it, or it meets others at several points; the
    first `distinct` are known to be distinct."""
    kept = list(range(distinct))
    for i, branch in enumerate(traced.branches[distinct:], distinct):
        if not any(_are_one(curve, traced.branches[j], branch) for j in kept):
            kept.append(i)
    return traced._replace(
        branches=[traced.branches[i] for i in kept], crossings=[traced.crossings[i] for i in kept]
    )


def _are_one(curve: SteadyCurve, one: Branch, other: Branch) -> bool:
    """Whether a branch goes through two points of another: where they meet it goes through one."""
    X, Z = (np.column_stack([branch.x, branch.parameter]) for branch in (one, other))
    change = np.abs(np.diff(Z[:, -1]))
    halves = np.array_split(np.arange(len(change)), 2)
    steep = [half[np.argmax(change[half])] for half in halves if len(half)]
    return all(passes(curve, X, Z[i], np.arange(X.shape[1])) for i in steep)


def _switched(curve: SteadyCurve, fresh: list[Crossing], known: list, bounds: tuple, most: int):
    """The other branches at branch points; `known` lists these, each with the directions of the
    branches that have been followed."""
    for crossing in fresh:
        if crossing.directions is None or not crossing.event.confirmed:
            continue
        for other, covered in known:
            if _distance(other, crossing) < _SAME:
                covered.append(crossing.directions[0])
                break
        else:
            known.append((crossing, [crossing.directions[0]]))
    wanted = [
        (crossing, way) for crossing, covered in known for way in _ways(crossing)
        if all(abs(way @ c) < _ALONG for c in covered)
    ]  # fmt: skip
    if not wanted:
        return Traced([], [], False)
    for crossing, way in wanted:
        next(covered for c, covered in known if c is crossing).append(way)
    points = np.stack([crossing.X for crossing, _ in wanted])
    ways = np.stack([crossing.U * way for crossing, way in wanted])
    return away_from(stacked(curve, len(wanted)), points, ways, bounds, most)


def _ways(crossing: Crossing) -> list[np.ndarray]:
    return [] if crossing.directions is None else list(crossing.directions)


def _out_of_corners(curve: SteadyCurve, fresh: list[Crossing], known: list, bounds: tuple, most):
    """The branches through corners that were not followed there; `known` lists these corners. Two
    of the ways out of a corner make a branch."""
    kinks, walks = curve.kinks(), []
    for crossing in fresh:
        near = np.flatnonzero(np.abs(crossing.X[kinks]) <= TOUCH * crossing.U[kinks])
        if crossing.pieces is None or not 1 < len(near) <= _MOST_IN_CORNER:
            continue
        if any(_distance(other, crossing) < _SAME for other in known):
            continue
        known.append(crossing)
        followed = [
            piece for c in fresh if c.pieces is not None and _distance(c, crossing) < _SAME
            for piece in c.pieces
        ]  # fmt: skip
        pieces = np.repeat(crossing.pieces[:1], 2 ** len(near), axis=0)
        pieces[:, near] = list(itertools.product((False, True), repeat=len(near)))
        many = stacked(curve, len(pieces))
        ways, good, other = in_batches(begin_on, many, stacked(crossing.X, len(pieces)), pieces)
        good &= ~np.any(np.all(pieces[:, None] == np.stack(followed)[None], axis=2), axis=1)
        for i in np.flatnonzero(good):
            j = int(np.argmax(np.all(pieces == other[i], axis=1)))
            if i < j and good[j]:
                walks += [rows(ways, [i]), rows(ways, [j])]
    if not walks:
        return Traced([], [], False)
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *walks)
    return _trace(stacked(curve, len(walks)), joined, bounds, most)
