"""Proofs that a circuit has no steady state, or no stable one, from a part of the circuit.

*Neurons without recurrent input* (rows of `W_r` that vanish) have `y_i = b_i z_i` at every steady
state, hence `a >= c + G a` among them with `G_ij = W_ij y_j^2` (`relu(y_j)^2` in the rectified
model). A vector `w >= 0`, not 0, with `w^T (G - I) >= 0` forbids that: `w^T a >= w^T c + w^T a`.

*A neuron that receives only itself* (its rows of `W` and `W_r` vanish off the diagonal) is a
circuit of its own, and its eigenvalues are among those of the whole. With `p = b z`, which is not
0, and
`D(s) = 1 - w_r + w_r s`, its steady states are `y = p / D(s)`, `a = s^2` for the positive roots of
`(s^2 - c) D(s)^2 = w p^2 s^2`, a polynomial with rational coefficients whose roots are isolated
exactly. The rectified model with `p > 0` has those with `y > 0`.

Source: Rawat, Heeger & Martiniani 2024, equations of both models and the two-dimensional model.
"""

from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat, ctx, fmpq_poly
from jaxtyping import Array, Float
from scipy.sparse.csgraph import connected_components

from organics.circuit.circuit import Circuit
from organics.proofs.balls import (
    BallCircuit,
    Inequality,
    column,
    exact,
    floats,
    least,
    rates,
    rational,
    rational_row,
)
from organics.proofs.roots import positive_roots

NONE_EXISTS = "no steady state exists"
NONE_STABLE = "no stable steady state exists"


class Absence(NamedTuple):
    """What does not exist, the inequality that proves it, and `w`, shape (n, 1), if there is
    one."""

    statement: str
    inequality: Inequality
    certificate: arb_mat | None


def absence(circuit: Circuit, z: Float[Array, " n"], balls: BallCircuit) -> Absence | None:
    """A proof that there is no steady state, or no stable one; `None` if none was found."""
    found = _outgrown(balls)
    if found is not None or balls.W_r is None:
        return found
    alone = (_alone(circuit, z, balls, i) for i in range(balls.n))
    return next((found for found in alone if found is not None), None)


def _outgrown(circuit: BallCircuit) -> Absence | None:
    """A proof of no steady state, if the neurons without recurrent input excite their modulators
    too much."""
    undriven = circuit.undriven
    if not undriven:
        return None
    squares = [circuit.d[i] ** 2 if circuit.responds(i) else arb(0) for i in undriven]
    G = arb_mat(
        [[circuit.W[i, j] * q for j, q in zip(undriven, squares, strict=True)] for i in undriven]
    )
    w = exact(_left_vector(floats(G)))
    grown = (G.transpose() * column(w)).entries()
    # where w is 0 the inequality holds, as no entry of G is negative
    surplus = least(g / w - 1 for g, w in zip(grown, w, strict=True) if w > 0)
    where = [j for j, w in zip(undriven, w, strict=True) if w > 0]
    inequality = Inequality.not_negative(
        f"w^T (G - I) >= 0, G = W D(y^2) with y = b z, on the neurons {where}", surplus
    )
    if not inequality.holds:
        return None
    weights = dict(zip(undriven, w, strict=True))
    certificate = column(weights.get(i, arb(0)) for i in range(circuit.n))
    return Absence(NONE_EXISTS, inequality, certificate)


def _left_vector(G: Float[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
    """The left Perron vector of the strongly connected part of `G` with the largest radius."""
    G = np.minimum(G, 1e100)
    _, part = connected_components(G > 0, connection="strong")
    best, w = -1.0, np.zeros(len(G))
    for label in range(part.max() + 1):
        inside = np.flatnonzero(part == label)
        values, vectors = np.linalg.eig(G[np.ix_(inside, inside)].T)
        top = np.argmax(np.real(values))
        radius = float(np.real(values[top]))
        if radius > best:
            best, w = radius, np.zeros(len(G))
            w[inside] = np.abs(vectors[:, top])
    return w


def _alone(circuit: Circuit, z: Float[Array, " n"], balls: BallCircuit, i: int) -> Absence | None:
    """A proof of no stable steady state, if neuron i receives only itself and has none."""
    W, W_r = rational_row(circuit.pool, i), rational_row(circuit.recurrent, i)
    others = [j for j in range(circuit.n) if j != i]
    if any(W[j] != 0 or W_r[j] != 0 for j in others) or W[i] == 0:
        return None
    if z[i] == 0 or not balls.responds(i):
        return None
    w, w_r = W[i], W_r[i]
    b, b0, sigma, drive = rational([np.asarray(v)[i] for v in
                                    (circuit.b, circuit.b0, circuit.sigma, z)])  # fmt: skip
    p, c = b * drive, (b0 * sigma) ** 2
    D = fmpq_poly([1 - w_r, w_r])
    equation = fmpq_poly([-c, 0, 1]) * D * D - fmpq_poly([0, 0, w * p * p])
    neuron = balls.alone(i)
    roots = positive_roots(equation, ctx.prec)
    if roots is None:
        return None
    growth, distance = [], [arb(1)]
    for s in roots:
        y = p / (1 - w_r + w_r * s)
        if balls.rectified and y < 0:
            distance.append(-y)
            continue
        growth.append(_growth(rates(neuron, [y, s * s])))
    if not growth:
        name = f"neuron {i}, which hears only itself, has no steady state: -y > 0 at all roots"
        statement, inequality = NONE_EXISTS, Inequality.positive(name, least(distance))
    else:
        name = f"largest real part > 0 at all steady states of neuron {i}, which hears only itself"
        statement, inequality = NONE_STABLE, Inequality.positive(name, least(growth))
    return Absence(statement, inequality, None) if inequality.holds else None


def _growth(J: arb_mat) -> arb:
    """The largest real part of the eigenvalues of a 2 x 2 matrix, or a lower bound on it."""
    half = (J[0, 0] + J[1, 1]) / 2
    apart = ((J[0, 0] - J[1, 1]) / 2) ** 2 + J[0, 1] * J[1, 0]
    return half + apart.sqrt() if apart > 0 else half
