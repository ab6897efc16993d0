"""How arrays lie on a mesh of devices, as their types in JAX say it.

On a manual axis, inside of `jax.shard_map`, an array is the same on all devices or varies. On an
explicit axis its type says how it is shared among them. Of automatic axes a type says nothing.
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
    """The arrays, each declared to vary over all manual axes over which any of them varies.

    What a loop carries from the start must vary as it does in the end, and what a kernel takes and
    gives must vary alike. Backwards, gradients of what was the same on all devices are summed.
    """
    axes = frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))

    def vary(leaf):
        return jax.lax.pcast(leaf, tuple(sorted(axes - _varying(leaf))), to="varying")

    return jax.tree.map(vary, tree)


def concretely() -> AbstractContextManager:
    """Where what is concrete stays so inside a function that is being traced.

    Not inside of `jax.shard_map`, where what is concrete cannot meet what varies then.
    """
    inside = jax.sharding.get_abstract_mesh().manual_axes
    return nullcontext() if inside else jax.ensure_compile_time_eval()


def require_unchecked(what: str, tree: PyTree) -> None:
    """Refuse arrays, or their types, that vary over a manual axis, where JAX watches that.

    For `what` is computed by a loop of another library, which does not say how its values vary.
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
    """`function(weights, x, state, *rows)`, in which each device computes its share of the batch.

    That is so if the type of `x`, or else of `state`, says that the batch is shared on explicit
    axes. On these, weights, steps and inputs are then whole on every device. The batch is the first
    axis of `state`, `rows` and the first result, and the second of `x` and the second result.
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
    """The array, whole on every device where its type says that it is shared on explicit axes."""
    mesh = jax.typeof(array).sharding.mesh
    return _lay(array, mesh, PartitionSpec()) if _explicit(mesh) else array


def advising(function: _Function) -> _Function:
    """`function` of arrays, such that what fails on explicit axes says what to use instead.

    JAX cannot map (`jax.vmap`) loops and solvers over an axis that is shared so.
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
