"""All steady states of a circuit, enclosed, with a proof that there are no others, or why not.

The rectified model is a main model for each set of active neurons, with `v > 0`; of its states
those count at which the other neurons stay silent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flint import arb
from jaxtyping import Float

from organics.circuit.circuit import Circuit
from organics.enumeration.bounds import Blocks, NoBound, bound
from organics.enumeration.contraction import Equations
from organics.enumeration.degree import subsets
from organics.enumeration.enclosed import ALL, AT_LEAST, UNDECIDED, Enclosed
from organics.enumeration.exclusion import exclude
from organics.enumeration.intervals import Interval
from organics.enumeration.native import contract
from organics.enumeration.one_pool import enclose_one_pool, states_of_one_pool
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import newton, random_starts
from organics.proofs.balls import BallCircuit, is_computed
from organics.proofs.existence import NONE_EXISTS, absence

MOST = 8
"""Number of neurons up to which a box is searched with proof."""
_STARTS = 60


def enclose_all(
    circuit: Circuit, z: Float[np.ndarray, " n"], system: Reduced, most_boxes: int
) -> Enclosed:
    """All steady states for the drive `z`, of a circuit with a matrix `W_r`."""
    exact = enclose_one_pool(circuit, z)
    if exact is not None:
        return exact
    drive = jnp.asarray(z)
    task = _Task(circuit, z, system, BallCircuit.of(circuit, drive))
    every = circuit.rectified and task.n <= MOST  # there are 2^n sets
    patterns = subsets(task.n) if every else [list(range(task.n))]
    v, reasons, remaining, boxes, undecidable = [], [], [], 0, False
    if circuit.rectified and not every:
        reasons.append(f"sets of active neurons are examined up to n = {MOST}")
    for active in patterns:
        part = task.among(active, most_boxes - boxes)
        boxes += part.boxes
        for zero in part.zeros:
            silent = task.silent(active, zero)
            if any(y > 0 for y in silent):
                continue  # a neuron that this set leaves out would be active
            if not (task.is_active(zero) and all(y < 0 for y in silent)):
                undecidable = True
                reasons.append("whether a neuron is active cannot be decided")
                continue
            v.append(task.whole(active, zero, silent))
        for low, high in part.remaining:
            corners = np.zeros((2, task.n))
            corners[0, active], corners[1, active] = low, high
            remaining.append(corners)
        if part.why is not None:
            reasons.append(part.why)
            undecidable = undecidable or part.undecidable
    missing = absence(circuit, drive, task.balls) if reasons else None
    if missing is not None and missing.statement == NONE_EXISTS:
        v, reasons, remaining = [], [f"as {missing.inequality.name}"], []
        outcome = ALL
    else:
        outcome = UNDECIDED if undecidable else AT_LEAST if reasons else ALL
    why = "; ".join(dict.fromkeys(reasons)) or f"{boxes} boxes examined, none remains"
    shaped = np.array(v).reshape(-1, task.n), boxes, np.array(remaining).reshape(-1, 2, task.n)
    return Enclosed(outcome, why, "in a box of its own", *shaped)


class _Part(NamedTuple):
    """The zeros among some active neurons, as balls of `v`; why they may not be all, if so."""

    zeros: list[list[arb]]
    boxes: int
    remaining: list[tuple[np.ndarray, np.ndarray]]
    why: str | None
    undecidable: bool


class _Task(NamedTuple):
    """A circuit and a drive, in the forms that the proof needs."""

    circuit: Circuit
    z: Float[np.ndarray, " n"]
    system: Reduced
    balls: BallCircuit

    @property
    def n(self) -> int:
        return self.system.n

    def among(self, active: list[int], most_boxes: int) -> _Part:
        """All zeros among the active neurons; in the rectified model those with `v > 0`."""
        if not active:
            return _Part([[]], 0, [], None, False)
        exact = states_of_one_pool(self.circuit, self.z, active)
        if exact is not None:
            zeros = [[a.sqrt() * y for y, a in zip(*box, strict=True)] for box in exact]
            return _Part([zero for zero in zeros if self._may_be_active(zero)], 0, [], None, False)
        if len(active) > MOST:
            return _Part([], 0, [], f"boxes are examined up to n = {MOST}", False)
        if any(is_computed(w) for w in (self.circuit.pool, self.circuit.recurrent)):
            why = "boxes are not examined for weights that are products or sums of others"
            return _Part([], 0, [], why, True)
        try:
            most = bound(Blocks.of(self.balls, active))
        except NoBound as error:
            return _Part([], 0, [], str(error), True)
        least = np.zeros_like(most) if self.circuit.rectified else -most
        some = np.ix_(active, active)
        system = Reduced(
            self.system.W[some], self.system.W_r[some], self.system.c[active],
            self.system.d[active], False,
        )  # fmt: skip
        starts = random_starts(system, np.random.default_rng(0), _STARTS)
        if self.circuit.rectified:
            starts = np.abs(starts)
        with np.errstate(all="ignore"):
            known = newton(system, np.concatenate([system.d[None], starts]))
            known = known[np.all((known >= least) & (known <= most), axis=1)]
            found = exclude(
                self._equations(active), (least, most), known,
                lambda v: newton(system, v), contract, most_boxes,
            )  # fmt: skip
        zeros = [
            [_ball(*ends) for ends in zip(zero.least, zero.most, strict=True)]
            for zero in found.zeros
        ]
        remaining = list(zip(found.low, found.high, strict=True))
        why = None
        if remaining and found.decidable:
            why = f"{len(remaining)} boxes remain after {found.boxes}"
        elif remaining:
            why = "two states meet, or nearly, in a box that remains"
        zeros = [zero for zero in zeros if self._may_be_active(zero)]
        return _Part(zeros, found.boxes, remaining, why, not found.decidable)

    def _equations(self, active: list[int]) -> Equations:
        c, d = (Interval(*_ends([v[i] for i in active])) for v in (self.balls.c, self.balls.d))
        some = np.ix_(active, active)
        return Equations(self.system.W[some], self.system.W_r[some], c, d)

    def _may_be_active(self, zero: list[arb]) -> bool:
        return not (self.circuit.rectified and any(v < 0 for v in zero))

    def is_active(self, zero: list[arb]) -> bool:
        """Whether all of these neurons are active for certain."""
        return not self.circuit.rectified or all(v > 0 for v in zero)

    def silent(self, active: list[int], zero: list[arb]) -> list[arb]:
        """`y` of the other neurons, as long as they are silent."""
        W_r = self.balls.W_r
        assert W_r is not None
        a = [
            c + sum((self.balls.W[i, j] * v * v for j, v in zip(active, zero, strict=True)), arb(0))
            for i, c in enumerate(self.balls.c)
        ]
        q = [v / a[j].sqrt() for j, v in zip(active, zero, strict=True)]
        y = []
        for i in (i for i in range(self.n) if i not in active):
            inputs = (W_r[i, j] * q for j, q in zip(active, q, strict=True))
            y.append(self.balls.d[i] + (1 - a[i].sqrt()) * sum(inputs, arb(0)))
        return y

    def whole(self, active: list[int], zero: list[arb], silent: list[arb]) -> np.ndarray:
        """`v` of all neurons."""
        others = [i for i in range(self.n) if i not in active]
        v = np.zeros(self.n)
        for i, ball in zip([*active, *others], [*zero, *silent], strict=True):
            v[i] = float(ball.mid())
        return v


def _ball(low: float, high: float) -> arb:
    return arb(float(low)).union(arb(float(high)))


def _ends(balls: Sequence[arb]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers below and above each ball."""
    low = [float(ball.lower()) for ball in balls]
    high = [float(ball.upper()) for ball in balls]
    return np.nextafter(np.array(low), -np.inf), np.nextafter(np.array(high), np.inf)
