"""The native kernel as operators of PyTorch, with its backward pass.

Operators, so that `torch.compile` passes them on as they are. A derivative of the backward pass is
that of the plain equations.

Copies beside the kernel are made by NumPy: after a large copy, PyTorch's threads wait actively for
some milliseconds, on the processors that the kernel's threads need.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from organics.kernels import library
from organics.names import ProductType
from organics.torch.equations import State, Variant, Weights
from organics.torch.equations import run as run_plain


def available(*tensors: Tensor) -> bool:
    """Whether the kernel can compute with these: of a CPU, all in float32 or all in float64, with
    values, and without derivatives forward."""
    kind = tensors[0].dtype
    return _is_built() and all(
        tensor.device.type == "cpu"
        and tensor.dtype == kind
        and kind in (torch.float32, torch.float64)
        and (torch.compiler.is_compiling() or (has_values(tensor) and not _is_dual(tensor)))
        for tensor in tensors
    )


def has_values(tensor: Tensor) -> bool:
    """Whether there are numbers to read: not within `torch.func.vmap`, `grad` and the like."""
    try:
        tensor.detach().data_ptr()  # there, this is no longer the tensor that was given
    except RuntimeError:
        return False
    return True


def _is_dual(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None


@torch.compiler.assume_constant_result  # not to be traced
def _is_built() -> bool:
    return library.load().handle is not None


@torch.compiler.assume_constant_result
def _tiled(products: ProductType) -> bool:
    return library.tiled(products)


def run(
    variant: Variant,
    weights: Weights,
    x: Tensor,
    state: Tensor,
    lengths: Tensor | None,
    *,
    sequence: bool,
    segment: int | None,
) -> tuple[State, Tensor | None]:
    """As `equations.run`. The backward pass gets the state of every `segment` steps and computes
    the rest again; if None, of every few steps, and products where that saves time."""
    H = weights.vectors.shape[1]
    extra = -H % library.MULTIPLE
    cell = _cell(variant)
    steps, batch, _ = x.shape
    size = cell.kept * (H + extra) * steps * batch * x.element_size()
    differentiated = (x, state, *(weight for weight in weights if weight is not None))
    training = torch.is_grad_enabled() and any(one.requires_grad for one in differentiated)
    *final, outputs, _, _ = _forward(
        x,
        _blocks(state, 1, 4, extra),
        None if lengths is None else lengths.to(torch.int32),
        *_widened(weights, extra),
        [int(one) for one in variant],
        library.SEGMENT if segment is None else segment,
        training,
        training
        and segment is None
        and library.keeps(H + extra, batch, size, _tiled(cell.products)),
        sequence,
    )
    if extra:
        final = [part[:, :H] for part in final]
        outputs = outputs[..., :H]
    return State(*final), outputs if sequence else None


def _variant(numbers: Sequence[int]) -> Variant:
    """The variant that an operator, which takes numbers, was given."""
    *options, modulated, sums, rounded = numbers
    return Variant(*map(bool, options), modulated, sums, bool(rounded))


def _cell(numbers: Sequence[int]) -> library.Cell:
    """The kernel's cell for the variant of these numbers."""
    *options, modulated, sums, rounded = _variant(numbers)
    products = "bfloat16" if rounded else "full"
    return library.gated_cell(*options, modulated=modulated, sums=sums, products=products)


def _widened(weights: Weights, extra: int) -> Weights:
    """The same with `extra` more neurons, which stay at zero."""
    if extra == 0:
        return weights
    H = weights.vectors.shape[1]
    wider = lambda W, axis: _blocks(W, axis, W.shape[axis] // H, extra)  # noqa: E731
    both = lambda W: wider(wider(W, 0), 1)  # noqa: E731
    return Weights(
        None if weights.recurrent is None else both(weights.recurrent),
        both(weights.normalization),
        both(weights.gates),
        wider(weights.input, 0),
        torch.nn.functional.pad(weights.vectors, (0, extra)),
    )


def _blocks(array: Tensor, axis: int, count: int, extra: int) -> Tensor:
    """`array` with `extra` zeros after each of `count` blocks along an axis."""
    if extra == 0:
        return array
    split = array.unflatten(axis, (count, -1))
    zeros = split.new_zeros([*split.shape[: axis + 1], extra, *split.shape[axis + 2 :]])
    return torch.cat([split, zeros], dim=axis + 1).flatten(axis, axis + 1)


_WEIGHTS = "Tensor? recurrent, Tensor normalization, Tensor gates, Tensor input, Tensor vectors"


@torch.library.custom_op(
    "organics::gated",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor x, Tensor state, Tensor? lengths, {_WEIGHTS}, int[] variant, int segment, "
    "bool keep, bool keep_products, bool sequence) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _forward(x, state, lengths, recurrent, normalization, gates, input, vectors, variant, segment,
             keep, keep_products, sequence):  # fmt: skip
    x, state = _contiguous(x, state)
    cell = _cell(variant)
    weights = _contiguous(recurrent, normalization, gates, input, vectors)
    if any(one is not None and one.dtype != x.dtype for one in (state, *weights)):
        raise TypeError(f"all must be of the type of `x`, {x.dtype}.")  # memory is read as that
    results = _results(x, state, vectors, cell, segment, keep, keep_products, sequence)
    *parts, outputs, kept, products = results
    final = torch.empty_like(state)
    library.forward(
        cell,
        _sizes(x, vectors, segment),
        library.Addresses(*_addresses(*weights)),
        library.ForwardArrays(*_addresses(x, state, lengths, final, kept, products, outputs)),
    )
    for part, found in zip(parts, np.split(final.numpy(), 4, axis=1), strict=True):
        part.numpy()[...] = found
    return results


@_forward.register_fake
def _(x, state, *others):
    *_, vectors, variant, segment, keep, keep_products, sequence = others
    cell = _cell(variant)
    return _results(x, state, vectors, cell, segment, keep, keep_products, sequence)


def _results(
    x: Tensor,
    state: Tensor,
    vectors: Tensor,
    cell: library.Cell,
    segment: int,
    keep: bool,
    keep_products: bool,
    sequence: bool,
) -> tuple[Tensor, ...]:
    """Memory for the four parts of the final state, the outputs, the kept states and products;
    empty if unwanted."""
    (steps, batch, _), H = x.shape, vectors.shape[1]
    kept = -(-steps // min(segment, steps)) if keep else 0
    return (
        *(x.new_empty(batch, H) for _ in State._fields),
        x.new_empty(steps if sequence else 0, batch, H),
        x.new_empty(kept, *state.shape),
        x.new_empty(steps if keep_products else 0, batch, cell.kept * H),
    )


@torch.library.custom_op(
    "organics::gated_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor x, Tensor? lengths, {_WEIGHTS}, Tensor kept, Tensor products, "
    "Tensor? d_y, Tensor? d_a, Tensor? d_b0, Tensor? d_b, Tensor? d_outputs, int[] variant, "
    "int segment, bool of_input) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(x, lengths, recurrent, normalization, gates, input, vectors, kept, products, d_y, d_a,
              d_b0, d_b, d_outputs, variant, segment, of_input):  # fmt: skip
    x, d_outputs = _contiguous(x, d_outputs)
    weights = _contiguous(recurrent, normalization, gates, input, vectors)
    found = _gradients(x, *weights, of_input)
    d_final = torch.empty_like(found[1])
    into = np.split(d_final.numpy(), 4, axis=1)
    for part, given in zip(into, (d_y, d_a, d_b0, d_b), strict=True):
        part[...] = 0 if given is None else given.detach().resolve_neg().numpy()
    d_x, d_state, *d_weights = found
    library.backward(
        _cell(variant),
        _sizes(x, vectors, segment),
        library.Addresses(*_addresses(*weights)),
        library.BackwardArrays(
            *_addresses(x, kept, products, lengths, d_final, d_outputs, d_x, d_state)
        ),
        library.Addresses(*_addresses(*d_weights)),
    )
    return found


@_backward.register_fake
def _(x, _, *others):
    weights, of_input = others[:5], others[-1]
    return _gradients(x, *weights, of_input)


def _gradients(x, recurrent, normalization, gates, input, vectors, of_input):
    """Memory for the gradients of the input, the state and the weights; empty if unwanted."""
    steps, batch, m = x.shape
    weights = normalization, gates, input, vectors
    return (
        x.new_empty(steps if of_input else 0, batch, m),
        x.new_empty(batch, 4 * vectors.shape[1]),
        x.new_empty((0, 0) if recurrent is None else recurrent.shape),
        *(x.new_empty(weight.shape) for weight in weights),
    )


def _remember(ctx, inputs, output) -> None:
    x, state, lengths, *weights, variant, segment, _, _, _ = inputs
    *_, kept, products = output
    ctx.save_for_backward(x, state, lengths, *weights, kept, products)
    ctx.variant, ctx.segment = variant, segment
    ctx.set_materialize_grads(False)  # those of `kept` and `products` would be as large


def _pull_back(ctx, d_y, d_a, d_b0, d_b, d_outputs, *_):
    x, state, lengths, *weights, kept, products = ctx.saved_tensors
    d_final = d_y, d_a, d_b0, d_b
    given = x, state, *weights
    if torch.is_grad_enabled():  # `create_graph=True`
        found = _differentiable(ctx, Weights(*weights), x, state, lengths, d_final, d_outputs)
    else:
        found = _backward(x, lengths, *weights, kept, products, *d_final, d_outputs, ctx.variant,
                          ctx.segment, ctx.needs_input_grad[0])  # fmt: skip
    d_x, d_state, *d_weights = (
        gradient if tensor is not None and needed else None
        for gradient, tensor, needed in zip(found, given, _needed(ctx), strict=True)
    )
    return d_x, d_state, None, *d_weights, None, None, None, None, None


def _needed(ctx) -> tuple[bool, ...]:
    """Of which of the input, the state and the weights a gradient is asked for."""
    x, state, _, *weights = ctx.needs_input_grad[:8]
    return x, state, *weights


def _differentiable(ctx, weights, x, state, lengths, d_final, d_outputs):
    """The gradients by the plain equations, which can themselves be differentiated."""
    # tensors of their own: one may be computed from another, as the state from the weights before
    x, state, *own = (None if one is None else one.view_as(one) for one in (x, state, *weights))
    weights, given = Weights(*own), (x, state, *own)
    final, outputs = run_plain(
        _variant(ctx.variant), weights, x, state, lengths, sequence=d_outputs is not None
    )
    pairs = zip((*final, outputs), (*d_final, d_outputs), strict=True)
    results, cotangents = zip(*(pair for pair in pairs if pair[1] is not None), strict=True)
    wanted = [one for one, needed in zip(given, _needed(ctx), strict=True) if needed]
    found = iter(torch.autograd.grad(results, wanted, cotangents, create_graph=True))
    return tuple(next(found) if needed else None for needed in _needed(ctx))


_forward.register_autograd(_pull_back, setup_context=_remember)


def _sizes(x: Tensor, vectors: Tensor, segment: int) -> library.Sizes:
    steps, batch, m = x.shape
    double, H = x.dtype == torch.float64, vectors.shape[1]
    return library.Sizes(double, steps, batch, H, m, segment, torch.get_num_threads())


def _contiguous(*tensors: Tensor | None) -> tuple:
    """The same, as copies where they are not contiguous."""
    return tuple(
        one
        if one is None or (one.is_contiguous() and not one.is_neg())
        else torch.from_numpy(np.ascontiguousarray(one.detach().resolve_neg().numpy()))
        for one in tensors
    )


def _addresses(*tensors: Tensor | None) -> list[int]:
    """Where the tensors begin; 0 for one that is empty or None."""
    return [0 if tensor is None or not tensor.numel() else tensor.data_ptr() for tensor in tensors]
