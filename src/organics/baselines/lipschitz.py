"""The Lipschitz recurrent network."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import (
    float_type,
    is_number,
    require_not_negative,
    require_positive,
    require_sizes,
)
from organics.baselines.layer import RecurrentLayer
from organics.kernels.cells import Cell, Parameters
from organics.names import Backend, Memory, ProductType
from organics.nn.arguments import as_built, require_execution
from organics.nn.normalization import uniform_fan_in


class LipschitzRNN(RecurrentLayer):
    r"""Euler steps of a linear equation plus a Lipschitz nonlinearity.

        h <- h + epsilon [A h + tanh(W h + V x + bias)]

    where `A = (1 - beta)(M + M^T) + beta (M - M^T) - gamma I`. W is formed likewise from its own M.
    Both M start normal with deviation `spread / n`; V and the bias start uniform on +-1/sqrt(m).

    Arguments
        input_size, hidden_size: m and n.
        epsilon: the step size.
        beta: the share of the antisymmetric part, in [0, 1].
        gamma: the damping.
        spread: as above. The published 32, for 128 units, starts with gradients of up to 1e5 at
            larger steps, so clip them.
        backend, memory, products: as those of `organics.nn.ORGaNICs`.
        dtype: of the parameters; JAX's default float if not given.

    Raises `ValueError`, naming the argument, for sizes below 1, `epsilon` or `spread` not above 0,
    `beta` outside [0, 1], or a negative `gamma`.

    Source: Erichson et al. 2021, Lipschitz recurrent neural networks.
    """

    M: Float[Array, "two n n"]  # that of A, that of W
    epsilon: float = eqx.field(static=True)
    beta: float = eqx.field(static=True)
    gamma: float = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        key: PRNGKeyArray,
        epsilon: float = 0.03,
        beta: float = 0.8,
        gamma: float = 0.001,
        spread: float = 2.0,
        backend: Backend = "auto",
        memory: Memory = "more",
        products: ProductType = "full",
        dtype: DTypeLike | None = None,
    ):
        require_sizes(input_size=input_size, hidden_size=hidden_size)
        require_positive(epsilon=epsilon, spread=spread)
        require_not_negative(gamma=gamma)
        if not is_number(beta) or not 0 <= beta <= 1:
            raise ValueError(f"`beta` must be one number in [0, 1], not {beta!r}.")
        n, m, kind = hidden_size, input_size, float_type(dtype)
        k_M, k_V, k_bias = jr.split(key, 3)
        self.M = jr.normal(k_M, (2, n, n), kind) * (spread / n)
        self.V = uniform_fan_in(k_V, (n, m), m, kind)
        self.bias = uniform_fan_in(k_bias, (n,), m, kind)
        self.hidden_size = n
        self.epsilon, self.beta, self.gamma = float(epsilon), float(beta), float(gamma)
        execution = require_execution(backend, memory, products, kind)
        self.backend, self.memory, self.products = execution
        self.built = as_built(self)

    def matrix(self) -> Float[Array, "two_n n"]:
        """A above W."""
        n, transposed = self.hidden_size, jnp.swapaxes(self.M, 1, 2)
        mixed = (1 - self.beta) * (self.M + transposed) + self.beta * (self.M - transposed)
        return (mixed - self.gamma * jnp.eye(n, dtype=self.M.dtype)[None]).reshape(2 * n, n)

    def cell(self) -> Cell:
        """Its cell, with the step size."""
        return Cell("lipschitz", 1, 2, (self.epsilon,))

    def parameters(self, matrix: Float[Array, "two_n n"]) -> Parameters:
        """A and W."""
        n = self.hidden_size
        return super().parameters(matrix)._replace(matrices=(matrix[:n], matrix[n:]))

    def advance(
        self,
        matrix: Float[Array, "two_n n"],
        x: Float[Array, "batch m"],
        state: Float[Array, "batch n"],
    ) -> Float[Array, "batch n"]:
        """The equation above."""
        Ah, Wh = jnp.split(self.product(state, matrix), 2, axis=1)
        return state + self.epsilon * (Ah + jnp.tanh(Wh + self.drive(x)))
