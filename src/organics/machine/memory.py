"""The memory of this machine, to refuse work that does not fit before it begins."""

import os
from pathlib import Path

_LIMITS = (  # limits of this process's control group, on Linux
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def require_memory(size: int | float, name: str, what: str) -> None:
    """Refuse work that needs at least `size` bytes at once if this machine has fewer.

    `name` is the argument or file that causes it, and `what` says what needs the memory.

    Raises `ValueError`, naming both; never if the memory of the machine is unknown.
    """
    most = available()
    if most is not None and size > most:
        raise ValueError(
            f"`{name}` asks for too much memory: {what} needs {_in_words(size)} or more, and there "
            f"are {_in_words(most)}."
        )


def available() -> int | None:
    """Bytes available to this process if no other used any; None if unknown."""
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
