"""States at rest, differentiated as the implicit functions of the parameters that they are."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.rest.system import System


@eqx.filter_custom_jvp
def implicit(system: System, x: Float[Array, " m"]) -> Float[Array, " m"]:
    """`x`, at which the system rests, with the derivative `-J^-1 dF` of changes of the system."""
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
