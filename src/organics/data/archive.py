"""Untrusted folders, archives and files, searched for data sets.

Files are recognised by content; names appear only in messages. No path in an archive is written to
and no link in it followed. What a file declares is compared with what is wanted before it is read,
and the decompressed bytes are counted and limited.
"""

import bz2
import gzip
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from organics.data.convert import Shapes, from_npy, from_table, is_table
from organics.data.idx import GZIP_MAGIC, UNSIGNED_BYTE, read_one
from organics.data.parquet import from_parquet
from organics.data.records import Records, read_records
from organics.files import npy

MAX_FILES = 20_000
"""Largest number of files examined in a folder or an archive."""
MAX_ARCHIVE_BYTES = 1 << 29
"""Largest number of bytes decompressed from a file."""
MAX_IN_FOLDER = 1 << 28
"""Larger files in a folder, in bytes, are examined only if named themselves."""

_BLOCK = 512  # of a tar archive
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders: no bytes follow
_CHUNK = 1 << 16
_MOST_LAYERS = 4  # of nested archives and compressed files
_DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    GZIP_MAGIC: lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_OTHERS = {
    b"\x80\2": "a Python pickle, which is never opened",
    b"\x80\3": "a Python pickle, which is never opened",
    b"\x80\4": "a Python pickle, which is never opened",
    b"\x80\5": "a Python pickle, which is never opened",
    b"\x89HDF": "an HDF5 file",
    b"ARROW1": "an Arrow file",
    b"MATLAB": "a MATLAB file",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"(\xb5/\xfd": "a file compressed by Zstandard",
    b"\x1f\x9d": "a file compressed by compress",
    b"version https://git-lfs": "only the pointer that Git LFS keeps in place of a file",
    b"<": "a web page",
}
_NEEDED = (
    "What is read are IDX files, .npy, .npz, .csv and .parquet, and folders, .zip and .tar of them."
)
_PARQUET = b"PAR1"
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    NotImplementedError,
    RuntimeError,  # of an encrypted member
)
"""What decompressors raise."""


Wanted = Shapes | Records


class Candidate(NamedTuple):
    """A possible file of the data set: where it is, for messages, and its uncompressed content as
    the data set has it, or else what is wrong with it."""

    name: str
    content: bytes | None
    problem: str = ""


class _TooMuch(Exception):
    """A file exceeds the limits."""


class _Budget:
    """Bytes that may still be decompressed, and files that may still be examined."""

    def __init__(self):
        self._bytes, self._files = MAX_ARCHIVE_BYTES, MAX_FILES

    def charge(self, size: int) -> None:
        """Count decompressed or declared bytes; raises `_TooMuch` beyond the limit."""
        if size > self._bytes:
            raise _TooMuch(f"holds more than {MAX_ARCHIVE_BYTES} bytes")
        self._bytes -= size

    def count(self) -> None:
        """Count a file."""
        self._files -= 1
        if self._files < 0:
            raise _TooMuch(f"holds more than {MAX_FILES} files")


class _Counted(io.RawIOBase):
    """The first `size` bytes of a stream, or all; charges a budget, if there is one."""

    def __init__(self, stream: io.BufferedIOBase, size: int | None, budget: _Budget | None):
        super().__init__()
        self._stream, self._left, self._budget = stream, size, budget
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        content = self._stream.read(wanted)
        if self._left is not None:
            self._left -= len(content)
            if wanted and not content:
                raise EOFError("it is truncated")
        if self._budget is not None:
            self._budget.charge(len(content))
        self._position += len(content)
        buffer[: len(content)] = content
        return len(content)


def _reader(counted: _Counted) -> io.BufferedReader:
    return io.BufferedReader(counted, _CHUNK)


class _File(NamedTuple):
    """A file to examine: its name, for messages; its bytes and, if known, their number; the file
    itself, if it is on disk; and how deeply it is nested in archives."""

    name: str
    reader: io.BufferedReader
    size: int | None
    on_disk: io.BufferedIOBase | None
    layer: int


def candidates(path: Path, wanted: Wanted) -> Generator[Candidate, None, None]:
    """Everything in `path` that is `wanted`, and errors of files that might be.

    `path` is a folder (searched with the folders in it), an archive (tar, zip), or a file: IDX,
    NumPy's `.npy` and `.npz`, or a table (CSV, Parquet); for a data set of records, one of its
    files. All of these may be compressed (gzip,
    bzip2, xz), also repeatedly, and lie in an archive.

    Raises `ValueError`, with what `path` is, if it is none of these, is damaged, or exceeds the
    limits.
    """
    if path.is_dir():
        yield from _in_folder(path, wanted)
        return
    if not path.is_file():
        raise ValueError(f"`{path}` is neither a folder nor a file.")
    try:
        yield from _on_disk(path, wanted, 0)
    except OSError as error:
        raise ValueError(f"`{path}` cannot be read: {error.strerror or error}.") from None


def _in_folder(folder: Path, wanted: Wanted) -> Iterator[Candidate]:
    n_files = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            n_files += 1
            if n_files > MAX_FILES:
                raise ValueError(f"`{folder}` holds more than {MAX_FILES} files; name one nearer.")
            path = Path(parent, name)
            if not path.is_file():  # a pipe or a device, from which a read may never return
                continue
            try:
                if path.stat().st_size > MAX_IN_FOLDER:
                    raise ValueError(f"`{path}` is large: name it itself to have it looked into.")
                yield from _on_disk(path, wanted, 1)
            except OSError as error:
                yield Candidate(str(path), None, f"`{path}`: {error.strerror}.")
            except ValueError as error:
                yield Candidate(str(path), None, str(error))


def _on_disk(path: Path, wanted: Wanted, layer: int) -> Iterator[Candidate]:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        reader = _reader(_Counted(stream, size, None))
        try:
            yield from _in_file(_File(str(path), reader, size, stream, layer), wanted, _Budget())
        except _TooMuch as error:
            raise ValueError(f"`{path}` {error}.") from None


def _in_file(file: _File, wanted: Wanted, budget: _Budget) -> Iterator[Candidate]:
    """The candidates in a file.

    Raises `ValueError`, naming the file, if it is damaged or of another format; for a file that was
    not named itself, only if it may be a data set in another format.
    """
    budget.count()
    try:
        head = file.reader.peek(_BLOCK)
        if inside := _inside(head):
            if file.layer == _MOST_LAYERS:
                raise ValueError(f"`{file.name}` lies in too many archives.")
            yield from inside(file, wanted, budget)
            return
        for content in _contents(head, file, wanted):
            yield Candidate(file.name, content)
    except _DAMAGE as error:
        why = str(error)[:200] or type(error).__name__
        raise ValueError(f"`{file.name}` cannot be read: {why}.") from None


def _contents(head: bytes, file: _File, wanted: Wanted) -> list[bytes]:
    """The contents of a file that is not an archive, as files of the data set."""
    if isinstance(wanted, Records):
        return _records(head, file, wanted)
    return _arrays(head, file, wanted)


def _records(head: bytes, file: _File, wanted: Records) -> list[bytes]:
    """Names decide only whether a file in a folder or archive that is none is worth a word."""
    other = _other(head)
    pickle = other is not None and "pickle" in other
    if pickle or (file.layer == 0 and head[:1] > b"\x09"):
        what = other or "no archive and no file of records"
        raise ValueError(f"`{file.name}` is {what}. {wanted.words}")
    one_of_many = file.layer > 0 and not file.name.endswith(".bin")
    if one_of_many and file.size is not None and file.size not in wanted.sizes:
        return []
    return [read_records(file.reader, file.name, wanted)]


def _arrays(head: bytes, file: _File, shapes: Shapes) -> list[bytes]:
    if head.startswith(bytes([0, 0, UNSIGNED_BYTE])):
        return [read_one(file.reader, file.name, shapes)]
    if head.startswith(npy.MAGIC):
        return from_npy(file.reader, file.size, file.name, shapes)
    if head.startswith(_PARQUET):
        return from_parquet(_whole(file), file.name, shapes)
    if is_table(head):
        return from_table(file.reader, file.name, shapes)
    other = _other(head)
    if other is None and file.layer > 0:
        return []
    raise ValueError(f"`{file.name}` is {other or 'no archive and no file of data'}. {_NEEDED}")


def _other(head: bytes) -> str | None:
    """What a file beginning with `head` is, if it is known not to be read."""
    return next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None)


def _whole(file: _File) -> bytes:
    content = file.reader.read(MAX_IN_FOLDER + 1)
    if len(content) > MAX_IN_FOLDER:
        raise ValueError(f"`{file.name}` holds more than {MAX_IN_FOLDER} bytes.")
    return content


def _inside(head: bytes) -> Callable[[_File, Wanted, _Budget], Iterator[Candidate]] | None:
    """The function that opens a file beginning with `head`, if it is an archive or compressed."""
    if any(head.startswith(magic) for magic in _DECOMPRESSORS):
        return _in_compressed
    if head.startswith(b"PK"):
        return _in_zip
    return _in_tar if _is_tar_header(head[:_BLOCK]) else None


def _in_compressed(file: _File, wanted: Wanted, budget: _Budget) -> Iterator[Candidate]:
    head = file.reader.peek(_BLOCK)
    decompress = next(d for magic, d in _DECOMPRESSORS.items() if head.startswith(magic))
    reader = _reader(_Counted(decompress(file.reader), None, budget))
    yield from _in_file(_File(file.name, reader, None, None, file.layer + 1), wanted, budget)


def _in_zip(file: _File, wanted: Wanted, budget: _Budget) -> Iterator[Candidate]:
    with _opened_zip(file) as archive:
        for member in archive.infolist():
            name = _printable(file.name, member.filename)
            if member.filename.endswith("/"):  # a folder
                continue
            try:
                with npy.open_member(archive, member, name) as stream:
                    reader = _reader(_Counted(stream, member.file_size, budget))
                    inner = _File(name, reader, member.file_size, None, file.layer + 1)
                    yield from _in_file(inner, wanted, budget)
            except ValueError as error:
                yield Candidate(name, None, str(error))


def _opened_zip(file: _File) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file.on_disk or io.BytesIO(file.reader.read()))
    except (ValueError, IndexError) as error:  # for names that cannot be decoded
        raise zipfile.BadZipFile(str(error)) from None


def _in_tar(file: _File, wanted: Wanted, budget: _Budget) -> Iterator[Candidate]:
    # Files are recognised by content, so little of the format matters but the size in the header;
    # its extensions (long names, further attributes) are read as members.
    while (header := file.reader.read(_BLOCK)).strip(b"\0"):
        if not _is_tar_header(header):
            raise EOFError("a header has a wrong check sum, or is cut off")
        size = 0 if header[156:157] in _WITHOUT_CONTENT else _octal(header[124:136])
        padded = -(-size // _BLOCK) * _BLOCK
        if file.on_disk:  # decompressed bytes are counted instead
            budget.charge(_BLOCK + padded)
        name = _printable(file.name, header[:100].split(b"\0")[0].decode("utf-8", "replace"))
        counted = _Counted(file.reader, size, None)
        inner = _File(name, _reader(counted), size, None, file.layer + 1)
        try:
            yield from _in_file(inner, wanted, budget) if size else ()
        except ValueError as error:
            yield Candidate(name, None, str(error))
        left = padded - counted.tell()
        while left:
            if not (passed := file.reader.read(min(_CHUNK, left))):
                raise EOFError("it is truncated")
            left -= len(passed)


def _is_tar_header(header: bytes) -> bool:
    if len(header) != _BLOCK or not header.strip(b"\0"):
        return False
    # the check sum is computed with its own field as spaces
    total = sum(header[:148]) + sum(header[156:]) + 8 * ord(" ")
    try:
        return _octal(header[148:156]) == total and _octal(header[124:136]) >= 0
    except EOFError:
        return False


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise EOFError("a number in a header is not octal")
    return int(digits, 8)


def _printable(archive: str, name: str) -> str:
    """`name` in an archive, fit for a terminal."""
    return f"{archive}: {''.join(c if c.isprintable() else '?' for c in name[:100])}"
