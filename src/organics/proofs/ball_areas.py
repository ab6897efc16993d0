"""A hierarchy of areas and one drive in ball arithmetic, as `organics.proofs.balls` has a circuit.

The equations are those of `Hierarchy.imbalance`, written a second time; the tests compare the two.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flint import arb, arb_mat
from jaxtyping import Array, Float

from organics.circuit.hierarchy import Hierarchy
from organics.proofs.balls import (
    BallCircuit,
    Box,
    column,
    exact,
    exact_matrix,
    imbalance,
    imbalance_jacobian,
    step,
)


class BallHierarchy(NamedTuple):
    """A hierarchy under one drive: exact parameters.

    `areas` have `d = b z`; `d` is replaced in all but the first. `b` are the input gains of all.
    """

    areas: list[BallCircuit]
    b: list[list[arb]]
    up: list[arb_mat]
    back: list[arb_mat | None]
    gamma: list[arb]
    balanced: bool

    @classmethod
    def of(cls, hierarchy: Hierarchy, z: Float[Array, " n"]) -> "BallHierarchy":
        """The hierarchy with products rounded outwards to the working precision."""
        drives = [z, *(jnp.zeros(n, z.dtype) for n in hierarchy.sizes[1:])]
        gains = zip(hierarchy.feedback, exact(hierarchy.g), strict=True)
        return cls(
            [BallCircuit.of(area, d) for area, d in zip(hierarchy.areas, drives, strict=True)],
            [exact(area.b) for area in hierarchy.areas],
            [exact_matrix(matrix) for matrix in hierarchy.feedforward],
            [None if matrix is None else exact_matrix(matrix) * g for matrix, g in gains],
            exact(hierarchy.gamma),
            hierarchy.form == "balanced",
        )

    @property
    def tau(self) -> list[arb]:
        """The time constants of all numbers."""
        return [tau for area in self.areas for tau in area.tau]

    @property
    def starts(self) -> list[int]:
        """Where the numbers of each area begin."""
        return [int(i) for i in np.cumsum([0, *(2 * area.n for area in self.areas)])]

    @property
    def positive(self) -> list[int]:
        """The places of `a`."""
        each = zip(self.starts, self.areas, strict=False)
        return [start + i for start, area in each for i in range(area.n, 2 * area.n)]

    def state(self, x: Sequence[arb]) -> tuple:
        """The numbers as a box of each area."""
        ends = zip(self.starts[:-1], self.starts[1:], strict=True)
        return tuple(Box.of(x[start:end]) for start, end in ends)

    def driven(self, x: Sequence[arb]) -> list[BallCircuit]:
        """Each area under the drive that it has in the state."""
        found = [self.areas[0]]
        for area, b, up, below in zip(
            self.areas[1:], self.b[1:], self.up, self.state(x), strict=False
        ):
            rates = column(y**2 for y in _relu(below.y))
            found.append(
                area._replace(d=[g * r for g, r in zip(b, (up * rates).entries(), strict=True)])
            )
        return found

    def imbalance(self, x: Sequence[arb]) -> list[arb]:
        """`Hierarchy.imbalance` at every state of the box."""
        boxes, found = self.state(x), []
        for k, (area, box) in enumerate(zip(self.driven(x), boxes, strict=True)):
            values = imbalance(area, box)
            for i, one in enumerate(self._received(k, boxes)):
                values[i] += (1 - box.a[i].sqrt()) * (one.recurrent - one.own)
            found += values
        return found

    def imbalance_jacobian(self, x: Sequence[arb]) -> arb_mat:
        """Its derivative, at every state of the box."""
        boxes, starts = self.state(x), self.starts
        J = arb_mat(starts[-1], starts[-1])
        for k, (area, box, start) in enumerate(zip(self.areas, boxes, starts, strict=False)):
            n, block = area.n, imbalance_jacobian(area, box)
            for i in range(2 * n):
                for j in range(2 * n):
                    J[start + i, start + j] = block[i, j]
            for i, one in enumerate(self._received(k, boxes)):
                gate, back = 1 - box.a[i].sqrt(), self.back[k]
                assert back is not None
                for j in range(n):
                    J[start + i, start + j] = gate * one.by_y[j] - int(i == j)
                J[start + i, start + n + i] = -one.recurrent / (2 * box.a[i].sqrt())
                for j, slope in enumerate(self._slopes(k + 1, boxes[k + 1])):
                    J[start + i, starts[k + 1] + j] = gate * one.by_f * back[i, j] * slope
            if k:
                for i in range(n):
                    for j, y in enumerate(_relu(boxes[k - 1].y)):
                        J[start + i, starts[k - 1] + j] = (
                            self.b[k][i] * self.up[k - 1][i, j] * 2 * y
                        )
        return J

    def _fed_back(self, k: int, box: Box) -> list[arb]:
        """What an area feeds back: `relu(y)`, or `q` in the additive form."""
        return _relu(box.y) if self.balanced or self.areas[k].rectified else box.y

    def _slopes(self, k: int, box: Box) -> list[arb]:
        """The derivative of that."""
        if self.balanced or self.areas[k].rectified:
            return [step(y) for y in box.y]
        return [arb(1)] * len(box.y)

    def _received(self, k: int, boxes: tuple) -> list["_Received"]:
        """What feedback makes of the recurrent drive of each neuron; none without feedback."""
        back = self.back[k] if k < len(self.back) else None
        if back is None:
            return []
        area, y = self.areas[k], boxes[k].y
        f = (back * column(self._fed_back(k + 1, boxes[k + 1]))).entries()
        q = _relu(y) if area.rectified else y
        active = [step(y) if area.rectified else arb(1) for y in y]
        found = []
        for i in range(area.n):
            weights = [
                arb(int(i == j)) if area.W_r is None else area.W_r[i, j] for j in range(area.n)
            ]
            own = sum((w * q for w, q in zip(weights, q, strict=True)), arb(0))
            by_y = [w * on for w, on in zip(weights, active, strict=True)]
            gamma = self.gamma[k]
            if not self.balanced:
                found.append(_Received(own, own + gamma * f[i], by_y, gamma))
            else:
                found.append(_balanced(i, y[i], f[i], own, by_y, gamma))
        return found


class _Received(NamedTuple):
    """Of one neuron: `W_r q`; `R`; the derivative of `R` by each `y` of the area, and by `f`."""

    own: arb
    recurrent: arb
    by_y: list[arb]
    by_f: arb


def _balanced(i: int, y: arb, f: arb, own: arb, by_y: list[arb], gamma: arb) -> _Received:
    """`R = (W_r q + gamma f) relu(y) / (relu(y) + f)`, with `f >= 0`."""
    if f == 0:
        return _Received(own, own, by_y, gamma)
    if y > 0:
        share, total = 1 / (1 + f / y), own + gamma * f
        by_y = [share * w for w in by_y]
        by_y[i] += total * f / (y + f) ** 2
        return _Received(own, total * share, by_y, share * (gamma - total / (y + f)))
    if not f > 0:
        return _Received(own, arb.nan(), [arb.nan()] * len(by_y), arb.nan())
    if y < 0:
        return _Received(own, arb(0), [arb(0)] * len(by_y), arb(0))
    rate, total = arb.max(y, arb(0)), own + gamma * f
    share = rate / (rate + f)  # 0 where y <= 0, as are all derivatives
    by_y = [share * w for w in by_y]
    by_y[i] += step(y) * total * f / (rate + f) ** 2
    return _Received(own, total * share, by_y, share * (gamma - total / (rate + f)))


def _relu(values: list[arb]) -> list[arb]:
    return [arb.max(value, arb(0)) for value in values]
