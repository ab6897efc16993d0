"""The way from a user's numbers to those that a network takes and gives, and back."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from organics.data.own.content import Part
from organics.files.plain import as_plain
from organics.settings import fields_of

_AT_ONCE = 1 << 22  # numbers converted at once
LABEL_TYPES = {
    "int": np.int64, "uint64": np.uint64, "bool": np.bool_,
    "float": np.float64, "float32": np.float32, "float16": np.float16,
}  # fmt: skip
"""Types of classes other than text; the shorter floats are not equal to what they look like."""


@dataclass(frozen=True)
class Preparation:
    """How inputs and targets are prepared; a run keeps it with its model.

    Attributes
        mean, scale: of each feature; a network takes `(x - mean) / scale`.
        classes: names of the classes, in the order of the outputs; empty for numbers.
        label_type: type of the classes, one of `LABEL_TYPES` or "text".
        target_mean, target_scale: of each number; a network gives `(y - mean) / scale`.
        features: names of the features; empty if they have none.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    classes: tuple[str, ...] = ()
    label_type: str = "text"
    target_mean: tuple[float, ...] = ()
    target_scale: tuple[float, ...] = ()
    features: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """As JSON values."""
        return as_plain(asdict(self))

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Preparation":
        """From the result of `to_document`. Raises `ValueError` if it is invalid."""
        found = cls(**fields_of(cls, document))
        if len(found.mean) != len(found.scale) or not all(s > 0 for s in found.scale):
            raise ValueError("`scale` must be a positive number for each `mean`.")
        if len(found.target_mean) != len(found.target_scale):
            raise ValueError("`target_scale` must be a number for each `target_mean`.")
        return found

    def inputs(self, source: str, name: str, part: Part) -> Float32[np.ndarray, "count ..."]:
        """The inputs as a network takes them; 0 after the ends of sequences.

        Raises `ValueError` if they are too large for float32.
        """
        mean, scale = np.array(self.mean), np.array(self.scale)
        found = np.zeros(part.x.shape, np.float32)
        for rows, values, counts in _pieces(part):
            with np.errstate(over="ignore"):
                prepared = ((values - mean) / scale).astype(np.float32)
            if not np.all(np.isfinite(prepared[counts])):
                raise ValueError(f"{source}: `{name}` has numbers too large for float32.")
            found[rows][counts] = prepared[counts]
        return found

    def targets(
        self, source: str, name: str, y: np.ndarray, lengths: np.ndarray | None
    ) -> np.ndarray:
        """The numbers of classes unchanged, or numbers as a network gives them, in float32; 0 after
        the ends of sequences.

        Raises `ValueError` if they are too large for float32.
        """
        if self.classes:
            return y
        mean, scale = np.array(self.target_mean), np.array(self.target_scale)
        with np.errstate(over="ignore", invalid="ignore"):
            found = ((y.astype(np.float64) - mean) / scale).astype(np.float32)
        if y.ndim == 3:
            found[~_before(lengths, len(y), y.shape[1])] = 0
        if not np.all(np.isfinite(found)):
            raise ValueError(
                f"{source}: `{name}` has numbers that are not finite or too large for float32."
            )
        return found

    def numbers(self, outputs: np.ndarray) -> np.ndarray:
        """The numbers, in the units of `y`, that the outputs of a network stand for."""
        outputs = np.asarray(outputs, np.float64)
        return outputs * np.array(self.target_scale) + np.array(self.target_mean)

    def labels(self, numbers: Int[np.ndarray, "..."]) -> np.ndarray:
        """The classes with these numbers, of the type that they had; text for other types."""
        names = list(self.classes)
        if self.label_type == "bool":
            return np.array([name == "True" for name in names])[numbers]
        kind = LABEL_TYPES.get(self.label_type)
        return np.array(names if kind is None else [kind(name) for name in names])[numbers]


def standardised(source: str, part: Part) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each feature over the steps of these examples; 1 in place of a
    deviation of 0.

    Raises `ValueError` if they overflow.
    """
    return _moments(source, "x", lambda: (values[counts] for _, values, counts in _pieces(part)))


def standardised_targets(
    source: str, y: np.ndarray, lengths: np.ndarray | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same of each number to be learned; `y` has shape (count, k) or (count, time, k)."""
    if y.ndim == 3:
        y = y[_before(lengths, len(y), y.shape[1])]
    return _moments(source, "y", lambda: iter([y.astype(np.float64)]))


def _moments(
    source: str, name: str, pieces: Callable[[], Iterator[np.ndarray]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    count = sum(map(len, pieces()))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.asarray(sum(np.sum(piece, axis=0) for piece in pieces())) / count
        largest = np.max([np.max(np.abs(piece - mean), axis=0) for piece in pieces()], axis=0)
        scale = np.where(largest > 0, largest, 1)  # so that squares are in range
        square = sum(np.sum(((piece - mean) / scale) ** 2, axis=0) for piece in pieces())
        deviation = scale * np.sqrt(np.asarray(square) / count)
    if not np.all(np.isfinite(deviation)):
        raise ValueError(
            f"{source}: `{name}` has numbers too large to be standardised, or NaN where they count."
        )
    # what differs by rounding alone is constant
    constant = deviation <= 16 * np.finfo(float).eps * np.abs(mean)
    return tuple(mean.tolist()), tuple(np.where(constant, 1.0, deviation).tolist())


def _pieces(part: Part) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Some rows at a time: which, their inputs in float64, and which steps count."""
    x = part.x
    size = max(1, _AT_ONCE // math.prod(x.shape[1:]))
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        values = x[rows].astype(np.float64)
        if x.ndim == 2:
            yield rows, values, np.ones(len(values), bool)
            continue
        lengths = None if part.lengths is None else part.lengths[rows]
        yield rows, values, _before(lengths, len(values), x.shape[1])


def _before(lengths: np.ndarray | None, count: int, steps: int) -> np.ndarray:
    """Which steps are before the end of each sequence, (count, steps)."""
    if lengths is None:
        return np.ones((count, steps), bool)
    return np.arange(steps) < lengths[:, None]
