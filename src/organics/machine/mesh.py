"""How arrays are distributed over a mesh of devices, according to their JAX types.

On a manual axis, inside of `jax.shard_map`, an array is the same on all devices or varies. On an
explicit axis its type says how it is sharded. A type says nothing about automatic axes.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

_Tree = TypeVar("_Tree")
_Array = TypeVar("_Array", bound=Array)
_Function = TypeVar("_Function", bound=Callable)


def alike(tree: _Tree) -> _Tree:
    """The arrays, all declared to vary over every manual axis over which one of them varies.

    The carry of a loop must vary in the same way at its start and end, and so must inputs and
    outputs of a kernel. In the backward pass, gradients of arrays that were the same on all devices
    are summed.
    """
    axes = frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))

    def vary(leaf):
        return jax.lax.pcast(leaf, tuple(sorted(axes - _varying(leaf))), to="varying")

    return jax.tree.map(vary, tree)


def concretely() -> AbstractContextManager:
    """A context in which concrete values stay concrete inside a traced function.

    It does nothing inside of `jax.shard_map`, where concrete values cannot be combined with varying
    ones.
    """
    inside = jax.sharding.get_abstract_mesh().manual_axes
    return nullcontext() if inside else jax.ensure_compile_time_eval()


def require_unchecked(what: str, tree: PyTree) -> None:
    """Refuse arrays, or types, that vary over a manual axis if JAX checks this.

    `what` is computed by a loop of another library, which does not declare how its values vary.
    """
    if axes := sorted(frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))):
        raise ValueError(
            f"{what} on the axes {axes} of a mesh needs `jax.shard_map(..., check_vma=False)`."
        )


def by_shares(
    function: Callable,
    weights: PyTree,
    x: Float[Array, "steps batch m"],
    state: Float[Array, "batch k"],
    *rows: PyTree,
) -> tuple[Any, Any]:
    """`function(weights, x, state, *rows)`, with each device computing its share of the batch.

    This happens if the type of `x`, or else of `state`, says that the batch is sharded on explicit
    axes; every device then has all weights, steps and inputs. The batch is the first axis of
    `state`, `rows` and the first result, and the second axis of `x` and the second result.
    """
    mesh = jax.typeof(x).sharding.mesh
    if not (axes := _explicit(mesh)):
        return function(weights, x, state, *rows)
    shared = jax.typeof(x).sharding.spec[1] or jax.typeof(state).sharding.spec[0]
    row, steps = PartitionSpec(shared), PartitionSpec(None, shared)
    specs = (PartitionSpec(), steps, row, *[row] * len(rows))

    def lay(spec, tree):
        return jax.tree.map(lambda leaf: _lay(leaf, mesh, spec), tree)

    shared_out = advising(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=(row, steps), axis_names=axes)
    )
    return shared_out(*map(lay, specs, (weights, x, state, *rows)))


def whole(array: _Array) -> _Array:
    """The array replicated on every device, if its type says that it is sharded on explicit
    axes."""
    mesh = jax.typeof(array).sharding.mesh
    return _lay(array, mesh, PartitionSpec()) if _explicit(mesh) else array


def advising(function: _Function) -> _Function:
    """`function` of arrays, with advice in the errors that explicit axes cause.

    JAX cannot map (`jax.vmap`) loops and solvers over an axis sharded in this way.
    """

    @functools.wraps(function)
    def wrapped(*arrays, **options):
        try:
            return function(*arrays, **options)
        except Exception as error:
            leaves = [leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, Array)]
            meshes = (jax.typeof(leaf).sharding.mesh for leaf in leaves)
            axes = sorted(set().union(*map(_explicit, meshes)))
            if not axes:
                raise
            raise ValueError(
                f"loops and solvers cannot be mapped on the explicit axes {axes} of a mesh: use "
                "`jax.shard_map`, or a mesh with `AxisType.Auto`."
            ) from error

    return wrapped  # pyright: ignore[reportReturnType]


def _lay(array: _Array, mesh: AbstractMesh, spec: PartitionSpec) -> _Array:
    return jax.sharding.reshard(array, NamedSharding(mesh, spec))


def _varying(leaf: Any) -> frozenset[str]:
    return jax.typeof(leaf).manual_axis_type.varying


def _explicit(mesh: AbstractMesh) -> set[str]:
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name for name, kind in kinds if kind == AxisType.Explicit}
