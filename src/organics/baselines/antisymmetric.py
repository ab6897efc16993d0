"""The AntisymmetricRNN, plain and gated."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import float_type, require_not_negative, require_positive, require_sizes
from organics.baselines.layer import RecurrentLayer
from organics.kernels.cells import Cell, Parameters
from organics.names import Backend, Memory, ProductType
from organics.nn.arguments import as_built, require_execution


class AntisymmetricRNN(RecurrentLayer):
    r"""Euler steps of an ordinary differential equation whose Jacobian is nearly antisymmetric.

        h <- h + epsilon tanh((W - W^T - gamma I) h + V x + bias)

    The gated network multiplies the tanh by `sigmoid((W - W^T - gamma I) h + V_z x + bias_z)`.
    W is strictly upper triangular. It starts normal with variance `spread^2 / n`; V and V_z start
    normal with variance 1/m, the biases at 0.

    Arguments
        input_size, hidden_size: m and n.
        gated: as above.
        epsilon: the step size.
        gamma: the damping, which offsets the error of the Euler step.
        spread: as above.
        backend, memory, products: as those of `organics.nn.ORGaNICs`.
        dtype: of the parameters; JAX's default float if not given.

    Raises `ValueError`, naming the argument, for sizes below 1, `epsilon` or `spread` not above 0,
    or a negative `gamma`.

    Source: Chang et al. 2019, AntisymmetricRNN.
    """

    upper: Float[Array, " pairs"]  # the entries of W, row by row
    V_z: Float[Array, "n m"] | None
    bias_z: Float[Array, " n"] | None
    epsilon: float = eqx.field(static=True)
    gamma: float = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        key: PRNGKeyArray,
        gated: bool = False,
        epsilon: float = 0.1,
        gamma: float = 0.01,
        spread: float = 1.0,
        backend: Backend = "auto",
        memory: Memory = "more",
        products: ProductType = "full",
        dtype: DTypeLike | None = None,
    ):
        require_sizes(input_size=input_size, hidden_size=hidden_size)
        require_positive(epsilon=epsilon, spread=spread)
        require_not_negative(gamma=gamma)
        n, kind = hidden_size, float_type(dtype)
        k_W, *k_V = jr.split(key, 3)
        self.upper = jr.normal(k_W, (n * (n - 1) // 2,), kind) * (spread / n**0.5)
        self.V, V_z = (jr.normal(k, (n, input_size), kind) / input_size**0.5 for k in k_V)
        self.bias = bias_z = jnp.zeros(n, kind)
        self.V_z, self.bias_z = (V_z, bias_z) if gated else (None, None)
        self.hidden_size = n
        self.epsilon, self.gamma = float(epsilon), float(gamma)
        execution = require_execution(backend, memory, products, kind)
        self.backend, self.memory, self.products = execution
        self.built = as_built(self)

    def matrix(self) -> Float[Array, "n n"]:
        """`W - W^T - gamma I`."""
        n = self.hidden_size
        W = jnp.zeros((n, n), self.upper.dtype).at[np.triu_indices(n, 1)].set(self.upper)
        return W - W.T - self.gamma * jnp.eye(n, dtype=self.upper.dtype)

    def cell(self) -> Cell:
        """The gated or plain cell, with its step size."""
        gated = self.V_z is not None
        name = "antisymmetric-gated" if gated else "antisymmetric"
        return Cell(name, 1, 2 if gated else 1, (self.epsilon,))

    def parameters(self, matrix: Float[Array, "n n"]) -> Parameters:
        """V above V_z, and the bias above bias_z, if gated."""
        plain = super().parameters(matrix)
        if self.V_z is None:
            return plain
        assert self.bias_z is not None
        return plain._replace(
            input=jnp.concatenate([self.V, self.V_z]),
            bias=jnp.concatenate([self.bias, self.bias_z]),
        )

    def advance(
        self,
        matrix: Float[Array, "n n"],
        x: Float[Array, "batch m"],
        state: Float[Array, "batch n"],
    ) -> Float[Array, "batch n"]:
        """The equation above."""
        product = self.product(state, matrix)
        change = jnp.tanh(product + self.drive(x))
        if self.V_z is not None:
            assert self.bias_z is not None
            change = change * jax.nn.sigmoid(product + self.drive(x, self.V_z, self.bias_z))
        return state + self.epsilon * change
