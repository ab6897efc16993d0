"""How long an interval was.

Source: conventions of NeuroGym 2.3 (Molano-Mazón et al. 2022); see `laboratory`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from organics.data.tasks.draws import (
    Duration,
    Timeline,
    Uniform,
)
from organics.data.tasks.laboratory import Laboratory, Shown, Term, condition, decide
from organics.data.tasks.task import Condition, Trivial


@dataclass(frozen=True)
class IntervalDiscrimination(Laboratory):
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

    def show(self, u: Array, line: Timeline) -> Shown:
        del u  # only the periods are random
        first, second, decision = (line.within(n) for n in ("first", "second", "decision"))
        longer = jnp.sum(first, dtype=jnp.int32) > jnp.sum(second, dtype=jnp.int32)
        whole = line.whole()
        return Shown(
            [Term(0, whole & ~decision), Term(1, first), Term(2, second)],
            decide(decision, jnp.where(longer, 1, 2)),
            decision,
            line.within(),
            whole,
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (
            condition("fixation", 1, 0, 0),
            condition("first stimulus", 1, 1, 0),
            condition("second stimulus", 1, 0, 1),
            condition("decision", 0, 0, 0),
        )


@dataclass(frozen=True)
class ReadySetGo(Laboratory):
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

    def show(self, u: Array, line: Timeline) -> Shown:
        del u  # only the periods are random
        production = line.within("production")
        interval = jnp.sum(line.within("measure"), dtype=jnp.int32)
        whole = line.whole()
        return Shown(
            [
                Term(0, whole & ~production),
                Term(1, line.at("measure")),
                Term(2, line.within("set")),
            ],
            line.at("production", interval).astype(jnp.int32),
            production,
            line.within(),
            whole,
        )

    def conditions(self) -> tuple[Condition, ...]:
        return (condition("fixation", 1, 0, 0), condition("production", 0, 0, 0))
