"""A user's file, by its ending."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from organics.arguments import nearest
from organics.data.own.content import Content, checked
from organics.data.own.npz import read_npz
from organics.data.own.series import read_series
from organics.data.own.table import read_table, typed_together
from organics.files.atomic import naming

READERS: dict[str, Callable[[Path], Content]] = {
    ".npz": read_npz,
    ".csv": read_table,
    ".ts": read_series,
}


def read(path: Path, test: Path | None = None) -> Content:
    """The checked content of a file (`.npz`, `.csv` or `.ts`), and of another that has the test
    set.

    Raises `ValueError`, naming file, array or column, and row, if it cannot be learned from, and
    `OSError`, naming the file, if it cannot be read.
    """
    content = _read(path)
    if test is None:
        return checked(content)
    other = _read(test)
    if content.test is not None or other.test is not None:
        source = (content if content.test is not None else other).source
        raise ValueError(f"`test` must not be given: {source} has a test set of its own.")
    if content.features != other.features:
        raise ValueError(
            f"{test} has the features {', '.join(other.features)[:200]}; those of {path} are "
            f"{', '.join(content.features)[:200]}."
        )
    if content.texts and other.texts:
        content, other = typed_together(content, other)
    places = {"": content.place, "_test": other.place}

    def place(name: str, i: int) -> str:
        if name.endswith("_test"):
            return f"{test}: {places['_test'](name.removesuffix('_test'), i)}"
        return places[""](name, i)

    return checked(content._replace(test=other.train, place=place))


def sum_of(path: Path) -> str:
    """The SHA-256 of a file. Raises `OSError`, naming it, if it cannot be read."""
    with naming(path, "read"):
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is not a regular file.")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: Path) -> Content:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        like = nearest(path.suffix, READERS)
        raise ValueError(f"{path} must end in {', '.join(READERS)} to be a data set{like or '.'}")
    return reader(path)
