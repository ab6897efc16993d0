"""What other processes do in the tests, in a module that takes no time to import."""

import os
import time
from pathlib import Path


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
