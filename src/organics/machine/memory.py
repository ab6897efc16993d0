"""The memory of this machine: work that cannot fit in it is refused before it begins."""

import os
from pathlib import Path

_LIMITS = (  # of the group of processes that this one is in, on Linux
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def require_memory(size: int | float, name: str, what: str) -> None:
    """Refuse what needs at least `size` bytes at once, if this machine has not so many.

    `name` is the argument or the file that asks for it, and `what` says what takes the room.

    Raises `ValueError`, naming both. On a machine that does not say how much it has, never.
    """
    most = available()
    if most is not None and size > most:
        raise ValueError(
            f"`{name}` asks for too much memory: {what} needs {_in_words(size)} or more, and there "
            f"are {_in_words(most)}."
        )


def available() -> int | None:
    """Bytes that this process could have if no other had any; None if that is not to be known."""
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    for limit in _LIMITS:
        try:
            most = min(most, int(limit.read_text()))
        except (OSError, ValueError):  # there is none
            continue
    return most


def _in_words(size: int | float) -> str:
    return f"{size / 1e9:,.1f} GB" if size < 10**15 else f"{size:.1e} bytes"
