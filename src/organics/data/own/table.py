"""A user's table (`.csv`): an example in each row, or, in long form, a step of a sequence."""

import csv
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from organics.data.own.content import Content, Part
from organics.data.own.text import finite, is_missing, is_surely_missing, word
from organics.files.atomic import naming
from organics.machine.memory import require_memory

_IDS = ("id", "sequence", "series")
_TIMES = ("time", "step", "t")
_WANTED = ("y", "label", "class", "target")
_SETS = ("set", "split")
_MOST_COLUMNS = 100_000


class _Columns(NamedTuple):
    """Which columns are what."""

    names: list[str]
    id: int | None
    time: int | None
    set: int | None
    wanted: list[int]
    features: list[int]


class _Sequence:
    """The rows of one sequence, or one row."""

    def __init__(self, line: int, in_test: bool):
        self.first, self.in_test = line, in_test
        self.numbers = array("d")
        self.wanted: list[tuple[str, ...]] = []
        self.time = -np.inf


def read_table(path: Path) -> Content:
    """The examples in a table with the names of its columns in the first line.

    One column is `y` (or `label`, `class`, `target`); several numbers to predict are `y1`, `y2`,
    and so on. With a column `id` (or `sequence`, `series`) the rows with the same id are the steps
    of a sequence, in the order of the file; a column `time` (or `step`, `t`) must then increase in
    each, and is not an input. A column `set` (or `split`) says "train" or "test". All other columns
    are features, of numbers. The words above may name one column each.

    Raises `ValueError`, naming file, column and line, for anything else.
    """
    with (
        naming(path, "read"),
        path.open(encoding="utf-8-sig", errors="replace", newline="") as text,
    ):
        # each value takes two characters at least, and 12 bytes
        require_memory(6 * path.stat().st_size, str(path), "its numbers")
        try:
            return _content(path, csv.reader(text, strict=True))
        except csv.Error as error:
            raise ValueError(
                f"{path} is no table of values separated by commas: {error}."
            ) from None


def _content(path: Path, reader: Any) -> Content:
    columns = _columns(path, next(reader, []))
    found: dict[str, _Sequence] = {}
    for row in reader:
        line = reader.line_num
        if not row:
            continue
        if len(row) != len(columns.names):
            raise ValueError(
                f"{path}, line {line} has {len(row)} values; the first line names "
                f"{len(columns.names)} columns."
            )
        in_test = _is_test(path, columns, row, line)
        key = str(line)
        if columns.id is not None:
            name = _word(path, columns, row, columns.id, line)
            if not name:
                raise ValueError(f"{path}, line {line}: `{columns.names[columns.id]}` is missing.")
            if name in found and found[name].in_test != in_test:
                raise ValueError(
                    f"{path}, line {line}: the {columns.names[columns.id]} {name[:50]!r} is in "
                    "both train and test; a sequence must be in one of them."
                )
            key = name
        if key not in found:
            found[key] = _Sequence(line, in_test)
        _add(path, columns, found[key], row, line)
    if not found:
        raise ValueError(f"{path} has no rows below the names of its columns.")
    sequences = list(found.values())
    train = [one for one in sequences if not one.in_test]
    test = [one for one in sequences if one.in_test]
    if not train:
        raise ValueError(f"{path} has only rows of the set test; there are none to learn from.")
    lines = {"": train, "_test": test}

    def place(name: str, i: int) -> str:
        rows = lines["_test" if name.endswith("_test") else ""]
        return f"line {rows[i].first}"

    _require_none_missing(path, columns, sequences)
    texts = [[one.wanted for one in part] for part in (train, test) if part]
    (y, *y_test), once, ambiguous = _typed(texts)
    return Content(
        source=str(path),
        train=_part(columns, train, y),
        test=_part(columns, test, *y_test) if test else None,
        features=tuple(columns.names[i] for i in columns.features),
        target="numbers" if len(columns.wanted) > 1 else None,
        once=once,
        ambiguous=ambiguous,
        place=place,
        texts=texts[0],
    )


def typed_together(content: Content, other: Content) -> tuple[Content, Content]:
    """Two tables with one type of `y`, which each by itself may suggest otherwise."""
    (y, y_other), once, ambiguous = _typed([content.texts, other.texts])
    return (
        content._replace(train=content.train._replace(y=y), once=once, ambiguous=ambiguous),
        other._replace(train=other.train._replace(y=y_other), once=once),
    )


def _columns(path: Path, header: list[str]) -> _Columns:
    names = [word(name, f"{path}, line 1: a name") for name in header]
    plain = [name.lower() for name in names]
    if len(names) > _MOST_COLUMNS:
        raise ValueError(f"{path} has more than {_MOST_COLUMNS} columns.")
    if len(names) == 1 and re.search(r"[;\t]", names[0]):
        raise ValueError(
            f"{path} must have commas between the columns, not as in {names[0][:50]!r}."
        )
    if not names or all(_is_number(name) for name in names):
        raise ValueError(f"{path} must have the names of its columns in the first line.")
    if "" in names:
        raise ValueError(
            f"{path}: column {names.index('') + 1} has no name. Name it, or leave it out: a number "
            "of the row is no input."
        )
    if double := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise ValueError(f"{path} has two columns {double[:50]!r}.")

    def one(words: tuple[str, ...], what: str, others: Sequence[int] = ()) -> int | None:
        found = [i for i, name in enumerate(plain) if name in words]
        if found and len([*found, *others]) > 1:
            both = " and ".join(names[i] for i in [*found, *others])
            raise ValueError(f"{path} has the columns {both}: only one may be {what}.")
        return found[0] if found else None

    many = [i for i, name in enumerate(plain) if re.fullmatch(r"y_?\d+", name)]
    wanted = one(_WANTED, "what is to be learned; name the others as features", many)
    if wanted is None and not many:
        raise ValueError(
            f"{path} needs a column y (or {', '.join(_WANTED[1:])}) with what is to be learned; "
            f"its columns are {', '.join(names)[:200]}."
        )
    chosen = many if wanted is None else [wanted]
    id_, set_ = one(_IDS, "the name of a sequence"), one(_SETS, '"train" or "test"')
    time = None if id_ is None else one(_TIMES, "the time")
    taken = {id_, time, set_, *chosen}
    features = [i for i in range(len(names)) if i not in taken]
    if not features:
        raise ValueError(f"{path} has no columns besides {', '.join(names)[:200]}: no inputs.")
    return _Columns(names, id_, time, set_, chosen, features)


def _is_test(path: Path, columns: _Columns, row: list[str], line: int) -> bool:
    if columns.set is None:
        return False
    word = row[columns.set].strip().lower()
    if word not in ("train", "test"):
        name = columns.names[columns.set]
        raise ValueError(f"{path}, line {line}: `{name}` must be train or test, not {word[:50]!r}.")
    return word == "test"


def _add(path: Path, columns: _Columns, to: _Sequence, row: list[str], line: int) -> None:
    for i in columns.features:
        to.numbers.append(_number(path, columns, row, i, line))
    for i in columns.wanted:
        if is_surely_missing(row[i]):
            raise ValueError(
                f"{path}, line {line}: `{columns.names[i]}` is missing; fill in or leave out what "
                "is missing."
            )
    if columns.time is not None:
        time = _number(path, columns, row, columns.time, line)
        if time <= to.time:
            raise ValueError(
                f"{path}, line {line}: `{columns.names[columns.time]}` must increase in each "
                f"sequence; {time:g} comes after {to.time:g}."
            )
        to.time = time
    to.wanted.append(tuple(_word(path, columns, row, i, line) for i in columns.wanted))


def _number(path: Path, columns: _Columns, row: list[str], i: int, line: int) -> float:
    return finite(row[i], f"{path}, line {line}: `{columns.names[i]}`")


def _word(path: Path, columns: _Columns, row: list[str], i: int, line: int) -> str:
    return word(row[i], f"{path}, line {line}: `{columns.names[i]}`")


def _part(columns: _Columns, sequences: list[_Sequence], y: np.ndarray) -> Part:
    width = len(columns.features)
    if columns.id is None:
        return Part(np.array([one.numbers for one in sequences]).reshape(-1, width), y)
    lengths = np.array([len(one.wanted) for one in sequences])
    steps = int(lengths.max())
    require_memory(12 * len(sequences) * steps * width, "x", "sequences of one length")
    x = np.zeros((len(sequences), steps, width))
    for row, one in zip(x, sequences, strict=True):
        row[: len(one.wanted)] = np.array(one.numbers).reshape(-1, width)
    return Part(x, y, None if np.all(lengths == steps) else lengths)


_Texts = Sequence[list[tuple[str, ...]]]


def _typed(parts: Sequence[_Texts]) -> tuple[list[np.ndarray], bool, str | None]:
    """What is to be learned in each part, whether it is given once for each example, and what is
    ambiguous if it is classes. All parts have one type, and values for each step if any sequence
    has several."""
    every = any(steps != steps[:1] * len(steps) for part in parts for steps in part)
    texts = [_as_array(part, every) for part in parts]
    kind, ambiguous = _kind(np.unique(np.concatenate([some.ravel() for some in texts])), texts[0])
    return [some if kind is None else some.astype(kind) for some in texts], not every, ambiguous


def _as_array(part: _Texts, every: bool) -> np.ndarray:
    """What is to be learned of each sequence, (count,), or (count, k) if it is several numbers; or
    of each step, (count, time, k)."""
    if every:
        most = max(map(len, part))
        return np.array([steps + steps[-1:] * (most - len(steps)) for steps in part])
    texts = np.array([steps[0] for steps in part])
    return texts[:, 0] if texts.shape[1] == 1 else texts


def _require_none_missing(path: Path, columns: _Columns, sequences: list[_Sequence]) -> None:
    """Refuse words for missing values among numbers, which they would turn into classes."""
    for k, column in enumerate(columns.wanted):
        words = {step[k] for one in sequences for step in one.wanted}
        missing = {text for text in words if is_missing(text)}
        if missing and all(map(_is_number, words - missing)) and words != missing:
            one = next(one for one in sequences if any(step[k] in missing for step in one.wanted))
            raise ValueError(
                f"{path}, line {one.first}: `{columns.names[column]}` is missing; fill in or leave "
                "out what is missing."
            )


def _kind(different: np.ndarray, texts: np.ndarray) -> tuple[type | None, str | None]:
    """The type of numbers, whole ones if all are; None for text. Codes such as `007` are text.

    Then what is ambiguous if they are classes: one number that is written in two ways.
    """
    single = texts.ndim == 1 or texts.shape[-1] == 1
    codes = r"[+-]?0\d+|.*_.*" if single else r".*_.*"
    if any(re.fullmatch(codes, text) for text in different.tolist()):
        return None, None
    for kind in (np.int64, np.uint64, np.float64):
        try:
            numbers = different.astype(kind)
        except (ValueError, OverflowError):
            continue
        ambiguous, seen = None, {}
        for number, text in zip(numbers.tolist(), different.tolist(), strict=True):
            other = seen.setdefault(number, text)
            if other.lstrip("+-") != text.lstrip("+-"):
                ambiguous = f"{other!r} and {text!r} are one number; write it in one way."
        return kind, ambiguous
    return None, None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
