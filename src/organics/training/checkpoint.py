"""Trees of arrays on disk: one safetensors file each, written whole or not at all, with a check sum
of its content."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from organics.files.atomic import read_whole, write_atomically
from organics.files.documents import canonical, parse_object
from organics.machine.memory import available
from organics.nn.recurrent import draw_start

_ENTRY = "organics"  # key in the file's metadata
_NOTES, _SUM = "notes", "sha256"  # keys in it; earlier versions have the notes there
_TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
"""The types that can be stored, by their names in a file."""


class BadCheckpoint(ValueError):
    """A file does not hold the expected tree; the message names it and says why."""


def save_tree(path: Path, tree: PyTree, notes: dict[str, Any] | None = None) -> str:
    """Write the arrays of `tree` (JAX or NumPy), named by their path in it, and `notes` (JSON
    values). The memory layout of arrays does not matter. Returns the check sum.

    Raises `ValueError`, naming the array, for a type that the file format lacks, or if two have one
    name, and `OSError`, naming the file, if it cannot be written.
    """
    arrays = {name: _in_order(name, leaf) for name, leaf in _named_arrays(tree)}
    notes = notes or {}
    total = _sum_of(arrays, notes)
    # one entry, as several may be written in any order, and equal trees would give different files
    data = safetensors.numpy.save(arrays, {_ENTRY: json.dumps({_NOTES: notes, _SUM: total})})
    write_atomically(path, data)
    return total


def require_storable(tree: PyTree) -> None:
    """Refuse a tree that `save_tree` does, before there is anything to lose."""
    for name, leaf in _named_arrays(tree):
        _require_type(name, leaf.dtype)


def load_tree(path: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The tree and the notes that `save_tree` wrote to `path`.

    `like` is a tree of the same structure, shapes and types; its arrays are replaced, the rest is
    kept. Arrays may be given as `jax.ShapeDtypeStruct`.

    Raises `BadCheckpoint` if the file is damaged or holds another tree.
    """
    stored, notes, _ = read_arrays(path)
    expected = dict(_named_arrays(like))
    _draw_starts(stored, expected)
    if missing := sorted(expected.keys() ^ stored.keys()):
        raise BadCheckpoint(f"{path} is of another model: it differs in {missing[0]!r}.")
    for name, leaf in expected.items():
        if stored[name].shape != leaf.shape or stored[name].dtype != leaf.dtype:
            raise BadCheckpoint(
                f"{path} holds {name!r} as {stored[name].dtype}{list(stored[name].shape)}; "
                f"{leaf.dtype}{list(leaf.shape)} is needed."
            )

    def replaced(where, leaf):
        if not _is_array(leaf):
            return leaf
        array = stored[_name(where)]
        return (
            array if isinstance(leaf, np.ndarray | np.generic) else jnp.asarray(array, array.dtype)
        )

    return jax.tree_util.tree_map_with_path(replaced, like), notes


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """All arrays in a file by name, the notes, and the check sum of both.

    A file of an earlier version, without a check sum, is accepted. Raises `BadCheckpoint` if the
    file is damaged.
    """
    try:
        data = read_whole(path, available() or 2**63)
        arrays = {
            name: np.frombuffer(stored["data"], _TYPES[stored["dtype"]]).reshape(stored["shape"])
            for name, stored in safetensors.deserialize(data)
        }
        header = parse_object(data[8 : 8 + int.from_bytes(data[:8], "little")])
        entry = parse_object(header["__metadata__"][_ENTRY])
        of_now = not entry.keys().isdisjoint((_NOTES, _SUM))
        notes = entry.get(_NOTES) if of_now else entry
        if not isinstance(notes, dict):
            raise ValueError("its notes are none")
        total = _sum_of(arrays, notes)
    except KeyError as error:
        raise BadCheckpoint(f"{path} cannot be read: {error} is missing or unknown") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(f"{path} cannot be read: {error}") from None
    if of_now and entry != {_NOTES: notes, _SUM: total}:
        raise BadCheckpoint(f"{path} was changed since it was written: its check sum is another")
    return arrays, notes, total


def _in_order(name: str, leaf: Any) -> np.ndarray:
    """The array as stored in a file: row-major, in the byte order of this machine."""
    array = np.asarray(leaf, order="C")
    _require_type(name, array.dtype)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _require_type(name: str, dtype: Any) -> None:
    if dtype.name not in _TYPES.values():
        raise ValueError(f"`{name}` is of type {dtype}, which a file cannot hold.")


def _sum_of(arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> str:
    total = hashlib.sha256(canonical(notes))
    for name, array in sorted(arrays.items()):
        total.update(canonical([name, array.dtype.name, array.shape]))
        total.update(array.tobytes())
    return total.hexdigest()


def _draw_starts(stored: dict[str, Any], expected: dict[str, Any]) -> None:
    """Files of version 0.1.0 `stored` the random key of initial states; draw the states from it."""
    for name, bits in list(stored.items()):
        if f"{name}.y" not in expected or (bits.shape, bits.dtype) != ((2,), np.uint32):
            continue
        key = jr.wrap_key_data(jnp.asarray(stored.pop(name)), impl="threefry2x32")
        y = expected[f"{name}.y"]
        drawn = draw_start(key, y.shape[0], y.dtype)._asdict()
        stored.update({f"{name}.{part}": np.asarray(value) for part, value in drawn.items()})


def _named_arrays(tree: PyTree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = [(_name(where), leaf) for where, leaf in leaves if _is_array(leaf)]
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        double = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"two arrays have the name `{double}`: a file could hold only one.")
    return found


def _name(where) -> str:
    return jax.tree_util.keystr(where, simple=True, separator=".")


def _is_array(leaf) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic)
