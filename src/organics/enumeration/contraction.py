"""One step of a proof: boxes of `v` are discarded, shrunk, or shown to hold exactly one zero.

For each box, in intervals rounded outwards,

1. `G` itself, in two forms, with `y_i` by its monotony in `v_i`: a box is *empty* if some `G_i` is
   not 0 in it;
2. the mean-value form, with `dG/dv` in all of the box;
3. two sweeps of the Gauss-Seidel iteration for `C G`, `C` the inverse of the middle of `dG/dv`
   (Hansen & Sengupta). If the first sweep ends inside the box, the box has *one* zero.

What is left of a box holds all of its zeros.

Source: Neumaier, Interval methods for systems of equations, 1990, section 5.1.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from organics.enumeration.intervals import Interval, above, below

EMPTY, OPEN, ONE = range(3)
"""What is known of the zeros in a box: there is none, nothing, there is exactly one."""
_SWEEPS = 2


class Equations(NamedTuple):
    """`G` with exact `W` and `W_r`, and intervals around `c` and `d`."""

    W: Float[np.ndarray, "n n"]
    W_r: Float[np.ndarray, "n n"]
    c: Interval
    d: Interval

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return len(self.W)

    def among(self, active: list[int]) -> "Equations":
        """Those of some of the neurons."""
        some = np.ix_(active, active)
        return Equations(self.W[some], self.W_r[some], self.c.at(active), self.d.at(active))


class Contracted(NamedTuple):
    """What is left of k boxes, what is known of each, and where to cut it next."""

    low: Float[np.ndarray, "k n"]
    high: Float[np.ndarray, "k n"]
    known: Int[np.ndarray, " k"]
    widest: Int[np.ndarray, " k"]


def contract(
    equations: Equations, low: Float[np.ndarray, "k n"], high: Float[np.ndarray, "k n"]
) -> Contracted:
    """One step, by NumPy."""
    with np.errstate(all="ignore"):
        return _contract(equations, Interval(low, high))


class _Terms(NamedTuple):
    """Intervals of shape (k, n) over k boxes: `rest = a - W_ii v_i^2`."""

    a: Interval
    s: Interval
    rest: Interval
    y: Interval


def _contract(equations: Equations, v: Interval) -> Contracted:
    k, n = v.low.shape
    known = np.full(k, OPEN)
    terms = _terms(equations, v)
    G, u = residual(equations, v, terms)
    known[np.any(G.excludes_zero(), axis=1)] = EMPTY
    R = derivative(equations, v, terms, u)
    middle = 0.5 * (v.low + v.high)
    point = Interval.exact(middle)
    at_middle, _ = residual(equations, point, _terms(equations, point))
    shift = v - middle
    mean_value = at_middle + (R * _row(shift)).total(2)
    known[np.any(mean_value.excludes_zero(), axis=1)] = EMPTY
    C = _inverse(0.5 * (R.low + R.high))
    A = (Interval(R.low[:, None], R.high[:, None]) * C[:, :, :, None]).total(2)
    b = (_row(at_middle) * C).total(2)
    inside = np.ones(k, bool)
    x = Interval(shift.low.copy(), shift.high.copy())
    for sweep in range(_SWEEPS):
        for i in range(n):
            others = A.at(slice(None), i) * x
            others.low[:, i], others.high[:, i] = 0, 0
            right = -(b.at(slice(None), i) + others.total(1))
            new = _quotient(right, A.at(slice(None), i, i))
            if sweep == 0:
                end = new + middle[:, i]
                inside &= (end.low > v.low[:, i]) & (end.high < v.high[:, i])
            met = new.meet(x.at(slice(None), i))
            known[met.low > met.high] = EMPTY
            x.low[:, i], x.high[:, i] = met
    left = (x + middle).meet(v)
    known[(known == OPEN) & inside] = ONE
    widest = np.argmax((v.high - v.low) * R.size().sum(1), axis=1)
    return Contracted(left.low, left.high, known, widest)


def _terms(equations: Equations, v: Interval) -> _Terms:
    W, diagonal = equations.W, np.arange(equations.n)
    own = np.diag(W)
    pooled = _row(v.square()) * W
    pooled.low[:, diagonal, diagonal], pooled.high[:, diagonal, diagonal] = 0, 0
    rest = pooled.total(2) + equations.c
    a = rest + v.square() * own
    ends = []
    for end, least in ((v.low, True), (v.high, False)):
        # `y_i` rises with `v_i`, and its size falls with the rest
        other = np.where((end >= 0) == least, rest.high, rest.low)
        exact, under = Interval.exact(end), Interval.exact(other)
        y = exact * (under + exact.square() * own).root().inverse()
        ends.append(y.low if least else y.high)
    return _Terms(a, a.root(), rest, Interval(*ends))


def residual(equations: Equations, v: Interval, terms: _Terms) -> tuple[Interval, Interval]:
    """`G` and `W_r y` in each box."""
    _, s, _, y = terms
    own, diagonal = np.diag(equations.W_r), np.arange(equations.n)
    parts = _row(y) * equations.W_r
    u = parts.total(2)
    parts.low[:, diagonal, diagonal], parts.high[:, diagonal, diagonal] = 0, 0
    gate = -(s - 1.0)
    one = y - gate * u - equations.d
    leak = Interval.exact(np.ones(1)) - own
    other = y * leak + v * own - gate * parts.total(2) - equations.d
    return one.meet(other), u


def derivative(equations: Equations, v: Interval, terms: _Terms, u: Interval) -> Interval:
    """`dG/dv` in each box, (k, n, n)."""
    (a, s, rest, y), W, diagonal = terms, equations.W, np.arange(equations.n)
    inverse = s.inverse()
    limit = above(np.sqrt(W))
    ds = (_row(v) * W * _column(inverse)).meet(Interval(-limit, limit))
    dy = -(_column(y * inverse) * ds)
    own = (rest * (a * s).inverse()).meet((-(y.square() * np.diag(W) - 1.0)) * inverse)
    dy.low[:, diagonal, diagonal], dy.high[:, diagonal, diagonal] = own
    # (k, i, l, j): W_r,il dy_lj
    products = Interval(dy.low[:, None], dy.high[:, None]) * equations.W_r[None, :, :, None]
    return dy - _column(-(s - 1.0)) * products.total(2) + _column(u) * ds


def _inverse(matrices: Float[np.ndarray, "k n n"]) -> Float[np.ndarray, "k n n"]:
    """Approximate inverses; zero where there is none, which proves nothing."""
    found = np.zeros_like(matrices)
    finite = np.all(np.isfinite(matrices), axis=(1, 2), keepdims=True)
    determinants = np.linalg.det(np.where(finite, matrices, 0.0))
    good = np.flatnonzero(determinants)
    found[good] = np.linalg.inv(matrices[good])
    return np.where(np.all(np.isfinite(found), axis=(1, 2), keepdims=True), found, 0.0)


def _quotient(right: Interval, by: Interval) -> Interval:
    """Bounds on all quotients; everything if the divisor may be 0."""
    quotients = [top / bottom for top in right for bottom in by]
    low, high = below(np.minimum.reduce(quotients)), above(np.maximum.reduce(quotients))
    sure = by.excludes_zero() & np.isfinite(low) & np.isfinite(high)
    return Interval(np.where(sure, low, -np.inf), np.where(sure, high, np.inf))


def _row(x: Interval) -> Interval:
    return Interval(x.low[:, None, :], x.high[:, None, :])


def _column(x: Interval) -> Interval:
    return Interval(x.low[:, :, None], x.high[:, :, None])
