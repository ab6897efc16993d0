r"""All eigenvalues of a circuit with one pool, from its modes, without a matrix.

At the principal state the Jacobian has n - 1 eigenvalues `-1/tau_a`. The others are the roots of

    g(l) = l + gamma + sum(rho_j / (l - p_j)),

with poles `p_j = -alpha_j / tau_y`, `gamma = c / (a tau_a)`, and residues
`rho_j = s omega_j v_j^2 / (tau_y tau_a)`. As `alpha_j = 1 - (1 - s) omega_j`, the poles with
`omega_j > 0` lie on one side of those with `omega_j < 0`: on the right for s < 1. Between two
neighbouring poles whose `rho` have the same sign g goes from one infinity to the other, and there
is a root; and there is one beyond the outermost pole with `omega_j < 0`. These are n - 1 real
roots, so *at most one pair of eigenvalues is complex*. The sums of all roots and of their squares,
which are traces, give the remaining two.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int

from organics.linear.jacobian import descending
from organics.shared_pool.modes import Modes
from organics.shared_pool.principal import Principal

_MOST = 200  # steps; nearly all take fewer than ten


class _Search(NamedTuple):
    root: Float[Array, " k"]
    low: Float[Array, " k"]
    high: Float[Array, " k"]
    done: Bool[Array, " k"]
    i: Int[Array, ""]


def reduced_eigenvalues(modes: Modes, at: Principal) -> Complex[Array, " m"]:
    """The n + 1 eigenvalues besides `-1/tau_a` at the principal state, in 1/ms, by falling real
    part.

    NaN if there is no such state. Can be jitted and mapped over; has no derivatives. As accurate as
    those of the whole Jacobian by LAPACK: two that nearly coincide, to half of the digits.
    """
    poles, rho, gamma = _secular(modes, at)
    real = _between_poles(poles, rho, gamma, modes, at)
    total = jnp.sum(poles) - gamma - jnp.sum(real)
    squares = jnp.sum(jnp.square(poles) - 2 * rho) + gamma**2 - jnp.sum(jnp.square(real))
    half = total / 2
    beyond = squares / 2 - jnp.square(half)
    apart = jnp.sqrt(jnp.abs(beyond))
    re, im = jnp.where(beyond > 0, apart, 0), jnp.where(beyond > 0, 0, apart)
    last = jnp.stack([jax.lax.complex(half + re, im), jax.lax.complex(half - re, -im)])
    every = jnp.concatenate([jax.lax.complex(real, jnp.zeros_like(real)), last])
    return descending(jnp.where(at.exists, every, jnp.nan))


def _secular(modes: Modes, at: Principal):
    """Poles, rising, their residues, and gamma."""
    omega = jnp.asarray(modes.omega)
    tau_y, tau_a = (jnp.asarray(tau, omega.dtype) for tau in (modes.tau_y, modes.tau_a))
    poles = -at.alpha / tau_y
    rho = at.s * omega * jnp.square(at.v) / (tau_y * tau_a)
    falling = at.s > 1  # alpha rises with omega
    poles, rho = (jnp.where(falling, values[::-1], values) for values in (poles, rho))
    return poles, rho, modes.c / (jnp.square(at.s) * tau_a)


def _between_poles(poles, rho, gamma, modes: Modes, at: Principal) -> Float[Array, " k"]:
    """The n - 1 roots that the poles enclose.

    In each step the two nearest poles stay as they are, and the rest of g becomes a constant, its
    slope being put into the weight of the farther one: a root of that is a root of a quadratic.
    Where it is not between the bounds so far, and in every tenth step, they are halved.
    """
    n, eps = len(poles), float(jnp.finfo(poles.dtype).eps)
    reach = jnp.sqrt(jnp.sum(jnp.abs(rho)))  # no eigenvalue is farther than this from all diagonals
    scale = jnp.maximum(jnp.maximum(jnp.abs(poles[0]), jnp.abs(poles[-1])), gamma) + reach
    first = jnp.minimum(poles[:1], -gamma) - 1.01 * reach - 4 * eps * scale
    last = jnp.maximum(poles[-1:], -gamma) + 1.01 * reach + 4 * eps * scale
    edges, weights = jnp.concatenate([first, poles, last]), jnp.pad(rho, 1)
    below = jnp.sum(jnp.asarray(modes.omega) < 0, dtype=jnp.int32)
    k = jnp.arange(n - 1, dtype=jnp.int32)
    # poles with rho < 0 come first for s < 1, and last for s > 1
    falls = jnp.where(at.s > 1, k < n - below - 1, k >= below)  # from +inf to -inf
    lower = k + jnp.where(at.s > 1, jnp.where(falls, 1, 2), jnp.where(falls, 1, 0))
    left, right = edges[lower], edges[lower + 1]
    of_left, of_right = weights[lower], weights[lower + 1]
    j = jnp.arange(1, n + 1, dtype=jnp.int32)[:, None]
    others = (j != lower[None, :]) & (j != lower[None, :] + 1)

    def improve(now):
        x = now.root
        apart = jnp.where(others, x[None, :] - poles[:, None], jnp.inf)
        inverse = 1 / apart
        rest, slope = x + gamma + rho @ inverse, 1 - rho @ jnp.square(inverse)
        to_left, to_right = left - x, right - x
        g = rest - _over(of_left, to_left) - _over(of_right, to_right)
        above = jnp.where(falls, g > 0, g < 0)
        low, high = jnp.where(above, x, now.low), jnp.where(above, now.high, x)
        nearer = -to_left < to_right
        near, far = jnp.where(nearer, to_left, to_right), jnp.where(nearer, to_right, to_left)
        of_near, of_far = jnp.where(nearer, of_left, of_right), jnp.where(nearer, of_right, of_left)
        step = _model_root(
            rest - slope * far,
            near,
            far,
            of_near,
            of_far - slope * jnp.square(far),
            low - x,
            high - x,
        )
        settled = jnp.abs(step) <= 4 * eps * scale
        inside = (x + step > low) & (x + step < high) & (now.i % 10 < 9)
        new = jnp.where(settled | inside, x + step, (low + high) / 2)
        done = now.done | settled | (high - low <= 4 * eps * scale)
        return _Search(jnp.where(now.done, x, new), low, high, done, now.i + 1)

    begin = _Search((left + right) / 2, left, right, jnp.zeros(n - 1, bool), jnp.int32(0))
    return jax.lax.while_loop(lambda now: ~jnp.all(now.done) & (now.i < _MOST), improve, begin).root


def _model_root(constant, near, far, of_near, of_far, low, high):
    """The root of `constant + of_near / (t - near) + of_far / (t - far)` between `low` and `high`;
    the one closer to 0, if both are there; NaN or another if none is."""
    half = (constant * (near + far) - of_near - of_far) / 2
    product = constant * near * far - of_near * far - of_far * near
    size = jnp.sqrt(jnp.maximum(jnp.square(half) - constant * product, 0))
    q = half + jnp.where(half < 0, -size, size)
    one, other = _over(q, constant), _over(product, q)
    inside = [(t > low) & (t < high) for t in (one, other)]
    first = inside[0] & (~inside[1] | (jnp.abs(one) < jnp.abs(other)))
    return jnp.where(first, one, other)


def _over(a, b):
    """`a / b`, and infinite where `b` is 0."""
    return jnp.where(b == 0, jnp.inf, a / jnp.where(b == 0, 1, b))
