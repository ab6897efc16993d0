"""A network as a program of StableHLO, as `jax.export` writes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from organics.exports.export import scores
from organics.exports.packages import require


def require_packages() -> None:
    """Raises `ValueError` if the package with which JAX writes files is missing."""
    require("stablehlo", "flatbuffers")


def make(model: Any, shape: tuple[int, ...]) -> bytes:
    """The serialised program, for a CPU or GPU and any number of inputs at once.

    Arguments
        model: a classifier, whose recurrence is plain.
        shape: of one input.
    """
    sizes = export.symbolic_shape(", ".join(["batch", *map(str, shape)]))
    program = jax.jit(lambda x: scores(model, x))
    made = export.export(program, platforms=("cpu", "cuda"))(
        jax.ShapeDtypeStruct(sizes, jnp.float32)
    )
    return bytes(made.serialize())


def runner(file: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """A function that runs the program in `file`, and who runs it."""
    program = export.deserialize(bytearray(file.read_bytes()))
    return lambda x: np.asarray(jax.jit(program.call)(x)), f"jax {jax.__version__}"
