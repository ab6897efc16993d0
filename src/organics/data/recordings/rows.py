"""Recorded signals by session, trial and stimulus: the rows of a table, checked one by one."""

import csv
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from organics.arguments import nearest
from organics.data.own.text import finite, word
from organics.files.atomic import naming
from organics.machine.memory import require_memory
from organics.names import Quantity

_COLUMNS = ("session", "trial", "stimulus", "neuron", "quantity", "value", "unit")
_TIMES = {"time_ms": 1.0, "time_s": 1000.0}
_UNEQUAL = 0.01  # by how much of the interval a time may be off, ...
ROUNDED = 2e-3  # ... and how many ms more, as it may be rounded
_ERROR = "se"
_NEVER_NEGATIVE = ("rate",)

# the factor to a common unit; "1" is that of the model
_UNITS = {
    "": ("1", 1.0), "1": ("1", 1.0),
    "1/s": ("1/s", 1.0), "hz": ("1/s", 1.0), "spikes/s": ("1/s", 1.0), "sp/s": ("1/s", 1.0),
    "1/ms": ("1/s", 1000.0), "khz": ("1/s", 1000.0),
    # the sign for micro, and the letter mu
    "uv": ("uV", 1.0), "\u00b5v": ("uV", 1.0), "\u03bcv": ("uV", 1.0),
    "mv": ("uV", 1e3), "v": ("uV", 1e6),
}  # fmt: skip
_UNIT_OF = {"rate": "1/s", "y": "uV", "a": "uV", "lfp": "uV"}


class Key(NamedTuple):
    """Which signal: all of its rows have these in common."""

    session: str
    stimulus: str
    trial: str
    neuron: str
    quantity: str


@dataclass
class Signal:
    """The rows of one signal: a single value without time, or samples at equal intervals.

    Attributes
        row: the line of its first row, or the trial.
        unit: "1", or a unit that the values are converted to.
        times: in ms; empty for a single value.
        values: as many, or one.
        error: the standard error of a single value, or NaN.
        noun: what `row` is, "line" or "trial".
    """

    row: int
    unit: str
    times: array = field(default_factory=lambda: array("d"))
    values: array = field(default_factory=lambda: array("d"))
    error: float = np.nan
    noun: str = "line"

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"{self.noun} {self.row}"


def read_rows(path: Path) -> dict[Key, Signal]:
    """The signals in a table of the columns `session, trial, stimulus, neuron, quantity, value`,
    and optionally `time_ms` or `time_s`, `unit`, and `se`, a standard error.

    Raises `ValueError`, naming file, line and column, for a row that cannot be right.
    """
    found: dict[Key, Signal] = {}
    for line, row in table(path, _COLUMNS[:-1], (*_COLUMNS[-1:], *_TIMES, _ERROR)):
        where = f"{path}, line {line}"
        key = Key(*(row[name] for name in Key._fields))
        for name in Key._fields:
            if not row[name] and not (name == "neuron" and key.quantity == "lfp"):
                raise ValueError(f"{where}: `{name}` is missing.")
        if key.quantity not in get_args(Quantity):
            like = nearest(key.quantity, get_args(Quantity)) or "."
            raise ValueError(
                f"{where}: `quantity` must be y, a, rate or lfp, not {key.quantity[:50]!r}{like}"
            )
        if key.quantity == "lfp":
            key = key._replace(neuron="")
        unit, factor = _unit(row.get("unit", ""), key.quantity, where)
        value = factor * finite(row["value"], f"{where}: `value`")
        if value < 0 and key.quantity in _NEVER_NEGATIVE:
            raise ValueError(f"{where}: `value` of a rate must be >= 0, not {value:g}.")
        signal = found.setdefault(key, Signal(line, unit))
        if signal.unit != unit:
            raise ValueError(f"{where}: `unit` is another kind than in line {signal.row}.")
        time = next((name for name in _TIMES if row.get(name)), None)
        if time is None:
            if signal.values:
                raise ValueError(f"{where} repeats line {signal.row}: a trial has one value.")
        else:
            _add_time(signal, _TIMES[time] * finite(row[time], f"{where}: `{time}`"), time, where)
        signal.values.append(value)
        if row.get(_ERROR):
            signal.error = factor * finite(row[_ERROR], f"{where}: `{_ERROR}`")
            if not signal.error > 0 or time is not None:
                raise ValueError(f"{where}: `{_ERROR}` must be > 0, of a value without time.")
    return found


def table(path: Path, needed: tuple, optional: tuple) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a table, with the names of its columns in the first line.

    Raises `ValueError`, naming file and line, for another number of values, and for a column that
    is missing or unknown.
    """
    with (
        naming(path, "read"),
        path.open(encoding="utf-8-sig", errors="replace", newline="") as text,
    ):
        require_memory(3 * path.stat().st_size, str(path), "its rows")
        reader: Any = csv.reader(text, strict=True)
        try:
            names = [word(name, f"{path}, line 1: a name").lower() for name in next(reader, [])]
            _require_columns(path, names, needed, optional)
            empty = True
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise ValueError(
                        f"{path}, line {reader.line_num} has {len(row)} values; the first line "
                        f"names {len(names)} columns."
                    )
                empty = False
                where = f"{path}, line {reader.line_num}"
                cells = zip(names, row, strict=True)
                yield (
                    reader.line_num,
                    {name: word(value, f"{where}: `{name}`") for name, value in cells},
                )
        except csv.Error as error:
            raise ValueError(
                f"{path} is no table of values separated by commas: {error}."
            ) from None
        if empty:
            raise ValueError(f"{path} has no rows below the names of its columns.")


def _require_columns(path: Path, names: list[str], needed: tuple, optional: tuple) -> None:
    for name in needed:
        if name not in names:
            has = ", ".join(names)[:200] or "none"
            raise ValueError(f"{path} needs a column {name}; it has {has}.")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{path} has two columns {name[:50]!r}.")
        if name not in (*needed, *optional):
            like = nearest(name, (*needed, *optional)) or "."
            raise ValueError(f"{path} has an unknown column {name[:50]!r}{like}")
    if all(time in names for time in _TIMES):
        raise ValueError(f"{path} must have one of the columns {' and '.join(_TIMES)}, not both.")


def _unit(text: str, quantity: str, where: str) -> tuple[str, float]:
    found = _UNITS.get(text.lower())
    if found is None or found[0] not in ("1", _UNIT_OF[quantity]):
        kind = _UNIT_OF[quantity]
        known = [name for name in _UNITS if _UNITS[name][0] == kind and name.isascii()]
        raise ValueError(
            f"{where}: `unit` of {quantity} must be 1 (that of the model) or one of "
            f"{', '.join(known)}, not {text[:50]!r}."
        )
    return found


def _add_time(signal: Signal, time: float, name: str, where: str) -> None:
    times = signal.times
    if signal.values and not times:
        raise ValueError(f"{where}: `{name}` must be empty, as in line {signal.row}.")
    if times and time <= times[-1]:
        raise ValueError(
            f"{where}: `{name}` must increase; {time:g} ms comes after {times[-1]:g} ms."
        )
    if len(times) > 1:
        step = (times[-1] - times[0]) / (len(times) - 1)
        if abs(time - times[0] - len(times) * step) > _UNEQUAL * step + ROUNDED:
            raise ValueError(
                f"{where}: `{name}` must have equal intervals, of {step:g} ms as before, not "
                f"{time - times[-1]:g} ms."
            )
    times.append(time)
