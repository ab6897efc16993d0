"""The precision in which balls are computed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flint import ctx

_ALONE = threading.RLock()


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Balls of so many bits within this block.

    python-flint has one precision for all threads of a process, so the block of another thread
    waits until this one is left.
    """
    with _ALONE, ctx.workprec(bits):
        yield
