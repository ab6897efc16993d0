"""Which Jacobians have all their eigenvalues to the left of a line, without computing them.

The spectral abscissa of a matrix is the largest real part of its eigenvalues. To tell on which side
of a given rate it lies is much less work than to compute it:

1. *A logarithmic norm.* If `G J + J^T G - 2 rate G` is negative definite for some positive diagonal
   `G`, the abscissa is below the rate. One Cholesky factorization tells.
2. *Powers of the Cayley transform.* The eigenvalues of `C = (c + A) (c - A)^-1`, `A = J - rate`,
   `c > 0`, lie inside of the unit circle if those of `A` lie left of the imaginary axis. `C` is
   squared until its norm falls below 1, or its trace exceeds its number of rows.

Both allow for rounding. What they leave open, the eigenvalues tell.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import get_lapack_funcs

_SUMMANDS = 4  # of the series for the weights; more decide no more circuits
_SQUARINGS = 12  # then the abscissa is so close to the rate that eigenvalues are quicker
_ENTRIES = 160_000  # of the matrices compared at once, which fit into the CPU's cache
_EPS = float(np.finfo(np.float64).eps)
(_factorize,) = get_lapack_funcs(("potrf",), dtype=np.float64)


def decaying(jacobians: Float[np.ndarray, "batch m m"]) -> Bool[np.ndarray, " batch"]:
    """Whether all eigenvalues have negative real parts; false for a matrix that is not finite.

    Takes a fraction of the time of the eigenvalues, and computes them only where it must.
    """
    finite = np.flatnonzero(np.isfinite(jacobians).all(axis=(1, 2)))
    side = compare(jacobians[finite])
    side[side == 0] = np.sign(abscissae(jacobians[finite[side == 0]]))
    decays = np.zeros(len(jacobians), bool)
    decays[finite] = side < 0
    return decays


def abscissae(
    jacobians: Float[np.ndarray, "batch m m"], exact_above: float = -np.inf
) -> Float[np.ndarray, " batch"]:
    """Spectral abscissae, in the units of the matrices; NaN for a matrix that is not finite.

    Those below `exact_above` may be replaced by it, an upper bound that takes less time.
    """
    found = np.full(len(jacobians), np.nan, jacobians.dtype)
    left = np.flatnonzero(np.isfinite(jacobians).all(axis=(1, 2)))
    if exact_above > -np.inf:
        below = compare(jacobians[left], exact_above) < 0
        found[left[below]] = exact_above
        left = left[~below]
    if len(left):
        found[left] = np.linalg.eigvals(jacobians[left]).real.max(axis=1)
    return found


def stable_abscissae(
    jacobians: Float[np.ndarray, "batch m m"],
    counted: Bool[np.ndarray, " batch"],
    largest: float = -np.inf,
) -> Float[np.ndarray, " batch"]:
    """`abscissae`, exact if not negative, or if the largest of the negative ones of the `counted`
    matrices; of others there may be upper bounds, negative too.

    `largest` is that of matrices before, if there were any; then only larger ones are exact.
    """
    found = np.empty(len(jacobians), jacobians.dtype)
    # without a bound, one grows
    for some in rounds(len(found)) if largest == -np.inf else (slice(None),):
        found[some] = abscissae(jacobians[some], largest)
        largest = max(largest, largest_stable(found[some], counted[some]))
    return found


def largest_stable(
    abscissae: Float[np.ndarray, " batch"], counted: Bool[np.ndarray, " batch"]
) -> float:
    """The largest of the `counted` ones that are negative, or `-inf`."""
    return float(np.max(abscissae, where=counted & (abscissae < 0), initial=-np.inf))


def rounds(count: int) -> Iterator[slice]:
    """Slices that make up `count` items, each seven times as long as all before it.

    If the items of a slice are compared with the largest of those before, about seven are larger,
    whatever `count`, and those of a slice can be compared at the same time.
    """
    start = 0
    while start < count:
        stop = min(count, max(1, 8 * start))
        yield slice(start, stop)
        start = stop


def compare(
    jacobians: Float[np.ndarray, "batch m m"], rate: float = 0.0
) -> Int[np.ndarray, " batch"]:
    """-1 where the spectral abscissa is below `rate`, 1 where it is above, 0 where that is open.

    `jacobians` are finite, with rows and columns ordered `(y, a)`. Other square matrices of two and
    more rows will do, but fewer of them are decided by the logarithmic norm.

    Computed in double precision, on one processor.
    """
    m = jacobians.shape[-1]
    few = max(1, _ENTRIES // m**2)
    parts = [jacobians[i : i + few] for i in range(0, len(jacobians), few)]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # leave it open
        sides = [_compare(part.astype(np.float64, copy=False), rate) for part in parts]
    return np.concatenate(sides) if sides else np.zeros(0, int)


def _compare(J: Float[np.ndarray, "batch m m"], rate: float) -> Int[np.ndarray, " batch"]:
    J = balanced(J)
    side = np.where(log_norm_is_below(J, rate), -1, 0)
    left = np.flatnonzero(side == 0)
    if len(left):
        side[left] = _by_powers(J[left], rate)
    return side


def balanced(J: Float[np.ndarray, "batch m m"]) -> Float[np.ndarray, "batch m m"]:
    """The matrices in coordinates in which their symmetric parts are small, `G^(1/2) J G^(-1/2)`.

    `G` is that of identity recurrence for the modulators: the ratio of positive vectors that the
    M-matrix `-J_aa` and its transpose map to positive ones. It is one number for all principal
    neurons: the one that makes both couplings, of `y` to `a` and back, the same size.
    """
    n = J.shape[-1] // 2
    y_from_a, a_from_y, a_from_a = J[:, :n, n:], J[:, n:, :n], J[:, n:, n:]
    leak = -np.diagonal(a_from_a, axis1=1, axis2=2)
    leak = np.where(leak > 0, leak, 1)
    heard = np.abs(a_from_a)
    _diagonals(heard)[...] = 0
    right = left = 1 / leak  # by Jacobi's method
    for _ in range(_SUMMANDS):
        right = (1 + (heard @ right[:, :, None])[:, :, 0]) / leak
        left = (1 + (left[:, None, :] @ heard)[:, 0, :]) / leak
    modulators = left / right
    there = np.square(a_from_y).sum(axis=2), np.square(y_from_a).sum(axis=1)
    ratio = _ratio((there[0] * modulators).sum(axis=1), (there[1] / modulators).sum(axis=1))
    principal = np.broadcast_to(np.sqrt(ratio)[:, None], (len(J), n))
    weights = np.sqrt(np.concatenate([principal, modulators], axis=1))
    J = J * weights[:, :, None]
    J /= weights[:, None, :]
    return J


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The ratio, or 1 if it is not a positive number."""
    usable = (above > 0) & (below > 0)
    return np.where(usable, above / np.where(usable, below, 1), 1)


def log_norm_is_below(J: Float[np.ndarray, "batch m m"], rate: float) -> Bool[np.ndarray, " batch"]:
    """Whether the symmetric part of `rate - J` is positive definite, rounding aside."""
    m, size = J.shape[-1], _norm(J)
    S = np.negative(J)
    S -= J.swapaxes(1, 2)
    rounding = 8 * m * _EPS * (size + abs(rate))
    _diagonals(S)[...] += (2 * rate - rounding)[:, None]
    # transposed, as then it need not be copied; NumPy would not say which factorization fails
    failed = [_factorize(one.T, clean=False, overwrite_a=True)[1] != 0 for one in S]
    return np.isfinite(size) & ~np.array(failed, bool)


def _by_powers(J: Float[np.ndarray, "batch m m"], rate: float) -> Int[np.ndarray, " batch"]:
    """`compare` by powers of the Cayley transform.

    If `C` is known up to `error`, its square is up to `2 |C| error + error^2` and the rounding of
    the product.
    """
    m = J.shape[-1]
    side, left = np.zeros(len(J), int), np.arange(len(J))
    C, error = _cayley(J, rate)
    for _ in range(_SQUARINGS):
        size = _norm(C)
        side[left[size + error < 1]] = -1
        # the trace is at most m times the largest eigenvalue's absolute value
        side[left[np.abs(np.trace(C, axis1=1, axis2=2)) > m * (1 + error)]] = 1
        unsure = (side[left] == 0) & (error < 0.1)  # NaN is given up, too
        if not unsure.all():
            left, C, size, error = left[unsure], C[unsure], size[unsure], error[unsure]
        if not len(left):
            break
        C = C @ C
        error = 2 * size * error + error**2 + m * _EPS * size**2
    return side


def _cayley(
    J: Float[np.ndarray, "batch m m"], rate: float
) -> tuple[Float[np.ndarray, "batch m m"], Float[np.ndarray, " batch"]]:
    """`C`, and how far rounding may have moved it; NaN where it does not exist."""
    m = J.shape[-1]
    n = m // 2
    middle = rate - np.trace(J, axis1=1, axis2=2) / m
    c = np.where(middle > 0, middle, _norm(J) / np.sqrt(m) + abs(rate))[:, None, None]
    A = np.negative(J)
    _diagonals(A)[...] += c[:, :, 0] + rate
    P, Q, R, S = A[:, :n, :n], A[:, :n, n:], A[:, n:, :n], A[:, n:, n:]
    # by blocks: most of the work is then in products, which are faster than factorizations
    try:
        from_y = np.linalg.inv(P)
        R_P = R @ from_y
        from_a = np.linalg.inv(S - R_P @ Q)
    except np.linalg.LinAlgError:
        return np.full_like(J, np.nan), np.full(len(J), np.nan)
    P_Q, inner = from_y @ Q, from_a @ R_P
    X = np.empty_like(J)
    X[:, :n, :n] = from_y + P_Q @ inner
    X[:, :n, n:] = -P_Q @ from_a
    X[:, n:, :n] = -inner
    X[:, n:, n:] = from_a
    size, inverse = _norm(A), _norm(X)
    growth = (1 + _norm(from_y) * size) * (1 + _norm(R_P)) * (1 + _norm(P_Q))
    error = 2 * c[:, 0, 0] * m * _EPS * growth * inverse * (1 + size * inverse)
    X *= 2 * c
    _diagonals(X)[...] -= 1
    return X, error


def _diagonals(M: Float[np.ndarray, "batch m m"]) -> Float[np.ndarray, "batch m"]:
    """A view of the diagonals, which can be changed."""
    return np.einsum("bii->bi", M)


def _norm(M: Float[np.ndarray, "batch _ _"]) -> Float[np.ndarray, " batch"]:
    """Frobenius norms."""
    flat = M.reshape(len(M), -1)
    return np.sqrt(np.einsum("bi,bi->b", flat, flat))
