"""Keeps compiled programs for the next call in the user's cache folder."""

import os
import warnings
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from organics.files.cache import user_cache

LIMIT = 512 * 2**20  # bytes; beyond them the oldest half is removed


def keep() -> None:
    """Set JAX's compilation cache, unless the user has set it. Call before JAX is imported.

    An entry that JAX cannot read, such as one truncated by a full disk, is compiled again each
    time.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") is not None:
        return
    if (folder := place()) is None:
        return
    with suppress(OSError):  # without the folder JAX compiles each time
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder, LIMIT)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        message = "Error (reading|writing) persistent compilation cache"
        warnings.filterwarnings("ignore", message, UserWarning)


def place() -> Path | None:
    """The folder, separate for each kind of processor, as machines may share a home; None if there
    is no cache."""
    if (cache := user_cache()) is None:
        return None
    kind = sha256(_processor().encode()).hexdigest()[:16]
    return cache / "compiled" / kind


def _processor() -> str:
    """Name and instruction set of the processor, if the system tells."""
    import platform

    wanted, found = ("model name", "flags", "Features"), [platform.machine()]
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if not line.strip():  # the other processors are alike
                break
            if line.startswith(wanted):
                found.append(line)
    return "".join(found)


def prune(folder: Path, limit: int) -> None:
    """If the folder holds more than `limit` bytes, remove the oldest files, down to half of
    that."""
    files = [(entry.stat(), entry.path) for entry in os.scandir(folder)]
    size = sum(status.st_size for status, _ in files)
    if size <= limit:
        return
    for status, path in sorted(files, key=lambda file: file[0].st_mtime):
        if size <= limit // 2:
            break
        Path(path).unlink(missing_ok=True)
        size -= status.st_size
