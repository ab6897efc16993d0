"""How well a state balances a system's equations: the criterion of every search for a steady
state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from organics.rest.system import System, smallest


class Candidate(NamedTuple):
    """A state, the imbalance of each equation there, and the size of the terms of each.

    `error` is the largest imbalance of an equation relative to its terms, infinite where these are
    out of range. `converged` says whether the state is a steady state.
    """

    x: Float[Array, " m"]
    imbalance: Float[Array, " m"]
    terms: Float[Array, " m"]
    error: Float[Array, ""]
    converged: Bool[Array, ""]

    @property
    def residual(self) -> Float[Array, ""]:
        return jnp.linalg.norm(self.imbalance)


@jax.jit  # traced once for all its uses
def judge(system: System, x: Float[Array, " m"]) -> Candidate:
    """Compare each equation's imbalance with the terms of its own row; one whose terms are 0, or so
    small that `without_underflow` leaves them out, balances."""
    x = system.without_underflow(x)
    imbalance, terms = system.imbalance(x), system.terms(x)
    in_range = jnp.all(jnp.isfinite(terms)) & system.contains(x)  # a sum may overflow
    terms = jnp.where(terms > smallest(x.dtype), terms, 1)
    error = jnp.where(in_range, jnp.max(jnp.abs(imbalance) / terms), jnp.inf)
    # false, and of the same devices as the rest
    return Candidate(x, imbalance, terms, error, jnp.isnan(error) & ~jnp.isnan(error))
