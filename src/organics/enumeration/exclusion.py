"""All zeros of `G` in a box, with a proof that there are no others.

Around each known zero the largest box of a family is kept in which `contract` finds exactly one.
Then the whole box is cut up: a part is dropped if it lies in such a box, or if `contract` finds it
empty; what is left of it is halved. A part with exactly one zero gives, if that zero is new,
another such box. A part that is smaller than rounding allows to decide remains, as do all parts
when the limit is reached. The zeros are all of them if no part remains.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from organics.enumeration.contraction import EMPTY, ONE, OPEN, Contracted, Equations

_BATCH = 2048  # boxes contracted at once
_FIRST, _GROWTH, _SIZES = 1e-10, 1.5, 64  # radii of the boxes around a zero, relative
_SMALL = 1e-5  # relative width below which Newton's method starts from a part
_SMALLEST = 1e-11  # relative width below which a part remains
_TIGHTEN = 4  # contractions of the box around a zero

Contract = Callable[[Equations, np.ndarray, np.ndarray], Contracted]
Newton = Callable[[np.ndarray], np.ndarray]


class Zero(NamedTuple):
    """A zero of `G`: the only one in the box from `low` to `high`, and, more narrowly, in that from
    `least` to `most`."""

    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    least: Float[np.ndarray, " n"]
    most: Float[np.ndarray, " n"]

    @property
    def v(self) -> Float[np.ndarray, " n"]:
        """Its middle."""
        return 0.5 * (self.least + self.most)


class Exclusion(NamedTuple):
    """The zeros, each enclosed and different from the others; the number of boxes contracted; and
    the parts that remain: their lower and upper corners, shape (k, n).

    `decidable`: whether all parts that remain were only not looked at.
    """

    zeros: list[Zero]
    boxes: int
    low: Float[np.ndarray, "k n"]
    high: Float[np.ndarray, "k n"]
    decidable: bool


def exclude(
    equations: Equations,
    box: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    known: Float[np.ndarray, "k n"],
    newton: Newton,
    contract: Contract,
    most_boxes: int,
) -> Exclusion:
    """All zeros in a box, from those known, for at most so many boxes."""
    zeros = _Zeros(equations, contract)
    for v in known:
        zeros.add(v)
    stack = _Stack(equations.n)
    stack.push(box[0][None], box[1][None])
    stuck: list[np.ndarray] = []
    while len(stack) and zeros.boxes < most_boxes:
        low, high = stack.pop()
        outside = ~zeros.hold(low, high)
        low, high = low[outside], high[outside]
        if not len(low):
            continue
        zeros.boxes += len(low)
        left = contract(equations, low, high)
        for i in np.flatnonzero(left.known == ONE):
            if not zeros.settle(left.low[i], left.high[i]):
                stuck.append(np.stack([left.low[i], left.high[i]]))
        open_ = left.known == OPEN
        low, high, widest = left.low[open_], left.high[open_], left.widest[open_]
        width = np.max(high - low, axis=1, initial=0)
        size = zeros.scale + np.max(np.maximum(np.abs(low), np.abs(high)), axis=1, initial=0)
        small = np.flatnonzero(width < _SMALL * size)
        if len(small):
            middles = 0.5 * (low[small] + high[small])
            for v in newton(middles[:: max(1, len(small) // 8)]):
                zeros.add(v)
        smallest = width < _SMALLEST * size
        stuck += list(np.stack([low[smallest], high[smallest]], axis=1))
        stack.halve(low[~smallest], high[~smallest], widest[~smallest])
    left_low, left_high = stack.rest()
    stuck = [part for part in stuck if not zeros.hold(part[:1], part[1:])[0]]
    tiny = np.array(stuck).reshape(-1, 2, equations.n)
    return Exclusion(
        zeros.found,
        zeros.boxes,
        np.concatenate([tiny[:, 0], left_low]),
        np.concatenate([tiny[:, 1], left_high]),
        not stuck,
    )


class _Stack:
    """Boxes still to be looked at, the last first."""

    def __init__(self, n: int):
        self._low: list[np.ndarray] = []
        self._high: list[np.ndarray] = []
        self._n = n

    def __len__(self) -> int:
        return len(self._low)

    def push(self, low: Float[np.ndarray, "k n"], high: Float[np.ndarray, "k n"]) -> None:
        """Add boxes."""
        if len(low):
            self._low.append(low)
            self._high.append(high)

    def pop(self) -> tuple[np.ndarray, np.ndarray]:
        """A batch of boxes, of the last added ones."""
        low, high, room = [], [], _BATCH
        while self._low and room:
            last = self._low.pop(), self._high.pop()
            low.append(last[0][-room:])
            high.append(last[1][-room:])
            self.push(last[0][:-room], last[1][:-room])
            room -= len(low[-1])
        return np.concatenate(low), np.concatenate(high)

    def halve(self, low, high, where) -> None:
        """Add both halves of each box, cut across the given direction."""
        rows = np.arange(len(low))
        middle = 0.5 * (low[rows, where] + high[rows, where])
        left, right = high.copy(), low.copy()
        left[rows, where] = right[rows, where] = middle
        self.push(np.concatenate([low, right]), np.concatenate([left, high]))

    def rest(self) -> tuple[np.ndarray, np.ndarray]:
        """All boxes that are left."""
        none = [np.empty((0, self._n))]
        return np.concatenate(none + self._low), np.concatenate(none + self._high)


class _Zeros:
    """The zeros enclosed so far, and the number of boxes contracted."""

    def __init__(self, equations: Equations, contract: Contract):
        self._equations, self._contract = equations, contract
        self.found: list[Zero] = []
        self.boxes = 0
        # of `v`, below which `s` hardly changes
        self.scale = float(np.sqrt(np.min(equations.c.low)))

    def hold(
        self, low: Float[np.ndarray, "k n"], high: Float[np.ndarray, "k n"]
    ) -> Bool[np.ndarray, " k"]:
        """Which boxes lie in that of a zero."""
        inside = np.zeros(len(low), bool)
        for zero in self.found:
            inside |= np.all((low >= zero.low) & (high <= zero.high), axis=1)
        return inside

    def add(self, v: Float[np.ndarray, " n"]) -> bool:
        """Enclose the zero near `v`; whether it is enclosed now."""
        if self.hold(v[None], v[None])[0]:
            return True
        radius = _FIRST * (self.scale + np.abs(v)) * _GROWTH ** np.arange(_SIZES)[:, None]
        self.boxes += _SIZES
        around = self._contract(self._equations, v - radius, v + radius)
        good = np.flatnonzero(around.known == ONE)
        if not len(good):
            return False
        first, last = good[0], good[-1]
        least, most = self._tighten(around.low[first], around.high[first])
        zero = Zero(v - radius[last], v + radius[last], least, most)
        if any(np.all((least <= other.most) & (most >= other.least)) for other in self.found):
            return False  # perhaps the same
        self.found.append(zero)
        return True

    def settle(self, low: Float[np.ndarray, " n"], high: Float[np.ndarray, " n"]) -> bool:
        """Whether the only zero in this box is enclosed now."""
        low, high = self._tighten(low, high)
        if self.hold(low[None], high[None])[0]:
            return True
        before = len(self.found)
        self.add(0.5 * (low + high))
        return len(self.found) > before and bool(self.hold(low[None], high[None])[0])

    def _tighten(self, low, high) -> tuple[np.ndarray, np.ndarray]:
        low, high = low[None], high[None]
        for _ in range(_TIGHTEN):
            self.boxes += 1
            left = self._contract(self._equations, low, high)
            if left.known[0] == EMPTY:  # by no means, as there is a zero
                break
            low, high = left.low, left.high
        return low[0], high[0]
