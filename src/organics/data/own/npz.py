"""A user's NumPy archive (`.npz`). No pickle is ever opened, and every size is checked before
anything is read."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from organics.arguments import nearest
from organics.data.own.content import Content, Part
from organics.files import npy
from organics.files.atomic import naming
from organics.machine.memory import require_memory

KEYS = ("x", "y", "lengths", "x_test", "y_test", "lengths_test", "features")
_MOST_MEMBERS = 100


def read_npz(path: Path) -> Content:
    """The arrays of an archive: `x`, `y`, and optionally `lengths`, the same three of a test set
    (`x_test`, ...), and `features`, the names of the features.

    Capital letters and the ending `_train` do not matter. Raises `ValueError`, naming file and
    array, if one is missing, unknown, made of Python objects, damaged or too large for the memory.
    """
    try:
        with naming(path, "read"), zipfile.ZipFile(path) as archive:
            return _content(path, archive)
    except (ValueError, OSError):
        raise
    except Exception as error:  # a broken archive provokes errors of zlib, struct, tokenize, ...
        why = str(error)[:200] or type(error).__name__
        raise ValueError(f"{path} is not a complete .npz archive: {why}.") from None


def _content(path: Path, archive: zipfile.ZipFile) -> Content:
    members = _members(path, archive)
    headers = {}
    for key, member in members.items():
        with npy.open_member(archive, member, f"{path}: {key}") as stream:
            headers[key] = npy.read_header(stream, member.file_size, f"{path}: {key}")
        if headers[key].dtype.hasobject:
            raise ValueError(
                f"{path}: `{key}` holds Python objects, which are never opened. Save classes as "
                "text or whole numbers; pad sequences to one length and save their `lengths`."
            )
    # as they are in the file, and again in float32
    size = sum(header.size * (header.dtype.itemsize + 4) for header in headers.values())
    require_memory(size, str(path), "the content of the file")
    arrays: dict[str, Any] = {}
    for key, member in members.items():
        with npy.open_member(archive, member, f"{path}: {key}") as stream:
            header = npy.read_header(stream, member.file_size, f"{path}: {key}")
            arrays[key] = npy.read_entries(stream, header, f"{path}: {key}")
    train = Part(arrays["x"], arrays["y"], arrays.get("lengths"))
    test = None
    if "x_test" in arrays:
        test = Part(arrays["x_test"], arrays["y_test"], arrays.get("lengths_test"))
    features = arrays.get("features", np.zeros(0, str))
    if features.dtype.kind != "U" or features.ndim != 1:
        raise ValueError(f"{path}: `features` must be a list of names, not {features.dtype}.")
    return Content(str(path), train, test, tuple(features.tolist()))


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by key."""
    listed = archive.infolist()
    found: dict[str, zipfile.ZipInfo] = {}
    for member in listed[:_MOST_MEMBERS]:
        name = member.filename.removesuffix(".npy")
        key = re.sub("_train$", "", name.lower())
        if key not in KEYS:
            raise ValueError(
                f"{path} holds {name[:50]!r}{nearest(key, KEYS) or '.'} The arrays of a data set "
                f"are {', '.join(KEYS)}."
            )
        if key in found:
            raise ValueError(f"{path} holds `{key}` more than once.")
        found[key] = member
    needed = ["x", "y"] + (
        ["x_test", "y_test"] if any(key.endswith("_test") for key in found) else []
    )
    if lacking := [key for key in needed if key not in found]:
        raise ValueError(f"{path} lacks {', '.join(f'`{key}`' for key in lacking)}.")
    if "lengths_test" not in found and "x_test" in found and "lengths" in found:
        raise ValueError(f"{path} has `lengths` but not `lengths_test`.")
    return found
