"""What a command answers, for people or for machines."""

import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Answer:
    """The outcome of a command.

    Attributes
        document: everything, for `--json`: anything that `as_json` takes.
        text: the same for people; strings and `rich` renderables, printed in order.
        positive: false if the question asked (`--check`) has a negative answer.
    """

    document: dict[str, Any]
    text: list[Any] = field(default_factory=list)
    positive: bool = True


def show(answer: Answer, as_json: bool) -> None:
    """Print an answer: with `as_json` one JSON document on standard output and nothing else."""
    if as_json:
        json.dump(as_plain(answer.document), sys.stdout, allow_nan=False)
        sys.stdout.write("\n")
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for piece in answer.text:
        console.print(piece)


def as_plain(value: Any) -> Any:
    """`value` with arrays as lists, complex numbers as [re, im], and what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, Path):
        return str(value)
    array = np.asarray(value)
    if array.ndim:
        return [as_plain(item) for item in array]
    item = array.item()
    if isinstance(item, complex):
        return [as_plain(item.real), as_plain(item.imag)]
    return None if isinstance(item, float) and not math.isfinite(item) else item


def note(message: str) -> None:
    """Say something on standard error, which is never part of the answer."""
    print(message, file=sys.stderr)
