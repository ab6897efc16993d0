"""What is to be learned from a user's data: classes or numbers, at the last step or at every."""

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from organics.data.own.content import Content, Part, is_of_steps
from organics.data.own.preparation import LABEL_TYPES
from organics.names import ReadAt, TargetKind

# whole numbers are classes if there are few, or on average so many examples of each
_FEW, _OF_EACH = 10, 5


class Meaning(NamedTuple):
    """What is to be learned.

    Attributes
        target, at: classes or numbers, at the last step or at every one.
        steps, features: number of steps of the longest sequence, 0 for vectors; of inputs at each.
        outputs: number of classes, or of numbers.
        names: the classes in order, as text; empty for numbers.
        label_type: type of the classes, one of `LABEL_TYPES` or "text".
        train, test: examples whose `y` holds the numbers of classes, (count,), or numbers, (count,
            k); at every step with an axis of time in the middle.
    """

    target: TargetKind
    at: ReadAt
    steps: int
    features: int
    outputs: int
    names: tuple[str, ...]
    label_type: str
    train: Part
    test: Part | None


def meaning(
    content: Content, target: TargetKind | None = None, at: ReadAt | None = None
) -> Meaning:
    """What is to be learned from checked content; `target` and `at` decide, if they are given.

    Text, truth values, and whole numbers of which there are a few are classes; other numbers, if of
    a floating-point type, are numbers. `y` with an axis of time is learned at every step;
    `at="last"` takes its value at the last step instead, and `at="every"` asks at every step for
    what is given once.

    Raises `ValueError`, naming source and array, if `y` cannot be meant so or does not say what is
    meant, if there is one class only, or if the test set has a class that the other examples lack.
    """
    train, test = content.train, content.test
    steps = train.x.shape[1] if train.x.ndim == 3 else 0
    refuse = lambda message: ValueError(f"{content.source}: {message}")  # noqa: E731
    if at == "every" and not steps:
        raise refuse("`at` must be last for inputs that are not sequences.")
    counted = train.y[_valid(train, train.y)] if is_of_steps(train.y, train.x) else train.y
    kind = target or content.target or _kind(refuse, counted)
    if kind == "numbers" and train.y.dtype.kind in "OU":
        raise refuse(f"`y` is text, such as {str(train.y.flat[0])[:50]!r}: it holds no numbers.")
    if kind == "classes" and content.ambiguous:
        raise refuse(f"the classes in `y` are ambiguous: {content.ambiguous}")
    of_steps = _has_steps(refuse, content, steps, kind, at)
    reading: ReadAt = at or ("every" if of_steps else "last")
    y, *others = (
        _shaped(refuse, part, steps, kind, of_steps, reading, name)
        for part, name in ((train, "y"), (test, "y_test"))
        if part is not None
    )
    if kind == "numbers":
        if others and others[0].shape[-1] != y.shape[-1]:
            raise refuse(f"`y_test` has {others[0].shape[-1]} numbers a row, `y` {y.shape[-1]}.")
        outputs, names, label_type = y.shape[-1], (), "float"
        values = [y, *others]
    else:
        labels = _labels(refuse, y[_valid(train, y)])
        values = [
            _numbered(content, labels, part, y, name)
            for part, y, name in zip((train, test), (y, *others), ("y", "y_test"), strict=False)
            if part is not None
        ]
        outputs, names = len(labels), _names(labels)
        label_type = _type_of(labels)
    return Meaning(
        kind, reading, steps, train.x.shape[-1], outputs, names, label_type,
        train._replace(y=values[0]), None if test is None else test._replace(y=values[1]),
    )  # fmt: skip


def _kind(refuse: Any, y: np.ndarray) -> TargetKind:
    if y.dtype.kind in "OUb":
        return "classes"
    if y.dtype.kind == "f" and not np.array_equal(y, np.round(y), equal_nan=True):
        return "numbers"
    distinct = len(np.unique(y))
    if distinct <= y.size // 2 and distinct <= max(_FEW, y.size // _OF_EACH):
        return "classes"
    if y.dtype.kind == "f":
        return "numbers"
    raise refuse(
        f"`y` has {distinct} whole numbers in {y.size} entries: say whether they are classes or "
        "numbers by `target`."
    )


def _has_steps(
    refuse: Any, content: Content, steps: int, kind: TargetKind, at: ReadAt | None
) -> bool:
    """Whether `y` has an axis of time."""
    y = content.train.y
    if y.ndim == 3 or (y.ndim == 2 and kind == "classes" and y.shape[1] > 1):
        what = "a class" if kind == "classes" else "numbers"
        if content.once or y.shape[1] != steps:
            several = " (for one-hot classes give their `argmax`)" if kind == "classes" else ""
            raise refuse(
                f"`y` of shape {y.shape} does not have {what} for each row, or for each of the "
                f"{steps or 'no'} steps of `x`{several}."
            )
        return True
    if y.ndim == 2 and 1 < y.shape[1] == steps and not content.once:
        if at is None:
            raise refuse(
                f"`y` of shape {y.shape} may be {steps} numbers for each sequence or one for each "
                "step: say which by `at`, last or every."
            )
        return at == "every"
    if y.ndim > 2:
        raise refuse(f"`y` must have at most 3 axes, not shape {y.shape}.")
    return False


def _shaped(
    refuse: Any, part: Part, steps: int, kind: TargetKind, of_steps: bool, at: ReadAt, name: str
) -> np.ndarray:
    """`y` as (count,) or (count, time) classes, or (count, k) or (count, time, k) numbers."""
    y = part.y
    axes = (1 + of_steps) + (kind == "numbers")
    if y.ndim == axes - 1:
        y = y[..., None]
    elif y.ndim == axes + 1 and y.shape[-1] == 1:
        y = y[..., 0]
    if y.ndim != axes or (of_steps and y.shape[1] != steps):
        raise refuse(f"`{name}` has the shape {y.shape}, which does not fit `x` and `y`.")
    if of_steps and at == "last":
        ends = np.full(len(y), steps) if part.lengths is None else part.lengths
        return y[np.arange(len(y)), ends - 1]
    if at == "every" and not of_steps:
        return np.repeat(y[:, None], steps, axis=1)
    return y


def _valid(part: Part, y: np.ndarray) -> Any:
    """The entries that count: of steps, those before the ends of the sequences."""
    if y.ndim == 1 or part.lengths is None:
        return ...
    return np.arange(y.shape[1]) < part.lengths[:, None]


def _labels(refuse: Any, y: np.ndarray) -> Any:
    """The classes in order."""
    if y.dtype.kind == "f" and np.array_equal(y, np.round(y)) and float(np.abs(y).max()) < 2**63:
        y = y.astype(np.int64)
    if y.dtype.kind == "O":
        found = list(dict.fromkeys(y.flat))
        with suppress(TypeError):  # of types that have no order: as they come
            found = sorted(found)
        if all(isinstance(label, str) for label in found):
            found = np.array(found)
    else:
        found = np.unique(y)
    if len(found) < 2:
        raise refuse(f"`y` has one class only, {str(found[0])[:50]!r}: there is nothing to learn.")
    return found


def _type_of(labels: Any) -> str:
    if isinstance(labels, list):
        kinds = {type(label).__name__ for label in labels}
        if kinds == {"int"} and not all(-(2**63) <= label < 2**63 for label in labels):
            return "text"
        return kinds.pop() if len(kinds) == 1 and kinds <= {"int", "bool", "float"} else "text"
    if labels.dtype.name in LABEL_TYPES:
        return labels.dtype.name
    return {"i": "int", "u": "int", "b": "bool", "f": "float"}.get(labels.dtype.kind, "text")


def _names(labels: Any) -> tuple[str, ...]:
    names = [str(label) for label in labels]
    return tuple(names if len(set(names)) == len(names) else map(repr, labels))


def _numbered(content: Content, labels: Any, part: Part, y: np.ndarray, name: str) -> np.ndarray:
    """The number of each class among the `labels`; 0 after the ends of sequences."""
    if isinstance(labels, list) or y.dtype.kind == "O":
        number = {label: i for i, label in enumerate(labels)}
        found = np.array([number.get(label, -1) for label in y.flat]).reshape(y.shape)
    else:
        found = np.minimum(np.searchsorted(labels, y), len(labels) - 1)
        found[labels[found] != y] = -1
    counts = np.zeros(y.shape, bool)
    counts[_valid(part, y)] = True
    if unknown := np.argwhere((found < 0) & counts).tolist():
        row = unknown[0][0]
        raise ValueError(
            f"{content.source}: {content.place(name, row)}: the class "
            f"{str(y[tuple(unknown[0])])[:50]!r} is only in the test set."
        )
    return np.where(counts, found, 0).astype(np.int32)
