"""A network as a program of StableHLO, as `jax.export` writes it."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from organics.exports.export import Network
from organics.exports.packages import require


def require_packages() -> None:
    """Raises `ValueError` if the package with which JAX writes files is missing."""
    require("stablehlo", "flatbuffers")


def make(network: Network) -> bytes:
    """The serialised program, for a CPU or GPU."""
    fixed = network.shape[len(network.axes) - 1 :]
    sizes = export.symbolic_shape(", ".join([*network.axes, *map(str, fixed)]))
    made = export.export(jax.jit(lambda x: network(x)), platforms=("cpu", "cuda"))(
        jax.ShapeDtypeStruct(sizes, jnp.float32)
    )
    return bytes(made.serialize())


def runner(file: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """A function that runs the program in `file`, and who runs it."""
    program = export.deserialize(bytearray(file.read_bytes()))
    return lambda x: np.asarray(jax.jit(program.call)(x)), f"jax {jax.__version__}"
