"""Functions for other processes, which import this module quickly, and checks on them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from organics.files.atomic import write_atomically


def leave(folder: Path, name: str) -> None:
    """Write to a file where this ran."""
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    (folder / name).write_text(f"{os.getpid()} {len(processors)}")


def refuse_soon(folder: Path, name: str) -> None:
    """Fail for the name "bad"; take half a second for others."""
    (folder / name).write_text("")
    if name == "bad":
        raise ValueError("this one is bad")
    time.sleep(0.5)


def refuse(folder: Path, name: str) -> None:
    """Fail for the name "bad"; run on for a minute for others."""
    (folder / name).write_text("")
    if name == "bad":
        raise ValueError("this one is bad")
    time.sleep(60)


def stay(folder: Path, number: int) -> None:
    """Leave the process's number in a file, and do not end."""
    del number
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def wait_for(look: Callable[[], list[int]], count: int) -> list[int]:
    """What `look` finds, once it is `count` items; within a minute."""
    for _ in range(600):
        if len(found := look()) == count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{found} after a minute")


def running(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


def slowly(folder: Path, number: int) -> None:
    """Write a file whose name says that this began, and where. Half a second later, write the
    result to another."""
    (folder / f"begun-{number}-{os.getpid()}").touch()
    time.sleep(0.5)
    write_atomically(folder / f"{number}.txt", str(number**2).encode())


def deadly(folder: Path, number: int) -> None:
    """Kill the process if the number is 1."""
    (folder / f"begun-{number}-{os.getpid()}").touch()
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
