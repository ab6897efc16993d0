"""The IDX format of the MNIST family: arrays to and from bytes, plain or gzipped.

An IDX file is two zero bytes, a type code (8: unsigned bytes, the only one read here), the number
of dimensions, each dimension as a big-endian 32-bit integer, then the values in row-major order.
"""

import gzip
import io
import math
import zlib
from collections.abc import Collection
from io import BufferedIOBase

import numpy as np
from jaxtyping import UInt8

UNSIGNED_BYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"

_MOST_LAYERS = 4


def header_size(ndim: int) -> int:
    """Bytes before the first value of an array of `ndim` dimensions."""
    return 4 + 4 * ndim


def decode(content: bytes, source: str, ndim: int) -> UInt8[np.ndarray, "..."]:
    """The array of `ndim` dimensions in `content`: a read-only view, nothing is copied.

    `source` is the name of the file, for messages. Raises `ValueError`, naming it, if the magic
    number differs or the length does not fit the declared shape; so a shape too large for the
    content is refused before memory is allocated.
    """
    expected = bytes([0, 0, UNSIGNED_BYTE, ndim])
    if content[:4] != expected:
        raise ValueError(
            f"`{source}` begins with the bytes {content[:4].hex() or '(none)'}; an IDX file of "
            f"unsigned bytes with {ndim} dimension(s) begins with {expected.hex()}."
        )
    start = header_size(ndim)
    if len(content) < start:
        raise ValueError(f"`{source}` ends within its header of {start} bytes.")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", ndim, offset=4))
    declared = start + math.prod(shape)
    if declared != len(content):
        raise ValueError(
            f"`{source}` declares the shape {shape}, which needs {declared} bytes, "
            f"but has {len(content)}."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_one(stream: BufferedIOBase, source: str, shapes: Collection[tuple[int, ...]]) -> bytes:
    """The content of the IDX file in `stream`, if its array has one of the `shapes`.

    Raises `ValueError`, naming `source`, for another shape, before the content is read, or another
    length.
    """
    begin = stream.read(4)
    ndim = begin[3] if len(begin) == 4 else 0
    header = begin + stream.read(4 * ndim)
    shape = tuple(int(size) for size in np.frombuffer(header[4:], ">u4", len(header) // 4 - 1))
    if shape not in shapes or len(header) != header_size(ndim):
        raise ValueError(f"`{source}` is an IDX file of the shape {shape}, which none here has.")
    content = header + stream.read(math.prod(shape) + 1)
    decode(content, source, ndim)
    return content


def encode(array: np.ndarray) -> bytes:
    """`array`, of type uint8, as the bytes of an IDX file."""
    if array.dtype != np.uint8:
        raise ValueError(f"`array` must be of type uint8, not {array.dtype}.")
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim])
    return header + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def unpack(raw: bytes, limit: int, source: str) -> bytes:
    """`raw` itself, or what it holds if it is gzipped; never more than `limit` bytes.

    Data gzipped twice, for example by a server, are unpacked twice.

    Raises `ValueError` naming `source` if the gzip stream is truncated or damaged, or if there are
    more than `limit` bytes, whatever the header says.
    """
    most = limit + limit // 100 + 1024  # gzip adds little to what it cannot compress
    content = raw
    for _ in range(_MOST_LAYERS):
        if content[:2] != GZIP_MAGIC:
            break
        try:
            # reading past the limit detects an excess, and reaches the check sum
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(most)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"`{source}` is a truncated or damaged gzip file: {error}.") from None
    if len(content) > limit:
        raise ValueError(f"`{source}` holds more than the {limit} bytes that were expected.")
    return content
