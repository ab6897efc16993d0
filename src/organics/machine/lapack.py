"""How LAPACK is called: one matrix after the other, and with no threads of its own.

Up to jaxlib 0.11.0, a batch that is large enough goes to XLA's threads in parts, and whoever called
waits for them, mostly on one of these threads. Where as many calls wait as there are threads, no
thread is left for the parts: two calls on two cores, that need not know of each other, as for the
eigenvalues and the power spectra of many drives, and the program never ends. Later versions go
through the batch themselves. Here the earlier ones do, too, in all programs of the process:
circuits and layers call `never_divide` when they are imported.
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
"""Those of `jax.lax.linalg` that the library uses, or a library that it uses; and the work that
jaxlib counts for an m x m matrix, which is at most this times m^3."""

_WORK = 200_000  # batches of less work than this are not divided


def single_threaded_lapack() -> threadpool_limits:
    """A context in which LAPACK, that of NumPy and that of JAX, has no threads of its own.

    They do not pay for matrices of some hundred rows, and where several cores call LAPACK at the
    same time they stand in each other's way, up to a hundred times slower.
    """
    import scipy.linalg  # noqa: F401  JAX borrows its LAPACK; what is loaded later has no limit

    return threadpool_limits(1, user_api="blas")


def most_at_once(name: str, *shapes: tuple[int, ...]) -> int:
    """The most matrices of these shapes that jaxlib does not divide; at least 1, as for one."""
    largest = max(size for shape in shapes for size in shape[-2:])
    return max(1, (_WORK - 1) // (PRIMITIVES[name] * max(1, largest) ** 3))


def _in_parts(primitive: Any, *arrays: jax.Array, **parameters: Any) -> Any:
    """What the primitive makes of a batch, from parts of it that jaxlib does not divide."""
    batch = arrays[0].shape[:-2]
    flat = [array.reshape(-1, *array.shape[-2:]) for array in arrays]
    each = lambda matrices: primitive.bind(*matrices, **parameters)  # noqa: E731
    at_once = most_at_once(primitive.name, *(array.shape for array in arrays))
    found = jax.lax.map(each, flat, batch_size=at_once)
    return jax.tree.map(lambda array: array.reshape(*batch, *array.shape[1:]), found)


def _undivided(primitive: Any, lowering: Callable) -> Callable:
    """The lowering of a primitive, such that no call of LAPACK waits for others."""
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
    """Have jaxlib go through batches by itself, also before version 0.11.1."""
    if jaxlib.version.__version_info__ >= (0, 11, 1):
        return
    known = mlir._platform_specific_lowerings["cpu"]  # of versions that no longer change
    for name in PRIMITIVES:
        primitive = getattr(jax.lax.linalg, f"{name}_p")
        lowering = _undivided(primitive, known[primitive].rule)
        mlir.register_lowering(primitive, lowering, platform="cpu")
