"""From free parameters to the values a circuit may have: `organics.circuit.constraints` in
PyTorch."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_most_one(log_W: Tensor) -> Tensor:
    """`exp(log_W)` clamped to (0, 1]; an entry with `log_W > 0` gets no gradient."""
    # not `clamp`, whose slope at 0, where the diagonal begins, is 1 and not that of JAX, 1/2
    return torch.exp(torch.minimum(log_W, log_W.new_zeros(())))


def unit_interval(raw: Tensor) -> Tensor:
    """The logistic sigmoid, never below the smallest normal number."""
    return torch.sigmoid(raw).clamp(min=torch.finfo(raw.dtype).tiny)


def unit_norm(x: Tensor) -> Tensor:
    """`x / ||x||` along the last axis, and 0 with derivative 0 at `x = 0`."""
    # divide by the largest entry first, so that squares neither overflow nor vanish
    largest = x.detach().abs().amax(-1, keepdim=True)
    nonzero = largest != 0
    x = torch.where(nonzero, x / torch.where(nonzero, largest, 1), 1)
    return torch.where(nonzero, x / torch.linalg.vector_norm(x, dim=-1, keepdim=True), 0)


def in_full(device: torch.device) -> AbstractContextManager:
    """Within it, autocast rounds nothing."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """The type, or float32, as PyTorch decomposes no matrices of fewer bits."""
    return torch.promote_types(dtype, torch.float32)


def cap_spectral_norm(W: Tensor) -> Tensor:
    """`W`, scaled down to spectral norm 1 if its own is larger."""
    norm = torch.linalg.svdvals(W.to(at_least_single(W.dtype))).amax().to(W.dtype)
    exceeds = norm > 1
    return torch.where(exceeds, W / torch.where(exceeds, norm, 1), W)


def semidefinite(M: Tensor) -> Tensor:
    """`M^T M`, scaled down to spectral norm 1 if its own is larger."""
    capped = cap_spectral_norm(M)
    return capped.T @ capped


def orthogonal(M: Tensor) -> Tensor:
    """`(I + A)^-1 (I - A)` with `A = M - M^T`: orthogonal."""
    kind = at_least_single(M.dtype)
    A, eye = (M - M.T).to(kind), torch.eye(M.shape[0], dtype=kind, device=M.device)
    return torch.linalg.solve(eye + A, eye - A).to(M.dtype)


def root(a: Tensor) -> Tensor:
    """`sqrt(relu(a))`, with derivative 0 where `a <= 0`; of NaN, NaN."""
    closed = a <= 0
    safe = torch.where(closed, 1, a)  # both branches of a `where` are differentiated
    return torch.where(closed, 0, torch.sqrt(safe))


def gate(a: Tensor) -> Tensor:
    """`1 - sqrt(relu(a))`, accurate to rounding also where `a` is close to 1."""
    return (1 - torch.relu(a)) / (1 + root(a))
