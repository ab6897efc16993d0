r"""The principal steady state: that with `I - (1 - sqrt(a)) W_r` positive definite.

With `s = sqrt(a)` and `alpha_j = 1 - (1 - s) omega_j`, a steady state has `v_j = d_j / alpha_j` and

    phi(s) = c / s^2 + sum(d_j^2 / alpha_j^2) = 1.

Where all `alpha_j > 0`, which is an interval of `s`, `psi = phi^(-1/2)` is the power mean of degree
-2, times a number, of positive functions that are affine in `s`. So it is concave, and Newton's
method for `psi = 1` rises to the root from any point on its left: nothing has to be bracketed, and
there is no root if the slope vanishes before. It is the secular equation of trust regions (More &
Sorensen 1983). The unknown is the distance x from the lower end of the interval, so that no
`alpha_j` loses digits, however small.

If `W_r` is positive semidefinite, whatever its norm, phi falls on the whole interval: there is one
principal state, if any, and it is stable. It exists if the mode of the largest `omega_j` is driven
(or that `omega_j <= 1`), and the square sum of the drives of modes with `omega_j = 0` is below 1.
Otherwise phi, which is convex, may have a second root, at which `det(-J)` is negative.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from organics.circuit.circuit import Circuit, State
from organics.errors import NoSteadyState
from organics.rest.point import OperatingPoint
from organics.rest.search import given_state
from organics.shared_pool.modes import Modes, reduction

_MOST = 200  # steps; the method takes about six


class Principal(NamedTuple):
    """The principal state in the modes.

    Attributes
        s: `sqrt(a)`.
        alpha: `1 - (1 - s) omega`, shape (n,), > 0.
        v: the modes, shape (n,).
        exists: whether there is such a state; if not, the rest is NaN.
    """

    s: Float[Array, "*batch"]
    alpha: Float[Array, "*batch n"]
    v: Float[Array, "*batch n"]
    exists: Bool[Array, "*batch"]


class _Climb(NamedTuple):
    x: Float[Array, ""]
    moving: Bool[Array, ""]
    possible: Bool[Array, ""]
    i: Int[Array, ""]


def principal(modes: Modes) -> Principal:
    """The principal state. Can be jitted and mapped over; has no derivatives."""
    omega, d = jnp.asarray(modes.omega), jnp.asarray(modes.d)
    c = jnp.asarray(modes.c, omega.dtype)
    eps = float(jnp.finfo(omega.dtype).eps)
    top = omega[-1]
    beyond = top > 1
    safe = jnp.where(beyond, top, 1)
    least = jnp.where(beyond, (top - 1) / safe, 0)
    base = jnp.where(beyond, (top - omega) / safe, 1 - omega)

    def at(x):
        """s, alpha, and `v`, which is 0 where nothing drives a mode."""
        alpha = base + x * omega
        v = jnp.where(d == 0, 0, d / jnp.where(d == 0, 1, alpha))
        return least + x, alpha, v

    # at the root no term of phi exceeds 1
    alone = jnp.where(omega > 0, (jnp.abs(d) - base) / jnp.where(omega > 0, omega, 1), 0)
    first = jnp.maximum(jnp.maximum(jnp.sqrt(c) - least, jnp.max(alone)), 0)
    # without a drive along the top mode phi may be below 1 at the end of the interval
    s, _, v = at(first)
    from_left = c / jnp.square(s) + jnp.sum(jnp.square(v)) >= 1 - 1e3 * eps

    def climb(now):
        s, alpha, v = at(now.x)
        phi = c / jnp.square(s) + jnp.sum(jnp.square(v))
        undriven = jnp.where(d == 0, 1, alpha)
        fall = c / s**3 + jnp.sum(omega * jnp.square(v) / undriven)
        inside = jnp.all((alpha > 0) | ((d == 0) & (alpha >= 0)))
        possible = now.possible & (fall > 0) & inside & jnp.isfinite(phi)
        slope = jnp.where(possible, fall, 1)
        step = jnp.where(possible, phi * (jnp.sqrt(phi) - 1) / slope, 0)
        moving = jnp.abs(step) > 8 * eps * (now.x + phi / slope)  # the rounding of phi
        return _Climb(now.x + step, moving, possible, now.i + 1)

    def unfinished(now):
        return now.possible & now.moving & (now.i < _MOST)

    begin = _Climb(first, jnp.bool_(True), from_left, jnp.int32(0))
    end = jax.lax.while_loop(unfinished, climb, begin)
    s, alpha, v = at(end.x)
    exists = end.possible & ~end.moving & jnp.all(alpha > 0)
    s, alpha, v = (jnp.where(exists, value, jnp.nan) for value in (s, alpha, v))
    return Principal(s, alpha, v, exists)


def principal_state(circuit: Circuit, z: 'Float[Array | np.ndarray, " n"]') -> OperatingPoint:
    """The principal steady state of a circuit whose neurons share one pool, with symmetric `W_r`.

    It is the one that continues divisive normalization as `W_r` leaves the identity: the only state
    at which `I - (1 - sqrt(a)) W_r` is positive definite and `det(-J) > 0`. If `W_r` is positive
    semidefinite, whatever its norm, it is stable; `certify` says so. There may be other states:
    see `steady_states`.

    Needs concrete values: the main model, all weights of `W` the same, and `b0 sigma`, `tau_y` and
    `tau_a` the same for all neurons. Computed in float64 where JAX allows it.

    Raises `ValueError` for another circuit, with the reason, and `NoSteadyState` if there is no
    such state.
    """
    modes, basis = reduction(circuit, z)
    found = _principal(modes)
    if not found.exists:
        raise NoSteadyState(
            "the circuit has no principal steady state under this drive: look for others by "
            "`organics.steady_states`."
        )
    y = basis @ np.asarray(found.v)
    a = np.full(circuit.n, float(found.s) ** 2)
    return given_state(
        circuit, z, State(jnp.asarray(y, circuit.dtype), jnp.asarray(a, circuit.dtype))
    )


_principal = jax.jit(principal)
