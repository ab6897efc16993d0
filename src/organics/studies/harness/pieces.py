"""Pieces of a long study, kept in files so that it can be interrupted.

Beside each piece stands how long it took, in seconds, so that a study that was continued knows how
long it took in all.
"""

import io
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from organics.files.atomic import write_atomically
from organics.files.plain import as_plain

_SECONDS = ".seconds"  # at the end of the name of a piece

Piece = dict[str, np.ndarray]


def kept(folder: Path, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> Piece:
    """The arrays of the piece `name`: read from `folder` if there, else computed and written.

    The name must determine the content of the piece, wherever it is computed.
    """
    path = _path(folder, name)
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    begin = time.perf_counter()
    piece = dict(make())
    folder.mkdir(parents=True, exist_ok=True)
    _note_seconds(path, time.perf_counter() - begin)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **piece)
    write_atomically(path, content.getvalue())
    return piece


def kept_document(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The same of one JSON document, whose file says all that it depends on."""
    if not path.exists():
        begin = time.perf_counter()
        content = json.dumps(as_plain(make()), indent=1, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        _note_seconds(path, time.perf_counter() - begin)
        write_atomically(path, content.encode())
    return json.loads(path.read_text())


def seconds_spent(folder: Path) -> float | None:
    """How long the pieces in a folder took, one after the other; `None` if that of arrays there is
    not known."""
    noted = {path.with_suffix(""): path for path in folder.rglob(f"*{_SECONDS}")}
    if any(path not in noted for path in folder.rglob("*.npz")):
        return None
    known = (path for piece, path in noted.items() if piece.exists())
    return sum((float(path.read_text()) for path in known), 0.0)


def _note_seconds(path: Path, seconds: float) -> None:
    """Written before the piece: a piece without its time would never get one."""
    write_atomically(path.with_name(path.name + _SECONDS), f"{seconds:.3f}\n".encode())


def count_kept(folder: Path, names: Iterable[str]) -> int:
    """How many pieces of these names exist."""
    return sum(_path(folder, name).exists() for name in names)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npz"


def joined(pieces: list[Piece]) -> Piece:
    """Concatenate the arrays of each name."""
    return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
