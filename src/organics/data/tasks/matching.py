"""Whether two stimuli belong together, or which of them was larger.

Source: conventions of NeuroGym 2.3 (Molano-Mazón et al. 2022); see `laboratory`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from organics.data.tasks.draws import (
    Duration,
    Timeline,
    among,
)
from organics.data.tasks.laboratory import (
    PAIR,
    Laboratory,
    Shown,
    Term,
    bump,
    condition,
    decide,
    during,
)
from organics.data.tasks.task import Condition

_MIDDLES = np.array([0.5, 1.5]) * np.pi  # of the halves of the circle
_PAIRS = np.array([(18, 10), (22, 14), (26, 18), (30, 22), (34, 26)], float)


def _compared(
    line: Timeline,
    period: str,
    differs: Int[Array, ""],
    sample: Float[Array, " k"],
    test: Float[Array, " k"],
) -> Shown:
    """The inputs of a sample and a test, and in a period whether these differ."""
    decision = line.within(period)
    return Shown(
        [
            Term(0, ~decision),
            *during(line.within("sample"), 1, sample),
            *during(line.within("test"), 1, test),
        ],
        decide(decision, 1 + differs),
        decision,
        line.within("sample", "test"),
        line.whole(),
    )


@dataclass(frozen=True)
class MatchToSample(Laboratory):
    """Is the test, after a delay of `delay` ms, the sample? (Miller, Erickson & Desimone 1996)"""

    delay: float = 1000.0
    name: ClassVar[str] = "match-to-sample"
    input_size: ClassVar[int] = 3
    draws: ClassVar[int] = 2
    noisy: ClassVar[tuple[int, ...]] = (1, 2)

    def periods(self) -> dict[str, Duration]:
        return {
            "fixation": 300, "sample": 500, "delay": self.delay, "test": 500, "decision": 900,
        }  # fmt: skip

    def show(self, u: Array, line: Timeline) -> Shown:
        differs, direction = among(u[0], 2), among(u[1], 2)
        sample = direction.astype(u.dtype) * np.pi
        test = ((direction + differs) % 2).astype(u.dtype) * np.pi
        return _compared(line, "decision", differs, bump(sample, PAIR), bump(test, PAIR))

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("delay", 1, 0, 0),
            condition("first direction", 1, 1, 0),
            condition("second direction", 1, 0, 1),
            condition("decision", 0, 0, 0),
        )


@dataclass(frozen=True)
class MatchToCategory(Laboratory):
    """Are sample and test directions in the same half of the circle? (Freedman & Assad 2006)

    The two inputs prefer the middles of the halves. NeuroGym's prefer the directions between them,
    which are alike for both: there no input says anything of the category.
    """

    delay: float = 1000.0
    name: ClassVar[str] = "match-to-category"
    input_size: ClassVar[int] = 3
    draws: ClassVar[int] = 4
    noisy: ClassVar[tuple[int, ...]] = (1, 2)

    def periods(self) -> dict[str, Duration]:
        return {"fixation": 500, "sample": 650, "delay": self.delay, "test": 650}

    def show(self, u: Array, line: Timeline) -> Shown:
        differs, category = among(u[0], 2), among(u[1], 2)
        sample = (category.astype(u.dtype) + u[2]) * np.pi
        test = (((category + differs) % 2).astype(u.dtype) + u[3]) * np.pi
        return _compared(line, "test", differs, bump(sample, _MIDDLES), bump(test, _MIDDLES))

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("delay", 1, 0, 0),
            condition("sample, first category", 1, 1, 0),
            condition("sample, second category", 1, 0, 1),
            condition("test, first category", 0, 1, 0),
        )


@dataclass(frozen=True)
class Parametric(Laboratory):
    """Which of two values, `delay` ms apart, is larger? (Romo et al. 1999)

    The values are pairs of (18, 10), (22, 14), (26, 18), (30, 22), (34, 26), in either order, each
    shown as a number from 1/2 to 1.
    """

    delay: float = 1000.0
    name: ClassVar[str] = "parametric"
    input_size: ClassVar[int] = 2
    draws: ClassVar[int] = 2
    noisy: ClassVar[tuple[int, ...]] = (0, 1)

    def periods(self) -> dict[str, Duration]:
        return {
            "fixation": 500, "first": 500, "delay": self.delay, "second": 500, "decision": 100,
        }  # fmt: skip

    def show(self, u: Array, line: Timeline) -> Shown:
        second = among(u[0], 2)
        low, high = _PAIRS.min(), _PAIRS.max()
        shown = jnp.asarray((1 + (_PAIRS - low) / (high - low)) / 2, u.dtype)[among(u[1], 5)]
        f1, f2 = shown[second], shown[1 - second]
        decision = line.within("decision")
        return Shown(
            [
                Term(0, ~decision),
                Term(1, line.within("first"), f1),
                Term(1, line.within("second"), f2),
            ],
            decide(decision, 1 + second),
            decision,
            line.within("first", "second"),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("delay", 1, 0),
            condition("least value", 1, 0.5),
            condition("largest value", 1, 1),
            condition("decision", 0, 0),
        )


@dataclass(frozen=True)
class PairedAssociation(Laboratory):
    """Go if the second odour, after `delay` ms, belongs to the first. (Zhang et al. 2019)"""

    delay: float = 1000.0
    name: ClassVar[str] = "paired-association"
    input_size: ClassVar[int] = 5
    choices: ClassVar[int] = 1
    chance: ClassVar[float | None] = 0.5
    draws: ClassVar[int] = 1

    def periods(self) -> dict[str, Duration]:
        return {
            "first": 1000, "delay": self.delay, "second": 1000, "after": 1000, "decision": 500,
        }  # fmt: skip

    def show(self, u: Array, line: Timeline) -> Shown:
        pair = among(u[0], 4)
        first, second = pair // 2, pair % 2
        decision = line.within("decision")
        return Shown(
            [
                Term(0, ~decision),
                *(Term(1 + i, line.within("first"), first == i) for i in range(2)),
                *(Term(3 + i, line.within("second"), second == i) for i in range(2)),
            ],
            decide(decision, (first == second).astype(jnp.int32)),
            decision,
            line.within(),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (condition("delay", 1, 0, 0, 0, 0), condition("decision", 0, 0, 0, 0, 0))


@dataclass(frozen=True)
class DualMatch(Laboratory):
    """Two samples, then twice a cue and a test: does it match the cued one? (Rose et al. 2016)"""

    name: ClassVar[str] = "dual-match"
    input_size: ClassVar[int] = 7
    draws: ClassVar[int] = 5
    noisy: ClassVar[tuple[int, ...]] = tuple(range(7))

    def periods(self) -> dict[str, Duration]:
        names = ("fixation", "sample", "delay1", "cue1", "test1", "delay2", "cue2", "test2")
        return dict.fromkeys(names, 500)

    def show(self, u: Array, line: Timeline) -> Shown:
        drawn = [among(u[i], 2) for i in range(5)]
        differs, samples, swapped = drawn[:2], drawn[2:4], drawn[4] == 1
        terms = [Term(0, line.whole())]
        wanted: Any = 0
        for item, sample in enumerate(samples):
            test = (sample + differs[item]) % 2
            for channel in range(2):
                place = 1 + 2 * item + channel
                terms.append(Term(place, line.within("sample"), sample == channel))
                for turn in range(2):
                    now = swapped == (turn != item)
                    terms.append(Term(place, line.within(f"test{turn + 1}"),
                                       now & (test == channel)))  # fmt: skip
            for turn in range(2):
                now = swapped == (turn != item)
                terms.append(Term(5 + item, line.within(f"cue{turn + 1}"), now))
                answer = jnp.where(now, 1 + differs[item], 0)
                wanted = wanted + jnp.where(line.within(f"test{turn + 1}"), answer, 0)
        decision = line.within("test1", "test2")
        return Shown(
            terms,
            jnp.asarray(wanted, jnp.int32),
            decision,
            line.within("sample", "test1", "test2"),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("delay", 1, 0, 0, 0, 0, 0, 0),
            condition("first cue", 1, 0, 0, 0, 0, 1, 0),
            condition("second cue", 1, 0, 0, 0, 0, 0, 1),
        )
