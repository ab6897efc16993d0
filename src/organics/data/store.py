"""Folders that hold data sets: `<folder>/<data set>/<file>`, each file plain or gzipped."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from organics.data.catalog import ENVIRONMENT_VARIABLE, DataFile, KnownDataset, unavailable
from organics.files.atomic import LEFTOVERS, naming, remove_leftovers, write_atomically
from organics.files.cache import user_cache
from organics.files.lock import Taken, alone_in


class Contents(NamedTuple):
    """The files of a data set in a place: verified, uncompressed contents by name, reasons why
    others were refused, and the names of missing ones."""

    files: dict[str, bytes]
    damaged: list[str]
    missing: list[str]


class Place(NamedTuple):
    """A folder to search. `kind` is "environment", "cache" or "root"."""

    kind: str
    folder: Path

    def of(self, dataset: KnownDataset) -> Path:
        """The folder of `dataset`."""
        return self.folder / dataset.name

    def read(self, dataset: KnownDataset) -> Contents:
        """Everything of `dataset` that is here, verified."""
        contents = Contents({}, [], [])
        for file in dataset.files:
            try:
                content = _read(self.of(dataset), file)
            except ValueError as error:
                contents.damaged.append(str(error))
                continue
            if content is None:
                contents.missing.append(file.name)
            else:
                contents.files[file.name] = content
        return contents

    def prepare(self, dataset: KnownDataset) -> None:
        """Make the folder of `dataset`. Raises `DataUnavailable` if that fails."""
        folder = self.of(dataset)
        with self._refusals(dataset), naming(folder, "make"):
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, dataset: KnownDataset, file: DataFile, content: bytes) -> None:
        """Write a file here, atomically. Raises `DataUnavailable` if that fails."""
        self.prepare(dataset)
        with self._refusals(dataset), alone_in(self.of(dataset), wait=True):
            write_atomically(self.of(dataset) / file.name, content)

    def tidy(self, dataset: KnownDataset) -> None:
        """Remove leftovers of killed processes, unless another process is writing now."""
        folder = self.of(dataset)
        if any(folder.glob(LEFTOVERS)):
            with suppress(Taken, OSError), alone_in(folder):
                remove_leftovers(folder)

    @contextmanager
    def _refusals(self, dataset: KnownDataset) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unavailable(dataset, [f"{self.kind}: {error}."]) from None


def places(root: Path | None) -> list[Place]:
    """The folders to search, in order; the last one is written to.

    `root` alone if it is given, else the folder named by the environment variable `ORGANICS_DATA`,
    if it is set, and the user's cache, if there is one.

    Raises `ValueError` if there is none.
    """
    if root is not None:
        return [Place("root", root)]
    found = []
    if variable := os.environ.get(ENVIRONMENT_VARIABLE):
        found.append(Place("environment", expanded(variable)))
    if (cache := user_cache()) is not None:
        found.append(Place("cache", cache))
    if not found:
        raise ValueError(
            f"there is no folder for data, as the user has no home: set {ENVIRONMENT_VARIABLE}."
        )
    return found


def expanded(path: str | Path) -> Path:
    """The path with `~` expanded.

    Raises `ValueError`, naming the path, if that user has no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: no such user, or one without a home.") from None


def _read(folder: Path, file: DataFile) -> bytes | None:
    """The verified content of `file`; None if it is not in `folder`.

    Raises `ValueError`, naming the path, if its content is not that of the file.
    """
    for path in (folder / name for name in file.names):
        try:
            if not path.is_file():
                continue
            size = path.stat().st_size
            if size > file.largest_size:
                raise ValueError(
                    f"`{path}` has {size} bytes; {file.name} has {file.size} uncompressed."
                )
            return file.verified(path.read_bytes(), str(path))
        except OSError as error:
            raise ValueError(f"`{path}` cannot be read: {error.strerror}.") from None
    return None
