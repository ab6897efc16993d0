"""The recurrent layer and its peers in PyTorch, each a factory of training steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from organics.kernels import recurrence
from organics.kernels.equations import Options
from organics.names import Backend
from organics.nn import ORGaNICs

try:
    import torch
except ImportError:
    torch = None

BATCH = 256


def of_jax(n: int) -> ORGaNICs:
    """The layer."""
    return ORGaNICs(1, n, key=jr.key(0), dtype=jnp.float32)


def problem(n: int, steps: int, batch: int = BATCH):
    """Its weights, a sequence, and the initial state, as the kernels take them."""
    layer = of_jax(n)
    x = jr.uniform(jr.key(1), (steps, batch, 1), jnp.float32)
    state = jnp.broadcast_to(jnp.concatenate(layer.initial_state()[0]), (batch, 4 * n))
    return layer.cells[0].weights(), x, state


def circuits(
    n: int, steps: int, kernel: Backend, training: bool, batch: int = BATCH
) -> Callable[[], Any]:
    """A training step of the layer in JAX, or without `training` its final state."""
    weights, x, state = problem(n, steps, batch)

    def value(weights, x, state):
        final, _ = recurrence.run(Options(), weights, x, state, sequence=False, backend=kernel)
        return jnp.sum(final[:, :n]) if training else final

    compiled = jax.jit(jax.grad(value) if training else value)
    return lambda: jax.block_until_ready(compiled(weights, x, state))


def size_in_words(n: int, steps: int) -> str:
    """What a row of a benchmark is called."""
    return f"{n} units, {steps:,} steps"


def torch_lstm(n: int, steps: int, device: str = "cpu") -> Callable[[], None]:
    """PyTorch's own layer."""
    assert torch is not None
    lstm = torch.nn.LSTM(1, n, device=device)
    x = torch.rand(steps, BATCH, 1, device=device)

    def train():
        lstm.zero_grad()
        lstm(x)[0][-1].sum().backward()

    return train


def torch_eager(n: int, steps: int, device: str = "cpu") -> Callable[[], None]:
    """The layer's equations as a loop over time in PyTorch."""
    assert torch is not None
    weights, x, state = problem(n, steps)
    on = {"device": device}
    leaves = jax.tree.leaves(weights)
    tensors = [torch.tensor(np.asarray(leaf), requires_grad=True, **on) for leaf in leaves]
    W_r, W, gates, inputs, rates, offset = tensors
    sequence = torch.tensor(np.asarray(x), **on)
    start = torch.tensor(np.asarray(state), **on).split(n, dim=1)
    dty, dta, dtb0, dtb = (rates[i] for i in range(4))

    def train():
        for tensor in tensors:
            tensor.grad = None
        y, a, b0, b = start
        W_rT, WT, in_z = W_r.T, W.T, inputs[:n].T
        b0_x, b_x = inputs[n : 2 * n].T, inputs[2 * n :].T
        b0_y, b0_a = gates[:n, :n].T, gates[:n, n:].T
        b_y, b_a = gates[n:, :n].T, gates[n:, n:].T
        for t in range(steps):
            u = sequence[t]
            q, positive = torch.relu(y), torch.relu(a)
            z = u @ in_z
            new_y = y + dty * (-y + b * z + (1 - torch.sqrt(positive)) * (q @ W_rT))
            new_a = a + dta * (-a + offset * b0**2 + (q**2 * positive) @ WT)
            new_b0 = b0 + dtb0 * (-b0 + torch.sigmoid(u @ b0_x + y @ b0_y + a @ b0_a))
            b = b + dtb * (-b + torch.sigmoid(u @ b_x + y @ b_y + a @ b_a))
            y, a, b0 = new_y, new_a, new_b0
        y.sum().backward()

    return train
