"""Steady states of many circuits that differ in their drive, by sweeps and Newton's method."""

from typing import NamedTuple

import torch
from torch import Tensor

from organics.torch.constraints import gate, root

_SWEEPS = 20
_STEPS = 40  # of Newton's method
_LEAST_FRACTION = 1e-9  # of a step, below which Newton is stuck


class Circuits(NamedTuple):
    """Circuits of n neurons with the same weights: `W` and `W_r`, whose spectral norm is at most 1,
    (n, n); and `c = (b0 sigma)^2`, (n,). The drives, `b z`, are given apart."""

    W: Tensor
    W_r: Tensor
    c: Tensor
    rectified: bool

    def rectify(self, y: Tensor) -> Tensor:
        return torch.relu(y) if self.rectified else y


def steady_y(circuits: Circuits, drive: Tensor) -> Tensor:
    """`y`, (batch, n), at a steady state for each drive (batch, n); NaN where none is found.

    Its derivatives, of the first three orders, are those of two steps of Newton's method from the
    state found, which are exact there.
    """
    with torch.no_grad():
        x, found = _search(circuits, drive)
    for _ in range(2):
        x = x - torch.linalg.solve(_jacobian(circuits, x), _imbalance(circuits, drive, x))
    return torch.where(found[:, None], x[:, : drive.shape[1]], torch.nan)


def _search(circuits: Circuits, drive: Tensor) -> tuple[Tensor, Tensor]:
    """States (batch, 2 n), `y` and then `a`, and which of them are steady."""
    x = _sweep(circuits, drive)
    tolerance = torch.finfo(x.dtype).eps ** 0.75
    fraction = torch.ones_like(x[:, :1])
    error = _error(circuits, drive, x)
    small = torch.zeros_like(error, dtype=torch.bool)
    for _ in range(_STEPS):
        if bool(((error <= tolerance) & small | (fraction[:, 0] < _LEAST_FRACTION)).all()):
            break
        jacobian, imbalance = _jacobian(circuits, x), _imbalance(circuits, drive, x)
        step, info = torch.linalg.solve_ex(jacobian, -imbalance)
        step = torch.where((info == 0)[:, None], step, 0)
        size = x.abs().amax(1, keepdim=True)
        small = (info == 0) & (step.abs() <= tolerance ** (1 / 3) * size).all(1)
        y, a = x.chunk(2, 1)
        falling = step.chunk(2, 1)[1]
        room = torch.where(falling < 0, -0.9 * a / falling, torch.inf).amin(1, keepdim=True)
        tried = x + torch.minimum(fraction, room) * step
        new = _error(circuits, drive, tried)
        accept = new < error
        x = torch.where(accept[:, None], tried, x)
        error = torch.where(accept, new, error)
        fraction = torch.where(accept[:, None], (4 * fraction).clamp(max=1), fraction / 4)
    return x, (error <= tolerance) & small


def _sweep(circuits: Circuits, drive: Tensor) -> Tensor:
    """The best of some sweeps: Algorithm 1 of the paper without its factorization."""
    W, W_r, c, _ = circuits
    own = W_r.diagonal().clamp(0, 1)
    recurred = drive @ W_r.T
    a = c + (c * torch.square(circuits.rectify(recurred / torch.sqrt(c)))) @ W.T
    y = recurred / torch.sqrt(a)
    best = torch.cat([y, a], 1)
    least = _error(circuits, drive, best)
    for _ in range(_SWEEPS):
        q = circuits.rectify(y)
        others = drive + gate(a) * (q @ W_r.T - own * q)
        alone = others / ((1 - own) + own * torch.sqrt(a))
        y = torch.where(others > 0, alone, others) if circuits.rectified else alone
        a = c + (torch.square(circuits.rectify(y)) * a) @ W.T
        x = torch.cat([y, a], 1)
        error = _error(circuits, drive, x)
        best = torch.where((error < least)[:, None], x, best)
        least = torch.minimum(error, least)
    return best


def _imbalance(circuits: Circuits, drive: Tensor, x: Tensor) -> Tensor:
    """Right-hand sides of the equations of `y` and `a`, before division by time constants."""
    y, a = x.chunk(2, 1)
    q = circuits.rectify(y)
    of_y = drive - y + gate(a) * (q @ circuits.W_r.T)
    return torch.cat([of_y, circuits.c - a + (torch.square(q) * torch.relu(a)) @ circuits.W.T], 1)


def _error(circuits: Circuits, drive: Tensor, x: Tensor) -> Tensor:
    """The largest imbalance of an equation relative to its terms, (batch,)."""
    y, a = x.chunk(2, 1)
    q = circuits.rectify(y)
    of_y = drive.abs() + y.abs() + gate(a).abs() * (q.abs() @ circuits.W_r.abs().T)
    terms = torch.cat([of_y, 2 * a.abs() + circuits.c], 1)
    error = (_imbalance(circuits, drive, x).abs() / torch.where(terms > 0, terms, 1)).amax(1)
    return torch.where(torch.isfinite(error) & (a > 0).all(1), error, torch.inf)


def _jacobian(circuits: Circuits, x: Tensor) -> Tensor:
    """The derivative of `_imbalance`, (batch, 2 n, 2 n)."""
    y, a = x.chunk(2, 1)
    q = circuits.rectify(y)
    active = (y > 0).to(y.dtype) if circuits.rectified else torch.ones_like(y)
    slope = torch.where(a > 0, 1 / torch.where(a > 0, 2 * root(a), 1), 0)
    identity = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    y_from_y = gate(a)[:, :, None] * circuits.W_r * active[:, None, :] - identity
    y_from_a = torch.diag_embed(-(q @ circuits.W_r.T) * slope)
    a_from_y = circuits.W * (2 * q * torch.relu(a))[:, None, :]
    a_from_a = circuits.W * torch.where(a > 0, torch.square(q), 0)[:, None, :] - identity
    top, bottom = torch.cat([y_from_y, y_from_a], 2), torch.cat([a_from_y, a_from_a], 2)
    return torch.cat([top, bottom], 1)
