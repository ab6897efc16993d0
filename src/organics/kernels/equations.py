"""One step of the gated circuit on arrays, and the weights of its recurrence.

The state of a batch is one array (batch, 4 H), the parts `y | a | b0 | b` side by side, because
kernels are quicker on few and long arrays.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.circuit.circuit import root
from organics.kernels.cells import Parameters
from organics.kernels.library import Cell, gated_cell


@dataclass(frozen=True)
class Options:
    """The choice among the published variants of the equations.

    rectified: `relu(y)` in place of `y` in both recurrent terms.
    rectified_after: in the rectified model, `relu(W_r y)` as in the published cell, in place of
        `W_r relu(y)` as in the equations.
    rectified_drive: `relu(W_zx x)`, as in the published cell, in place of `W_zx x`.
    """

    rectified: bool = True
    rectified_after: bool = False
    rectified_drive: bool = False

    def cell(self, weights: "Weights") -> Cell:
        """The circuit's cell in the native kernels."""
        identity = weights.recurrent is None
        return gated_cell(identity, self.rectified, self.rectified_after, self.rectified_drive)

    def parameters(self, weights: "Weights") -> Parameters:
        """The arrays that the native kernels compute with."""
        W_r, W, gates, input_, rates, offset = weights
        W_r = jnp.zeros((0, 0), offset.dtype) if W_r is None else W_r
        vectors = jnp.concatenate([rates, offset[None]])
        return Parameters((W_r, W, gates), input_, None, vectors)

    def step(
        self,
        weights: "Weights",
        x: Float[Array, "batch m"],
        state: Float[Array, "batch four_H"],
    ) -> Float[Array, "batch four_H"]:
        """One step, as `step` below, with the input's product included."""
        return step(self, weights, x @ weights.input.T, state)


class Weights(NamedTuple):
    """All arrays of the recurrence, for H neurons and m inputs. Rows are the receivers.

    `rates` are the step size over the time constants of y, a, b0 and b. `offset` is `sigma^2`.
    `recurrent=None` is the identity.
    """

    recurrent: Float[Array, "H H"] | None
    normalization: Float[Array, "H H"]
    gates: Float[Array, "two_H two_H"]  # rows b0, b; columns y, a
    input: Float[Array, "three_H m"]  # rows z, b0, b
    rates: Float[Array, "4 H"]
    offset: Float[Array, " H"]


class Products(NamedTuple):
    """Results of one step's matrix products: drive, recurrent input, pool, and gates."""

    z: Float[Array, "batch H"]
    yhat: Float[Array, "batch H"]
    pool: Float[Array, "batch H"]
    gates: Float[Array, "batch two_H"]


def products(
    options: Options,
    weights: Weights,
    projected: Float[Array, "batch three_H"],
    state: Float[Array, "batch four_H"],
) -> Products:
    """The terms that the neurons' equations need. `projected` is the input's product."""
    H = weights.offset.shape[0]
    y, a = state[:, :H], state[:, H : 2 * H]
    q = jax.nn.relu(y) if options.rectified else y
    if weights.recurrent is None:
        yhat = q
    elif options.rectified and options.rectified_after:
        yhat = jax.nn.relu(y @ weights.recurrent.T)
    else:
        yhat = q @ weights.recurrent.T
    pool = (jnp.square(q) * jax.nn.relu(a)) @ weights.normalization.T
    z = projected[:, :H]
    z = jax.nn.relu(z) if options.rectified_drive else z
    gates = jax.nn.sigmoid(projected[:, H:] + state[:, : 2 * H] @ weights.gates.T)
    return Products(z, yhat, pool, gates)


def velocity(
    offset: Float[Array, " H"], state: Float[Array, "batch four_H"], found: Products
) -> Float[Array, "batch four_H"]:
    """The right-hand sides for y, a, b0 and b, each times its time constant. `offset` is
    `sigma^2`."""
    y, a, b0, b = jnp.split(state, 4, axis=1)
    return jnp.concatenate(
        [
            -y + b * found.z + (1 - root(a)) * found.yhat,
            -a + offset[None] * jnp.square(b0) + found.pool,
            found.gates - state[:, state.shape[1] // 2 :],
        ],
        axis=1,
    )


def step(
    options: Options,
    weights: Weights,
    projected: Float[Array, "batch three_H"],
    state: Float[Array, "batch four_H"],
) -> Float[Array, "batch four_H"]:
    """One Euler step, all right-hand sides at the old state.

    Source: Rawat et al. 2024, the discretised ORGaNICs.
    """
    found = products(options, weights, projected, state)
    return state + weights.rates.reshape(1, -1) * velocity(weights.offset, state, found)


def project(
    weights: Weights, x: Float[Array, "steps batch m"]
) -> Float[Array, "steps batch three_H"]:
    """The input's products at all steps at once."""
    return x @ weights.input.T
