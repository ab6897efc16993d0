r"""The small-gain certificate of a hierarchy with feedback.

Let `J_1` be the Jacobian of areas 1..k, `J_2` that of area k + 1, each with its feedback held, and

    L(w) = [(i w - J_1)^-1]_yy J_12 [(i w - J_2)^-1]_yy J_21

the gain once around the loop between them. As `det(l - J) = det(l - J_1) det(l - J_2) det(1 - L)`,
the areas 1..k + 1 are stable if `J_1` and `J_2` are and the spectral radius of `L(w)` is below 1
for every real `w`. This is checked for k = 1, 2, ...

Between the frequencies examined the radius is bounded, in exact arithmetic. For `A = [[J_1, J_12],
[0, J_2]]` and its resolvent `R = (i w - A)^-1`, `L = C R B`, where `C` reads `y` of area k and `B`
is `J_21`. Within `h` of a frequency,

    |S^-1 L S| <= |S^-1 C R B S| + h |S^-1 C R^2 B S| + h^2 |S^-1 C R^2| |R B S| / (1 - h |R|)

in the spectral norm for any invertible `S`: the eigenvectors of `L`, or a diagonal. Intervals in
which this is not below 1 are halved. Beyond some frequency `L` is small, as it falls as `1/w^2`.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Complex, Float

from organics.circuit.areas import Areas, joined
from organics.linear.jacobian import Blocks, as_matrix, imbalance_blocks
from organics.machine.lapack import single_threaded_lapack

MOST_NEURONS = 1000  # in all: a resolvent is computed for each frequency
_MOST_INTERVALS = 4000
_BELOW = 1 - 1e-9  # bounds must be below this, to leave room for rounding


class SmallGain(NamedTuple):
    """Whether no loop between areas has a gain of 1.

    Attributes
        holds: whether all checks passed.
        largest: largest spectral radius of a loop at the frequencies examined.
        frequency: where that is, in kHz.
        intervals: number of intervals of frequencies in which a bound was computed.
        checks: by name.
    """

    holds: bool
    largest: float
    frequency: float
    intervals: int
    checks: dict[str, bool]


class _Loop(NamedTuple):
    """`L = C (i w - A)^-1 B`, in coordinates in which `A` is balanced."""

    A: Float[np.ndarray, "m m"]
    B: Float[np.ndarray, "m n"]
    C: Float[np.ndarray, "n m"]


def small_gain(hierarchy: Areas, states: tuple) -> SmallGain:
    """The small-gain test at the steady state `states`, by NumPy in float64, on concrete values.

    Does not hold for a `GatedHierarchy`, nor if there are more than 1,000 neurons in all, or if
    4,000 intervals of frequencies are not enough.
    """
    if not hierarchy.separable:
        return SmallGain(False, np.inf, 0.0, 0, {"areas coupled by principal neurons": False})
    blocks = imbalance_blocks(hierarchy, states)
    tau = np.asarray(joined(hierarchy.time_constants), np.float64)
    checks, largest, frequency, intervals = {}, 0.0, 0.0, 0
    if len(tau) > MOST_NEURONS:
        return SmallGain(False, np.inf, 0.0, 0, {"at most 1,000 neurons": False})
    ends = np.cumsum([0, *(len(block) for block in blocks.within)])
    for k, block in enumerate(blocks.within):
        rates = np.asarray(block, np.float64) / tau[ends[k] : ends[k + 1], None]
        stable = bool(np.linalg.eigvals(rates).real.max() < 0)
        checks[f"area {k + 1} alone is stable"] = stable
        if not stable:
            return SmallGain(False, np.inf, 0.0, intervals, checks)
        if k == 0 or blocks.from_above[k - 1] is None:
            continue
        with single_threaded_lapack():
            radius, at, count = _largest(_loop(blocks, tau, k))
        checks[f"gain between areas {k} and {k + 1} < 1"] = radius < 1
        intervals += count
        if radius > largest:
            largest, frequency = radius, at / (2 * np.pi)
        if not radius < 1:
            break
    return SmallGain(all(checks.values()), largest, frequency, intervals, checks)


def _loop(blocks: Blocks, tau: Float[np.ndarray, " m"], k: int) -> _Loop:
    """The loop between the areas below the k-th, counted from 0, and that."""
    part = Blocks(blocks.within[: k + 1], blocks.from_above[:k], blocks.from_below[:k])
    J = np.asarray(as_matrix(part), np.float64) / tau[: sum(map(len, part.within)), None]
    top, n = len(J) - len(part.within[-1]), len(part.within[-1]) // 2
    below = part.from_below[-1].shape[1]
    first = top - len(part.within[-2])
    A, B = J.copy(), np.zeros((len(J), below))
    A[top:, :top] = 0
    B[top : top + n] = J[top : top + n, first : first + below]
    C = np.eye(len(J))[first : first + below]
    A, (scale, _) = scipy.linalg.matrix_balance(A, permute=False, separate=True)
    return _Loop(A, B / scale[:, None], C * scale[None, :])


def _largest(loop: _Loop) -> tuple[float, float, int]:
    """The largest spectral radius at the frequencies examined, which one that is, and how many
    there were. It is infinite if some interval remains in which it may reach 1."""
    end = _last(loop)
    pending, largest, where, count = [(0.0, end)], 0.0, 0.0, 0
    while pending:
        low, high = pending.pop()
        count += 1
        radius, bound = _bound(loop, (low + high) / 2, (high - low) / 2)
        if radius > largest:
            largest, where = radius, (low + high) / 2
        if radius >= _BELOW or count > _MOST_INTERVALS:
            return np.inf, where, count
        if bound >= _BELOW:
            middle = (low + high) / 2
            pending += [(middle, high), (low, middle)]
    return largest, where, count


def _last(loop: _Loop) -> float:
    """A frequency beyond which the gain is below a half. With `C B = 0`,
    `L = -C A B / w^2 + C A^2 R B / (i w)^2`."""
    A, B, C = loop
    size, first = _norm(A), _norm(C @ A @ B)
    second = _norm(C @ A @ A) * _norm(B)
    w = 2 * size
    while (first + second / (w - size)) / w**2 >= 0.5:
        w *= 2
    return float(w)


def _bound(loop: _Loop, w: float, h: float) -> tuple[float, float]:
    """The spectral radius at `w`, and a bound on it within `h` of `w`."""
    A, B, C = loop
    R = np.linalg.inv(1j * w * np.eye(len(A)) - A)
    RB, CR = R @ B, C @ R
    L, slope = C @ RB, CR @ RB
    values, vectors = np.linalg.eig(L)
    radius = float(np.max(np.abs(values)))
    size = h * _norm(R)
    if size >= 0.5 or not radius < 1:
        return radius, np.inf
    rest = CR @ R, RB, h**2 / (1 - size)
    bounds = [_in(S, L, slope, h, *rest) for S in _changes(L, vectors)]
    return radius, min(bounds)


def _changes(L: Complex[np.ndarray, "n n"], vectors: Complex[np.ndarray, "n n"]) -> list:
    """Matrices `S` in whose coordinates `L` may have a small norm."""
    _, (scale, _) = scipy.linalg.matrix_balance(np.abs(L), permute=False, separate=True)
    found = [np.diag(scale)]
    if np.linalg.cond(vectors) < 1e12:
        found.append(vectors)
    return found


def _in(S, L, slope, h: float, CRR, RB, factor: float) -> float:
    """The bound in the coordinates `S`."""
    into = np.linalg.inv(S)
    far = factor * _norm(into @ CRR) * _norm(RB @ S)
    return float(np.linalg.norm(into @ L @ S, 2) + h * _norm(into @ slope @ S) + far)


def _norm(M: np.ndarray) -> float:
    """A bound on the spectral norm, the geometric mean of two norms that cost little."""
    return float(np.sqrt(np.linalg.norm(M, 1) * np.linalg.norm(M, np.inf)))
