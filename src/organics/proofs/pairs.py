r"""A proof that a circuit of two neurons has no stable steady state, going through all of them.

With `s = sqrt(a)` and `M(s) = I - diag(1 - s) W_r`, a steady state of the main model satisfies
`M y = d`, so `det(M) y = N` by Cramer's rule, and with `D = det(M)`

    (s_i^2 - c_i) D^2 = sum_j W_ij s_j^2 N_j^2,    i = 1, 2:

two polynomials in `s_1` and `s_2` with rational coefficients. The `s_1` and `s_2` of every steady
state are among the roots of their two resultants, which are isolated exactly. A pair of roots at
which a polynomial is not zero is not a steady state. If all remaining pairs have an unstable
Jacobian, no steady state is stable, whether or not each pair is one.

Source: Rawat et al. 2024, equations of the main model; elimination by resultants.
"""

from typing import Any, NamedTuple

import numpy as np
from flint import Ordering, arb, arb_mat, fmpq, fmpq_mpoly_ctx, fmpq_poly
from jaxtyping import ArrayLike, Float

from organics.circuit.circuit import Circuit, as_drive
from organics.proofs.balls import (
    BallCircuit,
    Box,
    Inequality,
    least,
    rates,
    rational,
    rational_row,
)
from organics.proofs.lyapunov import candidates, conclude
from organics.proofs.precision import precision
from organics.proofs.roots import positive_roots

BITS = 512  # enough to separate the roots of such polynomials


class Pairs(NamedTuple):
    """All steady states that a circuit of two neurons can have.

    Attributes
        none_stable: true if it is proved that none is stable, else false.
        enclosures: balls around each of them; every stable steady state is in one.
        unstable: for each enclosure, whether its Jacobian is proved unstable.
        inequality: the deciding inequality: the least margin by which the Jacobians are unstable;
            without enclosures, the least margin by which pairs fail the equations.
    """

    none_stable: bool
    enclosures: list[Box]
    unstable: list[bool]
    inequality: Inequality


def steady_states_of_two(circuit: Circuit, z: Float[ArrayLike, " n"]) -> Pairs | None:
    """Every steady state of the main model with n = 2 for the drive `z`, enclosed.

    `None` if the elimination fails: the resultant vanishes (steady states form a curve), two roots
    are too close, or `det(M)` may be zero at a steady state.

    Raises `ValueError` if the circuit is rectified or has another number of neurons.
    """
    if circuit.n != 2 or circuit.rectified:
        raise ValueError(
            f"`circuit` must be of the main model and have n = 2, not n = {circuit.n}"
            f"{', rectified' if circuit.rectified else ''}."
        )
    z = as_drive(circuit, z)
    system = _System.of(circuit, np.asarray(z))
    ring = fmpq_mpoly_ctx.get(("s", "t"), Ordering.lex)
    first, second, _, _ = system.at(*ring.gens())
    resultants = [
        _univariate(first.resultant(second, other), k) for k, other in ((0, "t"), (1, "s"))
    ]
    if any(p == 0 for p in resultants):
        return None
    with precision(BITS):
        s_roots, t_roots = (positive_roots(p, BITS) for p in resultants)
        if s_roots is None or t_roots is None:
            return None
        balls = BallCircuit.of(circuit, z)
        enclosures, unstable, growth, distance = [], [], [], [arb(1)]
        for s in s_roots:
            for t in t_roots:
                *rest, determinant, numerators = system.at(s, t)
                if not all(value.contains(0) for value in rest):
                    distance.append(arb.max(*map(abs, rest)))
                    continue
                if determinant.contains(0):
                    if system.may_rest_at(s, t):
                        return None
                    continue
                box = Box([value / determinant for value in numerators], [s * s, t * t])
                margin = _instability(rates(balls, [*box.y, *box.a]))
                enclosures.append(box)
                unstable.append(margin is not None)
                growth.append(arb(0) if margin is None else margin)
        if enclosures:
            name = f"largest real part > 0 at all that may be steady states, {len(enclosures)}"
        else:
            name = "distance of all pairs of roots from a steady state > 0"
        inequality = Inequality.positive(name, least(growth or distance))
    return Pairs(all(unstable), enclosures, unstable, inequality)


def _instability(J: arb_mat) -> arb | None:
    """A positive lower bound on the spectral abscissa of the matrices in the balls, if one is
    found."""
    for candidate in candidates(J):
        stable, (_, decrease) = conclude(J, candidate)
        if stable is not None:
            # no real part is closer to g than the margin
            return None if stable else candidate.g + decrease.margin
    return None


class _System(NamedTuple):
    """The exact parameters, as rational numbers."""

    W: list[list[fmpq]]
    W_r: list[list[fmpq]]
    d: list[fmpq]
    c: list[fmpq]

    @classmethod
    def of(cls, circuit: Circuit, z: np.ndarray) -> "_System":
        b, b0, sigma, drive = (rational(v) for v in (circuit.b, circuit.b0, circuit.sigma, z))
        return cls(
            [rational_row(circuit.pool, i) for i in range(2)],
            [rational_row(circuit.recurrent, i) for i in range(2)],
            [gain * value for gain, value in zip(b, drive, strict=True)],
            [(gain * value) ** 2 for gain, value in zip(b0, sigma, strict=True)],
        )

    def at(self, s: Any, t: Any) -> tuple[Any, Any, Any, list[Any]]:
        """Both polynomials, the determinant, and the determinant times `y`, in any ring."""
        (w11, w12), (w21, w22) = self.W_r
        m11, m12 = 1 - (1 - s) * w11, (s - 1) * w12
        m21, m22 = (t - 1) * w21, 1 - (1 - t) * w22
        d1, d2 = self.d
        determinant = m11 * m22 - m12 * m21
        numerators = [m22 * d1 - m12 * d2, m11 * d2 - m21 * d1]
        rates = [s * s * numerators[0] * numerators[0], t * t * numerators[1] * numerators[1]]
        first, second = (
            (x * x - self.c[i]) * determinant * determinant
            - rates[0] * self.W[i][0]
            - rates[1] * self.W[i][1]
            for i, x in enumerate((s, t))
        )
        return first, second, determinant, numerators

    def may_rest_at(self, s: arb, t: arb) -> bool:
        """Whether there may be a steady state at `s`, `t`, from `W` and `c` alone, without
        inverting `M`.

        `a - c = W (a y^2)` gives `y` up to signs, and this must satisfy `M y = d`.
        """
        (p, q), (r, u) = self.W
        determinant = arb(p * u - q * r)
        if determinant.contains(0):
            return True
        excess = s * s - self.c[0], t * t - self.c[1]
        pooled = (
            (excess[0] * u - excess[1] * q) / determinant / (s * s),
            (excess[1] * p - excess[0] * r) / determinant / (t * t),
        )
        if any(square < 0 for square in pooled):
            return False
        sizes = [arb.max(square, arb(0)).sqrt() for square in pooled]
        for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            y = [size * sign for size, sign in zip(sizes, signs, strict=True)]
            left = (
                y[i] - (1 - x) * (y[0] * row[0] + y[1] * row[1]) - self.d[i]
                for i, (x, row) in enumerate(zip((s, t), self.W_r, strict=True))
            )
            if all(value.contains(0) for value in left):
                return True
        return False


def _univariate(polynomial: Any, variable: int) -> fmpq_poly:
    known = {int(powers[variable]): value for powers, value in polynomial.terms()}
    return fmpq_poly([known.get(k, fmpq(0)) for k in range(max(known, default=0) + 1)])
