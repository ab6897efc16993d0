"""A lock for a folder: one process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from organics.files.atomic import naming

NAME = ".organics.lock"
"""Name of the lock file. The file alone does not mean that the folder is locked."""


class Taken(Exception):
    """Another process or thread holds the lock."""


@contextmanager
def alone_in(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of the folder, which is made if needed; the lock ends with the process at the
    latest.

    It only excludes others that use this lock. Raises `Taken` if another holds it, unless `wait` is
    true, and `OSError`, naming the file, if it cannot be locked.
    """
    from filelock import FileLock, Timeout

    path = folder / NAME
    lock = FileLock(path, timeout=-1 if wait else 0, thread_local=False)
    with naming(path, "lock"):
        try:
            lock.acquire()
        except Timeout:
            raise Taken(f"another process is at work in {folder}.") from None
    try:
        yield
    finally:
        with suppress(OSError):  # some systems cannot remove an open file
            path.unlink()  # before it is released: afterwards it could belong to another process
        lock.release()
