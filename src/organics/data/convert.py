"""Arrays and tables that hold the numbers of a data set, as the contents of its IDX files.

Check sums then decide whether the numbers are those of the data set, in its order.
"""

import codecs
import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from organics.data.idx import encode
from organics.files import npy

Shapes = Sequence[tuple[int, ...]]
"""Of the four files: training images, training labels, test images, test labels."""

_LONGEST_LINE = 1 << 16
_LABEL_NAMES = ("label", "class", "target", "y")


def from_npy(stream: io.BufferedReader, size: int | None, name: str, shapes: Shapes) -> list[bytes]:
    """The contents of the IDX files whose numbers are in the array in `stream`, of `size` bytes.

    Raises `ValueError`, with a description of the array, if it holds none of them.
    """
    header = npy.read_header(stream, size, name)
    if header.dtype.hasobject:
        raise ValueError(f"`{name}` holds Python objects, which are never opened.")
    if header.dtype.kind not in "buif":
        raise ValueError(f"`{name}` is made of {header.dtype}, not of numbers.")
    if not fitting(header.size, shapes):
        raise ValueError(f"`{name}` is an array of shape {header.shape}.{_needed(shapes)}")
    return contents(npy.read_entries(stream, header, name), name, shapes)


def is_table(head: bytes) -> bool:
    """Whether a file beginning with `head` is a table: a line of values separated by commas."""
    line, newline, _ = head.removeprefix(codecs.BOM_UTF8).partition(b"\n")
    return bool(newline) and b"," in line and line.strip().isascii() and b"\0" not in line


def from_table(stream: io.BufferedReader, name: str, shapes: Shapes) -> list[bytes]:
    """The contents of the IDX files whose numbers are in the table in `stream`, one example per
    row.

    A row is the label, then the pixels row by row; with a first line of names, the label may come
    last. Raises `ValueError` for another table, with a description of it.
    """
    pixels = int(np.prod(shapes[0][1:]))
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace")
    lines = filter(str.strip, iter(lambda: text.readline(_LONGEST_LINE), ""))
    first = next(lines)
    fields = [field.strip().strip("\"'").lower() for field in first.split(",")]
    if len(fields) != 1 + pixels:
        raise ValueError(
            f"`{name}` is a table of {len(fields)} columns; {1 + pixels} are needed: the label and "
            f"{pixels} pixels."
        )
    named = not all(field.replace(".", "", 1).isdigit() for field in fields)
    label = next((i for i, field in enumerate(fields) if field in _LABEL_NAMES), 0)
    table = _numbers(lines if named else chain([first], lines), name, shapes)
    images = np.delete(table, label, axis=1)
    if not fitting(images.size, shapes):
        raise ValueError(f"`{name}` is a table of {len(table)} examples.{_needed(shapes)}")
    return [*contents(table[:, label], name, shapes), *contents(images, name, shapes)]


def _numbers(lines: Iterator[str], name: str, shapes: Shapes) -> np.ndarray:
    first = next(lines, "")
    if not first:
        raise ValueError(f"`{name}` is a table without examples.")
    most = shapes[0][0] + shapes[2][0]
    try:
        return np.loadtxt(
            islice(chain([first], lines), most + 1),
            np.float32 if "." in first else np.uint8,
            delimiter=",",
            comments=None,
            quotechar='"',
            ndmin=2,
        )
    except ValueError as error:
        raise ValueError(f"`{name}` is no table of numbers from 0 to 255: {error}.") from None


def contents(array: np.ndarray, name: str, shapes: Shapes) -> list[bytes]:
    """The contents of the IDX files whose numbers are those of `array`, in order.

    Raises `ValueError`, naming it, for numbers that are not whole and from 0 to 255.
    """
    with np.errstate(invalid="ignore"):
        values = array.astype(np.uint8)
    if not np.array_equal(values, array):
        raise ValueError(f"`{name}` has values that are not whole numbers from 0 to 255.")
    flat = values.reshape(-1)
    return [
        encode(flat[start : start + int(np.prod(shape))].reshape(shape))
        for start, shape in fitting(flat.size, shapes)
    ]


def fitting(count: int, shapes: Shapes) -> list[tuple[int, tuple[int, ...]]]:
    """Which parts of the data set `count` examples can be: the start and the shape of each."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    whole = [(0, shape) for shape, size in zip(shapes, sizes, strict=True) if size == count]
    for train, test in ((0, 2), (1, 3)):  # images, labels
        if sizes[train] + sizes[test] == count:
            whole += [(0, shapes[train]), (sizes[train], shapes[test])]
    return whole


def _needed(shapes: Shapes) -> str:
    train, _, test, _ = shapes
    return f" There are {train[0]} examples to train and {test[0]} to test."
