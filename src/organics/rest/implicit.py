"""Steady states differentiated as implicit functions of the parameters."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.rest.system import System


@eqx.filter_custom_jvp
def implicit(system: System, x: Float[Array, " m"]) -> Float[Array, " m"]:
    """The steady state `x` of the system; its derivative for a change `dF` of the equations is
    `-J^-1 dF`."""
    del system
    return x


@implicit.def_jvp
def _(primals, tangents):
    system, _ = primals
    t_system, _ = tangents
    x = implicit(*primals)  # so that the rule can itself be differentiated
    _, pushed = eqx.filter_jvp(lambda system: system.imbalance(x), (system,), (t_system,))
    pushed = jnp.zeros_like(x) if pushed is None else pushed  # None is a zero tangent
    return x, -system.solve(x, pushed)
