"""A search for all steady states, and the sum of their signs as an alarm.

Newton's method on the reduced equations starts

1. from `v = b z`, and from `y` at `a = c`; in the rectified model from the `y` of each set of
   active neurons, or of random sets, for pools of several sizes;
2. near the zeros of one equation in one unknown: if all pools grow in the same proportions `r`, as
   `a = c + t r`, then `y` follows from `t`, and `mean(W v^2 / r) = t` must hold. This finds the far
   states, two around each `t` at which `I - D(1 - s) W_r` is singular, that random starts rarely
   meet. `r` is the mean of the rows of `W`, then `W v^2` of the states found;
3. from random `v` of all sizes;
4. from random points on the lines through two of the states found, and around them.

For the main model with `W > 0` and a nonsingular `W_r`, the signs of `det(-J)` at all steady states
add up to the sign of `det(W_r)`. If those of the states found do not, the search is repeated with
more starts. A pair of missing states with opposite signs raises no alarm.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from organics.enumeration.degree import expected_degree
from organics.enumeration.reduced import Reduced

_STEPS = 60
_FRACTIONS = np.array([1.0, 0.5, 0.2, 0.05, 0.01])  # of a Newton step; the best one is taken
_STUCK = 0.99  # of the residual left by a step: then this start is given up
_CONVERGED = 1e-9  # size of Newton's last step relative to the state: the next has twice the digits
_BALANCED = 1e-12  # relative to the terms of each equation
SAME = 1e-6
"""Relative distance below which two finds are one state."""
_ROUNDING = 4 * np.finfo(float).eps
_AROUND = 0.2  # relative, of a known state
_NEAR = 1.3  # factor by which the proportions of pools may differ
_ROUNDS = 6  # while the signs do not add up
_LEAST, _MOST, _PER_DECADE = 1e-4, 1e12, 7  # of t
_SETS, _SIZES, _LARGE = 64, 8, 1e4  # sets of active neurons, and sizes of the pools
_HALVINGS, _APPROACHES = 26, 12  # towards a pole of the equation in one unknown

DRIVE, POOL, RANDOM = "from the drive", "from one pool", "from a random start"
OTHERS = "from other states"


class Found(NamedTuple):
    """Zeros of the reduced equations, shape (k, n), how each was found, and their signs.

    `expected` is the sum of the signs of all steady states, `None` if it is not known.
    """

    v: Float[np.ndarray, "k n"]
    how: list[str]
    signs: list[int]
    expected: int | None


def search(system: Reduced, seed: int = 0) -> Found:
    """All steady states that a few rounds of starts find."""
    rng = np.random.default_rng(seed)
    found = _Finds(system)
    expected = expected_degree(system)
    with np.errstate(all="ignore"):
        rays = [system.W.mean(axis=1)]
        unpooled = _on_ray(system, rays[0], np.zeros(1)).v
        found.start(np.concatenate([system.d[None], unpooled]), DRIVE)
        if system.rectified:
            found.start(_by_active_sets(system, rays[0], rng), DRIVE)
        found.start(_near_one_pool(system, rays[0]), POOL)
        found.start(random_starts(system, rng, _count(system.n)), RANDOM)
        used = 0
        for round_ in range(_ROUNDS):
            for v in found.v[used:]:
                used += 1
                ray = system.W @ np.square(system.values(v[None]).p[0])
                if not _is_near(ray, rays):
                    rays.append(ray)
                    found.start(_near_one_pool(system, ray), POOL)
            found.start(_among(found.v, rng, 2**round_ * _count(system.n) // 2), OTHERS)
            if expected in (None, sum(found.signs)) and used == len(found.v):
                break
            found.start(random_starts(system, rng, 2**round_ * _count(system.n) // 2), RANDOM)
    return Found(found.v, found.how, found.signs, expected)


class _Finds:
    """The zeros found so far, each once."""

    def __init__(self, system: Reduced):
        self.system = system
        self.v = np.empty((0, system.n))
        self.how: list[str] = []
        self.signs: list[int] = []

    def start(self, starts: Float[np.ndarray, "k n"], how: str) -> None:
        """Add what Newton's method finds from these starts."""
        ends = newton(self.system, starts)
        new = []
        for v in ends:
            if not is_among(v, self.v) and not is_among(v, np.array(new).reshape(-1, len(v))):
                new.append(v)
        if new:
            self.v = np.concatenate([self.v, new])
            self.how += [how] * len(new)
            self.signs += self.system.signs(np.array(new))


def is_among(v: Float[np.ndarray, " n"], known: Float[np.ndarray, "k n"]) -> bool:
    """Whether `v` is one of the known states."""
    sizes = np.linalg.norm(v) + np.linalg.norm(known, axis=1)
    return bool(np.any(np.linalg.norm(known - v, axis=1) <= SAME * sizes))


def newton(system: Reduced, v: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "m n"]:
    """The zeros that Newton's method reaches from the rows of `v`, with repetitions.

    Rows that have converged, or no longer come closer, are taken out.
    """
    v = v[np.all(np.isfinite(v), axis=1)]
    at = system.values(v)
    G = system.residual(v, at)
    left = np.linalg.norm(G, axis=1)
    ends = []
    for _ in range(_STEPS):
        if not len(v):
            break
        step = _solve(system.derivative(v, at), -G)
        tried = v + _FRACTIONS[:, None, None] * step
        flat = tried.reshape(-1, system.n)
        values = system.values(flat)
        residuals = system.residual(flat, values)
        norms = np.linalg.norm(residuals, axis=1).reshape(len(_FRACTIONS), -1)
        best = np.argmin(np.where(np.isfinite(norms), norms, np.inf), axis=0)
        chosen = best * len(v) + np.arange(len(v))
        small = np.linalg.norm(step, axis=1) <= _CONVERGED * np.linalg.norm(v, axis=1)
        closer = norms.ravel()[chosen] < _STUCK * left
        ends.append(np.where(small[:, None], tried[0], v)[small | ~closer])
        on = closer & ~small
        chosen = chosen[on]
        v, G, left = flat[chosen], residuals[chosen], norms.ravel()[chosen]
        at = type(at)(*(value[chosen] for value in values))
    found = np.concatenate([*ends, v]) if ends or len(v) else v
    return found[_balances(system, found)]


def _balances(system: Reduced, v: Float[np.ndarray, "k n"]) -> Bool[np.ndarray, " k"]:
    """Which rows are zeros: each equation balances relative to its terms, and rounding of these
    moves `v` little, which fails where `W_r y` cancels."""
    at = system.values(v)
    terms = system.terms(v, at)
    balanced = np.all(np.abs(system.residual(v, at)) <= _BALANCED * terms, axis=1)
    balanced &= np.all(np.isfinite(v), axis=1)
    good = np.flatnonzero(balanced)
    derivative = system.derivative(v, at)[good]
    moved = np.stack([_solve(derivative, sign * terms[good]) for sign in _signs(system.n)])
    blur = _ROUNDING * np.max(np.linalg.norm(moved, axis=2), axis=0, initial=0)
    balanced[good] = blur <= SAME * np.linalg.norm(v[good], axis=1)
    return balanced


def _signs(n: int) -> Float[np.ndarray, "4 n"]:
    return np.random.default_rng(0).choice([-1.0, 1.0], (4, n))


def _solve(
    matrices: Float[np.ndarray, "k n n"], right: Float[np.ndarray, "k n"]
) -> Float[np.ndarray, "k n"]:
    """`x` in `A x = b` for each row; NaN where `A` is singular."""
    try:
        return np.linalg.solve(matrices, right[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        good = np.isfinite(matrices).all(axis=(1, 2)) & (np.linalg.det(matrices) != 0)
        x = np.full(right.shape, np.nan)
        x[good] = np.linalg.solve(matrices[good], right[good][:, :, None])[:, :, 0]
        return x


def _count(n: int) -> int:
    """Random starts in a round."""
    return 200 if n <= 10 else 40


def random_starts(
    system: Reduced, rng: np.random.Generator, count: int
) -> Float[np.ndarray, "k n"]:
    """Directions at random, sizes over five decades."""
    return rng.normal(size=(count, system.n)) * 10 ** rng.uniform(-1.5, 3.5, (count, 1))


def _is_near(ray: Float[np.ndarray, " n"], rays: list[np.ndarray]) -> bool:
    """Whether the pools grow in nearly the same proportions as in one of the other cases."""
    ratios = (ray / other for other in rays)
    return any(np.max(ratio) <= _NEAR * np.min(ratio) for ratio in ratios)


def _among(
    known: Float[np.ndarray, "m n"], rng: np.random.Generator, count: int
) -> Float[np.ndarray, "k n"]:
    """On the lines through two known states, a little beyond them, and around."""
    if not len(known):
        return known
    one, other = known[rng.integers(len(known), size=(2, count))]
    along, around = rng.uniform(-0.5, 1.5, (count, 1)), rng.normal(size=one.shape)
    return (one + along * (other - one)) * (1 + _AROUND * around)


def _by_active_sets(
    system: Reduced, r: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Float[np.ndarray, "k n"]:
    """`v` for sets of active neurons, if pools grow in the proportions `r`."""
    n = system.n
    sets = rng.integers(2, size=(_SETS, n)).astype(float)
    if 2**n <= _SETS:
        sets = np.array(list(itertools.product((0.0, 1.0), repeat=n)))
    t = np.append(0, np.geomspace(_LEAST, _LARGE, _SIZES))
    s = np.sqrt(system.c + t[:, None] * r)[:, None]
    M = np.eye(n) - (1 - s)[..., None] * system.W_r * sets[:, None, :]
    shape = M.shape[:3]
    y = _solve(M.reshape(-1, n, n), np.broadcast_to(system.d, shape).reshape(-1, n)).reshape(shape)
    return np.where(sets > 0, s * np.abs(y), -np.abs(y)).reshape(-1, n)


def _near_one_pool(system: Reduced, r: Float[np.ndarray, " n"]) -> Float[np.ndarray, "k n"]:
    """`v` where `mean(W v^2 / r) - t` changes its sign, with `a = c + t r`."""
    if not np.all(r > 0):
        return np.empty((0, system.n))
    r = r / r.mean()
    on_grid = _on_ray(system, r, _grid(system))
    parts = [on_grid, *(_on_ray(system, r, t) for t in _beside_poles(system, r, on_grid))]
    t, v, above, _ = (np.concatenate(values) for values in zip(*parts, strict=True))
    order = np.argsort(t)
    change = np.flatnonzero(np.diff(above[order]))
    return v[order[change]]


def _grid(system: Reduced) -> Float[np.ndarray, " m"]:
    """Values of `t` from where it is small beside `c`."""
    least = min(_LEAST, 0.01 * float(np.mean(system.c)))
    return np.geomspace(least, _MOST, int(_PER_DECADE * np.log10(_MOST / least)))


class _OnRay(NamedTuple):
    """At each `t`: `v`, whether the mean exceeds `t`, and the sign of `det(I - D(1 - s) W_r)`."""

    t: Float[np.ndarray, " k"]
    v: Float[np.ndarray, "k n"]
    above: Bool[np.ndarray, " k"]
    sign: Float[np.ndarray, " k"]


def _roots_and_matrices(
    system: Reduced, r: Float[np.ndarray, " n"], t: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n n"]]:
    """`s` and `I - D(1 - s) W_r` at each `t`."""
    s = np.sqrt(system.c + t[:, None] * r)
    M = (s - 1)[:, :, None] * system.W_r
    diagonal = np.arange(system.n)
    M[:, diagonal, diagonal] += 1
    return s, M


def _on_ray(system: Reduced, r: Float[np.ndarray, " n"], t: Float[np.ndarray, " k"]) -> _OnRay:
    s, M = _roots_and_matrices(system, r, t)
    v = s * _solve(M, np.broadcast_to(system.d, s.shape))
    above = np.square(v) @ (system.W / r[:, None]).mean(axis=0) > t
    return _OnRay(t, v, above, np.linalg.slogdet(M)[0])


def _beside_poles(
    system: Reduced, r: Float[np.ndarray, " n"], grid: _OnRay
) -> list[Float[np.ndarray, " k"]]:
    """Points ever closer to each pole between two points of the grid, on both sides."""
    change = np.flatnonzero(np.diff(grid.sign))
    if not len(change):
        return []
    low, high, below = grid.t[change], grid.t[change + 1], grid.sign[change]
    for _ in range(_HALVINGS):
        middle = np.sqrt(low * high)
        sign = np.linalg.slogdet(_roots_and_matrices(system, r, middle)[1])[0]
        left = sign == below
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    pole = np.sqrt(low * high)[:, None]
    apart = 4.0 ** -np.arange(1, _APPROACHES)
    before, after = grid.t[change][:, None], grid.t[change + 1][:, None]
    return [(pole + (end - pole) * apart).ravel() for end in (before, after)]
