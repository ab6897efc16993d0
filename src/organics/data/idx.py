"""The IDX format of the MNIST family: arrays to and from bytes, plain or gzipped.

An IDX file is two zero bytes, a type code (8: unsigned bytes, the only one read here), the number
of dimensions, each dimension as a big-endian 32-bit integer, then the values in row-major order.
"""

import gzip
import io
import math
import zlib

import numpy as np
from jaxtyping import UInt8

UNSIGNED_BYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"


def header_size(ndim: int) -> int:
    """Bytes before the first value of an array of `ndim` dimensions."""
    return 4 + 4 * ndim


def decode(content: bytes, source: str, ndim: int) -> UInt8[np.ndarray, "..."]:
    """The array of `ndim` dimensions in `content`: a read-only view, nothing is copied.

    `source` is the name of the file, for messages. Raises `ValueError` naming it if the magic
    number differs or the length is not what the declared shape needs; a shape too large for the
    content is thus refused before any memory is taken for it.
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


def encode(array: np.ndarray) -> bytes:
    """`array`, of type uint8, as the bytes of an IDX file."""
    if array.dtype != np.uint8:
        raise ValueError(f"`array` must be of type uint8, not {array.dtype}.")
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim])
    return header + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def unpack(raw: bytes, limit: int, source: str) -> bytes:
    """`raw` itself, or what it holds if it is gzipped; never more than `limit` bytes.

    Raises `ValueError` naming `source` if the gzip stream is truncated or damaged, or if there are
    more than `limit` bytes, whatever a header says of them.
    """
    content = raw
    if raw[:2] == GZIP_MAGIC:
        try:
            # reading one byte past the limit both finds an excess and reaches the check sum
            content = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(limit + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"`{source}` is a truncated or damaged gzip file: {error}.") from None
    if len(content) > limit:
        raise ValueError(f"`{source}` holds more than the {limit} bytes that were expected.")
    return content
