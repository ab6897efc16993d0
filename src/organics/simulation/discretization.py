r"""The effect of the step size of a stochastic simulation on the fluctuations.

For a mode of the linearized circuit, `dx = lambda x dt + dB`, a step of `dt` is

    x -> R x + G dB,    w = lambda dt,

with `R = 1 + w`, `G = 1` in the Euler-Maruyama and `R = 1 + w + w^2/2`, `G = 1 + w/2` in the Heun
scheme. Steps are stable if `|R| < 1`; the ratio of their variance to that of the mode,
`-1 / (2 Re lambda)`, is then

    |G|^2 (-2 Re w) / (1 - |R|^2).
"""

import math
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float

from organics.circuit.areas import Areas
from organics.linear.jacobian import eigenvalues, jacobian
from organics.rest.search import steady_state

Scheme = Literal["euler-maruyama", "heun"]


def modes(circuit: Areas, drives: Float[Array, "drives n"]) -> Complex[Array, "drives m"]:
    """Eigenvalues of the Jacobian, in 1/ms, at the steady state for each drive.

    NaN where no stable steady state was found. They have no derivatives.
    """
    J = _linearize(*jax.lax.stop_gradient((circuit, drives)))
    # for large matrices NumPy is many times faster than a compiled function
    if isinstance(J, Tracer):
        return _stable_only(jnp, jnp.linalg.eigvals(J))
    return jax.device_put(_stable_only(np, eigenvalues(np.asarray(J))))


def _stable_only(numbers, found):
    """The eigenvalues found, with `numbers` being `jax.numpy` or NumPy; NaN where some are not
    stable."""
    return numbers.where(numbers.all(found.real < 0, axis=1)[:, None], found, numbers.nan)


@eqx.filter_jit
def _linearize(circuit: Areas, drives) -> Float[Array, "drives m m"]:
    """Jacobians at the steady states, NaN where none was found."""

    def at(circuit, z):
        steady = steady_state(circuit, z)
        return jnp.where(steady.converged, jacobian(circuit, steady.state), jnp.nan)

    return jax.vmap(at, (None, 0))(circuit, drives)


@partial(jax.jit, static_argnums=2)
def unstable(
    modes: Complex[Array, "drives m"], dt: Float[Array, ""], scheme: Scheme
) -> Bool[Array, " drives"]:
    """Whether steps of `dt` ms are unstable, for each drive; false where modes are NaN."""
    _, loss = _gain_and_loss(modes * dt.astype(modes.dtype), scheme)
    return jnp.any(loss <= 0, axis=1)


def variance_error(modes: Complex[np.ndarray, "drives m"], dt: float, scheme: Scheme) -> float:
    """Largest relative error of the variance of a mode in steps of `dt` ms.

    `inf` if the steps are unstable, 0 where modes are NaN.
    """
    with np.errstate(over="ignore"):  # such long steps are unstable
        gain, loss = _gain_and_loss(modes[np.isfinite(modes)] * dt, scheme)
    if np.any(loss <= 0):
        return np.inf
    return float(np.max(np.abs(gain / loss - 1), initial=0))


def largest_step(
    modes: Complex[np.ndarray, "drives m"], dt: float, scheme: Scheme, allowed: float
) -> float:
    """The largest step, below a `dt` that is too long, with at most the allowed variance error.

    With `allowed=inf`, the largest stable step. The modes must be stable.
    """

    def fair(step):
        error = variance_error(modes, step, scheme)
        return np.isfinite(error) and error <= allowed

    below, above = dt / 2, dt
    while below > 0 and not fair(below):
        below, above = below / 2, below
    for _ in range(np.finfo(float).nmant):
        middle = (below + above) / 2
        below, above = (middle, above) if fair(middle) else (below, middle)
    return below


def in_words(step: float) -> str:
    """A step rounded down to three digits."""
    unit = 10.0 ** (math.floor(math.log10(step)) - 2)
    return f"{math.floor(step / unit) * unit:.3g} ms"


def _gain_and_loss(w, scheme: Scheme):
    """`|G|^2`, and `(1 - |R|^2) / (-2 Re w)`, which is positive if the steps are stable."""
    a, s = w.real, abs(w) ** 2
    if scheme == "heun":
        return 1 + a + s / 4, 1 + a + s / 2 * (1 + s / (4 * a))
    return 1 + 0 * a, 1 + s / (2 * a)
