"""What the comparison models share: the interface of `organics.nn.ORGaNICs`."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from organics.kernels import recurrence
from organics.kernels.cells import Cell, Parameters
from organics.kernels.rounding import product
from organics.names import Backend, Memory, ProductType
from organics.nn.arguments import Built, require_as_built, require_state
from organics.nn.sequences import Lengths, as_rows, as_sequences


class RecurrentLayer(eqx.Module):
    """A recurrent layer of n units. A model defines its `matrix`, and its equations in `advance`.
    `cell` and `parameters` say what the native kernels compute with.

    The state is one array (k n,) or (batch, k n), where k is `parts`. Its first n numbers are the
    output. It starts at 0.

    Attributes
        V, bias: weights (d, m) and bias (d,) of the input to the units.
        backend, memory, products: as those of `organics.nn.ORGaNICs`.
        built: `as_built(self)`. A model's `__init__` sets it last.
    """

    V: Float[Array, "d m"]
    bias: Float[Array, " d"]
    hidden_size: int = eqx.field(static=True)
    """Number of units, n."""
    backend: Backend = eqx.field(static=True)
    memory: Memory = eqx.field(static=True)
    products: ProductType = eqx.field(static=True)
    built: Built = eqx.field(static=True, repr=False)
    parts: ClassVar[int] = 1

    @abstractmethod
    def matrix(self) -> Float[Array, "r s"]:
        """The matrix that multiplies the state. It is formed once for a sequence."""

    @abstractmethod
    def advance(
        self,
        matrix: Float[Array, "r s"],
        x: Float[Array, "batch m"],
        state: Float[Array, "batch k"],
    ) -> Float[Array, "batch k"]:
        """The state after a step with the input `x`, given `matrix()`."""

    @abstractmethod
    def cell(self) -> Cell:
        """The model's cell, with its untrained numbers."""

    def parameters(self, matrix: Float[Array, "r s"]) -> Parameters:
        """The arrays that the cell computes with, given `matrix()`."""
        return Parameters(
            (matrix,), self.V, self.bias, jnp.zeros((0, self.hidden_size), self.V.dtype)
        )

    def product(
        self, x: Float[Array, "batch s"], matrix: Float[Array, "r s"]
    ) -> Float[Array, "batch r"]:
        """`x matrix^T`, of numbers as `products` says."""
        return product(x, matrix, self.products)

    def drive(
        self,
        x: Float[Array, "batch m"],
        V: Float[Array, "d m"] | None = None,
        bias: Float[Array, " d"] | None = None,
    ) -> Float[Array, "batch d"]:
        """What the units receive from the input, `V x + bias`, by default with the layer's own."""
        V, bias = self.V if V is None else V, self.bias if bias is None else bias
        return product(x, V, self.products, bias)

    @property
    def input_size(self) -> int:
        """Numbers per step, m."""
        return self.V.shape[1]

    def initial_state(self) -> Float[Array, " k"]:
        """The state before the first step, 0."""
        return jax.device_put(np.zeros(self.parts * self.hidden_size, self.bias.dtype))

    def __call__(
        self,
        x: Float[Array, "*batch time m"],
        state: Float[Array, "*states k"] | None = None,
        *,
        sequence: bool = True,
        lengths: Lengths | None = None,
    ) -> tuple[Float[Array, "..."], Float[Array, "*states k"]]:
        """The outputs and the final state.

        `x` has shape (time, m) or (batch, time, m). The outputs have shape (time, n) or (batch,
        time, n). With `sequence=False` only the last output is stored, with shape (n,) or
        (batch, n). `state` continues an earlier call: the results are those of the whole sequence.
        It is `initial_state()` by default.

        `lengths` is the number of steps of each sequence, (batch,), or one number for (time, m).
        The final state is that after the last of these steps. Later outputs are 0, and later
        entries of `x`, even NaN, change neither values nor gradients.

        Raises `ValueError` if `x`, `state` or `lengths` has the wrong shape or type; if `x` or
        `state` is not finite, or a length is not from 1 to the number of steps, unless traced; or
        if arrays of the layer were replaced by others that do not fit.
        """
        require_as_built(self, self.built)
        given = as_sequences(x, lengths, self.input_size, self.bias.dtype)
        first = self._rows(state, given.batch, given.batched)
        weights, static = eqx.partition((self, self.matrix()), eqx.is_array)
        final, outputs = recurrence.run(
            _Equations(static),
            weights,
            given.steps,
            first,
            given.lengths,
            sequence=sequence,
            backend=self.backend,
            memory=self.memory,
        )
        final = final if given.batched else final[0]
        if outputs is None:
            return final[..., : self.hidden_size], final
        return given.as_called(outputs), final

    def step(
        self, x: Float[Array, "*batch m"], state: Float[Array, "*states k"]
    ) -> Float[Array, "*batch k"]:
        """The state one step after `state`, with the input `x`, (m,) or (batch, m).

        Raises `ValueError` as the call does.
        """
        require_as_built(self, self.built)
        rows, batched = as_rows(x, self.input_size, self.bias.dtype)
        after = self.advance(self.matrix(), rows, self._rows(state, rows.shape[0], batched))
        return after if batched else after[0]

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """No figures about its parameters."""
        return {}

    def diagnose(
        self, x: Float[Array, "batch time m"], lengths: Int[Array, " batch"] | None = None
    ) -> dict[str, int | float]:
        """No figures about its states."""
        del x, lengths
        return {}

    def _rows(self, state: Array | None, batch: int, batched: bool) -> Float[Array, "batch k"]:
        if state is None:
            state = self.initial_state()
        size = self.parts * self.hidden_size
        require_state("state", state, (size,), self.bias.dtype, batch if batched else None)
        return jnp.broadcast_to(state, (batch, size))


@dataclass(frozen=True)
class _Equations:
    """The equations of a layer. Its weights are the layer's arrays and its matrix."""

    static: PyTree

    def cell(self, weights: PyTree) -> Cell:
        layer, _ = eqx.combine(weights, self.static)
        return layer.cell()._replace(products=layer.products)

    def parameters(self, weights: PyTree) -> Parameters:
        layer, matrix = eqx.combine(weights, self.static)
        return layer.parameters(matrix)

    def step(
        self, weights: PyTree, x: Float[Array, "batch m"], state: Float[Array, "batch k"]
    ) -> Float[Array, "batch k"]:
        layer, matrix = eqx.combine(weights, self.static)
        return layer.advance(matrix, x, state)
