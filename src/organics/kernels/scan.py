"""The recurrence under `jax.lax.scan`, differentiated by JAX: the reference for `native`."""

from functools import partial

import jax
from jaxtyping import Array, Bool, Float, PyTree

from organics.kernels.cells import Equations
from organics.kernels.padding import hold


def run(
    equations: Equations,
    weights: PyTree,
    x: Float[Array, "steps batch m"],
    state: Float[Array, "batch k"],
    goes: Bool[Array, "steps batch 1"] | None = None,
    *,
    sequence: bool,
) -> tuple[Float[Array, "batch k"], Float[Array, "steps batch H"] | None]:
    """Final state, and with `sequence` every output. A sequence that has ended repeats its last."""
    H = state.shape[1] // equations.cell(weights).parts

    # The backward pass computes a step's inner values again, which is quicker than storing them.
    # The same holds for the input's product, so it is in the loop.
    @partial(jax.checkpoint, prevent_cse=False)
    def body(state, given):
        x, goes = given
        state = hold(goes, equations.step(weights, x, state), state)
        return state, state[:, :H] if sequence else None

    return jax.lax.scan(body, state, (x, goes))
