"""What the comparison models have in common: one interface, that of `organics.nn.ORGaNICs`."""

from abc import abstractmethod
from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from organics.kernels.padding import blank, going, hold
from organics.machine.mesh import alike, by_shares
from organics.nn.arguments import Built, require_as_built, require_state
from organics.nn.sequences import Lengths, as_rows, as_sequences


class RecurrentLayer(eqx.Module):
    """A recurrent layer of n units. A model gives its `matrix` and, in `advance`, its equations.

    The state is one array (k n,) or (batch, k n), k being `parts`; its first n numbers are the
    output, and it starts at 0.

    Attributes
        V, bias: of the input to what the units receive, (d, m) and (d,).
        built: `as_built(self)`, which a model's `__init__` sets last.
    """

    V: Float[Array, "d m"]
    bias: Float[Array, " d"]
    hidden_size: int = eqx.field(static=True)
    """Number of units, n."""
    built: Built = eqx.field(static=True, repr=False)
    parts: ClassVar[int] = 1

    @abstractmethod
    def matrix(self) -> Float[Array, "r s"]:
        """What the state is multiplied with; formed once for a sequence."""

    @abstractmethod
    def advance(
        self,
        matrix: Float[Array, "r s"],
        x: Float[Array, "batch m"],
        state: Float[Array, "batch k"],
    ) -> Float[Array, "batch k"]:
        """The state after a step with the input `x`, given `matrix()`."""

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
        time, n), or with `sequence=False`, when only the last is wanted and the others are not
        stored, (n,) or (batch, n). `state` goes on from an earlier call, to the same results as if
        the sequence had been whole; by default `initial_state()`.

        `lengths` says how many steps each sequence has, (batch,), or is one number for (time, m):
        the final state is that after the last of them, and the outputs are 0 after that. What `x`
        has there, be it NaN, changes nothing, neither values nor gradients.

        Raises `ValueError` if `x`, `state` or `lengths` has the wrong shape or type; if, unless
        traced, one of the first two is not finite, or a length not from 1 to the number of steps;
        or if arrays of the layer were replaced by others that do not fit.
        """
        require_as_built(self, self.built)
        given = as_sequences(x, lengths, self.input_size, self.bias.dtype)
        first = self._rows(state, given.batch, given.batched)
        arrays, static = eqx.partition((self, self.matrix()), eqx.is_array)
        n = self.hidden_size

        def compute(arrays, steps, first, lengths):
            arrays, steps, first, lengths = alike((arrays, steps, first, lengths))
            layer, matrix = eqx.combine(arrays, static)
            goes = going(lengths, steps)

            # A step's inner values are computed again on the way back, which takes less time than
            # to store them for all steps; likewise the input's product, which is therefore in the
            # loop.
            @partial(jax.checkpoint, prevent_cse=False)
            def body(state, step):
                x, goes = step
                state = hold(goes, layer.advance(matrix, x, state), state)
                return state, state[:, :n] if sequence else None

            final, outputs = jax.lax.scan(body, first, (steps, goes))
            return final, blank(goes, outputs)

        final, outputs = by_shares(compute, arrays, given.steps, first, given.lengths)
        final = final if given.batched else final[0]
        if outputs is None:
            return final[..., :n], final
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
        """Nothing is said of its parameters."""
        return {}

    def diagnose(self, x: Float[Array, "batch time m"]) -> dict[str, int | float]:
        """Nothing is said of where it goes, besides its outputs."""
        del x
        return {}

    def _rows(self, state: Array | None, batch: int, batched: bool) -> Float[Array, "batch k"]:
        if state is None:
            state = self.initial_state()
        size = self.parts * self.hidden_size
        require_state("state", state, size, self.bias.dtype, batch if batched else None)
        return jnp.broadcast_to(state, (batch, size))


def drive(
    V: Float[Array, "d m"], bias: Float[Array, " d"], x: Float[Array, "batch m"]
) -> Float[Array, "batch d"]:
    """The input's share of what the units receive, `V x + bias`."""
    return x @ V.T + bias[None]
