"""One step of the gated circuit on arrays, and the weights of its recurrence.

The state of a batch is one array (batch, 4 H), the parts `y | a | b0 | b` side by side, because
kernels are quicker on few and long arrays.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.circuit.circuit import root
from organics.kernels.cells import Parameters
from organics.kernels.library import Cell, gated_cell
from organics.kernels.rounding import product
from organics.names import ProductType


@dataclass(frozen=True)
class Options:
    """The choice among the published variants of the equations.

    rectified: `relu(y)` in place of `y` in both recurrent terms.
    rectified_after: in the rectified model, `relu(W_r y)` as in the published cell, in place of
        `W_r relu(y)` as in the equations.
    rectified_drive: `relu(W_zx x)`, as in the published cell, in place of `W_zx x`.
    products: numbers that the matrix products are of; see `organics.kernels.rounding`.
    """

    rectified: bool = True
    rectified_after: bool = False
    rectified_drive: bool = False
    products: ProductType = "full"

    @property
    def in_full(self) -> "Options":
        """The same, with products in the type of all numbers."""
        return replace(self, products="full")

    def cell(self, weights: "Weights") -> Cell:
        """The circuit's cell in the native kernels."""
        identity, modulation = weights.recurrent is None, weights.modulation
        modulated = 0 if modulation is None else modulation.raw.shape[0]
        sums = 0 if modulation is None else modulation.sums
        options = self.rectified, self.rectified_after, self.rectified_drive
        return gated_cell(
            identity, *options, modulated=modulated, sums=sums, products=self.products
        )

    def parameters(self, weights: "Weights") -> Parameters:
        """The arrays that the native kernels compute with."""
        W_r, W, gates, input_, rates, offset, modulation = weights
        W_r = jnp.zeros((0, 0), offset.dtype) if W_r is None else W_r
        vectors = [rates, offset[None]]
        if modulation is not None:
            raw, opened, largest, potentials, of_input = modulation
            gates = jnp.concatenate([gates, potentials])
            input_ = jnp.concatenate([input_, of_input])
            vectors = [opened, rates[len(raw) :], offset[None], raw, largest]
        return Parameters((W_r, W, gates), input_, None, jnp.concatenate(vectors))

    def step(
        self,
        weights: "Weights",
        x: Float[Array, "batch m"],
        state: Float[Array, "batch four_H"],
    ) -> Float[Array, "batch four_H"]:
        """One step, as `step` below, with the input's product included."""
        return step(self, weights, project(self, weights, x), state)


class Modulation(NamedTuple):
    """What makes the first k of the rates of y, a, b0 and b follow the input and the potentials:
    each is `largest * sigmoid(raw + input x + potentials (y | a))`. k is 1 or 4. Each has rows of
    `input` and `potentials` of its own, s = k, or all have the same, s = 1.

    `opened` is `sigmoid(raw)`. It is used where the sum of the products is 0, so that there the
    rates are those of a circuit without modulation bit by bit, whatever computes the sigmoid. It
    and `largest` have no gradient.
    """

    raw: Float[Array, "k H"]
    opened: Float[Array, "k H"]
    largest: Float[Array, "k H"]
    potentials: Float[Array, "s_H two_H"]
    input: Float[Array, "s_H m"]

    @property
    def sums(self) -> int:
        """s."""
        return self.potentials.shape[0] // self.raw.shape[1]


class Weights(NamedTuple):
    """All arrays of the recurrence, for H neurons and m inputs. Rows are the receivers.

    `rates` are the step size over the time constants of y, a, b0 and b. `offset` is `sigma^2`.
    `recurrent=None` is the identity. `modulation` replaces the first of the rates.
    """

    recurrent: Float[Array, "H H"] | None
    normalization: Float[Array, "H H"]
    gates: Float[Array, "two_H two_H"]  # rows b0, b; columns y, a
    input: Float[Array, "three_H m"]  # rows z, b0, b
    rates: Float[Array, "4 H"]
    offset: Float[Array, " H"]
    modulation: Modulation | None = None


class Products(NamedTuple):
    """Results of one step's matrix products: drive, recurrent input, pool, gates, and the step size
    over the time constants of y, a, b0 and b."""

    z: Float[Array, "batch H"]
    yhat: Float[Array, "batch H"]
    pool: Float[Array, "batch H"]
    gates: Float[Array, "batch two_H"]
    rates: Float[Array, "#batch four_H"]


def products(
    options: Options,
    weights: Weights,
    projected: Float[Array, "batch rows"],
    state: Float[Array, "batch four_H"],
) -> Products:
    """The terms that the neurons' equations need. `projected` is the input's product."""
    H, kind = weights.offset.shape[0], options.products
    y, a = state[:, :H], state[:, H : 2 * H]
    q = jax.nn.relu(y) if options.rectified else y
    if weights.recurrent is None:
        yhat = q
    elif options.rectified and options.rectified_after:
        yhat = jax.nn.relu(product(y, weights.recurrent, kind))
    else:
        yhat = product(q, weights.recurrent, kind)
    pool = product(jnp.square(q) * jax.nn.relu(a), weights.normalization, kind)
    z = projected[:, :H]
    z = jax.nn.relu(z) if options.rectified_drive else z
    shift = product(state[:, : 2 * H], weights.gates, kind)
    gates = jax.nn.sigmoid(projected[:, H : 3 * H] + shift)
    return Products(z, yhat, pool, gates, _rates(options, weights, projected, state))


def _rates(
    options: Options,
    weights: Weights,
    projected: Float[Array, "batch rows"],
    state: Float[Array, "batch four_H"],
) -> Float[Array, "#batch four_H"]:
    fixed, modulation = weights.rates.reshape(1, -1), weights.modulation
    if modulation is None:
        return fixed
    H = weights.offset.shape[0]
    raw, opened, largest = (
        part.reshape(1, -1) for part in (modulation.raw, modulation.opened, modulation.largest)
    )
    shift = product(state[:, : 2 * H], modulation.potentials, options.products)
    shift = projected[:, 3 * H :] + shift
    shift = jnp.tile(shift, (1, raw.shape[1] // shift.shape[1]))
    moving = jax.lax.stop_gradient(largest) * _opened(raw, opened, shift)
    rest = jnp.broadcast_to(fixed[:, raw.shape[1] :], (state.shape[0], 4 * H - raw.shape[1]))
    return jnp.concatenate([moving, rest], axis=1)


@jax.custom_jvp
def _opened(raw: Array, opened: Array, shift: Array) -> Array:
    """`sigmoid(raw + shift)`, where `opened` is `sigmoid(raw)`."""
    return jnp.where(shift == 0, opened, jax.nn.sigmoid(raw + shift))


@_opened.defjvp
def _(primals, tangents):
    found = _opened(*primals)
    d_raw, _, d_shift = tangents
    return found, found * (1 - found) * (d_raw + d_shift)


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
    projected: Float[Array, "batch rows"],
    state: Float[Array, "batch four_H"],
) -> Float[Array, "batch four_H"]:
    """One Euler step, all right-hand sides at the old state.

    Source: Rawat et al. 2024, the discretised ORGaNICs.
    """
    found = products(options, weights, projected, state)
    return state + found.rates * velocity(weights.offset, state, found)


def project(
    options: Options, weights: Weights, x: Float[Array, "*batch m"]
) -> Float[Array, "*batch rows"]:
    """The input's products: rows z, b0, b, and those of modulated rates."""
    found = product(x, weights.input, options.products)
    if weights.modulation is None:
        return found
    return jnp.concatenate([found, product(x, weights.modulation.input, options.products)], axis=-1)
