"""Which input has more evidence, and what a rule asks for.

Source: conventions of NeuroGym 2.3 (Molano-Mazón et al. 2022); see `laboratory`.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from organics.data.tasks.draws import (
    Among,
    Duration,
    Exponential,
    Timeline,
    among,
    one_of,
)
from organics.data.tasks.laboratory import (
    Laboratory,
    Shown,
    Term,
    condition,
    decide,
    during,
    evidence_for,
    ring,
)
from organics.data.tasks.task import Condition

_DIRECTIONS = 32


@dataclass(frozen=True)
class PerceptualDecision(Laboratory):
    """Which of two noisy inputs is larger on average? (Britten et al. 1992)"""

    name: ClassVar[str] = "perceptual-decision"
    input_size: ClassVar[int] = 3
    draws: ClassVar[int] = 2
    noisy: ClassVar[tuple[int, ...]] = (1, 2)
    coherences: ClassVar[tuple[float, ...]] = (0.0, 6.4, 12.8, 25.6, 51.2)
    fixating: ClassVar[tuple[str, ...]] = ("fixation",)

    def periods(self) -> dict[str, Duration]:
        return {"fixation": 100, "stimulus": 2000, "decision": 100}

    def show(self, u: Array, line: Timeline) -> Shown:
        choice = among(u[0], 2)
        evidence = evidence_for(choice.astype(u.dtype) * np.pi, one_of(u[1], self.coherences))
        decision = line.within("decision")
        return Shown(
            [
                Term(0, line.within(*self.fixating)),
                *during(line.within("stimulus"), 1, evidence),
            ],
            decide(decision, 1 + choice),
            decision,
            line.within("stimulus"),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("stimulus without evidence", 0, 0.5, 0.5),
            condition("evidence for the first", 0, 0.756, 0.244),
            condition("evidence for the second", 0, 0.244, 0.756),
        )


@dataclass(frozen=True)
class DelayedDecision(PerceptualDecision):
    """The same, to be said after a delay of 0.3 to 4 s. (Inagaki et al. 2019)"""

    name: ClassVar[str] = "delayed-decision"
    fixating: ClassVar[tuple[str, ...]] = ("stimulus", "delay")

    def periods(self) -> dict[str, Duration]:
        delay = Among((300.0, 500.0, 700.0, 900.0, 1200.0, 2000.0, 3200.0, 4000.0))
        return {"stimulus": 1150, "delay": delay, "decision": 1500}

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("evidence for the first", 1, 0.756, 0.244),
            condition("evidence for the second", 1, 0.244, 0.756),
            condition("delay", 1, 0, 0),
            condition("decision", 0, 0, 0),
        )


@dataclass(frozen=True)
class PulseDecision(Laboratory):
    """Which of two channels had more pulses, of six each? (Scott et al. 2015)"""

    name: ClassVar[str] = "pulse-decision"
    input_size: ClassVar[int] = 3
    draws: ClassVar[int] = 14
    dt: ClassVar[float] = 10.0
    pulses: ClassVar[int] = 6
    probabilities: ClassVar[tuple[float, float]] = (0.3, 0.7)

    def periods(self) -> dict[str, Duration]:
        pairs = [(f"cue{i}", f"bin{i}") for i in range(self.pulses)]
        between = {name: ms for cue, bin_ in pairs for name, ms in ((cue, 10), (bin_, 240))}
        return {"fixation": 500, **between, "decision": 500}

    def show(self, u: Array, line: Timeline) -> Shown:
        p = jnp.asarray(np.array(self.probabilities), u.dtype)
        p = jnp.where(u[0] < 0.5, p[::-1], p)
        fell = u[1:13].reshape(2, self.pulses) < p[:, None]
        count = jnp.sum(fell, axis=1).astype(u.dtype)
        second = (count[0] < count[1] + 0.2 * u[13] - 0.1).astype(jnp.int32)
        decision = line.within("decision")
        return Shown(
            [
                Term(0, ~decision),
                *(
                    Term(1 + channel, line.within(f"cue{i}"), fell[channel, i])
                    for channel in range(2)
                    for i in range(self.pulses)
                ),
            ],
            decide(decision, 1 + second),
            decision,
            line.within(),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (condition("between pulses", 1, 0, 0), condition("decision", 0, 0, 0))


@dataclass(frozen=True)
class ContextDecision(Laboratory):
    """Two inputs of which the context says which one counts. (Mante et al. 2013)"""

    name: ClassVar[str] = "context-decision"
    input_size: ClassVar[int] = 7
    draws: ClassVar[int] = 5
    noisy: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)
    coherences: ClassVar[tuple[float, ...]] = (5.0, 15.0, 50.0)

    def periods(self) -> dict[str, Duration]:
        delay = Exponential(600.0, 300.0, 3000.0)
        return {"fixation": 300, "stimulus": 750, "delay": delay, "decision": 100}

    def show(self, u: Array, line: Timeline) -> Shown:
        choice, other, context = (among(u[i], 2) for i in range(3))
        first = jnp.where(context == 0, choice, other).astype(u.dtype) * np.pi
        second = jnp.where(context == 0, other, choice).astype(u.dtype) * np.pi
        stimulus, decision = line.within("stimulus"), line.within("decision")
        whole = line.whole()
        return Shown(
            [
                Term(0, line.within("fixation")),
                *during(stimulus, 1, evidence_for(first, one_of(u[3], self.coherences))),
                *during(stimulus, 3, evidence_for(second, one_of(u[4], self.coherences))),
                Term(5, whole, context == 0),
                Term(6, whole, context == 1),
            ],
            decide(decision, 1 + choice),
            decision,
            stimulus,
            whole,
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("delay, first context", 0, 0, 0, 0, 0, 1, 0),
            condition("delay, second context", 0, 0, 0, 0, 0, 0, 1),
            condition("no evidence, first context", 0, 0.5, 0.5, 0.5, 0.5, 1, 0),
            condition("no evidence, second context", 0, 0.5, 0.5, 0.5, 0.5, 0, 1),
        )


@dataclass(frozen=True)
class Multisensory(Laboratory):
    """Two inputs share the evidence for one choice. (Raposo et al. 2014)"""

    name: ClassVar[str] = "multisensory"
    input_size: ClassVar[int] = 5
    draws: ClassVar[int] = 3
    noisy: ClassVar[tuple[int, ...]] = tuple(range(5))
    coherences: ClassVar[tuple[float, ...]] = (5.0, 15.0, 50.0)

    def periods(self) -> dict[str, Duration]:
        return {"fixation": 300, "stimulus": 750, "decision": 100}

    def show(self, u: Array, line: Timeline) -> Shown:
        choice, coherence = among(u[0], 2), one_of(u[1], self.coherences)
        angle = choice.astype(u.dtype) * np.pi
        stimulus, decision = line.within("stimulus"), line.within("decision")
        return Shown(
            [
                Term(0, ~decision),
                *during(stimulus, 1, evidence_for(angle, coherence * u[2])),
                *during(stimulus, 3, evidence_for(angle, coherence * (1 - u[2]))),
            ],
            decide(decision, 1 + choice),
            decision,
            stimulus,
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("fixation", 1, 0, 0, 0, 0),
            condition("no evidence", 1, 0.5, 0.5, 0.5, 0.5),
            condition("decision", 0, 0, 0, 0, 0),
        )


@dataclass(frozen=True)
class GoNoGo(Laboratory):
    """Go after one stimulus and not after the other, `delay` ms later."""

    delay: float = 500.0
    name: ClassVar[str] = "go-nogo"
    input_size: ClassVar[int] = 3
    choices: ClassVar[int] = 1
    chance: ClassVar[float | None] = 0.5
    draws: ClassVar[int] = 1

    def periods(self) -> dict[str, Duration]:
        return {"stimulus": 500, "delay": self.delay, "decision": 500}

    def show(self, u: Array, line: Timeline) -> Shown:
        go = among(u[0], 2)
        stimulus, decision = line.within("stimulus"), line.within("decision")
        return Shown(
            [
                Term(0, ~decision),
                Term(1, stimulus, go == 0),
                Term(2, stimulus, go == 1),
            ],
            decide(decision, go),
            decision,
            line.within(),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (condition("delay", 1, 0, 0), condition("decision", 0, 0, 0))


@dataclass(frozen=True)
class AntiReach(Laboratory):
    """Answer opposite to the stimulus, one of 32 directions. (Munoz & Everling 2004)"""

    name: ClassVar[str] = "anti-reach"
    input_size: ClassVar[int] = 1 + _DIRECTIONS
    choices: ClassVar[int] = _DIRECTIONS
    draws: ClassVar[int] = 1

    def periods(self) -> dict[str, Duration]:
        return {"fixation": 500, "stimulus": 500, "decision": 500}

    def show(self, u: Array, line: Timeline) -> Shown:
        choice = among(u[0], _DIRECTIONS)
        directions = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
        shown = -ring(choice.astype(u.dtype) * (2 * np.pi / _DIRECTIONS), directions)
        decision = line.within("decision")
        return Shown(
            [Term(0, ~decision), *during(line.within("stimulus"), 1, shown)],
            decide(decision, 1 + choice),
            decision,
            line.within(),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("fixation", 1, *[0] * _DIRECTIONS),
            condition("decision", 0, *[0] * _DIRECTIONS),
        )
