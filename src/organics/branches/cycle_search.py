"""Follows the limit cycles that are born at Hopf points, and finds the events on them."""

from typing import Any

import jax
import numpy as np

from organics.branches.arclength import (
    CLOSED,
    ELSEWHERE,
    ENDS,
    INACCURATE,
    INFINITE,
    Path,
    begin,
    follow,
    in_batches,
    locate,
    pairs,
    rows,
)
from organics.branches.branch import CycleBranch, CycleEvent, Event
from organics.branches.cycles import KINDS, TORUS, CycleCurve
from organics.branches.steady import SteadyCurve

_STEPS = (24, 96, 384)  # of the flow; more where fewer do not suffice
_FIRST = (0.1, 0.02, 0.004)  # sizes of the first cycle that are tried, in units
_ONE = 1e-3  # how far the product of a pair on the unit circle may be from 1
_WORDS = {
    ELSEWHERE: "shrinks to a steady state",
    INFINITE: "its period goes to infinity",
    CLOSED: "returned to its beginning",
    INACCURATE: "needs more than 384 steps a period",
}


def cycles_from(
    curve: SteadyCurve, hopfs: list[Event], bounds: tuple, most: int
) -> tuple[list[CycleBranch], bool]:
    """The branch of each Hopf point, of at most so many cycles, and whether Ctrl-C came."""
    found: dict[int, CycleBranch] = {}
    wanted, interrupted = list(range(len(hopfs))), False
    for steps in _STEPS:
        if not wanted or interrupted:
            break
        branches, interrupted = _follow(curve, [hopfs[i] for i in wanted], bounds, most, steps)
        found |= {i: branch for i, branch in zip(wanted, branches, strict=True) if branch}
        wanted = [i for i in wanted if i not in found or found[i].end == _WORDS[INACCURATE]]
    return [found[i] for i in sorted(found)], interrupted


def _follow(curve: SteadyCurve, hopfs: list[Event], bounds: tuple, most: int, steps: int):
    """With so many steps for the flow; `None` where no first cycle was found."""
    curves, X, ways = (
        jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
        for parts in zip(
            *(_first(curve, hopf, steps, size) for hopf in hopfs for size in _FIRST), strict=True
        )
    )
    walks, good = in_batches(_begin, curves, X, ways)
    chosen = [i * len(_FIRST) + int(np.argmax(good[i * len(_FIRST) :][: len(_FIRST)]))
              for i in range(len(hopfs))]  # fmt: skip
    curves, walks, good = rows(curves, chosen), rows(walks, chosen), good[chosen]
    paths, interrupted = follow(curves, walks, bounds, most)
    branches = []
    for i, (hopf, path) in enumerate(zip(hopfs, paths, strict=True)):
        usable = good[i] and len(path.points.X) > 1 and path.points.kept.accurate[0]
        branches.append(_branch(rows(curves, i), hopf, path) if usable else None)
    return branches, interrupted


def _begin(curves, X, ways):
    return begin(curves, X, ways, False)


def _first(curve: SteadyCurve, hopf: Event, steps: int, size: float) -> tuple[CycleCurve, Any, Any]:
    """The equations of the cycles of a Hopf point, a point near the first one, and the direction
    in which they grow."""
    system = curve.family.at(hopf.parameter)
    U = np.asarray(jax.jit(lambda system, x: system.lengths(x))(system, hopf.x))
    k = int(np.argmax(np.abs(hopf.vector) / U))
    q = hopf.vector * np.exp(-1j * np.angle(hopf.vector[k]))
    way = np.append(q.real / np.linalg.norm(q.real / U), [0.0, 0.0])
    assert hopf.frequency_hz is not None
    period = 1000 / hopf.frequency_hz
    X = np.concatenate([hopf.x, [period, hopf.parameter]]) + size * way * np.sqrt(len(U))
    cycles = CycleCurve(curve.family, curve.width, np.asarray(k), np.asarray(period), steps)
    return jax.tree.map(np.asarray, cycles), X, way


def _branch(curve: CycleCurve, hopf: Event, path: Path) -> CycleBranch:
    points: Any = path.points
    orbit = points.kept
    count = len(points.X) - (path.end in (ELSEWHERE, INACCURATE))  # the last one is no such cycle
    kept = slice(0, count)
    events = _events(curve, Path(rows(points, kept), path.end))
    return CycleBranch(
        hopf, points.X[kept, -1], points.X[kept, -2], points.X[kept, :-2], orbit.low[kept],
        orbit.high[kept], orbit.multipliers[kept], events, _WORDS.get(path.end, ENDS[path.end]),
    )  # fmt: skip


def _events(curve: CycleCurve, path: Path) -> list[CycleEvent]:
    where = list(pairs(path))
    if not where:
        return []
    step, test = np.array(where).T
    before, after = rows(path.points, step), rows(path.points, step + 1)
    many = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], len(step), axis=0), curve)
    points, good = in_batches(locate, many, before, after, test)
    events = []
    for i in range(len(step)):
        if not good[i] or (test[i] == TORUS and not _is_pair(points.kept.multipliers[i])):
            continue
        X = points.X[i]
        events.append(CycleEvent(KINDS[test[i]], float(X[-1]), float(X[-2]), X[:-2]))
    return events


def _is_pair(multipliers: np.ndarray) -> bool:
    """Whether there are two multipliers whose product is 1, and these are a complex pair."""
    others = multipliers[np.argsort(np.abs(multipliers - 1))][1:]
    i, j = np.triu_indices(len(others), 1)
    off = np.abs(others[i] * others[j] - 1)
    nearest = np.argmin(off)
    return bool(off[nearest] < _ONE and abs(np.imag(others[i[nearest]])) > 0)
