"""Lyapunov inequalities for a matrix of balls: all eigenvalues lie left of a line, or one does not.

For an exact symmetric `P` and a number `g`, let `Q = 2 g P - P J - J^T P` be positive definite for
every `J` in the balls. If `P` is positive definite, every eigenvalue of `J` has a real part below
`g`. If `x^T P x < 0` for some `x`, some eigenvalue has a real part above `g`: no eigenvalue lies on
the line, and if all were left of it, `P` would be the integral over `t > 0` of `E^T Q E` with
`E = exp((J - g) t)`, which is positive definite.

How `P` and `g` were found does not matter. Gershgorin's theorem tests definiteness of `X^T Q X` and
`X^T P X`, with an exact matrix `X` that makes both nearly diagonal. If `X^T Q X` is positive
definite, then `X` is nonsingular and `Q` positive definite.
"""

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg
from flint import acb_mat, arb, arb_mat, ctx
from jaxtyping import Float

from organics.proofs.balls import Inequality, exact_matrix, floats, from_entries, least

_WIDE = 0.01  # radius of a ball, relative to its middle


class Candidate(NamedTuple):
    """An exact symmetric `P`, the bound `g`, and the basis `X` in which definiteness is tested."""

    P: arb_mat
    g: float
    X: arb_mat


class Conclusion(NamedTuple):
    """What a candidate proves about all matrices in the balls, and its two inequalities.

    `stable`: true if all eigenvalues have negative real parts, false if some real part is positive,
    `None` if neither was proved. The margin of the second inequality, in 1/ms, is a distance from
    `g` within which there is no real part.
    """

    stable: bool | None
    inequalities: tuple[Inequality, Inequality]


def conclude(J: arb_mat, candidate: Candidate) -> Conclusion:
    """Test the two inequalities of a candidate."""
    P, g, X = candidate
    PJ = P * J
    Q = X.transpose() * (2 * arb(g) * P - PJ - PJ.transpose()) * X
    form = X.transpose() * P * X
    decrease = definite(f"P J + J^T P - 2 g P < 0 with g = {g!r} per ms", Q, 2 * form)
    lowest = min((form[i, i] for i in range(form.nrows())), key=lambda v: float(v.mid()))
    if lowest < 0:
        sign = Inequality.positive("x^T P x < 0 for some x", -lowest)
        return Conclusion(False if decrease.holds and g >= 0 else None, (sign, decrease))
    identity = from_entries(form.nrows(), lambda i, j: int(i == j))
    sign = definite("P > 0", form, identity)
    return Conclusion(True if sign.holds and decrease.holds and g <= 0 else None, (sign, decrease))


def definite(name: str, S: arb_mat, R: arb_mat) -> Inequality:
    """The inequality that `S` is positive definite, and `S - e R`, too, if `|e|` is less than the
    margin.

    Both are symmetric. Uses Gershgorin's theorem after scaling `S`, if possible, to a unit
    diagonal. This is only sufficient: the inequality may be true although it is not proved.
    """
    n = S.nrows()
    diagonal = [S[i, i] for i in range(n)]
    possible = all(entry > 0 for entry in diagonal)
    scale = [entry.rsqrt() if possible else arb(1) for entry in diagonal]
    own = [entry.sqrt() if possible else entry for entry in diagonal]  # `diagonal * scale`
    ratios = []
    for i in range(n):
        others = sum((abs(S[i, j]) * scale[j] for j in range(n) if j != i), arb(0))
        reference = sum((abs(R[i, j]) * scale[j] for j in range(n)), arb(0))
        ratios.append((own[i] - others) / reference)
    margin = least(ratios)
    refuted = any(entry <= 0 for entry in diagonal)
    return Inequality(name, True if margin > 0 else False if refuted else None, margin)


def candidates(J: arb_mat) -> Iterator[Candidate]:
    """Candidates likely to decide whether `J` is stable, with `g` half its spectral abscissa.

    The first comes from a Lyapunov equation in float64, the last, beyond 53 bits, from eigenvectors
    in the working precision. Between them, with `g = 0`, is one for balls as wide as at kinks.
    """
    middle = floats(J)
    if np.all(np.isfinite(middle)):
        yield from _float64_candidate(middle, np.max(np.real(np.linalg.eigvals(middle))) / 2)
        if any(entry.rad() > _WIDE * abs(entry).mid() for entry in J.entries()):
            yield from _float64_candidate(middle, 0.0)
    if ctx.prec > 53:
        yield from _eigenvector_candidate(J.mid())


def given(J: arb_mat, P: Float[np.ndarray, "m m"]) -> Iterator[Candidate]:
    """The candidate with this `P` and `g = 0`."""
    middle = floats(J)
    if np.all(np.isfinite(middle)):
        scale = _balance(middle)[1]
        yield Candidate(exact_matrix(P), 0.0, _basis(middle, P, 0.0, scale))


def _float64_candidate(J: Float[np.ndarray, "m m"], g: float) -> Iterator[Candidate]:
    g = _short(g)
    balanced, scale = _balance(J)
    identity = np.eye(len(J))
    with warnings.catch_warnings():
        # there is no solution if two eigenvalues add up to 0: then the candidate fails
        warnings.simplefilter("ignore")
        P = scipy.linalg.solve_continuous_lyapunov((balanced - g * identity).T, -identity)
    P = (P + P.T) / 2 / scale[:, None] / scale[None, :]
    if np.all(np.isfinite(P)):
        yield Candidate(exact_matrix(P), g, _basis(J, P, g, scale))


def _eigenvector_candidate(J: arb_mat) -> Iterator[Candidate]:
    """The candidate with `P` diagonal in the basis of real and imaginary parts of the
    eigenvectors."""
    m = J.nrows()
    values, vectors = acb_mat(J).eig(right=True, algorithm="approx")
    if not all(value.is_finite() for value in values):
        return
    size = max(float(abs(v).mid()) for v in values)
    noise = size * 2.0 ** (-ctx.prec / 2)
    g = _short(max(float(v.real.mid()) for v in values) / 2)
    columns, signs = [], []
    for k, value in enumerate(values):
        imaginary = float(value.imag.mid())
        if imaginary < -noise:
            continue  # its conjugate gives both parts
        sign = 1 if value.real.mid() < g else -1
        parts = ["real"] if imaginary <= noise else ["real", "imag"]
        for part in parts:
            columns.append([getattr(vectors[i, k], part).mid() for i in range(m)])
            signs.append(sign)
    if len(columns) != m:
        return
    X = arb_mat(columns).transpose()
    try:
        inverse = X.solve(from_entries(m, lambda i, j: int(i == j)), algorithm="approx").mid()
    except ZeroDivisionError:
        return
    signed = from_entries(m, lambda i, j: signs[i] * inverse[i, j])
    P = (inverse.transpose() * signed).mid()
    yield Candidate(from_entries(m, lambda i, j: P[min(i, j), max(i, j)]), g, X)


def _balance(J: Float[np.ndarray, "m m"]):
    """`J` with rows and columns scaled by powers of 2 to similar norms, and the scale."""
    # `scipy.linalg.matrix_balance` casts the scale to integers, which may overflow
    (gebal,) = scipy.linalg.get_lapack_funcs(("gebal",), (J,))
    balanced, _, _, scale, _ = gebal(J, scale=1, permute=0)
    return balanced, scale


def _basis(J, P, g: float, scale) -> arb_mat:
    """A matrix `X` for which `X^T Q X` and `X^T P X` are nearly diagonal; if `Q` is not definite,
    for `Q` alone, so that the test shows by how much it fails."""
    Q = 2 * g * P - P @ J - (P @ J).T
    P, Q = (scale[:, None] * M * scale[None, :] for M in (P, Q))
    try:
        X = scipy.linalg.eigh(P, Q)[1]
    except np.linalg.LinAlgError:
        X = np.linalg.eigh(Q)[1]
    return exact_matrix(scale[:, None] * X)


def _short(x: float) -> float:
    """`x` rounded to 6 bits, so that it has few and exact decimal digits."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(64 * mantissa), exponent - 6)
