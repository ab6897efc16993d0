"""The sum of the signs of `det(-J)` over all steady states, which the parameters determine.

*Main model.* If all entries of `W` are positive, `W_r` is nonsingular and no steady state is
degenerate, the sum is the sign of `det(W_r)`: far away the reduced equations are a homogeneous map
that `W_r` can be deformed to the identity in, or to `diag(-1, 1, ..., 1)`, without a zero but 0.

*Rectified model.* The sum is then that over the solutions of the linear complementarity problem
`W_r q = p + w, q >= 0, w >= 0, q_i w_i = 0`, for any one generic `p`, of the signs of the minors of
`W_r` of the neurons with `q_i > 0`, if no principal minor vanishes.

Source: degree theory; Howe & Stone 1983 for complementarity problems.
"""

from itertools import chain, combinations

import numpy as np
from jaxtyping import Float

from organics.enumeration.reduced import Reduced

_MOST_RECTIFIED = 10  # neurons: the complementarity problem has 2^n cases
_SINGULAR = 1e-13  # of a determinant, relative to the norms of the columns


def expected_degree(system: Reduced) -> int | None:
    """The sum of the signs; `None` if it is not known. Computed in floating point."""
    if not np.all(system.W > 0):
        return None
    if not system.rectified:
        return _sign(system.W_r)
    return _complementarity_degree(system.W_r) if system.n <= _MOST_RECTIFIED else None


def subsets(n: int) -> list[list[int]]:
    """All sets of neurons, the empty one first."""
    return [list(s) for s in chain.from_iterable(combinations(range(n), k) for k in range(n + 1))]


def _sign(matrix: Float[np.ndarray, "k k"]) -> int | None:
    """The sign of the determinant, `None` if that is 0 to rounding."""
    columns = np.linalg.norm(matrix, axis=0)
    if not np.all(columns > 0):
        return None
    scaled = matrix / columns
    singular = np.linalg.svd(scaled, compute_uv=False)[-1] < _SINGULAR
    return None if singular else int(np.linalg.slogdet(scaled)[0])


def _complementarity_degree(W_r: Float[np.ndarray, "n n"]) -> int | None:
    n, total = len(W_r), 0
    p = np.random.default_rng(0).normal(size=n)
    for active in subsets(n):
        others = [i for i in range(n) if i not in active]
        if not active:
            total += bool(np.all(p <= 0))
            continue
        sign = _sign(W_r[np.ix_(active, active)])
        if sign is None:
            return None
        q = np.linalg.solve(W_r[np.ix_(active, active)], p[active])
        slack = W_r[np.ix_(others, active)] @ q - p[others]
        total += sign * bool(np.all(q > 0) and np.all(slack >= 0))
    return total
