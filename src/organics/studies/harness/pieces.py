"""Pieces of a long study, kept in files so that it can be interrupted."""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from organics.files.atomic import write_atomically
from organics.files.plain import as_plain

Piece = dict[str, np.ndarray]


def kept(folder: Path, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> Piece:
    """The arrays of the piece `name`: read from `folder` if there, else computed and written.

    The name must determine the content of the piece, wherever it is computed.
    """
    path = _path(folder, name)
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    piece = dict(make())
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **piece)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    return piece


def kept_document(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The same of one JSON document, whose file says all that it depends on."""
    if not path.exists():
        content = json.dumps(as_plain(make()), indent=1, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.encode())
    return json.loads(path.read_text())


def count_kept(folder: Path, names: Iterable[str]) -> int:
    """How many pieces of these names exist."""
    return sum(_path(folder, name).exists() for name in names)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npz"


def joined(pieces: list[Piece]) -> Piece:
    """Concatenate the arrays of each name."""
    return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
