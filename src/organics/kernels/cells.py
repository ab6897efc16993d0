"""A recurrence as the kernels see it: its equations in JAX, and its cell in C++."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PyTree

from organics.kernels.library import Cell


class Parameters(NamedTuple):
    """The arrays that a cell computes with, for H neurons and m inputs. Rows are the receivers.

    matrices: up to three matrices that multiply the state; (0, 0) is none.
    input: the input's weights.
    bias: added to the input's products, if given.
    vectors: further parameters of each neuron.
    """

    matrices: tuple[Float[Array, "_ _"], ...]
    input: Float[Array, "r m"]
    bias: Float[Array, " r"] | None
    vectors: Float[Array, "v H"]


@runtime_checkable
class Equations(Protocol):
    """A recurrence on a state (batch, parts H). The first part is the output."""

    def cell(self, weights: Any) -> Cell:
        """Its cell."""
        ...

    def parameters(self, weights: Any) -> Parameters:
        """The arrays that the cell computes with."""
        ...

    def step(
        self, weights: PyTree, x: Float[Array, "batch m"], state: Float[Array, "batch k"]
    ) -> Float[Array, "batch k"]:
        """The state after a step with the input `x`."""
        ...
