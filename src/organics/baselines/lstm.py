"""The long short-term memory."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import float_type, is_number, require_sizes
from organics.baselines.layer import RecurrentLayer
from organics.kernels.cells import Cell
from organics.names import Backend, Memory, ProductType
from organics.nn.arguments import as_built, require_execution
from organics.nn.normalization import uniform_fan_in


class LSTM(RecurrentLayer):
    r"""Long short-term memory, with one bias vector. The state is `h | c`.

        i, f, o = sigmoid(W h + V x + bias),  g = tanh(W h + V x + bias), each with its own rows
        c <- f c + i g
        h <- o tanh(c)

    Weights start uniform on +-1/sqrt(n). Biases start at 0, except those of the forget gate.

    Arguments
        input_size, hidden_size: m and n.
        forget_bias: the bias of the forget gate at the start.
        backend, memory, products: as those of `organics.nn.ORGaNICs`.
        dtype: of the parameters; JAX's default float if not given.

    Raises `ValueError`, naming the argument, for a size below 1 or a bias that is not finite.

    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000 for the forget gate.
    """

    W: Float[Array, "four_n n"]  # rows i, f, o, g, as in V and bias
    parts = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        key: PRNGKeyArray,
        forget_bias: float = 1.0,
        backend: Backend = "auto",
        memory: Memory = "more",
        products: ProductType = "full",
        dtype: DTypeLike | None = None,
    ):
        require_sizes(input_size=input_size, hidden_size=hidden_size)
        n, kind = hidden_size, float_type(dtype)
        k_W, k_V = jr.split(key)
        self.W = uniform_fan_in(k_W, (4 * n, n), n, kind)
        self.V = uniform_fan_in(k_V, (4 * n, input_size), n, kind)
        if not is_number(forget_bias) or not abs(forget_bias) <= float(np.finfo(kind).max):
            raise ValueError(
                f"`forget_bias` must be one finite number in {kind}, not {forget_bias!r}."
            )
        self.bias = jnp.zeros(4 * n, kind).at[n : 2 * n].set(forget_bias)
        self.hidden_size = n
        execution = require_execution(backend, memory, products, kind)
        self.backend, self.memory, self.products = execution
        self.built = as_built(self)

    def matrix(self) -> Float[Array, "four_n n"]:
        """`W`."""
        return self.W

    def cell(self) -> Cell:
        """The cell "lstm"."""
        return Cell("lstm", 2, 4)

    def advance(
        self,
        matrix: Float[Array, "four_n n"],
        x: Float[Array, "batch m"],
        state: Float[Array, "batch two_n"],
    ) -> Float[Array, "batch two_n"]:
        """The equations above."""
        n = self.hidden_size
        h, c = jnp.split(state, 2, axis=1)
        received = self.product(h, matrix) + self.drive(x)
        # nonlinearities before the split: XLA does not vectorise them on a slice
        i, f, o = jnp.split(jax.nn.sigmoid(received[:, : 3 * n]), 3, axis=1)
        c = f * c + i * jnp.tanh(received[:, 3 * n :])
        return jnp.concatenate([o * jnp.tanh(c), c], axis=1)
