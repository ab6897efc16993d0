"""Trees of arrays on disk: one safetensors file each, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from organics.atomic import write_atomically
from organics.nn.recurrent import draw_start

_NOTES = "organics"


class BadCheckpoint(ValueError):
    """A file that does not hold the tree it should; the message says in what way."""


def save_tree(path: Path, tree: PyTree, notes: dict[str, Any] | None = None) -> None:
    """Write the arrays of `tree`, by their path in it, and `notes` (anything JSON can hold)."""
    arrays = {name: np.asarray(leaf) for name, leaf in _named_arrays(tree)}
    data = safetensors.numpy.save(arrays, {_NOTES: json.dumps(notes or {})})
    write_atomically(path, data)


def load_tree(path: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The tree and the notes that `save_tree` wrote to `path`.

    `like` is a tree of the same structure, shapes and types; its arrays are replaced, the rest is
    kept. Arrays may be given as `jax.ShapeDtypeStruct`.

    Raises `BadCheckpoint` if the file is damaged or holds another tree.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            notes = json.loads((file.metadata() or {}).get(_NOTES, "{}"))
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(f"{path.name} cannot be read: {error}") from None
    expected = dict(_named_arrays(like))
    _draw_starts(stored, expected)
    if missing := sorted(expected.keys() ^ stored.keys()):
        raise BadCheckpoint(f"{path.name} is of another model: it differs in {missing[0]!r}.")
    for name, leaf in expected.items():
        if stored[name].shape != leaf.shape or stored[name].dtype != leaf.dtype:
            raise BadCheckpoint(
                f"{path.name} holds {name!r} as {stored[name].dtype}{list(stored[name].shape)}; "
                f"{leaf.dtype}{list(leaf.shape)} is needed."
            )
    return jax.tree_util.tree_map_with_path(
        lambda where, leaf: jnp.asarray(stored[_name(where)]) if _is_array(leaf) else leaf, like
    ), notes


def _draw_starts(stored: dict[str, Any], expected: dict[str, Any]) -> None:
    """What was `stored` by version 0.1.0 has the bits from which initial states were drawn."""
    for name, bits in list(stored.items()):
        if f"{name}.y" not in expected or (bits.shape, bits.dtype) != ((2,), np.uint32):
            continue
        key = jr.wrap_key_data(jnp.asarray(stored.pop(name)), impl="threefry2x32")
        y = expected[f"{name}.y"]
        drawn = draw_start(key, y.shape[0], y.dtype)._asdict()
        stored.update({f"{name}.{part}": np.asarray(value) for part, value in drawn.items()})


def _named_arrays(tree: PyTree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(_name(where), leaf) for where, leaf in leaves if _is_array(leaf)]


def _name(where) -> str:
    return jax.tree_util.keystr(where, simple=True, separator=".")


def _is_array(leaf) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
