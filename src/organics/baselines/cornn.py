"""The coupled oscillatory recurrent network, coRNN."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import float_type, require_not_negative, require_positive, require_sizes
from organics.baselines.layer import RecurrentLayer
from organics.kernels.cells import Cell
from organics.names import Backend, Memory, ProductType
from organics.nn.arguments import as_built, require_execution
from organics.nn.normalization import uniform_fan_in


class CoRNN(RecurrentLayer):
    r"""Coupled, damped and driven oscillators. The state is `h | v`, positions and velocities.

        v <- v + dt [tanh(W h + W_v v + V x + bias) - gamma h - epsilon v]
        h <- h + dt v, with the new v

    All parameters start uniform on +-1/sqrt(2 n + m).

    Arguments
        input_size, hidden_size: m and n.
        dt: the step size.
        gamma: the oscillators' squared natural frequency.
        epsilon: their damping.
        backend, memory, products: as those of `organics.nn.ORGaNICs`.
        dtype: of the parameters; JAX's default float if not given.

    Raises `ValueError`, naming the argument, for sizes below 1, `dt` not above 0, or a negative
    `gamma` or `epsilon`.

    Source: Rusch & Mishra 2021, coRNN.
    """

    W: Float[Array, "n two_n"]  # W | W_v
    dt: float = eqx.field(static=True)
    gamma: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    parts = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        key: PRNGKeyArray,
        dt: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        backend: Backend = "auto",
        memory: Memory = "more",
        products: ProductType = "full",
        dtype: DTypeLike | None = None,
    ):
        require_sizes(input_size=input_size, hidden_size=hidden_size)
        require_positive(dt=dt)
        require_not_negative(gamma=gamma, epsilon=epsilon)
        n, m, kind = hidden_size, input_size, float_type(dtype)
        k_W, k_V, k_bias = jr.split(key, 3)
        self.W = uniform_fan_in(k_W, (n, 2 * n), 2 * n + m, kind)
        self.V = uniform_fan_in(k_V, (n, m), 2 * n + m, kind)
        self.bias = uniform_fan_in(k_bias, (n,), 2 * n + m, kind)
        self.hidden_size = n
        self.dt, self.gamma, self.epsilon = float(dt), float(gamma), float(epsilon)
        execution = require_execution(backend, memory, products, kind)
        self.backend, self.memory, self.products = execution
        self.built = as_built(self)

    def matrix(self) -> Float[Array, "n two_n"]:
        """`W | W_v`."""
        return self.W

    def cell(self) -> Cell:
        """Its cell, with step size, squared frequency and damping."""
        return Cell("cornn", 2, 1, (self.dt, self.gamma, self.epsilon))

    def advance(
        self,
        matrix: Float[Array, "n two_n"],
        x: Float[Array, "batch m"],
        state: Float[Array, "batch two_n"],
    ) -> Float[Array, "batch two_n"]:
        """The equations above."""
        h, v = jnp.split(state, 2, axis=1)
        force = jnp.tanh(self.product(state, matrix) + self.drive(x))
        v = v + self.dt * (force - self.gamma * h - self.epsilon * v)
        return jnp.concatenate([h + self.dt * v, v], axis=1)
