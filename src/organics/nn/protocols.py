"""What networks and the trainer need of a layer, so that any such layer fits into them."""

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

from organics.circuit.circuit import Circuit


class Settled(NamedTuple):
    """Where a layer comes to rest for an input.

    Attributes
        rates: its output, (n,).
        found: whether it came to rest. If not, a layer that `may_be_lost` has the rates 0.
    """

    rates: Float[Array, " n"]
    found: Bool[Array, ""]


class Linearization(NamedTuple):
    """A layer's circuit linearized about its steady state for an input.

    Attributes
        jacobian: at the steady state, in 1/ms.
        found: whether there is a steady state.
        stable_by_theorem: whether a theorem says that it is stable, as for identity recurrence,
            whatever the computed eigenvalues.
    """

    jacobian: Float[Array, "k k"]
    found: Bool[Array, ""]
    stable_by_theorem: Bool[Array, ""]


@runtime_checkable
class StaticLayer(Protocol):
    """A layer from an input (m,) to rates (n,), such as a circuit at rest.

    Attributes
        may_be_lost: whether there may be inputs for which `settle` finds no rest.
    """

    may_be_lost: ClassVar[bool]

    @property
    def units(self) -> int | None:
        """Number of neurons of its circuit; None if it has none."""

    def __call__(self, x: Float[Array, " m"]) -> Float[Array, " n"]:
        """The rates."""
        ...

    def settle(self, x: Float[Array, " m"]) -> Settled:
        """The rates, and whether there are any."""
        ...

    def circuit(self, x: Float[Array, " m"]) -> tuple[Circuit, Float[Array, " n"]] | None:
        """The circuit for the input, and its drive; None if it is not a `Circuit`."""

    def linearize(self, x: Float[Array, " m"]) -> Linearization | None:
        """Its circuit linearized at rest; None if it has none."""


@runtime_checkable
class SequenceLayer(Protocol):
    """A layer from sequences (batch, time, m) to outputs (batch, time, n)."""

    @property
    def hidden_size(self) -> int:
        """Number of outputs, n."""
        ...

    def __call__(
        self, x: Any, *, sequence: bool = True, lengths: Any = None
    ) -> tuple[Float[Array, "..."], Any]:
        """The outputs, or without `sequence` only the last, (batch, n); and the final state.

        `lengths` is the number of steps of each sequence; later ones, even NaN, change nothing.
        """
        ...

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """Measures of its parameters, by name; compiled into every step of training."""
        ...

    def diagnose(
        self, x: Float[Array, "batch time m"], lengths: Int[Array, " batch"] | None = None
    ) -> dict[str, int | float]:
        """Measures of its states on some sequences, by name; takes about as long as a training step
        on them."""
        ...
