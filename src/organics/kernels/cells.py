"""What a recurrence is to the kernels: its equations in JAX, and its cell in C++."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PyTree


@dataclass(frozen=True)
class Cell:
    """Of the native kernels, which: `cpp/cells` has one file for each.

    name: as `cpp/sequence.hpp` lists them.
    parts: vectors (H,) of the state, of which the first is the output.
    kept: vectors that the products of a step give, which the backward pass needs.
    settings: numbers that are not trained, and options.
    """

    name: str
    parts: int
    kept: int
    settings: tuple[float, ...] = ()


class Parameters(NamedTuple):
    """The arrays that a cell computes with, H neurons and m inputs; rows are what receives.

    matrices: up to three, of what the state is multiplied with; (0, 0) is none.
    input: the input's weights.
    bias: what is added to the input's products, if anything is.
    vectors: further parameters of each neuron.
    """

    matrices: tuple[Float[Array, "_ _"], ...]
    input: Float[Array, "r m"]
    bias: Float[Array, " r"] | None
    vectors: Float[Array, "v H"]


@runtime_checkable
class Equations(Protocol):
    """A recurrence on a state (batch, parts H), whose first part is the output."""

    def cell(self, weights: Any) -> Cell:
        """Its cell."""
        ...

    def parameters(self, weights: Any) -> Parameters:
        """What the cell computes with."""
        ...

    def step(
        self, weights: PyTree, x: Float[Array, "batch m"], state: Float[Array, "batch k"]
    ) -> Float[Array, "batch k"]:
        """The state after a step with the input `x`."""
        ...
