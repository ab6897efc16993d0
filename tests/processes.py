"""What is done in other processes, which soon import this module, and a look at them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from organics.files.atomic import write_atomically


def leave(folder: Path, name: str) -> None:
    """Says in a file where it ran."""
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    (folder / name).write_text(f"{os.getpid()} {len(processors)}")


def refuse(folder: Path, name: str) -> None:
    """Fails, for one; goes on long after, for others."""
    (folder / name).write_text("")
    if name == "bad":
        raise ValueError("this one is bad")
    time.sleep(60)


def stay(folder: Path, number: int) -> None:
    """Leaves its process's number, and does not end."""
    del number
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def wait_for(look: Callable[[], list[int]], count: int) -> list[int]:
    """What there is to be seen, as soon as it is so many; within a minute."""
    for _ in range(600):
        if len(found := look()) == count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{found} after a minute")


def running(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of one that ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


def slowly(folder: Path, number: int) -> None:
    """Says in the name of a file that it has begun, and where; half a second later in one, what
    came of it."""
    (folder / f"begun-{number}-{os.getpid()}").touch()
    time.sleep(0.5)
    write_atomically(folder / f"{number}.txt", str(number**2).encode())


def deadly(folder: Path, number: int) -> None:
    """Ends its process, for one number."""
    (folder / f"begun-{number}-{os.getpid()}").touch()
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
