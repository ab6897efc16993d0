"""How well a state balances the circuit's equations: what every search for rest goes by."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from organics.circuit.circuit import Circuit, State


class Candidate(NamedTuple):
    """A state, what is left over there of each equation, and the size of the terms of each.

    `error` is the largest part of its terms that an equation leaves over, infinite where they are
    out of range. `converged` says that a steady state is there.
    """

    state: State
    imbalance: Float[Array, " two_n"]
    terms: Float[Array, " two_n"]
    error: Float[Array, ""]
    converged: Bool[Array, ""]

    @property
    def residual(self) -> Float[Array, ""]:
        return jnp.linalg.norm(self.imbalance)


@jax.jit  # traced once for all the places that it is used in
def judge(circuit: Circuit, state: State, z) -> Candidate:
    """Each equation by the terms of its own row; one without any terms balances.

    A `y` so small that products with it underflow is 0.
    """
    y, a = state
    least = float(jnp.finfo(y.dtype).tiny / jnp.finfo(y.dtype).eps)
    state = State(jnp.where(jnp.abs(y) < least, 0, y), a)
    imbalance = jnp.concatenate(circuit.imbalance(state, z))
    terms = jnp.concatenate(circuit.terms(state, z))
    in_range = jnp.all(jnp.isfinite(terms)) & jnp.all(state.a > 0)  # a sum may overflow
    terms = jnp.where(terms > 0, terms, 1)
    error = jnp.where(in_range, jnp.max(jnp.abs(imbalance) / terms), jnp.inf)
    # false, and of the same devices as the rest
    return Candidate(state, imbalance, terms, error, jnp.isnan(error) & ~jnp.isnan(error))
