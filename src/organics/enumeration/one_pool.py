"""All steady states, exactly, where every neuron has the same pool.

If all rows of `W` are the same `w` and all `(b0 sigma)^2` the same `c`, then all `s = sqrt(a)` are
the same number. With `t = 1 - s`, `D = det(I - t W_r)` and `N = adj(I - t W_r) b z`, the steady
states of the main model are `y = N / D` at the roots `s` of a polynomial with rational
coefficients,

    (s^2 - c) D^2 = s^2 sum_j w_j N_j^2,

at which `D` is not 0. One neuron alone is such a circuit.

Where an eigenvalue of `W_r` is repeated, or nothing drives its mode, `D` and all `N_j` have a root
`s` in common, and are divided by it. With a singular `I - t W_r` there may be other states, of any
size along its null vectors `v`. If `W_r` is symmetric and all `w_j` are equal, `v` adds `w |v|^2`
to the pool, so there are none if the equation's left side, after the division, is below its right
side at that root.
"""

from typing import Any

import numpy as np
from flint import arb_poly, fmpq, fmpq_mat, fmpq_poly
from jaxtyping import Float

from organics.circuit.circuit import Circuit
from organics.circuit.weights import Weights
from organics.enumeration.enclosed import ALL, Enclosed
from organics.proofs.balls import Box, rational, rational_row
from organics.proofs.precision import precision
from organics.proofs.roots import positive_roots

_FIRST_BITS, _MOST_BITS = 128, 4096


def enclose_one_pool(circuit: Circuit, z: Float[np.ndarray, " n"]) -> Enclosed | None:
    """All steady states of the main model where all neurons have one pool; `None` elsewhere."""
    n = circuit.n
    exact = None if circuit.rectified else states_of_one_pool(circuit, z, list(range(n)))
    if exact is None:
        return None
    v = [[float((a.sqrt() * y).mid()) for y, a in zip(*box, strict=True)] for box in exact]
    W, W_r = (np.asarray(w, np.float64) for w in (circuit.pool, circuit.recurrent))
    why = f"these are the roots of a polynomial of degree {2 * n + 2} or less, isolated exactly"
    alike = np.all(W[0, 0] == W) and np.linalg.norm(2 * W_r - np.eye(n), 2) <= 1
    if alike and fmpq_mat(_among(circuit.recurrent, list(range(n)))).det() != 0:
        why = "with one pool and |2 W_r - I| <= 1 there is one steady state"
    none = np.empty((0, 2, n))
    return Enclosed(ALL, why, "as a root", np.array(v).reshape(-1, n), 0, none)


def states_of_one_pool(
    circuit: Circuit, z: Float[np.ndarray, " n"], active: list[int]
) -> list[Box] | None:
    """All steady states among the active neurons, if they have one pool, of the main model.

    `None` if they do not have one pool, if two roots are too close, or if there may be states where
    `D` is 0.
    """
    b, b0, sigma, drive = (
        rational(np.asarray(v)[active]) for v in (circuit.b, circuit.b0, circuit.sigma, z)
    )
    rows = _among(circuit.pool, active)
    c = [(gain * value) ** 2 for gain, value in zip(b0, sigma, strict=True)]
    if any(row != rows[0] for row in rows) or any(value != c[0] for value in c):
        return None
    W_r = fmpq_mat(_among(circuit.recurrent, active))
    d = [gain * value for gain, value in zip(b, drive, strict=True)]
    D, N = _determinant_and_numerators(W_r, d)
    shared = D
    for p in N:
        shared = shared.gcd(p)
    D, N = D // shared, [p // shared for p in N]
    pooled = sum((w * p * p for w, p in zip(rows[0], N, strict=True)), fmpq_poly([0]))
    equation = fmpq_poly([-c[0], 0, 1]) * D * D - fmpq_poly([0, 0, 1]) * pooled
    if equation == 0 or _have_a_positive_root_in_common(equation, D):
        return None
    simple = W_r == W_r.transpose() and len(set(map(str, rows[0]))) == 1
    if not _is_negative_at_roots(equation, shared, simple):
        return None
    bits = _FIRST_BITS
    while bits <= _MOST_BITS:
        found = _at_roots(equation, D, N, bits)
        if found is not None:
            return found
        bits *= 2
    return None


def _among(weights: Weights, active: list[int]) -> list[list[fmpq]]:
    rows = (rational_row(weights, i) for i in active)
    return [[row[j] for j in active] for row in rows]


def _at_roots(equation: fmpq_poly, D: fmpq_poly, N: list[fmpq_poly], bits: int) -> list[Box] | None:
    with precision(2 * bits):
        roots = positive_roots(equation, bits)
        if roots is None:
            return None
        found = []
        below, above = arb_poly(D), [arb_poly(p) for p in N]
        for s in roots:
            determinant: Any = below(s)
            if determinant.contains(0):
                return None
            y = [value / determinant for value in (p(s) for p in above)]
            found.append(Box(y, [s * s] * len(y)))
        return found


def _determinant_and_numerators(A: fmpq_mat, d: list[fmpq]) -> tuple[fmpq_poly, list[fmpq_poly]]:
    """`det(I - t A)` and `adj(I - t A) d` as polynomials in `s = 1 - t`."""
    n = A.nrows()
    reverse = A.charpoly().coeffs()[::-1]  # of det(I - t A), by rising powers of t
    drive = fmpq_mat(n, 1, d)
    power = drive
    powers = [power]
    for k in range(1, n):
        power = A * power + drive * reverse[k]
        powers.append(power)
    t = fmpq_poly([1, -1])
    N = [fmpq_poly([power[i, 0] for power in powers])(t) for i in range(n)]
    return fmpq_poly(reverse)(t), N


def _is_negative_at_roots(equation: fmpq_poly, shared: fmpq_poly, simple: bool) -> bool:
    """Whether the equation is below 0 at each positive root of `shared`, if it tells anything."""
    with precision(2 * _FIRST_BITS):
        roots = positive_roots(shared, _FIRST_BITS)
        values: Any = arb_poly(equation)
        return roots == [] or (simple and roots is not None and all(values(s) < 0 for s in roots))


def _have_a_positive_root_in_common(p: fmpq_poly, q: fmpq_poly) -> bool:
    common = p.gcd(q)
    return common.degree() > 0 and positive_roots(common, _FIRST_BITS) != []
