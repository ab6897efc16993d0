"""What the trainer needs of any classifier."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from organics.nn.protocols import Linearization


@runtime_checkable
class Model(Protocol):
    """What the trainer needs of a classifier, an Equinox module.

    Inputs are in [0, 1], of shape (batch, m) or, for sequences, (batch, time, m); labels are whole
    numbers of shape (batch,).
    """

    def loss(
        self, inputs: Float[Array, "batch ..."], labels: Int[Array, " batch"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss, and metrics by name, at least "accuracy"; all are means over the batch."""
        ...

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """Measures of its parameters, by name; compiled into every step."""
        ...

    def diagnose(self, inputs: Float[Array, "batch ..."]) -> dict[str, int | float]:
        """Measures of its state on validation inputs, by name; called after every epoch, so it
        should take about as long as a training step on them."""
        ...

    def circuit_sizes(self) -> list[int]:
        """Number of neurons of each layer that comes to rest; empty if there are none."""
        ...

    def linearize(self, x: Float[Array, "..."]) -> list[Linearization]:
        """Each of these layers linearized at rest, for the input `x` of the network."""
        ...
