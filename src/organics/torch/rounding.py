"""Matrix products of numbers in bfloat16 summed in float32, as in `organics.kernels.rounding`."""

import torch
from torch import Tensor


def product(x: Tensor, weights: Tensor, rounded: bool) -> Tensor:
    """`x weights^T`; with `rounded` of rounded factors, and rounded gradients on the way back."""
    if not rounded:
        return x @ weights.T
    return _RoundedBack.apply(_Rounded.apply(x) @ _Rounded.apply(weights).T)


def _to_bfloat16(x: Tensor) -> Tensor:
    """The nearest such number, the even one of two. By its bits: `torch.compile` may leave out a
    conversion there and back."""
    bits = x.view(torch.int32)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).view(torch.float32)
    return torch.where(torch.isnan(x), x, nearest)


class _Rounded(torch.autograd.Function):
    """Rounded, with the derivative of what is given."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return _to_bfloat16(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *gradients):
        del ctx
        return gradients[0]


class _RoundedBack(torch.autograd.Function):
    """As it is, with rounded derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *gradients):
        del ctx
        return _Rounded.apply(gradients[0])
