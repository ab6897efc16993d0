"""What a user's file or arrays hold, and whether it can be learned from.

Every refusal names the file (or "the arrays"), the array and the row.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from organics.data.own.text import is_surely_missing
from organics.machine.memory import require_memory
from organics.names import TargetKind

_AT_ONCE = 1 << 22  # numbers checked at once


class Part(NamedTuple):
    """Examples, as they were given.

    Attributes
        x: inputs, (count, m) or, for sequences, (count, time, m); of any type.
        y: a class or numbers for each example, or for each step of each.
        lengths: number of steps of each sequence, (count,); None if all have full length.
    """

    x: Any
    y: Any
    lengths: Any = None


class Content(NamedTuple):
    """What a file or arrays hold.

    Attributes
        source: the file, for messages.
        train: the examples to learn from; without `test`, some of them are taken to test.
        test: the examples to test with; None if the source has none of its own.
        features: names of the m inputs; empty if they have none.
        target: whether `y` are classes or numbers, if the source says so.
        once: whether `y` is surely given once for each example, not for each step.
        ambiguous: why `y` would be ambiguous as classes, if it would.
        place: where the row i of an array (given by its name) is, for messages.
        texts: of a table, what the file says of `y` in each example of `train`, a tuple for each
            step.
    """

    source: str
    train: Part
    test: Part | None = None
    features: tuple[str, ...] = ()
    target: TargetKind | None = None
    once: bool = False
    ambiguous: str | None = None
    place: Callable[[str, int], str] = lambda name, i: f"`{name}`, row {i}"
    texts: Sequence[list[tuple[str, ...]]] = ()


def checked(content: Content) -> Content:
    """The content with arrays of the types that are computed with, and equal numbers of steps.

    `x` is of real numbers, `y` of real numbers or of classes (text or Python objects), `lengths`
    whole numbers. Entries after the end of a sequence may be anything.

    Raises `ValueError`, naming source, array and row, for anything else: arrays that are ragged,
    not numeric or not finite, numbers of rows that differ, lengths that are impossible.
    """
    train = _checked_part(content, content.train, "")
    if content.features and len(content.features) != train.x.shape[-1]:
        raise ValueError(
            f"{content.source}: `features` has {len(content.features)} names; `x` has "
            f"{train.x.shape[-1]} features."
        )
    if content.test is None:
        return content._replace(train=train)
    test = _checked_part(content, content.test, "_test")
    here, there = train.x.shape, test.x.shape
    if len(here) != len(there) or here[-1] != there[-1]:
        raise ValueError(
            f"{content.source}: `x_test` must have the axes of `x`, {here}, besides their lengths, "
            f"not {there}."
        )
    if (train.y.dtype.kind in "OU", train.y.ndim) != (test.y.dtype.kind in "OU", test.y.ndim):
        raise ValueError(
            f"{content.source}: `y_test` ({test.y.dtype}, {test.y.shape}) must be like `y` "
            f"({train.y.dtype}, {train.y.shape})."
        )
    steps = max(here[1], there[1])
    if len(here) == 3 and here[1] != there[1]:
        of_steps = all(is_of_steps(part.y, part.x) for part in (train, test))
        train, test = (_padded(part, steps, of_steps) for part in (train, test))
    if (train.lengths is None) != (test.lengths is None):  # a model is called alike with both
        train, test = (_with_lengths(part) for part in (train, test))
    return content._replace(train=train, test=test)


def checked_inputs(x: Any, lengths: Any = None) -> Part:
    """Inputs and lengths as `checked` has them; `y` is None.

    Raises `ValueError`, naming argument and row, as it does.
    """
    refuse = _Refusal(Content("the arrays", Part(x, None)))
    found = _inputs(refuse, "x", x)
    ends = None if lengths is None else _lengths(refuse, "lengths", lengths, found)
    _require_finite(refuse, "x", found, ends)
    return Part(found, None, ends)


def _checked_part(content: Content, part: Part, suffix: str) -> Part:
    x_name, y_name, lengths_name = (f"{name}{suffix}" for name in ("x", "y", "lengths"))
    refuse = _Refusal(content)
    x = _inputs(refuse, x_name, part.x)
    count = len(x)
    y = _wanted(refuse, y_name, part.y)
    if len(y) != count:
        raise refuse(f"`{y_name}` has {len(y)} rows, but `{x_name}` has {count}.")
    lengths = None if part.lengths is None else _lengths(refuse, lengths_name, part.lengths, x)
    _require_finite(refuse, x_name, x, lengths)
    return Part(x, _without_bad(refuse, y_name, y, x, lengths), lengths)


def _without_bad(
    refuse: "_Refusal", name: str, y: np.ndarray, x: np.ndarray, lengths: np.ndarray | None
) -> np.ndarray:
    """`y`, whose entries are numbers or can be classes; after the ends of sequences, anything."""
    if y.dtype.kind not in "fOU":
        return y
    of_objects = y.dtype.kind == "O"
    is_number = y.dtype.kind == "f"
    good = np.isfinite(y) if is_number else np.vectorize(_can_be_a_class, otypes=[bool])(y)
    counted = np.ones(y.shape, bool)
    if lengths is not None and is_of_steps(y, x) and not refuse.content.once:
        after = _after(lengths, x.shape[1])
        counted &= ~after.reshape(after.shape + (1,) * (y.ndim - 2))
    if not np.all(good | ~counted):
        where = tuple(int(k) for k in np.argwhere(~good & counted)[0])
        entry = str(y[where]) if isinstance(y[where], str) else y[where]
        what = f"{entry!r:.60} cannot be a class."
        if is_number:
            what = f"`{name}{list(where)}` is {y[where]}, not finite."
        raise refuse.at(name, where[0], what)
    if not of_objects:  # what comes after the ends is not looked at
        return y
    other = np.empty((), object)
    other[()] = y[counted][0]
    return np.where(good, y, other)


def _require_finite(
    refuse: "_Refusal", name: str, x: np.ndarray, lengths: np.ndarray | None
) -> None:
    for start, rows in _pieces(x):
        good = np.isfinite(rows)
        if lengths is not None:
            good |= _after(lengths[start : start + len(rows)], rows.shape[1])[..., None]
        if not np.all(good):
            i, *where = (int(k) for k in np.argwhere(~good)[0])
            entry = f"{name}{[start + i, *where]}"
            raise refuse.at(name, start + i, f"`{entry}` is {rows[(i, *where)]}, not finite.")


class _Refusal(NamedTuple):
    """Makes the errors of one source."""

    content: Content

    def __call__(self, message: str) -> ValueError:
        return ValueError(f"{self.content.source}: {message}")

    def at(self, name: str, row: int, message: str) -> ValueError:
        return self(f"{self.content.place(name, row)}: {message}")


def _inputs(refuse: _Refusal, name: str, given: Any) -> np.ndarray:
    x = _array(refuse, name, given)
    if x.dtype.kind not in "biuf":
        raise refuse(f"`{name}` must be made of real numbers, not of {_words(x)}.")
    if x.ndim not in (2, 3):
        raise refuse(
            f"`{name}` must have shape (samples, features) or (samples, time, features), not "
            f"{x.shape}" + (f"; for one feature use `{name}[..., None]`." if x.ndim == 1 else ".")
        )
    if 0 in x.shape:
        raise refuse(f"`{name}` is empty: its shape is {x.shape}.")
    require_memory(4 * math.prod(x.shape), f"{refuse.content.source}: {name}", "its numbers")
    return x


def _wanted(refuse: _Refusal, name: str, given: Any) -> np.ndarray:
    """Real numbers, or classes as text or objects; at least one for each row."""
    if isinstance(given, list | tuple) and not all(isinstance(one, _FOR_ARRAYS) for one in given):
        y = _of_objects(given)  # NumPy would make text of mixed classes, and a table of tuples
    else:
        try:
            y = np.asarray(_unmasked(given, "f"))
        except ValueError:
            raise refuse.at(name, _first_other_row(given), _RAGGED.format(name=name)) from None
    if y.ndim == 0 or not y.size:
        raise refuse(f"`{name}` must have a class or numbers for each row of `x`; it has none.")
    if y.dtype.kind == "O" and all(isinstance(label, bytes) for label in y.flat):
        y = np.array(y.tolist())
    if y.dtype.kind == "S":
        y = _decoded(refuse, name, y)
    if y.dtype.kind not in "biufUO":
        raise refuse(f"`{name}` must be made of classes or numbers, not of {_words(y)}.")
    if y.dtype.kind == "O":
        y = _of_objects(y.reshape(-1)).reshape(y.shape)
    return y


def _can_be_a_class(label: Any) -> bool:
    """Not so NaN, the missing values of Pandas, which are neither equal nor not, and words for what
    is missing."""
    if isinstance(label, str):
        return not is_surely_missing(label)
    try:
        hash(label)
        return label is not None and bool(label == label)
    except TypeError:
        return False


def _unmasked(given: Any, as_nan: str) -> Any:
    """What is given, with NaN or None where an array of NumPy is masked: NaN for the kinds of type
    in `as_nan`."""
    if not np.ma.is_masked(given):
        return given
    if given.dtype.kind in as_nan:
        return given.astype(np.float64).filled(np.nan)
    found = np.array(given.data, object)
    found[np.ma.getmaskarray(given)] = None
    return found


def _decoded(refuse: _Refusal, name: str, y: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(y, "utf-8")
    except UnicodeDecodeError:
        for row, one in enumerate(y):
            for label in np.atleast_1d(one).flat:
                if "\ufffd" in label.decode("utf-8", "replace"):
                    raise refuse.at(name, row, f"{label!r:.60} is not in UTF-8.") from None
        raise


_FOR_ARRAYS = (int, float, list, np.ndarray, np.generic)


def _of_objects(given: Any) -> np.ndarray:
    found = np.empty(len(given), object)
    for i, label in enumerate(given):
        found[i] = label.item() if isinstance(label, np.generic) else label
    return found


def _array(refuse: _Refusal, name: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(_unmasked(given, "biuf"))
    except ValueError:
        raise refuse.at(name, _first_other_row(given), _RAGGED.format(name=name)) from None
    if array.dtype.kind == "O":
        raise refuse(f"`{name}` holds Python objects. {_RAGGED.format(name=name)}")
    return array


_RAGGED = (
    "rows of `{name}` differ in shape: pad all sequences to one length and give their `lengths`."
)


def _first_other_row(given: Any) -> int:
    shapes = [_shape(row) for row in given]
    return next(i for i, shape in enumerate(shapes) if shape is None or shape != shapes[0])


def _shape(row: Any) -> tuple[int, ...] | None:
    try:
        return np.shape(row)
    except ValueError:
        return None


def _lengths(refuse: _Refusal, name: str, given: Any, x: np.ndarray) -> np.ndarray:
    lengths = _array(refuse, name, given)
    if x.ndim == 2:
        raise refuse(f"`{name}` is of sequences, but the inputs of shape {x.shape} are none.")
    whole = lengths.dtype.kind in "iu" or (
        lengths.dtype.kind == "f" and np.array_equal(lengths, np.round(lengths))
    )
    if not whole:
        raise refuse(f"`{name}` must be whole numbers, not {_words(lengths)}.")
    lengths = lengths.reshape(-1) if lengths.shape == (len(x), 1) else lengths
    if lengths.shape != (len(x),):
        raise refuse(f"`{name}` must have shape ({len(x)},), like `x`, not {lengths.shape}.")
    for i in np.flatnonzero((lengths < 1) | (lengths > x.shape[1])):
        message = f"`{name}` must be from 1 to {x.shape[1]}, as `x` has, not {lengths[i]}."
        raise refuse.at(name, int(i), message)
    return lengths.astype(np.int32)


def is_of_steps(y: np.ndarray, x: np.ndarray) -> bool:
    """Whether `y` may have values for each step of sequences."""
    return x.ndim == 3 and y.ndim >= 2 and y.shape[1] == x.shape[1]


def _after(lengths: np.ndarray, steps: int) -> np.ndarray:
    """Which steps are after the end of each sequence, (count, steps)."""
    return np.arange(steps) >= lengths[:, None]


def _pieces(x: np.ndarray):
    rows = max(1, _AT_ONCE // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def _padded(part: Part, steps: int, of_steps: bool) -> Part:
    more = steps - part.x.shape[1]
    if not more:
        return part
    lengths = _with_lengths(part).lengths
    x = np.pad(part.x, ((0, 0), (0, more), (0, 0)))
    y = part.y
    if of_steps:
        y = np.pad(y, ((0, 0), (0, more), *((0, 0),) * (y.ndim - 2)), "edge")
    return Part(x, y, lengths)


def _with_lengths(part: Part) -> Part:
    """The same sequences; their lengths are full if there were none."""
    if part.lengths is not None:
        return part
    return part._replace(lengths=np.full(len(part.x), part.x.shape[1], np.int32))


def _words(array: np.ndarray) -> str:
    return {"O": "Python objects", "U": "text", "S": "text", "c": "complex numbers"}.get(
        array.dtype.kind, str(array.dtype)
    )
