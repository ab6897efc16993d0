"""Proofs about one circuit, in ball arithmetic, valid despite rounding.

`prove` encloses the steady state of a circuit under a drive and decides whether it is stable. Each
answer rests on inequalities between balls (`organics.proofs.balls`); the result lists them all. If
the balls are too wide to decide, they are recomputed with twice the bits; if that does not help up
to `max_bits`, the answer is "undecided".

*Identity recurrence.* The steady state is unique and has a closed form, evaluated in balls. It is
stable by the theorem of the paper if, for a positive `T`, `S = T B + B^T T` is positive definite
and `K > 0`. `S` is a symmetric Z-matrix, so one positive vector `v` with `S v > 0` suffices; here
`v = a_s`. In the rectified model a neuron with `z_i = 0` exactly rests where its equation has a
kink. This case is stable, too: near the steady state `y_i^2` decays at a positive rate on either
side, whatever the others do, and affects them to second order only, while their own linearization
is stable. So the sum of their quadratic Lyapunov function and a multiple of `y_i^2` decreases.

*General recurrence.* Krawczyk's test proves that a box holds one and only one steady state. For the
Jacobian `J` in all of the box and an exact symmetric matrix `P`, `P J + J^T P - 2 g P` is shown to
be negative definite. If `P` is positive definite, the real part of every eigenvalue of `J` is
below `g < 0`. If instead `x^T P x < 0` for some `x` and `g >= 0`, some eigenvalue has a real part
above `g`: otherwise `P` would be the integral of positive definite matrices. Definiteness itself is
Gershgorin's theorem after a congruence. The rectified model is smooth where no `y_i` is 0; where
the sign of a `y_i` stays open, one `P` must do for both slopes.

*No steady state, or no stable one*: from a part of the circuit, see `organics.proofs.existence`;
for two neurons, by going through all possible steady states, see `organics.proofs.pairs`.

**What became of the conjecture.** The paper conjectures a stable steady state wherever the largest
singular value of `W_r` is at most 1 and `|z| <= 1`. That is false, as `W` needs a bound:
`examples/no_steady_state.json` (`W_r = diag(1, 0)`, `W = 5 I`, `b = 1`, `z = (0.6, 0.8)`) has no
steady state. The *bounded conjecture* is

    if `0 <= W_ij <= 1`, `0 < b, b0, sigma < 1`, `tau_y, tau_a > 0`, the largest singular value of
    `W_r` is at most 1 and `|z| <= 1`, there is a locally asymptotically stable steady state.

`Circuit.random` draws within these bounds. It is false too: `examples/no_stable_state.json`
(`n = 1`, `W_r = -1`, `W = b = b0 = sigma = 0.9`, `z = 1`) has one steady state, a saddle, and in
the rectified model none. No larger circuit has a stable one if such a neuron, hearing only itself,
is a part of it. There the recurrence opposes the drive while `a < 1` and adds to it where `a > 1`,
and nothing stops `a`. `prove` disproves these files. For `n = 1` and `0 <= W_r <= 1` the bounded
conjecture is a theorem. For symmetric positive semidefinite `W_r`, the next larger class, it is
false: `examples/no_stable_state_semidefinite.json` (`n = 2`) has one steady state, an unstable one.

Source: Rawat, Heeger & Martiniani 2024 (theorem, conjecture); Krawczyk 1969 (existence test).
"""

from functools import reduce, singledispatch
from typing import Any, Literal, NamedTuple

import numpy as np
from flint import arb, arb_mat
from jaxtyping import Array, ArrayLike

from organics.arguments import require_whole
from organics.circuit.areas import Areas, joined
from organics.circuit.circuit import Circuit, State
from organics.circuit.hierarchy import Hierarchy
from organics.printing import Lines, in_html, in_words
from organics.proofs.ball_areas import BallHierarchy
from organics.proofs.balls import (
    BallCircuit,
    Box,
    Equations,
    Inequality,
    column,
    enclose,
    exact,
    from_entries,
    least,
    rates,
)
from organics.proofs.existence import NONE_EXISTS, NONE_STABLE, absence
from organics.proofs.lyapunov import candidates, conclude, given
from organics.proofs.pairs import BITS as PAIRS_BITS
from organics.proofs.pairs import steady_states_of_two
from organics.proofs.precision import precision
from organics.rest.point import GIVEN, OperatingPoint, require_any_point

MAX_BITS, _FIRST_BITS = 848, 53

Verdict = Literal["proved", "disproved", "undecided"]

UNIQUE = "the only steady state is locally asymptotically stable"
STABLE = "the enclosure holds exactly one steady state, and it is locally asymptotically stable"
UNSTABLE = "the enclosure holds exactly one steady state, and it is unstable"


class Proof(NamedTuple):
    """What was proved about a circuit under one drive.

    Attributes
        verdict: "proved" if a stable steady state is enclosed; "disproved" if none exists, or if
            the one found is unstable (another may be stable); else "undecided".
        statement: what exactly is proved, or why nothing is.
        decided_by: the inequality that decides the verdict, or at which the proof stopped.
        inequalities: all inequalities evaluated.
        bits: the precision, in bits.
        enclosure: balls around `y` and `a` of the steady state, of a hierarchy one such pair for
            each area; `None` if there is none.
        certificate: the verified certificate, as exact numbers: the diagonal of `T`, shape (n, 1);
            or `P`, shape (2n, 2n); or `w`, shape (n, 1), of `organics.proofs.existence`; `None` if
            none was needed or found.
    """

    verdict: Verdict
    statement: str
    decided_by: Inequality
    inequalities: tuple[Inequality, ...]
    bits: int
    enclosure: Box | tuple | None
    certificate: arb_mat | None

    def lines(self) -> Lines:
        """The result as a verdict and lines of text; balls have 12 digits."""
        rows = [("decided by", f"{self.decided_by.name}, margin {self.decided_by.margin}")]
        rows.append(("precision", f"{self.bits} bits"))
        if self.enclosure is not None:
            for name, balls in self.balls():
                rows.append((name, ", ".join(ball.str(12) for ball in balls)))
        return Lines(f"{self.verdict}: {self.statement}", tuple(rows))

    def balls(self) -> list[tuple[str, list[arb]]]:
        """The balls of the enclosure by name."""
        if self.enclosure is None or isinstance(self.enclosure, Box):
            return [] if self.enclosure is None else list(self.enclosure._asdict().items())
        return [
            (f"{name} of area {k + 1}", values)
            for k, box in enumerate(self.enclosure)
            for name, values in box._asdict().items()
        ]

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


class _Attempt(NamedTuple):
    """A proof at one precision."""

    verdict: Verdict
    statement: str
    inequalities: list[Inequality]
    enclosure: Box | tuple | None = None
    certificate: arb_mat | None = None


def prove(
    point: OperatingPoint, *, certificate: "ArrayLike | None" = None, max_bits: int = MAX_BITS
) -> Proof:
    """Prove or disprove that a circuit has a stable steady state under its drive.

    Parameters and drive are the exact floating-point numbers that the point holds. Of a hierarchy,
    where feedback never acts (`Hierarchy.never_acts`) and all recurrence is the identity, the proof
    is that of each area; else it is that for a general recurrence, from all equations together.

    Arguments
        point: from `steady_state`, converged or not: the proof begins at its state. Or from
            `given_state`: then the proof is only about the steady state near the given one, and a
            state that is not near any proves nothing.
        certificate: a certificate to verify instead of searching for one: for identity recurrence
            the diagonal of `T`, shape (n,), as from `certify`; else a symmetric `P`, shape (2n,
            2n), with `P J + J^T P` negative definite; of a hierarchy such a `P` of all numbers. A
            wrong one proves nothing.
        max_bits: the highest precision tried. The first is 53 bits, then it doubles.

    Raises `ValueError` if `point`, `certificate` or `max_bits` is not as above.
    """
    require_whole("max_bits", max_bits, least=2)
    circuit, z = require_any_point(point).system, point.z
    circuit.require_valid()
    wanted = None
    if certificate is not None:
        identity = isinstance(circuit, Circuit) and BallCircuit.of(circuit, z).W_r is None
        wanted = _certificate(certificate, sum(circuit.sizes), identity)
    meant = int(point.found.method) == GIVEN
    bits, attempt = 0, None
    while attempt is None or (attempt.verdict == "undecided" and bits < max_bits):
        bits = min(2 * bits or _FIRST_BITS, max_bits)
        with precision(bits):
            attempt = _attempt(circuit, z, point.state, wanted)
            if attempt.enclosure is not None and meant:
                attempt = _if_near(attempt, attempt.enclosure, point.state)
    if not meant and certificate is None and max_bits >= PAIRS_BITS:
        told = _none_of_two(circuit, z, attempt)
        attempt, bits = (attempt, bits) if told is None else (told, PAIRS_BITS)
    decisive = next((i for i in attempt.inequalities if not i.holds), attempt.inequalities[-1])
    return Proof(
        attempt.verdict,
        attempt.statement,
        decisive,
        tuple(attempt.inequalities),
        bits,
        attempt.enclosure,
        attempt.certificate,
    )


@singledispatch
def _attempt(circuit: Areas, z: Array, state: Any, wanted: np.ndarray | None) -> _Attempt:
    """A proof at the present precision."""
    del z, state, wanted
    raise ValueError(
        f"`point` must be that of a circuit or a `Hierarchy`: nothing is proved about a "
        f"{type(circuit).__name__}."
    )


@_attempt.register
def _(circuit: Circuit, z, state, wanted) -> _Attempt:
    balls = BallCircuit.of(circuit, z)
    missing = absence(circuit, z, balls)
    if missing is not None:
        return _Attempt(
            "disproved", missing.statement, [missing.inequality], None, missing.certificate
        )
    return _identity(balls, wanted) if balls.W_r is None else _general(balls, state, wanted)


@_attempt.register
def _(hierarchy: Hierarchy, z, state, wanted) -> _Attempt:
    balls = BallHierarchy.of(hierarchy, z)
    if wanted is None and hierarchy.has_identity_recurrence and hierarchy.never_acts(z):
        return _area_by_area(balls)
    return _general(balls, state, wanted)


def _area_by_area(balls: BallHierarchy) -> _Attempt:
    """The proof for identity recurrence, of each area under the drive from below."""
    attempts, numbers = [], []
    for k in range(len(balls.areas)):
        area = balls.driven([*numbers, *_unknown(balls.areas[k:])])[k]
        attempts.append(_identity(area, None))
        if attempts[-1].enclosure is None:
            return attempts[-1]
        numbers += [ball for part in attempts[-1].enclosure for ball in part]
    inequalities = [
        one._replace(name=f"{one.name}, area {k + 1}")
        for k, attempt in enumerate(attempts)
        for one in attempt.inequalities
    ]
    failed = [attempt for attempt in attempts if attempt.verdict != "proved"]
    last = (failed or attempts)[0]
    return _Attempt(last.verdict, last.statement, inequalities, balls.state(numbers))


def _unknown(areas: list[BallCircuit]) -> list[arb]:
    return [arb.nan()] * sum(2 * area.n for area in areas)


def _identity(circuit: BallCircuit, certificate: np.ndarray | None) -> _Attempt:
    """The certificate of `organics.certify`, each inequality of its proof in balls."""
    n, d, tau_y, tau_a = circuit.n, circuit.d, circuit.tau_y, circuit.tau_a
    unsure = circuit.unsure()
    if unsure is not None:
        return _Attempt("undecided", "whether a neuron responds is not decided", [unsure])
    responds = [circuit.responds(i) for i in range(n)]
    squares = [d**2 if r else arb(0) for d, r in zip(d, responds, strict=True)]
    pooled = (circuit.W * column(squares)).entries()
    a = [c + p for c, p in zip(circuit.c, pooled, strict=True)]
    y = [d / a.sqrt() if r else d for d, a, r in zip(d, a, responds, strict=True)]
    leak = [a.sqrt() if r else arb(1) for a, r in zip(a, responds, strict=True)]
    rate = [square / a for square, a in zip(squares, a, strict=True)]  # `y^2` as others see it
    hears = from_entries(n, lambda i, j: circuit.W[i, j] * rate[j] / tau_a[i])
    B = from_entries(
        n, lambda i, j: (leak[i] / tau_y[i] + 1 / tau_a[i] if i == j else 0) - hears[i, j]
    )
    T = _diagonal(B, a) if certificate is None else exact(certificate)
    M = from_entries(n, lambda i, j: T[i] * B[i, j])
    S = from_entries(n, lambda i, j: M[i, j] + M[j, i])
    others = [hears[i, j] for i in range(n) for j in range(n) if i != j]
    inequalities = [
        Inequality.not_negative("off-diagonals of B <= 0", least(others or [arb(0)])),
        Inequality.positive("B a_s > 0", _relative(B, a)),
        Inequality.positive("T > 0", least(T)),
        Inequality.positive(
            "K > 0", least(k / (ty * ta) for k, ty, ta in zip(leak, tau_y, tau_a, strict=True))
        ),
    ]
    kinks = [i for i in range(n) if circuit.rectified and d[i] == 0]
    if kinks:
        slopes = (arb.min(arb(1), a[i].sqrt()) / tau_y[i] for i in kinks)
        inequalities.append(
            Inequality.positive("both slopes of a neuron under zero drive < 0", least(slopes))
        )
    inequalities.append(Inequality.positive("(T B + B^T T) a_s > 0", _relative(S, a)))
    holds = all(inequality.holds for inequality in inequalities)
    return _Attempt(
        "proved" if holds else "undecided",
        UNIQUE if holds else "the certificate was not verified",
        inequalities,
        Box(y, a),
        column(T),
    )


def _diagonal(B: arb_mat, a: list[arb]) -> list[arb]:
    """Exact numbers close to `T = B^-T 1 / a_s`."""
    try:
        u = B.transpose().mid().solve(column([arb(1)] * len(a)), algorithm="approx")
    except ZeroDivisionError:  # at very few bits; other positive numbers may still work
        return [arb(1)] * len(a)
    return [(u[i, 0] / a[i]).mid() for i in range(len(a))]


def _relative(matrix: arb_mat, v: list[arb]) -> arb:
    """Smallest entry of `matrix v`, relative to the contribution of the diagonal; `v` is positive.

    For a symmetric Z-matrix with positive diagonal, Gershgorin's theorem makes this a lower bound
    on the smallest eigenvalue after scaling the diagonal to 1.
    """
    image = (matrix * column(v)).entries()
    return least(image[i] / (abs(matrix[i, i]) * v[i]) for i in range(len(v)))


def _general(system: Equations, start: Any, P: np.ndarray | None) -> _Attempt:
    """Krawczyk's test around `start`, then a Lyapunov inequality in all of the box."""
    numbers, inside = enclose(system, np.asarray(joined(start)))
    if numbers is None:
        return _Attempt("undecided", "no steady state could be enclosed", [inside])
    J, box = rates(system, numbers), system.state(numbers)
    evaluated = [inside]
    for candidate in candidates(J) if P is None else given(J, P):
        stable, inequalities = conclude(J, candidate)
        evaluated = [inside, *inequalities]
        if stable is not None:
            verdict, statement = ("proved", STABLE) if stable else ("disproved", UNSTABLE)
            return _Attempt(verdict, statement, evaluated, box, candidate.P)
    return _Attempt(
        "undecided", "a steady state was enclosed, but its stability not decided", evaluated, box
    )


def _none_of_two(circuit: Areas, z: Array, attempt: _Attempt) -> _Attempt | None:
    """The attempt, if a circuit of two neurons provably has no stable steady state."""
    if not isinstance(circuit, Circuit) or circuit.n != 2 or circuit.rectified:
        return None
    if attempt.verdict == "proved" or attempt.statement in (NONE_EXISTS, NONE_STABLE):
        return None
    pairs = steady_states_of_two(circuit, z)
    if pairs is None or not pairs.none_stable:
        return None
    return attempt._replace(
        verdict="disproved",
        statement=NONE_STABLE if pairs.enclosures else NONE_EXISTS,
        inequalities=[*(i for i in attempt.inequalities if i.holds), pairs.inequality],
    )


def _if_near(attempt: _Attempt, found: Box | tuple, claimed: Any) -> _Attempt:
    """The attempt, if its steady state is near the given one."""
    pairs = [(found, claimed)] if isinstance(found, Box) else zip(found, claimed, strict=True)
    margin = least(_nearness(box, state) for box, state in pairs)
    near = Inequality.positive("the given state is near the enclosed one", margin)
    if near.holds:
        return attempt._replace(inequalities=[near, *attempt.inequalities])
    return _Attempt("undecided", "the given state is not near a steady state", [near])


def _nearness(found: Box, claimed: State) -> arb:
    """Positive if a box is near a state."""
    tolerance = arb(float(np.finfo(claimed.a.dtype).eps) ** 0.25)  # `a` may have few digits
    y, a = exact(claimed.y), exact(claimed.a)
    largest = reduce(arb.max, [abs(y) for y in y])
    sizes = [largest if largest > 0 else arb(1)] * len(y) + a
    return least(
        tolerance - abs(x - claim) / size
        for x, claim, size in zip([*found.y, *found.a], [*y, *a], sizes, strict=True)
    )


def _certificate(value: ArrayLike, n: int, identity: bool) -> np.ndarray:
    matrix = np.asarray(value, np.float64)
    shape = (n,) if identity else (2 * n, 2 * n)
    what = "the diagonal of `T`" if identity else "a symmetric `P`"
    if matrix.shape != shape or not np.all(np.isfinite(matrix)):
        raise ValueError(
            f"`certificate` must be {what}, finite and of shape {shape}, not of shape "
            f"{matrix.shape}."
        )
    if not identity and not np.array_equal(matrix, matrix.T):
        raise ValueError("`certificate` must be a symmetric `P`; this matrix is not symmetric.")
    return matrix
