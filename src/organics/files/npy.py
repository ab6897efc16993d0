"""NumPy's array files (`.npy`, the members of `.npz`), strictly checked when read.

No pickle is ever opened, and the size that an array declares is compared with the bytes in the file
before memory is allocated.
"""

import math
import reprlib
import zipfile
from io import BufferedIOBase
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

MAGIC = b"\x93NUMPY"


class Header(NamedTuple):
    """What an array declares about itself."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def read_header(stream: BufferedIOBase, size: int | None, name: str) -> Header:
    """Read the header of the array in `stream`, of `size` bytes; its entries come next.

    Raises `ValueError`, calling the array `name`, if there is no valid header or if the entries do
    not fill the bytes. The latter is not checked for Python objects or if the size is unknown.
    """
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    start = stream.tell()
    try:
        version = npy.read_magic(stream)
        header = Header(*readers[version](stream, max_header_size=1024))
    except Exception as error:  # numpy evaluates the header as a Python literal
        raise ValueError(f"`{name}` has no valid array header: {str(error)[:200]}.") from None
    expected = header.size * header.dtype.itemsize
    left = expected if size is None else size - (stream.tell() - start)
    if (expected != left and not header.dtype.hasobject) or any(axis < 0 for axis in header.shape):
        raise ValueError(
            f"`{name}` declares shape {reprlib.repr(header.shape)} of {header.dtype} but has "
            f"{left} bytes."
        )
    return header


def read_entries(stream: BufferedIOBase, header: Header, name: str) -> np.ndarray:
    """The array whose header was just read from `stream`.

    Raises `ValueError` if it is truncated, or made of Python objects, which are never opened.
    """
    if header.dtype.hasobject:
        raise ValueError(f"`{name}` holds Python objects, which are never opened.")
    expected = header.size * header.dtype.itemsize
    content = stream.read(expected)
    # reading past the last byte makes `zipfile` compare the check sum
    if len(content) != expected or stream.read(1):
        raise ValueError(f"`{name}` is cut short.")
    order = "F" if header.fortran_order else "C"
    return np.frombuffer(content, header.dtype).reshape(header.shape, order=order)


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> BufferedIOBase:
    """Open a member of an archive for reading.

    Raises `ValueError`, calling it `name`, if its compression is unusual, or it is encrypted or
    damaged.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"`{name}` must be stored or deflated in the archive.")
    try:
        return archive.open(member)  # pyright: ignore[reportReturnType]
    except Exception as error:  # a broken archive raises errors of many kinds
        raise ValueError(f"`{name}` cannot be opened: {str(error)[:200]}.") from None
