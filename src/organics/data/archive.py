"""What a folder or an archive holds, read with distrust.

Files are offered by their content. Names serve messages only: no path of an archive is written to,
no link in it is followed. What an archive declares of itself is checked against
what is wanted before a byte is read, and the total that is decompressed is bounded.
"""

import gzip
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Collection, Generator
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

from organics.data.idx import GZIP_MAGIC, unpack

MAX_FILES = 20_000
"""Files looked at before a folder or an archive is refused."""
MAX_ARCHIVE_BYTES = 1 << 29
"""Bytes decompressed before an archive is refused."""

_BLOCK = 512  # of a tar archive
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders: no bytes follow
_CHUNK = 1 << 20


class Candidate(NamedTuple):
    """A file whose size fits: its name, for messages, and its uncompressed content, or else what
    is wrong with it."""

    name: str
    content: bytes | None
    problem: str = ""


def candidates(path: Path, sizes: Collection[int]) -> Generator[Candidate, None, None]:
    """Every file in `path` that has, uncompressed, one of the `sizes` in bytes.

    `path` is a folder (searched with the folders in it) or an archive: tar, gzipped tar, or zip.
    The files may each be gzipped.

    Raises `ValueError` if `path` is neither, is damaged, or holds absurdly much.
    """
    if path.is_dir():
        return _in_folder(path, sizes)
    if not path.is_file():
        raise ValueError(f"`{path}` is neither a folder nor a file.")
    try:
        with path.open("rb") as stream:
            magic = stream.read(2)
    except OSError as error:
        raise ValueError(f"`{path}` cannot be read: {error.strerror}.") from None
    if magic == b"PK":
        return _in_zip(path, sizes)
    return _in_tar(path, sizes, gzipped=magic == GZIP_MAGIC)


class _Budget:
    """Bytes that may still be read."""

    def __init__(self, size: int):
        self._left = size

    def charge(self, size: int) -> None:
        if size > self._left:
            raise ValueError(f"it holds more than {MAX_ARCHIVE_BYTES} bytes")
        self._left -= size


def _candidate(
    name: str, size: int, read: Callable[[int], bytes], sizes: Collection[int], budget: _Budget
) -> Candidate | None:
    """The file of `size` bytes behind `read`, if it is, plain or gzipped, of one of the `sizes`."""
    limit = max(sizes)
    if not 2 <= size <= limit + limit // 100 + 1024:
        return None
    head = read(2)
    gzipped = head == GZIP_MAGIC
    if not gzipped and size not in sizes:
        return None
    budget.charge(size + limit if gzipped else size)
    raw = head + read(size - 2)
    if len(raw) != size:
        return Candidate(name, None, f"`{name}` ends after {len(raw)} of its {size} bytes.")
    try:
        content = unpack(raw, limit, name)
    except ValueError as error:
        return Candidate(name, None, str(error))
    return Candidate(name, content) if len(content) in sizes else None


def _in_folder(folder: Path, sizes: Collection[int]) -> Generator[Candidate, None, None]:
    n_files = 0
    budget = _Budget(sys.maxsize)  # what a user names on their own disk is theirs to have read
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            n_files += 1
            if n_files > MAX_FILES:
                raise ValueError(f"`{folder}` holds more than {MAX_FILES} files; name one nearer.")
            path = Path(parent, name)
            try:
                if path.is_file():  # not a pipe or a device, from which a read may never return
                    with path.open("rb") as stream:
                        size = os.fstat(stream.fileno()).st_size
                        candidate = _candidate(str(path), size, stream.read, sizes, budget)
                else:
                    candidate = None
            except OSError as error:
                candidate = Candidate(str(path), None, f"`{path}`: {error.strerror}.")
            if candidate is not None:
                yield candidate


def _in_zip(path: Path, sizes: Collection[int]) -> Generator[Candidate, None, None]:
    budget = _Budget(MAX_ARCHIVE_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_FILES:
                raise ValueError(f"it holds more than {MAX_FILES} files")
            for member in members:
                readable = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                if member.is_dir() or member.flag_bits & 1 or not readable:
                    continue
                with archive.open(member) as stream:
                    name = _printable(path, member.filename)
                    size = member.file_size
                    candidate = _candidate(name, size, stream.read, sizes, budget)
                if candidate is not None:
                    yield candidate
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        NotImplementedError,
    ) as error:
        what = str(error) or type(error).__name__
        raise ValueError(f"`{path}` cannot be read as a zip archive: {what}.") from None


def _in_tar(
    path: Path, sizes: Collection[int], *, gzipped: bool
) -> Generator[Candidate, None, None]:
    # Files are known by their content, so the header's size is nearly all that has to be understood
    # of the format; its extensions (long names, further attributes) are just further members.
    budget = _Budget(MAX_ARCHIVE_BYTES)
    try:
        with gzip.open(path) if gzipped else path.open("rb") as stream:
            for _ in range(MAX_FILES):
                budget.charge(_BLOCK)
                header = stream.read(_BLOCK)
                if not header.strip(b"\0"):
                    return
                name, size = _tar_header(header)
                padded = -(-size // _BLOCK) * _BLOCK
                budget.charge(padded)
                member = _Forward(stream)
                candidate = _candidate(_printable(path, name), size, member.read, sizes, budget)
                if candidate is not None:
                    yield candidate
                member.skip_to(padded)
            raise ValueError(f"it holds more than {MAX_FILES} files")
    except (zlib.error, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"`{path}` cannot be read as an archive (.tgz, .tar, .zip): {error}."
        ) from None


def _tar_header(header: bytes) -> tuple[str, int]:
    """Name, and bytes that follow."""
    if len(header) != _BLOCK:
        raise ValueError(f"it ends within a header of {_BLOCK} bytes")
    # the sum is taken with its own field read as spaces
    total = sum(header[:148]) + sum(header[156:]) + 8 * ord(" ")
    if _octal(header[148:156], "check sum") != total:
        raise ValueError("a header has a wrong check sum")
    name = header[:100].split(b"\0")[0].decode("utf-8", "replace")
    return name, 0 if header[156:157] in _WITHOUT_CONTENT else _octal(header[124:136], "size")


def _octal(field: bytes, what: str) -> int:
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ValueError(f"a header's {what} is not an octal number")
    return int(digits, 8)


class _Forward:
    """A stream that knows how much was read of it, for it may not be able to seek."""

    def __init__(self, stream: BufferedIOBase):
        self._stream = stream
        self._position = 0

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._position += len(content)
        return content

    def skip_to(self, end: int) -> None:
        while self._position < end:
            if not self.read(min(_CHUNK, end - self._position)):
                raise ValueError("it is truncated")


def _printable(path: Path, name: str) -> str:
    """`name` in the archive `path`, fit for a terminal."""
    return f"{path}: {''.join(c if c.isprintable() else '?' for c in name[:100])}"
