"""The equations of circuits or hierarchies on a line of parameters, for numbers that are balls or
power series of balls.

Each array is `base + value * slope`, both exact. The equations are those of the smooth piece on
which a state lies: every neuron counts as active or silent, as its `y` is positive or negative.
They are those of `Circuit.imbalance` and `Hierarchy.imbalance`, written a second time; the tests
compare them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from flint import arb
from jaxtyping import Float

from organics.circuit.circuit import Circuit
from organics.circuit.weights import Weights
from organics.proofs.balls import Inequality, exact, least, weights_in_balls
from organics.rest.system import Driven

_VECTORS = "b", "b0", "sigma", "tau_y", "tau_a"


def _rows(array: Any) -> list[list[arb]]:
    """Exact numbers, but for products of factors and sums, which are enclosed."""
    if isinstance(array, Weights):
        return weights_in_balls(array).tolist()
    return [exact(row) for row in np.atleast_2d(np.asarray(array, np.float64))]


class BallLine(NamedTuple):
    """An array `base + value * slope`, as rows of `_rows`."""

    base: list[list[arb]]
    slope: list[list[arb]]

    @classmethod
    def of(cls, base: Any, slope: Any) -> "BallLine":
        """From floating-point numbers; a vector is one row."""
        return cls(*map(_rows, (base, slope)))

    def at(self, value: Any) -> list[list]:
        """The rows at a value."""
        return [
            [b if s == 0 else b + value * s for b, s in zip(*rows, strict=True)]
            for rows in zip(self.base, self.slope, strict=True)
        ]

    def vector(self, value: Any) -> list:
        """The only row."""
        (row,) = self.at(value)
        return row

    def vanishes(self, i: int, j: int) -> bool:
        """Whether an entry is 0 at every value."""
        return bool(self.base[i][j] == 0 and self.slope[i][j] == 0)


class _Area(NamedTuple):
    """One area: its arrays by name, without `W_r` if that is the identity; which neurons are
    active; and whether it is rectified."""

    arrays: dict[str, BallLine]
    active: list[bool]
    rectified: bool

    @property
    def n(self) -> int:
        return len(self.active)

    def rate(self, y: list) -> list:
        """`relu(y)`."""
        return [y if on else y * 0 for y, on in zip(y, self.active, strict=True)]

    def heard(self, y: list) -> list:
        """`q`."""
        return self.rate(y) if self.rectified else y

    @property
    def slopes(self) -> list[int]:
        """The derivative of `q`."""
        return [int(on or not self.rectified) for on in self.active]


class _Between(NamedTuple):
    """What is between an area and the next one; `back` is `None` without feedback."""

    up: BallLine
    back: BallLine | None


class _Recurrence(NamedTuple):
    """Of one area: `R`; its derivative by `q`, as rows; and that by `f`, `None` without
    feedback."""

    R: list
    by_q: list[list]
    by_f: list | None


class Equations(NamedTuple):
    """The equations of one piece of a line. States are the numbers of all areas, `y` then `a`."""

    areas: list[_Area]
    between: list[_Between]
    gamma: BallLine | None
    g: BallLine | None
    z: BallLine
    balanced: bool

    @classmethod
    def of(cls, base: Driven, slope: Driven, x: Float[np.ndarray, " m"]) -> "Equations":
        """Those of `base + value * slope` on the piece of the state `x`."""
        circuit: Any = base.circuit
        change: Any = slope.circuit
        each = zip(circuit.areas, change.areas, base.states(x), strict=True)
        areas = [_area(area, moved, np.asarray(state.y)) for area, moved, state in each]
        z = BallLine.of(base.z, slope.z)
        if isinstance(circuit, Circuit):
            return cls(areas, [], None, None, z, False)
        return cls(areas, *_links(circuit, change), z, circuit.form == "balanced")

    @property
    def _parts(self) -> Iterator[tuple[int, int, int]]:
        """The number of each area, and where its `y` begins and its `a`."""
        start = 0
        for k, area in enumerate(self.areas):
            yield k, start, start + area.n
            start += 2 * area.n

    def imbalance(self, x: list, value: Any) -> list:
        """The right-hand sides, before division by the time constants."""
        found = []
        for k, start, middle in self._parts:
            area, y, a = self.areas[k], *self._split(x, k)
            q, at = area.heard(y), {name: line.at(value) for name, line in area.arrays.items()}
            R, drive = self._recurrence(k, x, value).R, self._drive(k, x, value)
            (b,), (b0,), (sigma,) = at["b"], at["b0"], at["sigma"]
            pooled = times(at["W"], [q * q * a for q, a in zip(q, a, strict=True)])
            n = middle - start
            found += [b[i] * drive[i] - y[i] + (1 - a[i].sqrt()) * R[i] for i in range(n)]
            found += [(b0[i] * sigma[i]) ** 2 - a[i] + pooled[i] for i in range(n)]
        return found

    def jacobian(self, x: list, value: Any) -> list[list]:
        """The derivative of `imbalance` by `x`, as rows."""
        zero = value * 0
        rows = [[zero] * len(x) for _ in x]
        for k, start, middle in self._parts:
            area, y, a = self.areas[k], *self._split(x, k)
            q, s, n = area.heard(y), [a.sqrt() for a in a], area.n
            R, by_q, by_f = self._recurrence(k, x, value)
            W, on = area.arrays["W"].at(value), area.slopes
            for i in range(n):
                upper, lower = rows[start + i], rows[middle + i]
                for j in range(n):
                    upper[start + j] = (1 - s[i]) * by_q[i][j] * on[j] - int(i == j)
                    lower[start + j] = 2 * W[i][j] * q[j] * a[j]
                    lower[middle + j] = W[i][j] * q[j] * q[j] - int(i == j)
                upper[middle + i] = -R[i] / (2 * s[i])
            if by_f is not None:
                slopes = self._slopes_of_feedback(k, value)
                for i in range(n):
                    for j, slope in enumerate(slopes[i]):
                        rows[start + i][middle + n + j] = (1 - s[i]) * by_f[i] * slope
            if k:
                below = self.areas[k - 1]
                b, up = area.arrays["b"].vector(value), self.between[k - 1].up.at(value)
                for j, rate in enumerate(below.rate(self._split(x, k - 1)[0])):
                    for i in range(n):
                        rows[start + i][start - 2 * below.n + j] = 2 * b[i] * up[i][j] * rate
        return rows

    def rates(self, x: list, value: Any) -> list[list]:
        """The derivative of the velocity by `x`, as rows."""
        tau = [
            tau for area in self.areas for name in ("tau_y", "tau_a")
            for tau in area.arrays[name].vector(value)
        ]  # fmt: skip
        rows = self.jacobian(x, value)
        return [[entry / t for entry in row] for row, t in zip(rows, tau, strict=True)]

    def on_this_piece(self, x: list, value: Any) -> list[Inequality]:
        """That every `y` whose sign matters has the sign that is assumed, and that feedback which
        silences a neuron is not 0; none in the main model of one circuit."""
        margins = []
        for k, _, _ in self._parts:
            area, (y, _) = self.areas[k], self._split(x, k)
            if area.rectified or len(self.areas) > 1:
                signs = zip(y, area.active, strict=True)
                margins += [y if on else -y for y, on in signs]
            if self.balanced and self._is_fed(k):
                f = self._feedback(k, x, value)
                margins += [f[i] for i in range(area.n) if self._is_silenced(k, i)]
        if not margins:
            return []
        return [Inequality.positive("every neuron is active or silent as assumed", least(margins))]

    def _split(self, x: list, k: int) -> tuple[list, list]:
        """`y` and `a` of an area."""
        _, start, middle = list(self._parts)[k]
        return x[start:middle], x[middle : 2 * middle - start]

    def _drive(self, k: int, x: list, value: Any) -> list:
        if k == 0:
            return self.z.vector(value)
        rates = self.areas[k - 1].rate(self._split(x, k - 1)[0])
        return times(self.between[k - 1].up.at(value), [rate * rate for rate in rates])

    def _is_fed(self, k: int) -> bool:
        return k < len(self.between) and self.between[k].back is not None

    def _slopes_of_feedback(self, k: int, value: Any) -> list[list]:
        """The derivative of `f` by `y` of the area above, as rows."""
        back, above = self.between[k].back, self.areas[k + 1]
        assert back is not None and self.g is not None
        g, on = self.g.vector(value)[k], above.slopes
        if self.balanced:
            on = [int(active) for active in above.active]
        return [[g * entry * on[j] for j, entry in enumerate(row)] for row in back.at(value)]

    def _feedback(self, k: int, x: list, value: Any) -> list:
        """`f`, which is linear in the `y` that are active."""
        return times(self._slopes_of_feedback(k, value), self._split(x, k + 1)[0])

    def _is_silenced(self, k: int, i: int) -> bool:
        """Whether balanced feedback keeps a silent neuron from its recurrent drive: some of it
        comes."""
        back = self.between[k].back
        assert back is not None
        heard = enumerate(self.areas[k + 1].active)
        comes = any(on and not back.vanishes(i, j) for j, on in heard)
        return comes and not self.areas[k].active[i]

    def _recurrence(self, k: int, x: list, value: Any) -> _Recurrence:
        area, (y, _) = self.areas[k], self._split(x, k)
        q, n = area.heard(y), area.n
        if "W_r" in area.arrays:
            W_r = area.arrays["W_r"].at(value)
            own = times(W_r, q)
        else:
            W_r = [[int(i == j) for j in range(n)] for i in range(n)]
            own = q
        if not self._is_fed(k):
            return _Recurrence(own, W_r, None)
        assert self.gamma is not None
        f, gamma = self._feedback(k, x, value), self.gamma.vector(value)[k]
        total = [own + gamma * f for own, f in zip(own, f, strict=True)]
        if not self.balanced:
            return _Recurrence(total, W_r, [gamma] * n)
        R, by_q, by_f = [], [], []
        for i in range(n):
            if self._is_silenced(k, i):
                share, bend, slope = f[i] * 0, f[i] * 0, f[i] * 0
            elif not area.active[i]:  # nothing is fed back
                share, bend, slope = 1, f[i] * 0, f[i] * 0
            else:
                sum_ = y[i] + f[i]
                share = y[i] / sum_
                bend = total[i] * f[i] / (sum_ * sum_)
                slope = share * (gamma - total[i] / sum_)
            R.append(total[i] * share)
            by_q.append([share * entry + (bend if i == j else 0) for j, entry in enumerate(W_r[i])])
            by_f.append(slope)
        return _Recurrence(R, by_q, by_f)


def _area(circuit: Circuit, change: Circuit, y: Float[np.ndarray, " n"]) -> _Area:
    arrays = {name: BallLine.of(getattr(circuit, name), getattr(change, name)) for name in _VECTORS}
    arrays["W"] = BallLine.of(circuit.pool, change.pool)
    if not circuit.has_identity_recurrence:
        arrays["W_r"] = BallLine.of(circuit.recurrent, change.recurrent)
    return _Area(arrays, [bool(value > 0) for value in y], circuit.rectified)


def _links(hierarchy: Any, change: Any) -> tuple[list[_Between], BallLine, BallLine]:
    """What is between the areas, `gamma` and `g`."""
    one, other = ([h.feedforward, h.feedback, h.gamma, h.g] for h in (hierarchy, change))
    ups, backs = (zip(*pair, strict=True) for pair in list(zip(one, other, strict=True))[:2])
    between = [
        _Between(BallLine.of(*up), None if back[0] is None else BallLine.of(*back))
        for up, back in zip(ups, backs, strict=True)
    ]
    return between, BallLine.of(one[2], other[2]), BallLine.of(one[3], other[3])


def times(rows: list, vector: list) -> list:
    """The product of a matrix, as rows, and a vector."""
    return [dot(row, vector) for row in rows]


def dot(one: Any, other: Any) -> Any:
    """The sum of the products of two vectors."""
    total = 0
    for a, b in zip(one, other, strict=True):
        total = total + a * b
    return total
