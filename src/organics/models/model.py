"""What the trainer asks of any classifier."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from organics.nn.protocols import Linearization


@runtime_checkable
class Model(Protocol):
    """What the trainer asks of a classifier, which is an Equinox module.

    Inputs are in [0, 1], of shape (batch, m), or of sequences (batch, time, m); labels are whole
    numbers (batch,).
    """

    def loss(
        self, inputs: Float[Array, "batch ..."], labels: Int[Array, " batch"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean over the batch of what is made small, and that of some metrics by name, with at
        least "accuracy"."""
        ...

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """What it says of its parameters, by name; compiled into every step."""
        ...

    def diagnose(self, inputs: Float[Array, "batch ..."]) -> dict[str, int | float]:
        """Where its state goes on inputs that it is not trained on, by name; asked for after every
        epoch, so in about the time that a step of training on them takes."""
        ...

    def circuit_sizes(self) -> list[int]:
        """Number of neurons of each layer that comes to rest; none if it has no such layers."""
        ...

    def linearize(self, x: Float[Array, "..."]) -> list[Linearization]:
        """Each of these layers near rest, when the network sees the input `x`."""
        ...
