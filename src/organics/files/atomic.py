"""Files that are written whole or not at all, and read with distrust; failures name the file."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LEFTOVERS = ".*.tmp"
"""Names of the files that a process leaves behind which is killed while it writes."""


@contextmanager
def naming(path: str | Path, doing: str) -> Iterator[None]:
    """Have every `OSError` within say what could not be done, and to which file.

    `doing` is a verb: "read", "write". The error that is raised has the class and the `errno` of
    the one that was met, and the message "cannot <doing> <path>: <why>".
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        named = type(error)(f"cannot {doing} {path}: {why}")
        named.errno = error.errno
        raise named from error


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`; whatever goes wrong, the file is the old one or the new one, whole.

    That holds if the power fails, too: the data are on the disk before the file has its name, and
    the name is when this returns.

    Raises `FileNotFoundError` if the folder does not exist, and `OSError` if it cannot be written;
    both name the file.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist.")
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    with naming(path, "write"):
        try:
            with temporary.open("wb") as stream:
                _put_on_disk(stream, data)
            temporary.replace(path)
            _put_names_on_disk(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def append(path: str | Path, data: bytes) -> None:
    """Add `data` to the end of a file, which need not exist; it is on the disk on return.

    Raises `OSError`, naming the file, if that fails; a part of `data` may then have been added.
    """
    path = Path(path)
    with naming(path, "write"):
        new = not path.exists()
        with path.open("ab") as stream:
            _put_on_disk(stream, data)
        if new:
            _put_names_on_disk(path.parent)


def read_whole(path: str | Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes.

    Raises `ValueError` if it is larger, or no regular file: a pipe or a device may have no end.
    Raises `OSError`, naming the file, if it cannot be read. Nothing is read before.
    """
    path = Path(path)
    with naming(path, "read"):
        if path.exists() and not path.is_file():
            raise ValueError("is not a regular file.")
        size = path.stat().st_size
        if size > limit:
            raise ValueError(f"has {size} bytes; at most {limit} are read.")
        with path.open("rb") as stream:
            return stream.read(size)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing in `folder`, where nobody may be writing now.

    What cannot be removed stays.
    """
    for path in folder.glob(LEFTOVERS):
        with suppress(OSError):
            path.unlink()


def _put_on_disk(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())


def _put_names_on_disk(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and needs no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can do it
            raise
    finally:
        os.close(descriptor)
