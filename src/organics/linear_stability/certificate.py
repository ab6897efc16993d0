"""Certificates of stability: for identity recurrence, the diagonal Lyapunov matrix of the proof;
for one pool of all neurons, a theorem on the principal state; for areas with feedback, a small gain
of the loops between them.

Source: Rawat, Heeger & Martiniani 2024, section on unconditional stability; the others are ours.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from organics.circuit.circuit import Circuit, State
from organics.circuit.weights import diagonal_of
from organics.linear_stability.kinks import slopes_at_zero
from organics.linear_stability.oscillator import (
    leak_and_rate,
    oscillator_at,
    with_identity_recurrence,
)
from organics.linear_stability.small_gain import small_gain
from organics.linear_stability.spectrum import Stability, linearize, stability
from organics.machine.memory import require_memory
from organics.printing import Lines, in_html, in_words, numbers, verdict
from organics.rest.point import OperatingPoint, area_points, require_any_point
from organics.shared_pool.modes import reduction, why_not

_MATRICES = 3  # of all pairs of neurons, at least
_ONE_POOL = (
    "I - (1 - sqrt(a)) W_r > 0",
    "negative eigenvalues of W_r are too weak to matter",
)


class Certificate(NamedTuple):
    """Why a steady state is stable.

    Attributes
        kind: "diagonal Lyapunov" is a proof (up to rounding) from the structure of circuits with
            identity recurrence; "one pool" is a proof (up to rounding) for the principal state of a
            circuit with a symmetric `W_r` whose neurons share one pool of equal weights, `b0 sigma`
            and time constants, also that it is the only such state; "spectral" is only the computed
            eigenvalues: for a general `W_r` no other certificate is known. Of a hierarchy, "area by
            area" is the proof for each area, where feedback has no effect; "small gain" says that
            no loop between areas amplifies a fluctuation of any frequency, by numbers without
            rounding bounds.
        holds: whether every check below passed.
        spectral_abscissa: largest real part of the Jacobian's eigenvalues, in 1/ms.
        residual: of the steady state, see `SteadyState`.
        T: positive diagonal such that `T B + B^T T` is positive definite, shape (n,); it gives the
            quadratic form `x'^T T x' + x^T T K x`, which never increases. One for each area if
            "area by area"; `None` if "one pool", "small gain" or "spectral".
        margin: smallest eigenvalue of `T B + B^T T` after scaling its diagonal to 1, so that it
            lies in (0, 1], and the least one of all areas; if "one pool", the share of `c / a` that
            the modes of negative eigenvalues of `W_r` cannot cancel: 1 if there are none; if "small
            gain", 1 minus the largest gain found. `None` if "spectral".
        checks: for each inequality of the proof, by name, whether it was found to hold.
    """

    kind: str
    holds: Bool[Array, ""]
    spectral_abscissa: Float[Array, ""]
    residual: Float[Array, ""]
    T: Float[Array, " n"] | tuple | None
    margin: Float[Array, ""] | None
    checks: dict[str, Bool[Array, ""]]

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        rows = [(name, verdict(passed, "holds", "FAILS")) for name, passed in self.checks.items()]
        if self.margin is not None:
            rows.insert(0, ("margin", numbers(self.margin)))
        rows.append(("largest real part", numbers(self.spectral_abscissa, "1/ms")))
        kind = f"certificate ({self.kind})"
        return Lines(f"{kind}: {verdict(self.holds, 'holds', 'does NOT hold')}", tuple(rows))

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def certify(point: OperatingPoint, linear: Stability | None = None) -> Certificate:
    """Certificate of stability of a circuit at rest.

    For identity recurrence the certificate is constructed, not searched for: `B a_s > 0` makes `B`
    an M-matrix, so `u = B^-T 1` is positive, and `T = u / a_s` makes `T B + B^T T` positive
    definite. Each step of the argument is checked on the numbers; `verify` checks the result
    without the argument. For general `W_r` the certificate is of kind "spectral", except, for
    concrete values, where the theorem on one pool holds: see `organics.principal_state`.

    For a hierarchy in which feedback has no effect (a cascade, or see `Hierarchy`) it is that of
    each area, if all have identity recurrence. For others `organics.linear_stability.small_gain`
    is tried, on concrete values, for up to 1,000 neurons in all.

    `linear` is the point's `stability`, if already computed. Kinds and names of checks are Python
    values, so return only the arrays you need from a function under `jax.jit`.

    Raises `ValueError` for more neurons than there is memory for a matrix of all pairs of them:
    `stability` needs none.
    """
    if isinstance(require_any_point(point).system, Circuit):
        n = point.system.n
        size = _MATRICES * n**2 * point.system.dtype.itemsize
        require_memory(size, "point", f"a certificate for {n:,} neurons")
    linear = stability(point) if linear is None else linear
    point, system = linear.point, require_any_point(linear.point).system
    inert = system.is_cascade or system.is_inert(system.by_area(point.state))
    if isinstance(inert, Tracer):
        raise ValueError(
            "`point` must have concrete values: with feedback the kind of certificate depends on "
            "them."
        )
    structural = inert and system.has_identity_recurrence
    T, margin, checks, holds = _certificate(linear, bool(inert))
    kind = "spectral"
    if structural:
        kind = "area by area" if isinstance(T, tuple) else "diagonal Lyapunov"
    elif isinstance(system, Circuit):
        share = _share_of_one_pool(point)
        if share is not None:
            kind, margin = "one pool", jnp.asarray(share, system.dtype)
            checks |= dict.fromkeys(_ONE_POOL, jnp.bool_(True))
    elif not inert and bool(holds):
        small = small_gain(system, point.state)
        if small.holds:
            kind, margin = "small gain", jnp.asarray(1 - small.largest, system.dtype)
            checks |= {name: jnp.bool_(passed) for name, passed in small.checks.items()}
    return Certificate(
        kind=kind,
        holds=holds,
        spectral_abscissa=linear.spectral_abscissa,
        residual=point.residual,
        T=T,
        margin=margin,
        checks=checks,
    )


def _share_of_one_pool(point: OperatingPoint) -> float | None:
    """The `margin` of the theorem on one pool, or `None` if it does not speak of this point.

    At the principal state the eigenvalues other than `-1/tau_a` satisfy `l tau_a + c / a + s
    sum(omega_j v_j^2 / (l tau_y + alpha_j)) = 0`. If `Re l >= 0`, terms with `omega_j > 0` have
    positive real parts, and the others are at most `s |omega_j| v_j^2 / alpha_j`.
    """
    values = jax.tree.leaves((point.system, point.z, point.state))
    if any(isinstance(value, Tracer) for value in values) or why_not(point.system) is not None:
        return None
    modes, basis = reduction(point.system, point.z)
    y, a = (np.asarray(x, np.float64) for x in point.state)
    s = np.sqrt(a[0])
    alpha = 1 - (1 - s) * np.asarray(modes.omega)
    if not np.all(alpha > 0):
        return None
    v = np.linalg.solve(basis, y)
    harm = s * np.sum(np.maximum(-np.asarray(modes.omega), 0) * v**2 / alpha)
    share = 1 - float(harm * a[0] / float(modes.c))
    return share if share > 0 else None


@partial(jax.jit, static_argnums=1)
def _certificate(linear: Stability, inert: bool):
    """`T`, `margin`, `checks` and `holds` of a `Certificate`, area by area if `inert`; without a
    proof from the structure, the eigenvalues must be trustworthy."""
    point, system = linear.point, linear.point.system
    checks = {
        "steady state converged": point.converged,
        "spectral abscissa < 0": linear.spectral_abscissa < 0,
    }
    if not (inert and system.has_identity_recurrence):
        checks["stable beyond rounding"] = linear.stable
        # float32, and products with the weights alone, have taken rounding into account
        if not linear.matrix_free and linear.eigenvalues.dtype == jnp.complex128:
            _, stable = linearize(
                system, point.z, point.state, point.converged, beyond_rounding=True
            )
            checks["stable beyond rounding"] &= stable
    Ts, margins = [], []
    for k, area in enumerate(area_points(point) if inert else ()):
        more: dict[str, Any] = {}
        if system.has_identity_recurrence:
            T, margin, more = diagonal_certificate_at(area.system, area.state)
            Ts.append(T)
            margins.append(margin)
        elif area.system.rectified:
            _, more["activity at y = 0 decays"] = slopes_at_zero(area.system, area.z, area.state)
        where = f", area {k + 1}" if len(system.areas) > 1 else ""
        checks |= {name + where: passed for name, passed in more.items()}
    holds = jnp.all(jnp.stack(list(checks.values())))
    if not Ts:
        return None, None, checks, holds
    return system.of_areas(tuple(Ts)), jnp.min(jnp.stack(margins)), checks, holds


def diagonal_certificate(
    point: OperatingPoint,
) -> tuple[Float[Array, " n"], Float[Array, ""], dict[str, Bool[Array, ""]]]:
    """`T`, `margin` and the structural `checks` of a `Certificate`, without any eigenvalue.

    For many inputs at once; compute their spectra by `organics.linear.jacobian.eigenvalues`, which
    is faster.
    """
    circuit = with_identity_recurrence("diagonal_certificate", point)
    return diagonal_certificate_at(circuit, point.state)


@jax.jit
def diagonal_certificate_at(circuit: Circuit, state: State):
    B, K, _ = oscillator_at(circuit, state)
    y, a = state
    leak, _ = leak_and_rate(circuit, y, a)
    explicit = leak * a / circuit.tau_y + circuit.c / circuit.tau_a
    # B a is a difference of terms of this size, larger perhaps than diag(B) a: rounding is relative
    # to them
    terms = leak * a / circuit.tau_y + a / circuit.tau_a
    rounding = 100 * circuit.n * float(jnp.finfo(a.dtype).eps) * terms
    u = jnp.linalg.solve(B.T, jnp.ones_like(a))
    T = u / a
    off_diagonal = B - jnp.diag(diagonal_of(B))
    margin = _scaled_definiteness(T[:, None] * B)
    return (
        T,
        margin,
        {
            "off-diagonals of B <= 0": jnp.all(off_diagonal <= 0),
            "B a_s > 0": jnp.all(explicit > 0) & jnp.all(jnp.abs(B @ a - explicit) <= rounding),
            "B^-T 1 > 0": jnp.all(u > 0),
            "T B + B^T T > 0": margin > 0,
            "K > 0": jnp.all(diagonal_of(K) > 0),
        },
    )


def _scaled_definiteness(M: Float[Array, "n n"]) -> Float[Array, ""]:
    """Smallest eigenvalue of `M + M^T` after scaling its diagonal to 1; NaN-free, -inf if hopeless.

    Without the scaling, parameters over several decades make the test ill-conditioned.
    """
    S = M + M.T
    diagonal = diagonal_of(S)
    possible = jnp.all(diagonal > 0) & jnp.all(jnp.isfinite(S))
    scale = jnp.where(possible, 1 / jnp.sqrt(jnp.where(possible, diagonal, 1)), 0)
    S = jnp.where(possible, scale[:, None] * S * scale[None, :], 0)
    return jnp.where(possible, jnp.linalg.eigvalsh(S)[0], -jnp.inf)
