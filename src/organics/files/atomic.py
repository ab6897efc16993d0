"""Writes files whole or not at all, and reads them with limits; errors name the file."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LEFTOVERS = f".{'[0-9a-f]' * 32}.tmp"
"""Pattern of the temporary files that a killed process leaves behind."""


@contextmanager
def naming(path: str | Path, doing: str) -> Iterator[None]:
    """Make every `OSError` inside the block say what failed, and for which file.

    `doing` is a verb: "read", "write". The error keeps its class and `errno`, with the message
    "cannot <doing> <path>: <why>".
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        named = type(error)(f"cannot {doing} {path}: {why}")
        named.errno = error.errno
        raise named from error


def require_folder_of(path: Path) -> None:
    """Raise `FileNotFoundError` if the folder of a file that is to be written does not exist."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist.")


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`; on any failure the file is the complete old one or the complete new
    one, which has the permissions of the old one. Where `path` is a link, the file behind it is
    written.

    This holds even if the power fails: the data are on disk before the file is renamed, and the new
    name is on disk on return.

    Raises `FileNotFoundError` if the folder does not exist, and `OSError` if the file cannot be
    written; both name it.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    require_folder_of(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    with naming(path, "write"):
        try:
            with temporary.open("wb") as stream:
                if path.exists():
                    shutil.copymode(path, temporary)
                _put_on_disk(stream, data)
            temporary.replace(path)
            _put_names_on_disk(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def append(path: str | Path, data: bytes) -> None:
    """Append `data` to a file, which need not exist; on return the data are on disk.

    Raises `OSError`, naming the file, if that fails; part of `data` may then have been appended.
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

    Raises `ValueError`, before reading, if it is larger or not a regular file: a pipe or a device
    may never end. Raises `OSError`, naming the file, if it cannot be read.
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
    """Remove temporary files of killed processes from `folder`. Nobody may be writing there.

    Files that cannot be removed stay.
    """
    for path in folder.glob(LEFTOVERS):
        with suppress(OSError):
            path.unlink()


def _put_on_disk(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())


def _put_names_on_disk(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and this is not needed
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system supports it
            raise
    finally:
        os.close(descriptor)
