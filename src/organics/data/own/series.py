"""The `.ts` files of the time series archives (timeseriesclassification.com, tseregression.org).

After lines of properties (`@classLabel true a b`) and `@data`, each line is a case: the values of
each dimension separated by commas, the dimensions by colons, and at last the class or the number.
"""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from organics.data.own.content import Content, Part
from organics.data.own.text import finite, is_surely_missing, word
from organics.files.atomic import naming
from organics.machine.memory import require_memory
from organics.names import TargetKind


class _Case(NamedTuple):
    """A line: its number, the values one dimension after another, their number of steps, and what
    is to be learned."""

    line: int
    values: array
    steps: int
    wanted: str


def read_series(path: Path) -> Content:
    """The cases of a file as sequences (cases, time, dimensions), with `lengths` if they differ.

    Raises `ValueError`, naming file, line and dimension, for missing values (`?`), time stamps,
    dimensions of unequal length in a case, classes that the file does not announce, and anything
    else that is no such file.
    """
    with naming(path, "read"), path.open(encoding="utf-8-sig", errors="replace") as text:
        # each value takes two characters at least, and 20 bytes
        require_memory(10 * path.stat().st_size, str(path), "its numbers")
        lines = enumerate(text, 1)
        properties = _properties(path, lines)
        target, classes = _target(path, properties)
        cases = [
            _case(path, number, line, target, classes)
            for number, line in lines
            if line.strip() and not line.startswith("#")
        ]
    if not cases:
        raise ValueError(f"{path} has no cases after the line @data.")
    dimensions = len(cases[0].values) // cases[0].steps
    for case in cases:
        if len(case.values) != case.steps * dimensions:
            raise ValueError(
                f"{path}, line {case.line} has {len(case.values) // case.steps} dimensions; the "
                f"first case has {dimensions}."
            )
        if properties.get("equallength", "").lower() == "true" and case.steps != cases[0].steps:
            raise ValueError(
                f"{path}, line {case.line} has {case.steps} steps, the first {cases[0].steps}, "
                "but it says @equalLength true."
            )
    return Content(
        source=str(path),
        train=_part(cases, dimensions, target),
        target=target,
        place=lambda _, i: f"line {cases[i].line}",
    )


def _properties(path: Path, lines: Iterable[tuple[int, str]]) -> dict[str, str]:
    """The words after each property, by its name in small letters."""
    found = {}
    for number, line in lines:
        words = line.split(maxsplit=1)
        if not words or line.startswith("#"):
            continue
        if not words[0].startswith("@"):
            break
        name = words[0][1:].lower()
        if name == "data":
            return found
        found[name] = words[1].strip() if len(words) > 1 else ""
        if name == "timestamps" and found[name].lower() != "false":
            raise ValueError(
                f"{path}, line {number}: time stamps are not read; write the values alone, with "
                "@timeStamps false."
            )
    raise ValueError(f"{path} has no line @data, as a .ts file must.")


def _target(path: Path, properties: dict[str, str]) -> tuple[TargetKind, list[str]]:
    """What is to be learned, and the classes that the file announces."""
    if properties.get("targetlabel", "false").lower().startswith("true"):
        return "numbers", []
    stated = word(properties.get("classlabel", "false"), f"{path}: @classLabel")
    flag, *classes = stated.split()
    if flag.lower() != "true":
        raise ValueError(
            f"{path} has nothing to be learned: it needs @classLabel true with the classes, or "
            "@targetLabel true."
        )
    return "classes", classes


def _case(path: Path, number: int, line: str, target: TargetKind, classes: list[str]) -> _Case:
    *dimensions, wanted = line.strip().split(":")
    where = f"{path}, line {number}"
    wanted = word(wanted, f"{where}: the class")
    if not dimensions:
        raise ValueError(f"{where} must be values, a colon and a label.")
    if is_surely_missing(wanted):
        raise ValueError(f"{where}: the class is missing.")
    if target == "classes" and classes and wanted not in classes:
        raise ValueError(f"{where}: the class {wanted[:50]!r} is not announced in @classLabel.")
    if target == "numbers":
        finite(wanted, f"{where}: the number to be learned")
    values, steps = array("d"), 0
    for i, dimension in enumerate(dimensions, 1):
        texts = dimension.split(",")
        steps = steps or len(texts)
        if len(texts) != steps:
            raise ValueError(
                f"{where}: dimension {i} has {len(texts)} values, the first {steps}. Dimensions of "
                "unequal length are not read."
            )
        for j, text in enumerate(texts, 1):
            values.append(finite(text, f"{where}: value {j} of dimension {i}"))
    return _Case(number, values, steps, wanted)


def _part(cases: list[_Case], dimensions: int, target: TargetKind) -> Part:
    lengths = np.array([case.steps for case in cases])
    steps = int(lengths.max())
    require_memory(12 * len(cases) * steps * dimensions, "x", "sequences of one length")
    x = np.zeros((len(cases), steps, dimensions))
    for row, case in zip(x, cases, strict=True):
        row[: case.steps] = np.array(case.values).reshape(dimensions, case.steps).T
    wanted = [case.wanted for case in cases]
    y = np.array(wanted, float) if target == "numbers" else np.array(wanted)
    return Part(x, y, None if np.all(lengths == steps) else lengths)
