"""The recurrence under `jax.lax.scan`, differentiated by JAX: the reference for the others."""

from functools import partial

import jax
from jaxtyping import Array, Bool, Float

from organics.kernels.equations import Options, Weights, step
from organics.kernels.padding import hold


def run(
    options: Options,
    weights: Weights,
    x: Float[Array, "steps batch m"],
    state: Float[Array, "batch four_H"],
    goes: Bool[Array, "steps batch 1"] | None = None,
    *,
    sequence: bool,
) -> tuple[Float[Array, "batch four_H"], Float[Array, "steps batch H"] | None]:
    """Final state, and with `sequence` every `y`; the last ones where a sequence has ended."""
    H = weights.offset.shape[0]

    # a step's inner values are computed again on the way back, in less time than storing them takes
    @partial(jax.checkpoint, prevent_cse=False)
    def body(state, given):
        x, goes = given
        state = hold(goes, step(options, weights, x @ weights.input.T, state), state)
        return state, state[:, :H] if sequence else None

    return jax.lax.scan(body, state, (x, goes))
