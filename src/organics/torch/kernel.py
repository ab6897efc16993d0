"""The native kernel as operators of PyTorch, with its backward pass.

Operators, so that `torch.compile` passes them on as they are. A derivative of the backward pass is
that of the plain equations.
"""

import torch
from torch import Tensor

from organics.kernels import library
from organics.torch.equations import Variant, Weights
from organics.torch.equations import run as run_plain


def available(*tensors: Tensor) -> bool:
    """Whether the kernel can compute with these: of a CPU, in float32 or float64."""
    return _is_built() and all(
        tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
        for tensor in tensors
    )


@torch.compiler.assume_constant_result  # not to be traced
def _is_built() -> bool:
    return library.load().handle is not None


def run(
    variant: Variant,
    weights: Weights,
    x: Tensor,
    state: Tensor,
    lengths: Tensor | None,
    *,
    sequence: bool,
    segment: int | None,
) -> tuple[Tensor, Tensor | None]:
    """As `equations.run`. The backward pass gets the state of every `segment` steps and computes
    the rest again; if None, of every few steps, and products where that saves time."""
    H = weights.vectors.shape[1]
    extra = -H % library.MULTIPLE
    cell = library.gated_cell(*variant)
    size = cell.kept * (H + extra) * x.shape[0] * x.shape[1] * x.element_size()
    differentiated = (x, state, *(weight for weight in weights if weight is not None))
    training = torch.is_grad_enabled() and any(one.requires_grad for one in differentiated)
    final, outputs, _, _ = _forward(
        x,
        _blocks(state, 1, 4, extra),
        None if lengths is None else lengths.to(torch.int32),
        *_widened(weights, extra),
        list(variant),
        library.SEGMENT if segment is None else segment,
        training,
        training and segment is None and library.keeps(H, size),
        sequence,
    )
    if extra:
        final = final.unflatten(1, (4, -1))[:, :, :H].flatten(1)
        outputs = outputs[..., :H]
    return final, outputs if sequence else None


def _widened(weights: Weights, extra: int) -> Weights:
    """The same with `extra` more neurons, which stay at zero."""
    if extra == 0:
        return weights
    square = lambda W, k: _blocks(_blocks(W, 0, k, extra), 1, k, extra)  # noqa: E731
    return Weights(
        None if weights.recurrent is None else square(weights.recurrent, 1),
        square(weights.normalization, 1),
        square(weights.gates, 2),
        _blocks(weights.input, 0, 3, extra),
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
    schema=f"(Tensor x, Tensor state, Tensor? lengths, {_WEIGHTS}, bool[] variant, int segment, "
    "bool keep, bool keep_products, bool sequence) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _forward(x, state, lengths, recurrent, normalization, gates, input, vectors, variant, segment,
             keep, keep_products, sequence):  # fmt: skip
    x, state = x.contiguous(), state.contiguous()
    cell = library.gated_cell(*variant)
    weights = _contiguous(recurrent, normalization, gates, input, vectors)
    results = _results(x, state, vectors, cell, segment, keep, keep_products, sequence)
    final, outputs, kept, products = results
    library.forward(
        cell,
        _sizes(x, vectors, segment),
        library.Addresses(*_addresses(*weights)),
        library.ForwardArrays(*_addresses(x, state, lengths, final, kept, products, outputs)),
    )
    return results


@_forward.register_fake
def _(x, state, *others):
    *_, vectors, variant, segment, keep, keep_products, sequence = others
    cell = library.gated_cell(*variant)
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for the final state, the outputs, the kept states and products; empty if unwanted."""
    (steps, batch, _), H = x.shape, vectors.shape[1]
    kept = -(-steps // min(segment, steps)) if keep else 0
    return (
        x.new_empty(state.shape),
        x.new_empty(steps if sequence else 0, batch, H),
        x.new_empty(kept, *state.shape),
        x.new_empty(steps if keep_products else 0, batch, cell.kept * H),
    )


@torch.library.custom_op(
    "organics::gated_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor x, Tensor? lengths, {_WEIGHTS}, Tensor kept, Tensor products, Tensor d_final, "
    "Tensor? d_outputs, bool[] variant, int segment, bool of_input) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(x, lengths, recurrent, normalization, gates, input, vectors, kept, products, d_final,
              d_outputs, variant, segment, of_input):  # fmt: skip
    x, d_final = x.contiguous(), d_final.contiguous()
    d_outputs = None if d_outputs is None else d_outputs.contiguous()
    weights = _contiguous(recurrent, normalization, gates, input, vectors)
    found = _gradients(x, *weights, d_final, of_input)
    d_x, d_state, *d_weights = found
    library.backward(
        library.gated_cell(*variant),
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
    *weights, _, _, d_final, _, _, _, of_input = others
    return _gradients(x, *weights, d_final, of_input)


def _gradients(x, recurrent, normalization, gates, input, vectors, d_final, of_input):
    """Memory for the gradients of the input, the state and the weights; empty if unwanted."""
    steps, batch, m = x.shape
    weights = normalization, gates, input, vectors
    return (
        x.new_empty(steps if of_input else 0, batch, m),
        x.new_empty(d_final.shape),
        x.new_empty((0, 0) if recurrent is None else recurrent.shape),
        *(x.new_empty(weight.shape) for weight in weights),
    )


def _remember(ctx, inputs, output) -> None:
    x, state, lengths, *weights, variant, segment, _, _, _ = inputs
    _, _, kept, products = output
    ctx.save_for_backward(x, state, lengths, *weights, kept, products)
    ctx.variant, ctx.segment = variant, segment
    ctx.set_materialize_grads(False)  # those of `kept` and `products` would be as large


def _pull_back(ctx, d_final, d_outputs, *_):
    x, state, lengths, *weights, kept, products = ctx.saved_tensors
    d_final = torch.zeros_like(state) if d_final is None else d_final
    given = x, state, *weights
    if torch.is_grad_enabled():  # `create_graph=True`
        found = _differentiable(ctx, Weights(*weights), x, state, lengths, d_final, d_outputs)
    else:
        found = _backward(x, lengths, *weights, kept, products, d_final, d_outputs, ctx.variant,
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
    given = x, state, *weights
    final, outputs = run_plain(
        Variant(*ctx.variant), weights, x, state, lengths, sequence=d_outputs is not None
    )
    results, cotangents = [final], [d_final]
    if d_outputs is not None:
        results, cotangents = [final, outputs], [d_final, d_outputs]
    wanted = [one for one, needed in zip(given, _needed(ctx), strict=True) if needed]
    found = iter(torch.autograd.grad(results, wanted, cotangents, create_graph=True))
    return tuple(next(found) if needed else None for needed in _needed(ctx))


_forward.register_autograd(_pull_back, setup_context=_remember)


def _sizes(x: Tensor, vectors: Tensor, segment: int) -> library.Sizes:
    steps, batch, m = x.shape
    double, H = x.dtype == torch.float64, vectors.shape[1]
    return library.Sizes(double, steps, batch, H, m, segment, torch.get_num_threads())


def _contiguous(*weights: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if weight is None else weight.contiguous() for weight in weights)


def _addresses(*tensors: Tensor | None) -> list[int]:
    """Where the tensors begin; 0 for one that is empty or None."""
    return [0 if tensor is None or not tensor.numel() else tensor.data_ptr() for tensor in tensors]
