"""What the trainer needs of any classifier."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Num

from organics.models.target import Target
from organics.nn.protocols import Linearization


@runtime_checkable
class Model(Protocol):
    """What the trainer needs of a classifier, or of a predictor of numbers, an Equinox module.

    Inputs have shape (batch, m) or, for sequences, (batch, time, m); the pixels of images are in
    [0, 1]. Where sequences have unequal lengths, these are a further argument, (batch,).
    """

    def loss(
        self,
        inputs: Float[Array, "batch ..."],
        labels: Num[Array, "batch ..."],
        lengths: Int[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss, and metrics by name, at least those of its target; all are means over the
        batch."""
        ...

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """Measures of its parameters, by name; compiled into every step."""
        ...

    def diagnose(
        self, inputs: Float[Array, "batch ..."], lengths: Int[Array, " batch"] | None = None
    ) -> dict[str, int | float]:
        """Measures of its state on validation inputs, by name; called after every epoch, so it
        should take about as long as a training step on them."""
        ...

    def circuit_sizes(self) -> list[int]:
        """Number of neurons of each layer that comes to rest; empty if there are none."""
        ...

    def linearize(self, x: Float[Array, "..."]) -> list[Linearization]:
        """Each of these layers linearized at rest, for the input `x` of the network."""
        ...


@runtime_checkable
class Predictor(Model, Protocol):
    """What is needed of a model of a user's data besides."""

    @property
    def target(self) -> Target:
        """What it says."""
        ...

    def predict(
        self, inputs: Float[Array, "batch ..."], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch ..."]:
        """Its outputs: class scores, or numbers in standard units."""
        ...
