"""Tasks of the laboratory: stimuli, delays and choices, with the timing of NeuroGym.

In each, the classes wanted are 0, keep fixating, and from 1 the choices. All steps of a trial count
in the loss, and those of its decision in the accuracy.

Source: conventions of NeuroGym 2.3 (Molano-Mazón et al. 2022); a duration is cut to whole steps of
`dt`, and noise has the deviation `sigma / sqrt(dt)`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from organics.arguments import require_not_negative
from organics.data.tasks.draws import (
    Among,
    Duration,
    Exponential,
    Timeline,
    Uniform,
    among,
    normal,
    one_of,
    steps_at,
    uniform,
)
from organics.data.tasks.task import Condition, Trials, Trivial
from organics.models.target import Marks, Target

_PAIR = np.array([0.0, np.pi])  # the two directions of most tasks
_MIDDLES = np.array([0.5, 1.5]) * np.pi  # of the halves of the circle


class _Term(NamedTuple):
    """A channel has a value at some of the steps."""

    channel: int
    where: Bool[Any, " steps"]
    value: Any = 1.0


class _Shown(NamedTuple):
    """A trial before noise: the inputs are the sum of the terms. Besides, the class that is wanted
    at each step, and which steps are of the decision, are noisy, and are of the trial."""

    inputs: list[_Term]
    wanted: Int[Array, " steps"]
    decision: Bool[Any, " steps"]
    noisy: Bool[Any, " steps"]
    whole: Bool[Any, " steps"]


@dataclass(frozen=True)
class _Laboratory(ABC):
    """What the tasks share: periods in ms, steps of `dt` ms, uniform numbers and noise."""

    name: ClassVar[str]
    input_size: ClassVar[int]
    choices: ClassVar[int] = 2
    chance: ClassVar[float | None] = None
    """Accuracy of the best constant choice, if that is not one over the number of choices."""
    draws: ClassVar[int]
    """Uniform numbers of a trial, besides those of its periods."""
    noisy: ClassVar[tuple[int, ...]] = ()
    """The channels with noise."""
    dt: ClassVar[float] = 100.0
    sigma: ClassVar[float] = 1.0

    def __post_init__(self):
        delay = getattr(self, "delay", 0)
        require_not_negative(delay=delay)
        if isinstance(delay, np.number):
            object.__setattr__(self, "delay", delay.item())
        if 0 < delay < self.dt:
            raise ValueError(f"`delay` must be 0 or at least a step, {self.dt:g} ms, not {delay}.")

    @abstractmethod
    def periods(self) -> dict[str, Duration]:
        """The periods, in order."""

    @abstractmethod
    def show(self, u: Float[Array, " draws"], line: Timeline) -> _Shown:
        """The trial for these uniform numbers."""

    @abstractmethod
    def conditions(self) -> tuple[Condition, ...]:
        """The inputs that stay constant for a while."""

    @property
    def target(self) -> Target:
        return Target("classes", 1 + self.choices, "every")

    @property
    def trivial(self) -> Trivial:
        return Trivial("accuracy", 1 / self.choices if self.chance is None else self.chance)

    @property
    def steps(self) -> int:
        most = {
            name: steps_at(p if isinstance(p, int | float) else p.most, self.dt, None)
            for name, p in self.periods().items()
        }
        return sum(int(steps) for steps in self.lay_out(most).values())

    def lay_out(self, steps: dict[str, Any]) -> dict[str, Any]:
        """The steps of all periods, given those of `periods`."""
        return steps

    def trial(self, key: PRNGKeyArray, dtype: type | jnp.dtype = np.float32) -> Trials:
        periods = self.periods()
        random = [name for name, p in periods.items() if not isinstance(p, int | float)]
        k_uniform, k_noise = jr.split(key) if self.noisy else (key, key)
        u = uniform(k_uniform, (self.draws + len(random),), dtype)
        quantiles = dict(zip(random, u[self.draws :], strict=True))
        steps = {name: steps_at(p, self.dt, quantiles.get(name)) for name, p in periods.items()}
        line = Timeline(self.lay_out(steps), self.steps)
        shown = self.show(u[: self.draws], line)
        inputs = _sum(shown.inputs, self.input_size, dtype)
        if self.noisy:
            noise = _noise(k_noise, shown.noisy, self.noisy, self.input_size, dtype)
            inputs = inputs + self._deviation * noise
        marks = Marks(jnp.asarray(shown.whole, dtype), jnp.asarray(shown.decision))
        return Trials(inputs, shown.wanted, marks)

    @property
    def _deviation(self) -> float:
        return self.sigma / math.sqrt(self.dt)


def _sum(terms: list[_Term], size: int, dtype: Any) -> Float[Array, "steps m"]:
    """The inputs that the terms add up to."""
    steps = len(terms[0].where)
    values = [jnp.asarray(term.value).astype(dtype) for term in terms]
    if not all(isinstance(term.where, np.ndarray) for term in terms):
        moving = [jnp.where(t.where, v, 0) for t, v in zip(terms, values, strict=True)]
        return _channels(terms, moving, size, jnp.zeros(steps, dtype))
    # the same steps in all trials
    if len(terms) * steps * size >= _MANY_ENTRIES:
        return _in_runs(terms, values, size)
    patterns = np.zeros((len(terms), steps, size))
    for pattern, term in zip(patterns, terms, strict=True):
        pattern[term.where, term.channel] = 1
    return _times(jnp.stack(values), patterns, dtype)


_MANY_ENTRIES = 9_000
"""With so many entries of a matrix of patterns, runs of equal steps are quicker than a product."""


def _in_runs(terms: list[_Term], values: list[Array], size: int) -> Float[Array, "steps m"]:
    """The sum of terms at fixed steps: a row for each run of steps that are alike."""
    shown = np.stack([term.where for term in terms])
    ends = np.flatnonzero(np.any(shown[:, 1:] != shown[:, :-1], axis=0)) + 1
    pieces = []
    for run in np.split(np.arange(shown.shape[1]), ends):
        here = [i for i in range(len(terms)) if shown[i, run[0]]]
        row = _channels([terms[i] for i in here], [values[i] for i in here], size,
                        jnp.zeros((), values[0].dtype))  # fmt: skip
        pieces.append(jnp.broadcast_to(row, (len(run), size)))
    return jnp.concatenate(pieces)


def _channels(
    terms: list[_Term], values: list[Array], size: int, zero: Float[Array, "*steps"]
) -> Float[Array, "*steps m"]:
    """The sum of the values in each channel, side by side."""
    found = [zero] * size
    for term, value in zip(terms, values, strict=True):
        found[term.channel] = found[term.channel] + value
    return jnp.stack(found, axis=-1)


def _times(values: Float[Array, " k"], patterns: np.ndarray, dtype: Any) -> Float[Array, "steps m"]:
    matrix = jnp.asarray(patterns.reshape(len(patterns), -1), dtype)
    product = jnp.matmul(values, matrix, precision="highest")
    return product.reshape(patterns.shape[1:])


_MOST_ENTRIES = 50_000  # of a matrix with which noise is multiplied rather than put together


def _noise(
    key: PRNGKeyArray, where: Any, channels: tuple[int, ...], size: int, dtype: Any
) -> Float[Array, "steps m"]:
    """Normal numbers at some of the steps in some channels, which are neighbours; 0 elsewhere."""
    steps, count = len(where), len(channels)
    sides = ((0, 0), (channels[0], size - channels[-1] - 1))
    if not isinstance(where, np.ndarray):
        drawn = normal(key, (steps, count), dtype)
        return jnp.pad(jnp.where(where[:, None], drawn, 0), sides)
    # the same steps in all trials: nothing is drawn for the others
    drawn = normal(key, (int(where.sum()), count), dtype)
    if drawn.size * steps * size < _MOST_ENTRIES:
        patterns = np.zeros((*drawn.shape, steps, size))
        for row, step in enumerate(np.flatnonzero(where)):
            for column, channel in enumerate(channels):
                patterns[row, column, step, channel] = 1
        return _times(drawn.reshape(-1), patterns.reshape(-1, steps, size), dtype)
    ends = np.flatnonzero(np.diff(where)) + 1
    pieces, used = [], 0
    for piece in np.split(where, ends):
        if piece[0]:
            pieces.append(drawn[used : used + len(piece)])
            used += len(piece)
        else:
            pieces.append(jnp.zeros((len(piece), count), dtype))
    return jnp.pad(jnp.concatenate(pieces), sides)


def _during(where: Any, first: int, values: Float[Array, " k"]) -> list[_Term]:
    """Channels from the `first` on have these values at some of the steps."""
    return [_Term(first + i, where, value) for i, value in enumerate(values)]


def _decide(where: Any, choice: Any) -> Int[Array, " steps"]:
    """The choice at some of the steps, fixation at the others."""
    return jnp.where(where, choice, 0).astype(jnp.int32)


def _ring(angle: Float[Array, ""], directions: np.ndarray) -> Float[Array, " k"]:
    return jnp.cos(jnp.asarray(directions, angle.dtype) - angle)


def _bump(angle: Float[Array, ""], directions: np.ndarray) -> Float[Array, " k"]:
    return 0.5 + 0.5 * _ring(angle, directions)


def _evidence(angle: Float[Array, ""], coherence: Float[Array, ""]) -> Float[Array, " two"]:
    return 0.5 + coherence / 200 * _ring(angle, _PAIR)


def _constant(name: str, *values: int | float) -> Condition:
    return Condition(name, np.array(values, float))


@dataclass(frozen=True)
class MatchToSample(_Laboratory):
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

    def show(self, u: Array, line: Timeline) -> _Shown:
        differs, direction = among(u[0], 2), among(u[1], 2)
        sample = direction.astype(u.dtype) * np.pi
        test = ((direction + differs) % 2).astype(u.dtype) * np.pi
        decision = line.within("decision")
        return _Shown(
            [
                _Term(0, ~decision),
                *_during(line.within("sample"), 1, _bump(sample, _PAIR)),
                *_during(line.within("test"), 1, _bump(test, _PAIR)),
            ],
            _decide(decision, 1 + differs),
            decision,
            line.within("sample", "test"),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("delay", 1, 0, 0),
            _constant("first direction", 1, 1, 0),
            _constant("second direction", 1, 0, 1),
            _constant("decision", 0, 0, 0),
        )


@dataclass(frozen=True)
class MatchToCategory(_Laboratory):
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

    def show(self, u: Array, line: Timeline) -> _Shown:
        differs, category = among(u[0], 2), among(u[1], 2)
        sample = (category.astype(u.dtype) + u[2]) * np.pi
        test = (((category + differs) % 2).astype(u.dtype) + u[3]) * np.pi
        decision = line.within("test")
        return _Shown(
            [
                _Term(0, ~decision),
                *_during(line.within("sample"), 1, _bump(sample, _MIDDLES)),
                *_during(line.within("test"), 1, _bump(test, _MIDDLES)),
            ],
            _decide(decision, 1 + differs),
            decision,
            line.within("sample", "test"),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("delay", 1, 0, 0),
            _constant("sample, first category", 1, 1, 0),
            _constant("sample, second category", 1, 0, 1),
            _constant("test, first category", 0, 1, 0),
        )


_PAIRS = np.array([(18, 10), (22, 14), (26, 18), (30, 22), (34, 26)], float)


@dataclass(frozen=True)
class Parametric(_Laboratory):
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

    def show(self, u: Array, line: Timeline) -> _Shown:
        second = among(u[0], 2)
        low, high = _PAIRS.min(), _PAIRS.max()
        shown = jnp.asarray((1 + (_PAIRS - low) / (high - low)) / 2, u.dtype)[among(u[1], 5)]
        f1, f2 = shown[second], shown[1 - second]
        decision = line.within("decision")
        return _Shown(
            [
                _Term(0, ~decision),
                _Term(1, line.within("first"), f1),
                _Term(1, line.within("second"), f2),
            ],
            _decide(decision, 1 + second),
            decision,
            line.within("first", "second"),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("delay", 1, 0),
            _constant("least value", 1, 0.5),
            _constant("largest value", 1, 1),
            _constant("decision", 0, 0),
        )


@dataclass(frozen=True)
class PairedAssociation(_Laboratory):
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

    def show(self, u: Array, line: Timeline) -> _Shown:
        pair = among(u[0], 4)
        first, second = pair // 2, pair % 2
        decision = line.within("decision")
        return _Shown(
            [
                _Term(0, ~decision),
                *(_Term(1 + i, line.within("first"), first == i) for i in range(2)),
                *(_Term(3 + i, line.within("second"), second == i) for i in range(2)),
            ],
            _decide(decision, (first == second).astype(jnp.int32)),
            decision,
            line.within(),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (_constant("delay", 1, 0, 0, 0, 0), _constant("decision", 0, 0, 0, 0, 0))


@dataclass(frozen=True)
class DualMatch(_Laboratory):
    """Two samples, then twice a cue and a test: does it match the cued one? (Rose et al. 2016)"""

    name: ClassVar[str] = "dual-match"
    input_size: ClassVar[int] = 7
    draws: ClassVar[int] = 5
    noisy: ClassVar[tuple[int, ...]] = tuple(range(7))

    def periods(self) -> dict[str, Duration]:
        names = ("fixation", "sample", "delay1", "cue1", "test1", "delay2", "cue2", "test2")
        return dict.fromkeys(names, 500)

    def show(self, u: Array, line: Timeline) -> _Shown:
        drawn = [among(u[i], 2) for i in range(5)]
        differs, samples, swapped = drawn[:2], drawn[2:4], drawn[4] == 1
        terms = [_Term(0, line.whole())]
        wanted: Any = 0
        for item, sample in enumerate(samples):
            test = (sample + differs[item]) % 2
            for channel in range(2):
                place = 1 + 2 * item + channel
                terms.append(_Term(place, line.within("sample"), sample == channel))
                for turn in range(2):
                    now = swapped == (turn != item)
                    terms.append(_Term(place, line.within(f"test{turn + 1}"),
                                       now & (test == channel)))  # fmt: skip
            for turn in range(2):
                now = swapped == (turn != item)
                terms.append(_Term(5 + item, line.within(f"cue{turn + 1}"), now))
                answer = jnp.where(now, 1 + differs[item], 0)
                wanted = wanted + jnp.where(line.within(f"test{turn + 1}"), answer, 0)
        decision = line.within("test1", "test2")
        return _Shown(
            terms,
            jnp.asarray(wanted, jnp.int32),
            decision,
            line.within("sample", "test1", "test2"),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("delay", 1, 0, 0, 0, 0, 0, 0),
            _constant("first cue", 1, 0, 0, 0, 0, 1, 0),
            _constant("second cue", 1, 0, 0, 0, 0, 0, 1),
        )


@dataclass(frozen=True)
class PerceptualDecision(_Laboratory):
    """Which of two noisy inputs is larger on average? (Britten et al. 1992)"""

    name: ClassVar[str] = "perceptual-decision"
    input_size: ClassVar[int] = 3
    draws: ClassVar[int] = 2
    noisy: ClassVar[tuple[int, ...]] = (1, 2)
    coherences: ClassVar[tuple[float, ...]] = (0.0, 6.4, 12.8, 25.6, 51.2)
    fixating: ClassVar[tuple[str, ...]] = ("fixation",)

    def periods(self) -> dict[str, Duration]:
        return {"fixation": 100, "stimulus": 2000, "decision": 100}

    def show(self, u: Array, line: Timeline) -> _Shown:
        choice = among(u[0], 2)
        evidence = _evidence(choice.astype(u.dtype) * np.pi, one_of(u[1], self.coherences))
        decision = line.within("decision")
        return _Shown(
            [
                _Term(0, line.within(*self.fixating)),
                *_during(line.within("stimulus"), 1, evidence),
            ],
            _decide(decision, 1 + choice),
            decision,
            line.within("stimulus"),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("stimulus without evidence", 0, 0.5, 0.5),
            _constant("evidence for the first", 0, 0.756, 0.244),
            _constant("evidence for the second", 0, 0.244, 0.756),
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
            _constant("evidence for the first", 1, 0.756, 0.244),
            _constant("evidence for the second", 1, 0.244, 0.756),
            _constant("delay", 1, 0, 0),
            _constant("decision", 0, 0, 0),
        )


@dataclass(frozen=True)
class PulseDecision(_Laboratory):
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

    def show(self, u: Array, line: Timeline) -> _Shown:
        p = jnp.asarray(np.array(self.probabilities), u.dtype)
        p = jnp.where(u[0] < 0.5, p[::-1], p)
        fell = u[1:13].reshape(2, self.pulses) < p[:, None]
        count = jnp.sum(fell, axis=1).astype(u.dtype)
        second = (count[0] < count[1] + 0.2 * u[13] - 0.1).astype(jnp.int32)
        decision = line.within("decision")
        return _Shown(
            [
                _Term(0, ~decision),
                *(
                    _Term(1 + channel, line.within(f"cue{i}"), fell[channel, i])
                    for channel in range(2)
                    for i in range(self.pulses)
                ),
            ],
            _decide(decision, 1 + second),
            decision,
            line.within(),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (_constant("between pulses", 1, 0, 0), _constant("decision", 0, 0, 0))


@dataclass(frozen=True)
class ContextDecision(_Laboratory):
    """Two inputs of which the context says which one counts. (Mante et al. 2013)"""

    name: ClassVar[str] = "context-decision"
    input_size: ClassVar[int] = 7
    draws: ClassVar[int] = 5
    noisy: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)
    coherences: ClassVar[tuple[float, ...]] = (5.0, 15.0, 50.0)

    def periods(self) -> dict[str, Duration]:
        delay = Exponential(600.0, 300.0, 3000.0)
        return {"fixation": 300, "stimulus": 750, "delay": delay, "decision": 100}

    def show(self, u: Array, line: Timeline) -> _Shown:
        choice, other, context = (among(u[i], 2) for i in range(3))
        first = jnp.where(context == 0, choice, other).astype(u.dtype) * np.pi
        second = jnp.where(context == 0, other, choice).astype(u.dtype) * np.pi
        stimulus, decision = line.within("stimulus"), line.within("decision")
        whole = line.whole()
        return _Shown(
            [
                _Term(0, line.within("fixation")),
                *_during(stimulus, 1, _evidence(first, one_of(u[3], self.coherences))),
                *_during(stimulus, 3, _evidence(second, one_of(u[4], self.coherences))),
                _Term(5, whole, context == 0),
                _Term(6, whole, context == 1),
            ],
            _decide(decision, 1 + choice),
            decision,
            stimulus,
            whole,
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("delay, first context", 0, 0, 0, 0, 0, 1, 0),
            _constant("delay, second context", 0, 0, 0, 0, 0, 0, 1),
            _constant("no evidence, first context", 0, 0.5, 0.5, 0.5, 0.5, 1, 0),
            _constant("no evidence, second context", 0, 0.5, 0.5, 0.5, 0.5, 0, 1),
        )


@dataclass(frozen=True)
class Multisensory(_Laboratory):
    """Two inputs share the evidence for one choice. (Raposo et al. 2014)"""

    name: ClassVar[str] = "multisensory"
    input_size: ClassVar[int] = 5
    draws: ClassVar[int] = 3
    noisy: ClassVar[tuple[int, ...]] = tuple(range(5))
    coherences: ClassVar[tuple[float, ...]] = (5.0, 15.0, 50.0)

    def periods(self) -> dict[str, Duration]:
        return {"fixation": 300, "stimulus": 750, "decision": 100}

    def show(self, u: Array, line: Timeline) -> _Shown:
        choice, coherence = among(u[0], 2), one_of(u[1], self.coherences)
        angle = choice.astype(u.dtype) * np.pi
        stimulus, decision = line.within("stimulus"), line.within("decision")
        return _Shown(
            [
                _Term(0, ~decision),
                *_during(stimulus, 1, _evidence(angle, coherence * u[2])),
                *_during(stimulus, 3, _evidence(angle, coherence * (1 - u[2]))),
            ],
            _decide(decision, 1 + choice),
            decision,
            stimulus,
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("fixation", 1, 0, 0, 0, 0),
            _constant("no evidence", 1, 0.5, 0.5, 0.5, 0.5),
            _constant("decision", 0, 0, 0, 0, 0),
        )


@dataclass(frozen=True)
class GoNoGo(_Laboratory):
    """Go after one stimulus and not after the other, `delay` ms later."""

    delay: float = 500.0
    name: ClassVar[str] = "go-nogo"
    input_size: ClassVar[int] = 3
    choices: ClassVar[int] = 1
    chance: ClassVar[float | None] = 0.5
    draws: ClassVar[int] = 1

    def periods(self) -> dict[str, Duration]:
        return {"stimulus": 500, "delay": self.delay, "decision": 500}

    def show(self, u: Array, line: Timeline) -> _Shown:
        go = among(u[0], 2)
        stimulus, decision = line.within("stimulus"), line.within("decision")
        return _Shown(
            [
                _Term(0, ~decision),
                _Term(1, stimulus, go == 0),
                _Term(2, stimulus, go == 1),
            ],
            _decide(decision, go),
            decision,
            line.within(),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (_constant("delay", 1, 0, 0), _constant("decision", 0, 0, 0))


_DIRECTIONS = 32


@dataclass(frozen=True)
class AntiReach(_Laboratory):
    """Answer opposite to the stimulus, one of 32 directions. (Munoz & Everling 2004)"""

    name: ClassVar[str] = "anti-reach"
    input_size: ClassVar[int] = 1 + _DIRECTIONS
    choices: ClassVar[int] = _DIRECTIONS
    draws: ClassVar[int] = 1

    def periods(self) -> dict[str, Duration]:
        return {"fixation": 500, "stimulus": 500, "decision": 500}

    def show(self, u: Array, line: Timeline) -> _Shown:
        choice = among(u[0], _DIRECTIONS)
        directions = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
        shown = -_ring(choice.astype(u.dtype) * (2 * np.pi / _DIRECTIONS), directions)
        decision = line.within("decision")
        return _Shown(
            [_Term(0, ~decision), *_during(line.within("stimulus"), 1, shown)],
            _decide(decision, 1 + choice),
            decision,
            line.within(),
            line.whole(),
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("fixation", 1, *[0] * _DIRECTIONS),
            _constant("decision", 0, *[0] * _DIRECTIONS),
        )


@dataclass(frozen=True)
class IntervalDiscrimination(_Laboratory):
    """Which of two stimuli lasted longer? If neither, the second. (Genovesio et al. 2009)"""

    name: ClassVar[str] = "interval-discrimination"
    input_size: ClassVar[int] = 3
    draws: ClassVar[int] = 0
    dt: ClassVar[float] = 80.0
    # the second of two uniform durations of 300 to 600 ms is at least as long in whole steps
    chance: ClassVar[float | None] = (1 + (20**2 + 3 * 80**2 + 40**2) / 300**2) / 2

    def periods(self) -> dict[str, Duration]:
        return {
            "fixation": 300,
            "first": Uniform(300.0, 600.0),
            "delay1": Uniform(800.0, 1500.0),
            "second": Uniform(300.0, 600.0),
            "delay2": 500,
            "decision": 300,
        }

    def show(self, u: Array, line: Timeline) -> _Shown:
        del u  # only the periods are random
        first, second, decision = (line.within(n) for n in ("first", "second", "decision"))
        longer = jnp.sum(first, dtype=jnp.int32) > jnp.sum(second, dtype=jnp.int32)
        whole = line.whole()
        return _Shown(
            [_Term(0, whole & ~decision), _Term(1, first), _Term(2, second)],
            _decide(decision, jnp.where(longer, 1, 2)),
            decision,
            line.within(),
            whole,
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            _constant("fixation", 1, 0, 0),
            _constant("first stimulus", 1, 1, 0),
            _constant("second stimulus", 1, 0, 1),
            _constant("decision", 0, 0, 0),
        )


@dataclass(frozen=True)
class ReadySetGo(_Laboratory):
    """Go as long after "set" as that came after "ready". (Remington et al. 2018)

    The accuracy counts the steps after "set"; always fixating is right at all but one of them.
    """

    name: ClassVar[str] = "ready-set-go"
    input_size: ClassVar[int] = 3
    choices: ClassVar[int] = 1
    draws: ClassVar[int] = 0
    dt: ClassVar[float] = 80.0

    def periods(self) -> dict[str, Duration]:
        return {"fixation": 100, "measure": Uniform(800.0, 1500.0), "set": 83}

    def lay_out(self, steps: dict[str, Any]) -> dict[str, Any]:
        return steps | {"production": 2 * steps["measure"]}

    @property
    def trivial(self) -> Trivial:
        # measures of k steps, uniform from 800 to 1500 ms: 1 of 2k steps is wrong
        edges = np.append(np.arange(800, 1500, self.dt), 1500)
        k = np.floor(edges[:-1] / self.dt)
        return Trivial("accuracy", float(1 - np.sum(np.diff(edges) / 700 / (2 * k))))

    def show(self, u: Array, line: Timeline) -> _Shown:
        del u  # only the periods are random
        production = line.within("production")
        interval = jnp.sum(line.within("measure"), dtype=jnp.int32)
        whole = line.whole()
        return _Shown(
            [
                _Term(0, whole & ~production),
                _Term(1, line.at("measure")),
                _Term(2, line.within("set")),
            ],
            line.at("production", interval).astype(jnp.int32),
            production,
            line.within(),
            whole,
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (_constant("fixation", 1, 0, 0), _constant("production", 0, 0, 0))
