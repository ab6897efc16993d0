"""Files of records, each a label and a colour image: the binary version of CIFAR-10.

A record is one byte, the class from 0 to 9, then the red, the green and the blue values of
32 x 32 pixels, each row by row. Nothing separates records.

Source: Krizhevsky 2009.
"""

import math
from io import BufferedIOBase
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

IMAGE = (32, 32, 3)
RECORD = 1 + math.prod(IMAGE)
"""Bytes of a record."""
_CLASSES = 10


class Records(NamedTuple):
    """What a file of a data set must be: its possible sizes in bytes, the files' names, and where
    they are from."""

    sizes: tuple[int, ...]
    names: tuple[str, ...]
    source: str

    @property
    def words(self) -> str:
        """What is needed, as a sentence."""
        files = f"{self.names[0]} to {self.names[-1]}"
        return f"What is read is the binary version, {files}: get {self.source}."


def read_records(stream: BufferedIOBase, source: str, wanted: Records) -> bytes:
    """The content of the file in `stream`.

    Raises `ValueError`, naming `source`, if it has another size, or a label above 9.
    """
    most = max(wanted.sizes)
    content = stream.read(most + 1)
    if len(content) not in wanted.sizes:
        has = f"more than {most}" if len(content) > most else str(len(content))
        needed = " or ".join(
            f"{size}, {size // RECORD} records of {RECORD}" for size in sorted(wanted.sizes)
        )
        raise ValueError(f"`{source}` has {has} bytes, not {needed}.")
    labels = np.frombuffer(content, np.uint8)[::RECORD]
    wrong = np.flatnonzero(labels >= _CLASSES)
    if len(wrong):
        raise ValueError(
            f"`{source}`: record {wrong[0]} has the label {labels[wrong[0]]}, not one from 0 to "
            f"{_CLASSES - 1}."
        )
    return content


def images_and_labels(
    content: bytes,
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, " n"]]:
    """The images, (n, height, width, colours), and labels of records."""
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    height, width, colours = IMAGE
    planes = records[:, 1:].reshape(-1, colours, height, width)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    images.flags.writeable = False
    return images, records[:, 0]
