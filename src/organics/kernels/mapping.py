"""`jax.vmap` of a recurrence: mapped inputs become further samples of the batch.

This is a primitive, so that its own rule handles the mapping before JAX differentiates. Hence there
is one gradient of the weights, not one for each sample, to be summed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int32, PyTree


def folded(
    function: Callable,
    weights: PyTree,
    x: Float[Array, "steps batch m"],
    state: Float[Array, "batch k"],
    lengths: Int32[Array, " batch"] | None,
    *,
    outputs: int,
) -> tuple[Float[Array, "batch k"], Float[Array, "steps batch H"] | None]:
    """`function(weights, x, state, lengths)`, with `outputs` numbers a step; None if that is 0."""
    leaves, tree = jax.tree.flatten((x, state, lengths, weights))
    found = _recurrence.bind(*leaves, function=function, tree=tree, outputs=outputs)
    return (found[0], found[1]) if outputs else (found[0], None)


def _compute(*leaves: Array, function: Callable, tree, outputs: int) -> tuple[Array, ...]:
    x, state, lengths, weights = jax.tree.unflatten(tree, leaves)
    return function(weights, x, state, lengths)[: 2 if outputs else 1]


def _types(*types, function: Callable, tree, outputs: int):
    del function
    x, state, _, _ = jax.tree.unflatten(tree, types)
    return (state, x.update(shape=(*x.shape[:2], outputs)))[: 2 if outputs else 1]


def _differentiate(primals, tangents, **static):
    """The derivative of `function` with respect to the leaves that have a tangent."""
    moves = [type(tangent) is not ad.Zero for tangent in tangents]

    def of_moving(*moving):
        rest = iter(moving)
        leaves = [next(rest) if move else leaf for move, leaf in zip(moves, primals, strict=True)]
        return _compute(*leaves, **static)

    moving, speeds = (
        [value for value, move in zip(values, moves, strict=True) if move]
        for values in (primals, tangents)
    )
    return jax.jvp(of_moving, moving, speeds)


def _map(leaves, axes, *, function: Callable, tree, outputs: int):
    """One larger batch if the weights are not mapped, else as many calls in one."""
    static = {"function": function, "tree": tree, "outputs": outputs}
    x, state, lengths, weights = jax.tree.unflatten(tree, leaves)
    of_x, of_state, of_lengths, _ = jax.tree.unflatten(tree, axes)
    size = next(
        leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None
    )
    if size == 0:  # nothing to compute, and the kernel refuses it
        steps, batch, _ = _without(x.shape, of_x)
        shapes = [_without(state.shape, of_state), (steps, batch, outputs)]
        found = [jnp.zeros((0, *shape), x.dtype) for shape in shapes[: 2 if outputs else 1]]
        return found, (0,) * len(found)
    if any(axis is not None for axis in axes[len(axes) - len(jax.tree.leaves(weights)) :]):
        found = jax.vmap(lambda *leaves: _compute(*leaves, **static), tuple(axes))(*leaves)
        return found, (0,) * len(found)

    def fold(array, mapped, batch):
        """The mapped axis and the batch's, in that order, joined where the batch's was."""
        if mapped is None:
            array = jnp.broadcast_to(
                jnp.expand_dims(array, batch),
                (*array.shape[:batch], size, *array.shape[batch:]),
            )
        else:
            array = jnp.moveaxis(array, mapped, batch)
        return array.reshape(*array.shape[:batch], -1, *array.shape[batch + 2 :])

    lengths = None if lengths is None else fold(lengths, of_lengths, 0)
    given = fold(x, of_x, 1), fold(state, of_state, 0), lengths, weights
    found = _recurrence.bind(*jax.tree.leaves(given), **static)
    batches = (0, 1)[: len(found)]
    shapes = [
        (*array.shape[:batch], size, -1, *array.shape[batch + 1 :])
        for array, batch in zip(found, batches, strict=True)
    ]
    return [array.reshape(shape) for array, shape in zip(found, shapes, strict=True)], batches


def _without(shape: tuple, axis: int | None) -> tuple:
    """The shape without the mapped axis, if there is one."""
    return shape if axis is None else (*shape[:axis], *shape[axis + 1 :])


_recurrence = Primitive("organics_recurrence")
_recurrence.multiple_results = True
_recurrence.def_impl(_compute)
_recurrence.def_abstract_eval(_types)
ad.primitive_jvps[_recurrence] = _differentiate
batching.primitive_batchers[_recurrence] = _map
mlir.register_lowering(_recurrence, mlir.lower_fun(_compute))
