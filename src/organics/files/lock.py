"""One process at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from organics.files.atomic import naming

NAME = ".lock"
"""Of the file that stands for the lock. It may be left over; that says nothing."""


class Taken(Exception):
    """Another process, or thread, has the folder."""


@contextmanager
def alone_in(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Have the folder, made if need be, for oneself meanwhile; the lock ends with the process.

    Only those keep out who ask for this lock, too. Raises `Taken` if another has it, unless it is
    to `wait`, and `OSError`, naming the file, if there can be no lock.
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
        with suppress(OSError):  # where a file that is open cannot be removed
            path.unlink()  # before it is released: afterwards it could be that of another
        lock.release()
