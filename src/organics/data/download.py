"""IDX files from their public mirrors."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from organics.data.catalog import DataFile

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a mirror to answer at all."""
READ_TIMEOUT = 30.0
"""Seconds of silence after which a download is given up."""


def fetch(files: Iterable[DataFile], mirrors: Iterable[str]) -> Iterator[tuple[DataFile, bytes]]:
    """Each file with its verified, uncompressed content, as soon as it is downloaded.

    A mirror that fails or sends something else is not tried again. Shows a progress bar on standard
    error if that is a terminal. Raises `ConnectionError`, with the failure of each mirror, if all
    fail.
    """
    remaining, reasons = list(mirrors), []
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for file in files:
            content = None
            while content is None:
                if not remaining:
                    raise ConnectionError("\n".join(reasons))
                url = f"{remaining[0]}{file.name}.gz"
                try:
                    content = file.verified(_get(url, file, progress), url)
                except (OSError, ValueError) as error:
                    reasons.append(f"{remaining.pop(0)}: {_in_short(error)}")
            yield file, content


def _get(url: str, file: DataFile, progress: Progress) -> bytes:
    import pooch

    buffer = _BoundedBuffer(file.largest_size)
    bar: Any = _Bar(progress, file.name)  # pooch annotates bool, but documents this, too
    downloader = pooch.HTTPDownloader(
        progressbar=bar,
        chunk_size=1 << 16,
        timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
    )
    downloader(url, buffer, None)
    return buffer.getvalue()


def _in_short(error: Exception) -> str:
    """What happened, in short: the text of connection errors is full of internal objects."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"answered with HTTP status {response.status_code}."
    return str(error) if isinstance(error, ValueError) else f"no download ({type(error).__name__})."


class _BoundedBuffer(io.BytesIO):
    """A buffer for a download that refuses more than `limit` bytes."""

    def __init__(self, limit: int):
        super().__init__()
        self._limit = limit

    def write(self, chunk) -> int:
        if self.tell() + len(chunk) > self._limit:
            raise ValueError(f"sent more than {self._limit} bytes.")
        return super().write(chunk)


class _Bar:
    """One line of `progress`, with the interface of a progress bar for pooch."""

    def __init__(self, progress: Progress, description: str):
        self._progress = progress
        self._task = progress.add_task(description, total=None)

    @property
    def total(self) -> int | None:
        """Bytes to come."""
        task = self._progress.tasks[self._task]
        return None if task.total is None else int(task.total)

    @total.setter
    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.stop_task(self._task)
