"""The gated circuit's equations in PyTorch: they run on any device, and have all derivatives.

As in `organics.kernels.equations`, the state of a batch is one tensor (batch, 4 H), the parts
`y | a | b0 | b` side by side.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from organics.torch.constraints import root
from organics.torch.rounding import product


class State(NamedTuple):
    """State of all circuits: potentials `y`, `a` and gains `b0`, `b`, each (num_layers, batch, n);
    without the axis of the batch for one sequence."""

    y: Tensor
    a: Tensor
    b0: Tensor
    b: Tensor


class Variant(NamedTuple):
    """The choice among the published variants: `organics.kernels.equations.Options`, whether
    `W_r` is the identity, how many of the rates of y, a, b0 and b follow the input and the
    potentials, 0, 1 or 4, how many sums of these they follow, as many or 1; and whether products
    are of numbers in bfloat16."""

    identity: bool
    rectified: bool
    rectified_after: bool
    rectified_drive: bool
    modulated: int = 0
    sums: int = 0
    rounded: bool = False


class Weights(NamedTuple):
    """All arrays of the recurrence, for H neurons and m inputs, k of whose rates are modulated by s
    sums. Rows are the receivers.

    recurrent: (H, H); None is the identity.
    normalization: (H, H).
    gates: (2 H + s H, 2 H), rows b0, b, modulated rates; columns y, a.
    input: (3 H + s H, m), rows z, b0, b, modulated rates.
    vectors: (5 + 2 k, H): the step size over the time constants of y, a, b0 and b, for modulated
        ones `sigmoid(raw)` without a gradient instead; then `sigma^2`; then `raw` and the largest
        step size over the time constant of the modulated ones.
    """

    recurrent: Tensor | None
    normalization: Tensor
    gates: Tensor
    input: Tensor
    vectors: Tensor


def step(variant: Variant, weights: Weights, projected: Tensor, state: Tensor) -> Tensor:
    """One Euler step, all right-hand sides at the old state (batch, 4 H). `projected`, (batch,
    3 H + s H), is the input's product.

    Source: Rawat et al. 2024, the discretised ORGaNICs.
    """
    H = weights.vectors.shape[1]
    y, a, b0, b = state.split(H, dim=1)
    offset = weights.vectors[4]
    q = torch.relu(y) if variant.rectified else y
    if weights.recurrent is None:
        yhat = q
    elif variant.rectified and variant.rectified_after:
        yhat = torch.relu(product(y, weights.recurrent, variant.rounded))
    else:
        yhat = product(q, weights.recurrent, variant.rounded)
    seen = torch.square(q) * torch.relu(a)
    pool = product(seen, weights.normalization, variant.rounded)
    z = projected[:, :H]
    z = torch.relu(z) if variant.rectified_drive else z
    gates = product(state[:, : 2 * H], weights.gates, variant.rounded)
    sums = projected[:, H:] + gates
    gates = torch.sigmoid(sums[:, : 2 * H])
    rate_y, rate_a, rate_b0, rate_b = _rates(variant.modulated, weights.vectors, sums[:, 2 * H :])
    return torch.cat(
        [
            y + rate_y * (-y + b * z + (1 - root(a)) * yhat),
            a + rate_a * (-a + offset * torch.square(b0) + pool),
            b0 + rate_b0 * (gates[:, :H] - b0),
            b + rate_b * (gates[:, H:] - b),
        ],
        dim=1,
    )


def _rates(k: int, vectors: Tensor, shift: Tensor) -> list[Tensor]:
    """Step size over the time constants of y, a, b0 and b, of which `k` move with `shift`, (batch,
    k H), or (batch, H) if all move together."""
    fixed = list(vectors[k:4].unbind())
    if k == 0:
        return fixed
    opened, (raw, largest) = vectors[:k], vectors[5:].split(k)
    shift = shift.unflatten(1, (-1, raw.shape[1]))
    found = torch.sigmoid(raw + shift)
    # where nothing moves them they are those of a circuit without modulation, bit by bit
    if torch.is_grad_enabled():
        found = found + torch.where(shift == 0, opened - found, 0).detach()
    else:
        found = torch.where(shift == 0, opened, found)
    return [*(largest.detach() * found).unbind(1), *fixed]


def run(
    variant: Variant,
    weights: Weights,
    x: Tensor,
    state: Tensor,
    lengths: Tensor | None,
    *,
    sequence: bool,
    less_memory: bool = False,
) -> tuple[State, Tensor | None]:
    """Carry `state` (batch, 4 H) through all steps of `x` (steps, batch, m): the final state, each
    part (batch, H), and with `sequence` every output, (steps, batch, H).

    A sequence that has ended, by `lengths` (batch,), repeats its last output. `less_memory` keeps
    a state at every root of the number of steps for the backward pass.
    """
    goes = going(lengths, x)
    if torch.compiler.is_exporting():
        state, outputs = _loop_operator(variant, weights, x, state, goes, sequence)
    elif less_memory:
        state, outputs = _in_segments(variant, weights, x, state, goes, sequence)
    else:
        state, outputs = _loop(variant, weights, x, state, goes, sequence)
    return State(*state.split(weights.vectors.shape[1], dim=1)), outputs


def going(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """Which steps of `x` are before the end of each sequence, (steps, batch, 1); None if all."""
    if lengths is None:
        return None
    return (torch.arange(x.shape[0], device=x.device)[:, None] < lengths)[:, :, None]


def _loop(variant, weights, x, state, goes, sequence) -> tuple[Tensor, Tensor | None]:
    H, outputs = weights.vectors.shape[1], []
    projected = product(x, weights.input, variant.rounded)
    for t in range(len(x)):
        after = step(variant, weights, projected[t], state)
        state = after if goes is None else torch.where(goes[t], after, state)
        if sequence:
            outputs.append(state[:, :H])
    return state, torch.stack(outputs) if sequence else None


def _in_segments(variant, weights, x, state, goes, sequence) -> tuple[Tensor, Tensor | None]:
    """The loop, of which the backward pass computes all but every root-th state again."""
    segment, outputs = math.isqrt(len(x) - 1) + 1, []
    for start in range(0, len(x), segment):
        part = slice(start, start + segment)
        given = weights, x[part], state, None if goes is None else goes[part]
        state, piece = checkpoint(_loop, variant, *given, sequence, use_reentrant=False)
        outputs.append(piece)
    return state, torch.cat(outputs) if sequence else None


def _loop_operator(variant, weights, x, state, goes, sequence) -> tuple[Tensor, Tensor | None]:
    """The loop as one operator of the exported program, however many steps there are."""
    # not yet public, and without gradients; the only loop that `torch.onnx` has, too
    from torch._higher_order_ops.scan import scan

    H = weights.vectors.shape[1]
    goes = torch.ones_like(x[..., :1], dtype=torch.bool) if goes is None else goes

    def body(state, given):
        x, goes = given
        projected = product(x, weights.input, variant.rounded)
        after = torch.where(goes, step(variant, weights, projected, state), state)
        return after, after[:, : H if sequence else 1].clone()

    state = state.clone(memory_format=torch.contiguous_format)  # as the state after a step
    state, outputs = scan(body, state, (x, goes), dim=0)
    return state, outputs if sequence else None
