"""States at rest, differentiated as the implicit functions of the parameters that they are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float


class Equations(NamedTuple):
    """What a state at rest solves.

    Attributes
        imbalance: of parameters and a state, one number for each of the state's; 0 at rest.
        solve: of parameters, a state and `b`: what `J x = b` is solved by, with `J` the derivative
            of the imbalance with respect to the state.
    """

    imbalance: Callable[[Any, Any], Float[Array, " m"]]
    solve: Callable[[Any, Any, Float[Array, " m"]], Float[Array, " m"]]


@eqx.filter_custom_jvp
def implicit(equations: Equations, parameters: Any, state: Any) -> Any:
    """`state`, which solves the equations, with the derivative `-J^-1 dF/dparameters`."""
    del equations, parameters
    return state


@implicit.def_jvp
def _(primals, tangents):
    equations, parameters, state = primals
    _, t_parameters, _ = tangents
    state = implicit(*primals)  # so that the rule can itself be differentiated
    _, pushed = eqx.filter_jvp(
        lambda parameters: equations.imbalance(parameters, state), (parameters,), (t_parameters,)
    )
    flat, as_state = ravel_pytree(state)
    pushed = jnp.zeros_like(flat) if pushed is None else pushed  # None is a zero tangent
    return state, as_state(-equations.solve(parameters, state, pushed))
