"""A box that holds all steady states, in exact arithmetic.

At every steady state `W D(y^2)` has a spectral radius below 1, so `|y_i| < W_ii^(-1/2)`. Pools
compare: `s_j / s_k <= R_jk` with `R_jk^2 = max(c_j / c_k, max_l W_jl / W_kl)`. As
`D(s) W_r y = b z + (W_r - I) y` is bounded by `E = |b z| + |W_r - I| diag(W)^(-1/2)`,

    |v_j| <= sum_k |W_r^-1|_jk R_jk E_k.

It needs a nonsingular `W_r`, `W_ii > 0` and, wherever `(W_r^-1)_jk` is not 0, a pool k that hears
all that pool j hears. If `W > 0` that is so. Otherwise a state may be as far away as one likes.
"""

from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat
from jaxtyping import Float

from organics.proofs.balls import BallCircuit
from organics.proofs.precision import precision

_BITS = 128
_FAR = "so that states may be as far away as one likes"


class NoBound(Exception):
    """There is no such box, and why, in words."""


class Blocks(NamedTuple):
    """Balls of the parameters of some neurons."""

    W: list[list[arb]]
    W_r: arb_mat
    c: list[arb]
    d: list[arb]

    @classmethod
    def of(cls, circuit: BallCircuit, active: list[int]) -> "Blocks":
        """Those of the active neurons. The circuit must have a matrix `W_r`."""
        assert circuit.W_r is not None
        return cls(
            [[circuit.W[i, j] for j in active] for i in active],
            arb_mat([[circuit.W_r[i, j] for j in active] for i in active]),
            [circuit.c[i] for i in active],
            [circuit.d[i] for i in active],
        )


def bound(blocks: Blocks) -> Float[np.ndarray, " n"]:
    """Upper bounds on `|v|` at all steady states.

    Raises `NoBound` if `W` has zeros where that matters, or `W_r` is singular to 128 bits.
    """
    W, W_r, c, d = blocks
    n = len(c)
    if not all(W[i][i] > 0 for i in range(n)):
        raise NoBound(f"`W` has entries on its diagonal that are 0, {_FAR}")
    with precision(_BITS):
        try:
            inverse = W_r.inv()
        except ZeroDivisionError:
            raise NoBound(f"`W_r`, or a part of it, is singular, {_FAR}") from None
        most_y = [W[i][i].rsqrt() for i in range(n)]
        E = [
            abs(d[k]) + sum((abs(W_r[k, j] - int(k == j)) * most_y[j] for j in range(n)), arb(0))
            for k in range(n)
        ]
        found = []
        for j in range(n):
            total = arb(0)
            for k in range(n):
                if inverse[j, k] == 0:
                    continue
                ratio = c[j] / c[k]
                for over, under in zip(W[j], W[k], strict=True):
                    if over == 0:
                        continue
                    if under == 0:
                        raise NoBound(f"`W` has entries that are 0, {_FAR}")
                    ratio = arb.max(ratio, over / under)
                total += abs(inverse[j, k]) * ratio.sqrt() * E[k]
            found.append(float(total.abs_upper()))
    return np.nextafter(np.array(found), np.inf)
