r"""Identity recurrence with a symmetric perturbation, `W_r = I + M`, and a pool of ones.

To first order in M the steady state is known for any M. For a large random M, with entries of
variance `spread^2 / (2 n)` above its diagonal, the eigenvalues of M fill a semicircle of radius
`R = sqrt(2) spread`, and the principal state follows from one equation, the mean field. `strength`
is the Euclidean norm of the drive `b z`, spread over all modes, and `c = (b0 sigma)^2`.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import brentq

from organics.arguments import require_positive
from organics.shared_pool.modes import Modes


class FirstOrder(NamedTuple):
    """The steady state to first order in M: the modes, shape (n,), and `a`, which is uniform."""

    v: Float[Array, "*batch n"]
    a: Float[Array, "*batch"]


class MeanField(NamedTuple):
    """The principal state of a large random M.

    Attributes
        s: `sqrt(a)`.
        edge: distance of the slowest modes from instability, times `tau_y`: they decay at the rate
            `edge / tau_y`, fluctuations of their number n aside.
    """

    s: float
    edge: float


def first_order(modes: Modes) -> FirstOrder:
    """The steady state of `W_r = I + M` to first order in M, which is a state near divisive
    normalization only if M is small. Can be jitted and mapped over."""
    d, M = jnp.asarray(modes.d), jnp.asarray(modes.omega) - 1
    a = jnp.asarray(modes.c + jnp.sum(jnp.square(d)))
    s = jnp.sqrt(a)
    v = d / s
    along = jnp.sum(d * M * v)
    return FirstOrder(v + (1 - s) * (M * v / s - v * along / a), a + 2 * (1 - s) * along)


def mean_field(spread: float, strength: float, c: float) -> MeanField:
    """The principal state of a random M for n to infinity.

    `zeta = s / (1 - s)`, which exceeds R, solves

        c (1 + zeta)^2 / zeta^2
        + strength^2 (1 + zeta)^2 (2 / R^2) (zeta / sqrt(zeta^2 - R^2) - 1) = 1.

    Raises `ValueError` unless all three are finite and > 0, and `c + strength^2 < 1`, below which s
    is less than 1.
    """
    _require_weak(strength, c)
    require_positive(spread=spread)
    R = math.sqrt(2) * spread

    def excess(log_gap: float) -> float:
        gap = math.exp(log_gap)
        zeta = R + gap
        wave = math.sqrt(gap * (zeta + R))
        # (2 / R^2) (zeta / wave - 1), without cancellation
        resolvent = 2 / (wave * (zeta + wave))
        return (1 + zeta) ** 2 * (c / zeta**2 + strength**2 * resolvent) - 1

    top = 1.0
    while excess(top) > 0:
        top += 2
    gap = math.exp(float(np.asarray(brentq(excess, -300.0, top, xtol=1e-14))))
    zeta = R + gap
    return MeanField(zeta / (1 + zeta), gap / (1 + zeta))


def slowing_spread(strength: float, c: float) -> float:
    """The spread `s_0 / (sqrt(2) (1 - s_0))`, `s_0^2 = c + strength^2`, where R reaches the zeta of
    divisive normalization: from about there on the slowest modes hardly decay.

    At twice this spread the first-order changes of the `y` of different neurons are as large as
    their mean, for a drive that is the same for all.

    Raises `ValueError` as `mean_field` does.
    """
    _require_weak(strength, c)
    s = math.sqrt(c + strength**2)
    return s / (math.sqrt(2) * (1 - s))


def euler_spread(step: float, c: float) -> float:
    """The spread above which explicit Euler steps lose the principal state, for n to infinity and
    strength to 0, with equal time constants; `step` is in units of them.

    The state has condensed on the top mode, `s = R / (1 + R)`, which rings: `l^2 + l c / a + R (1 -
    c / a) = 0` nearly, in units of tau. A step is stable up to `-2 Re l / |l|^2`, which is
    `c (1 + R)^2 / R^3` where `c` is small compared with `a`.

    Raises `ValueError` unless both are finite and > 0.
    """
    require_positive(step=step, c=c)

    def excess(log_R: float) -> float:
        R = math.exp(log_R)
        return c * (1 + R) ** 2 / R**3 - step

    return math.exp(float(np.asarray(brentq(excess, -50.0, 50.0)))) / math.sqrt(2)


def _require_weak(strength: float, c: float) -> None:
    require_positive(strength=strength, c=c)
    if c + strength**2 >= 1:
        raise ValueError(
            f"`strength` must be below sqrt(1 - c) = {math.sqrt(max(1 - c, 0)):.6g}, not "
            f"{strength}."
        )
