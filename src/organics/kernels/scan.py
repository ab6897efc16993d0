"""The recurrence under `jax.lax.scan`, differentiated by JAX: the reference for the others."""

from functools import partial

import jax
from jaxtyping import Array, Float

from organics.kernels.equations import Options, Weights, step


def run(
    options: Options,
    weights: Weights,
    x: Float[Array, "steps batch m"],
    state: Float[Array, "batch four_H"],
    *,
    sequence: bool,
) -> tuple[Float[Array, "batch four_H"], Float[Array, "steps batch H"] | None]:
    """Final state, and with `sequence` every `y`."""
    H = weights.offset.shape[0]

    # a step's inner values are computed again on the way back, in less time than storing them takes
    @partial(jax.checkpoint, prevent_cse=False)
    def body(state, x):
        state = step(options, weights, x @ weights.input.T, state)
        return state, state[:, :H] if sequence else None

    return jax.lax.scan(body, state, x)
