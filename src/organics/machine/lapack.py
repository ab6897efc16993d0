"""Calls of LAPACK: one matrix after another, without threads of its own.

Up to version 0.11.0, jaxlib splits a large batch into parts for XLA's threads, and the caller waits
for them, usually on one of these threads. If as many calls wait as there are threads, no thread is
left for the parts and the program hangs: on two cores, two independent calls suffice, such as the
eigenvalues and the power spectra of many drives. Later versions do not split batches.
`never_divide`, called when circuits and layers are imported, makes earlier ones do the same, in all
programs of the process.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jaxlib
from jax.interpreters import mlir
from threadpoolctl import threadpool_limits

PRIMITIVES = {"cholesky": 1, "eig": 10, "eigh": 12, "lu": 3, "svd": 30, "triangular_solve": 3}
"""The primitives of `jax.lax.linalg` used here or by dependencies, each with a factor: jaxlib
estimates the work for an m x m matrix as at most this times m^3."""

_WORK = 200_000  # batches with less work than this are not split


def single_threaded_lapack() -> threadpool_limits:
    """A context in which the LAPACK of NumPy and of JAX uses no threads of its own.

    Threads do not pay for matrices of a few hundred rows, and if several cores call LAPACK at the
    same time they make it up to a hundred times slower.
    """
    import scipy.linalg  # noqa: F401  JAX uses its LAPACK; libraries loaded later are not limited

    return threadpool_limits(1, user_api="blas")


def most_at_once(name: str, *shapes: tuple[int, ...]) -> int:
    """The largest number of matrices of these shapes that jaxlib does not split; at least 1."""
    largest = max(size for shape in shapes for size in shape[-2:])
    return max(1, (_WORK - 1) // (PRIMITIVES[name] * max(1, largest) ** 3))


def _in_parts(primitive: Any, *arrays: jax.Array, **parameters: Any) -> Any:
    """The result of the primitive for a batch, computed in parts that jaxlib does not split."""
    batch = arrays[0].shape[:-2]
    flat = [array.reshape(-1, *array.shape[-2:]) for array in arrays]
    each = lambda matrices: primitive.bind(*matrices, **parameters)  # noqa: E731
    at_once = most_at_once(primitive.name, *(array.shape for array in arrays))
    found = jax.lax.map(each, flat, batch_size=at_once)
    return jax.tree.map(lambda array: array.reshape(*batch, *array.shape[1:]), found)


def _undivided(primitive: Any, lowering: Callable) -> Callable:
    """The lowering of a primitive in which no call of LAPACK waits for others."""
    parts = partial(_in_parts, primitive)
    in_parts = mlir.lower_fun(parts, multiple_results=primitive.multiple_results)

    def lower(ctx: Any, *operands: Any, **parameters: Any) -> Any:
        shapes = [aval.shape for aval in ctx.avals_in]
        known = all(isinstance(size, int) for shape in shapes for size in shape)
        if not known or math.prod(shapes[0][:-2]) <= most_at_once(primitive.name, *shapes):
            return lowering(ctx, *operands, **parameters)
        return in_parts(ctx, *operands, **parameters)

    return lower


@cache
def never_divide() -> None:
    """Keep jaxlib before version 0.11.1 from splitting batches."""
    if jaxlib.version.__version_info__ >= (0, 11, 1):
        return
    known = mlir._platform_specific_lowerings["cpu"]  # private, but these versions no longer change
    for name in PRIMITIVES:
        primitive = getattr(jax.lax.linalg, f"{name}_p")
        lowering = _undivided(primitive, known[primitive].rule)
        mlir.register_lowering(primitive, lowering, platform="cpu")
