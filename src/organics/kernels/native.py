"""Recurrences in C++ on a CPU: a whole sequence in one call, threads over the batch.

Installing the package builds the library, if there is a compiler; see `hatch_build.py`. Without the
library everything runs by `scan`.
"""

import dataclasses
import functools
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int32

from organics.arguments import require_rounded
from organics.kernels import library, mapping, refusals
from organics.kernels.cells import Parameters
from organics.kernels.library import Cell
from organics.machine.mesh import alike

_loading = threading.Lock()


def unavailable() -> str | None:
    """Why the native kernel cannot be used; `None` if it can.

    Raises `ValueError` as `instruction_set` does.
    """
    return _load()[1]


def instruction_set() -> str | None:
    """The instructions that the kernel uses on this machine; `None` if there is no kernel.

    Raises `ValueError` if the environment variable ORGANICS_ISA names any that are not here.
    """
    return _load()[0]


def _load() -> tuple[str | None, str | None]:
    with _loading:
        return _load_once()


@functools.cache
def _load_once() -> tuple[str | None, str | None]:
    handle, chosen, reason = library.load()
    if handle is None:
        return None, reason
    try:
        # start JAX first: else it would check the registered targets when it starts, and fail
        jax.local_devices(backend="cpu")
        for target in ("organics_forward", "organics_backward"):
            handler = jax.ffi.pycapsule(getattr(handle, target))
            jax.ffi.register_ffi_target(target, handler, platform="cpu")
    # a library built for a newer jaxlib makes JAX raise RuntimeError
    except (AttributeError, RuntimeError) as error:
        return None, f"{library.LIBRARY.name} cannot be loaded: {error}"
    return chosen, None


def run(
    cell: Cell,
    parameters: Parameters,
    x: Float[Array, "steps batch m"],
    state: Float[Array, "batch k"],
    lengths: Int32[Array, " batch"] | None = None,
    *,
    sequence: bool,
    segment: int | None = None,
    keep_products: bool | None = None,
    threads: int = 0,
) -> tuple[Float[Array, "batch k"], Float[Array, "steps batch H"] | None]:
    """Final state, and with `sequence` every output. A sequence that has ended repeats its last.

    The backward pass gets the state of every `segment` steps, and with `keep_products` also the
    results of every step's matrix products. It computes the rest again. By default products are
    kept where that saves time. `threads=0` is one for each processor that this process may use.

    Raises `ValueError` for products in bfloat16 of numbers that are not in float32.
    """
    require_rounded(cell.products, x.dtype)
    segment = library.SEGMENT if segment is None else segment
    tiled = library.tiled(cell.products)
    kernel = _Kernel(cell, sequence, segment, keep_products, threads, tiled)
    return _run(kernel, parameters, x, state, lengths)


# one program, where it is not part of another, instead of one for each array that is made ready
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _run(kernel: "_Kernel", parameters: Parameters, x, state, lengths):
    parts, H = kernel.cell.parts, parameters.vectors.shape[1]
    extra = -H % library.MULTIPLE
    if parameters.bias is not None:  # the weights of an input that is always 1
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        widened = jnp.concatenate([parameters.input, parameters.bias[:, None]], axis=1)
        parameters = parameters._replace(input=widened, bias=None)
    parameters = _pad(parameters, extra)
    none = jnp.zeros((0, 0), x.dtype)
    first, second, third = (*parameters.matrices, none, none)[:3]
    weights = _Weights(first, second, third, parameters.input, parameters.vectors)
    state = _blocks(state, 1, parts, extra)
    weights, x, state = refusals.guarded(alike((weights, x, state)), gradients=True)
    outputs = H + extra if kernel.sequence else 0
    final, outputs = mapping.folded(
        _differentiable(kernel), weights, x, state, lengths, outputs=outputs
    )
    if extra == 0:
        return final, outputs
    final = final.reshape(-1, parts, H + extra)[:, :, :H].reshape(-1, parts * H)
    return final, None if outputs is None else outputs[..., :H]


class _Weights(NamedTuple):
    """Parameters as the kernels take them: always three matrices, and the bias in `input`."""

    first: Float[Array, "_ _"]
    second: Float[Array, "_ _"]
    third: Float[Array, "_ _"]
    input: Float[Array, "r m"]
    vectors: Float[Array, "v H"]


def _pad(parameters: Parameters, extra: int) -> Parameters:
    """The same with `extra` more neurons, which stay at zero."""
    matrices, input_, _, vectors = parameters
    H = vectors.shape[1]

    def wider(matrix):
        receives, sends = (size // H for size in matrix.shape)
        return _blocks(_blocks(matrix, 0, receives, extra), 1, sends, extra)

    return parameters._replace(
        matrices=tuple(wider(matrix) if matrix.size else matrix for matrix in matrices),
        input=_blocks(input_, 0, input_.shape[0] // H, extra),
        vectors=jnp.pad(vectors, ((0, 0), (0, extra))),
    )


def _blocks(array: Array, axis: int, count: int, extra: int) -> Array:
    """`array` with `extra` zeros after each of `count` blocks along an axis."""
    if extra == 0:
        return array
    shape = array.shape
    H = shape[axis] // count
    split = array.reshape(*shape[:axis], count, H, *shape[axis + 1 :])
    padding = [(0, 0)] * split.ndim
    padding[axis + 1] = (0, extra)
    return jnp.pad(split, padding).reshape(*shape[:axis], count * (H + extra), *shape[axis + 1 :])


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """A native recurrence for one set of static arguments, with its backward pass. By them JAX
    finds what it has traced."""

    cell: Cell
    sequence: bool
    segment: int
    keep_products: bool | None
    threads: int
    tiled: bool

    def call(self, target: str, results: list, *arguments: Array) -> Any:
        """The kernel's answer: arrays of the shapes `results`."""
        arguments = refusals.guarded(alike(arguments), gradients=False)
        given = jax.typeof(arguments[0])
        mesh = given.sharding.mesh
        everywhere = None if mesh.empty else NamedSharding(mesh, PartitionSpec())
        # the results vary over the mesh as the arguments do
        varying = given.manual_axis_type
        shapes = [
            jax.ShapeDtypeStruct(shape, given.dtype, sharding=everywhere, manual_axis_type=varying)
            for shape in results
        ]
        kernel = jax.ffi.ffi_call(target, shapes, vmap_method="expand_dims")
        return kernel(
            *arguments,
            cell=self.cell.name,
            settings=np.asarray(self.cell.all_settings, np.float64),
            segment=np.int64(self.segment),
            threads=np.int64(self.threads),
            bfloat16=self.cell.products == "bfloat16",
        )

    def advance(self, weights: _Weights, x, state, lengths, keep: bool):
        """The result of `run`, and what is kept for the backward pass."""
        steps, batch, _ = x.shape
        kept = (-(-steps // min(self.segment, steps)) if keep else 0, *state.shape)
        H = weights.vectors.shape[1]
        keeps = self.keep_products
        if keeps is None:  # here, where what `jax.vmap` maps is part of the batch
            size = steps * batch * self.cell.kept * H * x.dtype.itemsize
            keeps = library.keeps(H, batch, size, self.tiled)
        products = (steps if keep and keeps else 0, batch, self.cell.kept * H)
        outputs = (steps if self.sequence else 0, batch, H)
        results = [state.shape, kept, products, outputs]
        arguments = (x, state, _as_argument(lengths), *weights)
        final, *kept, outputs = self.call("organics_forward", results, *arguments)
        return (final, outputs if self.sequence else None), kept

    def forward(self, weights, x, state, lengths):
        """The forward pass for `jax.custom_vjp`, which marks the differentiated arguments."""
        # the input's gradient costs extra, so it is computed only if JAX asks for it. A shape tells
        # `backward`, as JAX may mistake the residuals' tree for that of another call
        wanted = jnp.zeros((x.value.shape[0] if x.perturbed else 0, 0))
        weights, x, state, lengths = (
            jax.tree.map(lambda leaf: leaf.value, tree, is_leaf=lambda leaf: hasattr(leaf, "value"))
            for tree in (weights, x, state, lengths)
        )
        result, kept = self.advance(weights, x, state, lengths, keep=True)
        return result, (weights, x, lengths, kept, wanted)

    def backward(self, residuals, cotangents):
        """Gradients of all arguments except `lengths`."""
        weights, x, lengths, kept, wanted = residuals
        d_final, d_outputs = cotangents
        _, batch, inputs = x.shape
        H = weights.vectors.shape[1]
        if isinstance(d_final, SymbolicZero):
            d_final = jnp.zeros(d_final.shape, x.dtype)
        if d_outputs is None or isinstance(d_outputs, SymbolicZero):
            d_outputs = jnp.zeros((0, batch, H), x.dtype)
        shapes = [
            (wanted.shape[0], batch, inputs),
            d_final.shape,
            *(argument.shape for argument in weights),
        ]
        arguments = x, *kept, _as_argument(lengths), *weights, d_final, d_outputs
        d_x, d_state, *d_weights = self.call("organics_backward", shapes, *arguments)
        return _Weights(*d_weights), d_x if len(wanted) else None, d_state, None


def _as_argument(lengths: Array | None) -> Array:
    """An empty array means that every sequence has all steps."""
    return jnp.zeros(0, jnp.int32) if lengths is None else lengths


@functools.cache
def _differentiable(kernel: _Kernel):
    @jax.custom_vjp
    def run(weights: _Weights, x, state, lengths):
        return kernel.advance(weights, x, state, lengths, keep=False)[0]

    run.defvjp(kernel.forward, kernel.backward, symbolic_zeros=True)
    # outside of `jit`, `jax.shard_map` refuses a function with symbolic zeros
    return jax.jit(run, inline=True)
