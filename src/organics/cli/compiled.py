"""Programs that were compiled once are kept for the next call, in the user's cache folder."""

import os
import warnings
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from organics.files.cache import user_cache

LIMIT = 512 * 2**20  # bytes, of which the oldest half goes when they are exceeded


def keep() -> None:
    """Tell JAX, which must not be imported yet, where; unless the user has told it.

    An entry that JAX cannot read, cut short by a full disk say, is compiled again each time.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") is not None:
        return
    if (folder := place()) is None:
        return
    with suppress(OSError):  # without the folder it compiles each time
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder, LIMIT)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        message = "Error (reading|writing) persistent compilation cache"
        warnings.filterwarnings("ignore", message, UserWarning)


def place() -> Path | None:
    """The folder, one for each kind of processor, as machines may share a user's files; None if
    there is no cache."""
    if (cache := user_cache()) is None:
        return None
    kind = sha256(_processor().encode()).hexdigest()[:16]
    return cache / "compiled" / kind


def _processor() -> str:
    """Name and instructions of the processor, where the system tells."""
    import platform

    wanted, found = ("model name", "flags", "Features"), [platform.machine()]
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if not line.strip():  # the others are alike
                break
            if line.startswith(wanted):
                found.append(line)
    return "".join(found)


def prune(folder: Path, limit: int) -> None:
    """If there is more than `limit` bytes in the folder, remove what is oldest, to half of that."""
    files = [(entry.stat(), entry.path) for entry in os.scandir(folder)]
    size = sum(status.st_size for status, _ in files)
    if size <= limit:
        return
    for status, path in sorted(files, key=lambda file: file[0].st_mtime):
        if size <= limit // 2:
            break
        Path(path).unlink(missing_ok=True)
        size -= status.st_size
