"""The tasks made on the fly, by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from organics.arguments import require_among, require_flag
from organics.data.tasks.algorithmic import Adding, Copy, FlipFlop
from organics.data.tasks.constant import WithConstant
from organics.data.tasks.deciding import (
    AntiReach,
    ContextDecision,
    DelayedDecision,
    GoNoGo,
    Multisensory,
    PerceptualDecision,
    PulseDecision,
)
from organics.data.tasks.matching import (
    DualMatch,
    MatchToCategory,
    MatchToSample,
    PairedAssociation,
    Parametric,
)
from organics.data.tasks.task import Task
from organics.data.tasks.timing import IntervalDiscrimination, ReadySetGo
from organics.names import MadeTaskName

_KINDS: tuple[Any, ...] = (
    Adding,
    Copy,
    FlipFlop,
    MatchToSample,
    MatchToCategory,
    Parametric,
    PairedAssociation,
    DualMatch,
    PerceptualDecision,
    DelayedDecision,
    PulseDecision,
    ContextDecision,
    Multisensory,
    GoNoGo,
    AntiReach,
    IntervalDiscrimination,
    ReadySetGo,
)

TASKS: dict[str, Callable[..., Task]] = {kind.name: kind for kind in _KINDS}


def build(name: str, *, constant_input: bool = False, **options: Any) -> Task:
    """The task called `name`, with `constant_input` as `WithConstant` has it.

    `options` are its own: `steps` of "adding" and "flip-flop", and of "copy" those between the
    symbols and their recall; `probability` of a pulse of the "flip-flop"; `delay` in ms of the
    tasks of the laboratory that have one. What is None keeps its default.

    Raises `ValueError` for another name, for an option that the task does not have, and for one out
    of its range.
    """
    require_among("name", name, MadeTaskName)
    require_flag("constant_input", constant_input)
    given = {option: value for option, value in options.items() if value is not None}
    fields = {field.name: field.name for field in dataclasses.fields(TASKS[name])}  # pyright: ignore
    if name == Copy.name:
        fields = {"steps": "delay"}  # which is in steps; the option "delay" is in ms
    for option in given:
        if option not in fields:
            raise ValueError(f"`{option}` must not be given for the task {name}, which has none.")
    task = TASKS[name](**{fields[option]: value for option, value in given.items()})
    return WithConstant(task) if constant_input else task
