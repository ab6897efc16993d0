"""The vanilla recurrent network."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import float_type, require_sizes
from organics.baselines.layer import RecurrentLayer
from organics.kernels.cells import Cell
from organics.names import Backend, Memory, ProductType
from organics.nn.arguments import as_built, require_execution
from organics.nn.normalization import uniform_fan_in


class Tanh(RecurrentLayer):
    r"""The vanilla recurrent network, `h <- tanh(W h + V x + bias)`.

    W starts orthogonal, V uniform on +-1/sqrt(m), and the bias at 0.

    Arguments
        input_size, hidden_size: m and n.
        backend, memory, products: as those of `organics.nn.ORGaNICs`.
        dtype: of the parameters; JAX's default float if not given.

    Raises `ValueError`, naming the argument, for a size below 1.

    Source: Elman 1990.
    """

    W: Float[Array, "n n"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        key: PRNGKeyArray,
        backend: Backend = "auto",
        memory: Memory = "more",
        products: ProductType = "full",
        dtype: DTypeLike | None = None,
    ):
        require_sizes(input_size=input_size, hidden_size=hidden_size)
        n, kind = hidden_size, float_type(dtype)
        k_W, k_V = jr.split(key)
        self.W = jax.nn.initializers.orthogonal()(k_W, (n, n), kind)
        self.V = uniform_fan_in(k_V, (n, input_size), input_size, kind)
        self.bias = jnp.zeros(n, kind)
        self.hidden_size = n
        execution = require_execution(backend, memory, products, kind)
        self.backend, self.memory, self.products = execution
        self.built = as_built(self)

    def matrix(self) -> Float[Array, "n n"]:
        """`W`."""
        return self.W

    def cell(self) -> Cell:
        """The cell "rnn"."""
        return Cell("rnn", 1, 1)

    def advance(
        self,
        matrix: Float[Array, "n n"],
        x: Float[Array, "batch m"],
        state: Float[Array, "batch n"],
    ) -> Float[Array, "batch n"]:
        """The equation above."""
        return jnp.tanh(self.product(state, matrix) + self.drive(x))
