"""What the comparison models have in common: one interface, that of `organics.nn.ORGaNICs`."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.baselines import scan


class RecurrentLayer(eqx.Module):
    """A recurrent layer of n units whose step multiplies the state with one matrix.

    The state is one array (k n,) or (batch, k n), k being `parts`; its first n numbers are the
    output, and it starts at 0. A model gives its `matrix` and its equations, `receive` and
    `update`, which are called on a layer without parameters.

    Attributes
        V, bias: of the input's drive, `V x + bias`, (d, m) and (d,).
    """

    V: Float[Array, "d m"]
    bias: Float[Array, " d"]
    hidden_size: int = eqx.field(static=True)
    """Number of units, n."""
    parts: ClassVar[int] = 1

    @abstractmethod
    def matrix(self) -> Float[Array, "r s"]:
        """What the first s numbers of the state are multiplied with."""

    def receive(
        self, drive: Float[Array, "*rows d"], product: Float[Array, "*rows r"]
    ) -> Float[Array, "*rows w"]:
        """All that the units receive: the input's drive plus the matrix product."""
        return drive + product

    @abstractmethod
    def update(
        self, state: Float[Array, "batch kn"], received: Float[Array, "batch w"]
    ) -> Float[Array, "batch kn"]:
        """The state after a step."""

    @property
    def input_size(self) -> int:
        """Numbers per step, m."""
        return self.V.shape[1]

    def initial_state(self) -> Float[Array, " kn"]:
        """The state before the first step, 0."""
        return jnp.zeros(self.parts * self.hidden_size, self.bias.dtype)

    def __call__(
        self,
        x: Float[Array, "*batch time m"],
        state: Float[Array, "*states kn"] | None = None,
        *,
        sequence: bool = True,
    ) -> tuple[Float[Array, "..."], Float[Array, "*states kn"]]:
        """The outputs and the final state.

        `x` has shape (time, m) or (batch, time, m). The outputs have shape (time, n) or (batch,
        time, n), or with `sequence=False`, when only the last is wanted and the others are not
        stored, (n,) or (batch, n). `state` goes on from an earlier call, to the same results as if
        the sequence had been whole; by default `initial_state()`.

        Raises `ValueError` if `x` or `state` has the wrong shape or type.
        """
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size or 0 in x.shape:
            raise ValueError(
                f"`x` must have shape (time, {self.input_size}) or (batch, time, "
                f"{self.input_size}), with none of them 0, not {x.shape}."
            )
        self._require_type(x)
        batched = x.ndim == 3
        steps = jnp.moveaxis(x, 0, 1) if batched else x[:, None]
        before = self._rows(state, steps.shape[1], batched)
        rule = eqx.filter(self, eqx.is_array, inverse=True)
        drive = self._drive(steps)
        final, outputs = scan.run(rule, self.matrix(), drive, before, sequence=sequence)
        if outputs is None:
            outputs = final[:, : self.hidden_size]
            return (outputs, final) if batched else (outputs[0], final[0])
        return (jnp.moveaxis(outputs, 0, 1), final) if batched else (outputs[:, 0], final[0])

    def step(
        self, x: Float[Array, "*batch m"], state: Float[Array, "*states kn"]
    ) -> Float[Array, "*batch kn"]:
        """The state one step after `state`, with the input `x`, (m,) or (batch, m).

        Raises `ValueError` as the call does.
        """
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size or 0 in x.shape:
            raise ValueError(
                f"`x` must have shape ({self.input_size},) or (batch, {self.input_size}), "
                f"with none of them 0, not {x.shape}."
            )
        self._require_type(x)
        batched = x.ndim == 2
        rows = x if batched else x[None]
        before = self._rows(state, rows.shape[0], batched)
        after = scan.step(self, self.matrix(), self._drive(rows), before)
        return after if batched else after[0]

    def _drive(self, x: Float[Array, "*rows m"]) -> Float[Array, "*rows d"]:
        return x @ self.V.T + self.bias.reshape((1,) * (x.ndim - 1) + (-1,))

    def _require_type(self, x: Array):
        if x.dtype != self.bias.dtype:
            raise ValueError(f"`x` must be of the layer's type {self.bias.dtype}, not {x.dtype}.")

    def _rows(self, state: Array | None, batch: int, batched: bool) -> Float[Array, "batch kn"]:
        if state is None:
            state = self.initial_state()
        size = self.parts * self.hidden_size
        if state.shape != (size,) and not (batched and state.shape == (batch, size)):
            raise ValueError(
                f"`state` must have shape ({size},)"
                + (f" or ({batch}, {size})" if batched else "")
                + f", not {state.shape}."
            )
        if state.dtype != self.bias.dtype:
            raise ValueError(
                f"`state` must be of the layer's type {self.bias.dtype}, not {state.dtype}."
            )
        return jnp.broadcast_to(state, (batch, size))


def floating(dtype: type | None) -> jnp.dtype:
    """The type of a layer's parameters: JAX's default float if none is given."""
    return jax.dtypes.canonicalize_dtype(float if dtype is None else dtype)


def require_not_negative(**values: float) -> None:
    """Refuse, by name, values below 0."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"`{name}` must be >= 0, not {value}.")
