"""The long expressive memory, LEM."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import float_type, require_positive, require_sizes
from organics.baselines.layer import RecurrentLayer
from organics.kernels.cells import Cell, Parameters
from organics.names import Backend, Memory, ProductType
from organics.nn.arguments import as_built, require_execution
from organics.nn.normalization import uniform_fan_in


class LEM(RecurrentLayer):
    r"""Long expressive memory: each unit has two learned time scales that depend on the input. The
    state is `y | z`.

        s_1, s_2 = sigmoid(W y + V x + bias), each with its own rows
        z <- (1 - dt s_1) z + dt s_1 tanh(W_z y + V_z x + bias_z)
        y <- (1 - dt s_2) y + dt s_2 tanh(W_y z + V_y x + bias_y), with the new z

    All parameters start uniform on +-1/sqrt(n).

    Arguments
        input_size, hidden_size: m and n.
        dt: the largest step size.
        backend, memory, products: as those of `organics.nn.ORGaNICs`.
        dtype: of the parameters; JAX's default float if not given.

    Raises `ValueError`, naming the argument, for sizes below 1 or `dt` not above 0.

    Source: Rusch et al. 2022, Long expressive memory for sequence modeling.
    """

    W: Float[Array, "four_n n"]  # rows s_1, s_2, z, y, as in V and bias; rows y act on z
    dt: float = eqx.field(static=True)
    parts = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        key: PRNGKeyArray,
        dt: float = 1.0,
        backend: Backend = "auto",
        memory: Memory = "more",
        products: ProductType = "full",
        dtype: DTypeLike | None = None,
    ):
        require_sizes(input_size=input_size, hidden_size=hidden_size)
        require_positive(dt=dt)
        n, kind = hidden_size, float_type(dtype)
        k_W, k_V, k_bias = jr.split(key, 3)
        self.W = uniform_fan_in(k_W, (4 * n, n), n, kind)
        self.V = uniform_fan_in(k_V, (4 * n, input_size), n, kind)
        self.bias = uniform_fan_in(k_bias, (4 * n,), n, kind)
        self.hidden_size = n
        self.dt = float(dt)
        execution = require_execution(backend, memory, products, kind)
        self.backend, self.memory, self.products = execution
        self.built = as_built(self)

    def matrix(self) -> Float[Array, "four_n n"]:
        """`W`."""
        return self.W

    def cell(self) -> Cell:
        """Its cell, with the step size."""
        return Cell("lem", 2, 4, (self.dt,))

    def parameters(self, matrix: Float[Array, "four_n n"]) -> Parameters:
        """The matrix that acts on y, and the one that acts on z."""
        n = self.hidden_size
        return super().parameters(matrix)._replace(matrices=(matrix[: 3 * n], matrix[3 * n :]))

    def advance(
        self,
        matrix: Float[Array, "four_n n"],
        x: Float[Array, "batch m"],
        state: Float[Array, "batch two_n"],
    ) -> Float[Array, "batch two_n"]:
        """The equations above."""
        n = self.hidden_size
        y, z = jnp.split(state, 2, axis=1)
        of_input = self.drive(x)
        received = self.product(y, matrix[: 3 * n]) + of_input[:, : 3 * n]
        steps = self.dt * jax.nn.sigmoid(received[:, : 2 * n])
        for_z, for_y = jnp.split(steps, 2, axis=1)
        z = (1 - for_z) * z + for_z * jnp.tanh(received[:, 2 * n :])
        force = jnp.tanh(self.product(z, matrix[3 * n :]) + of_input[:, 3 * n :])
        return jnp.concatenate([(1 - for_y) * y + for_y * force, z], axis=1)
