"""Proofs, in ball arithmetic, that a fold or a Hopf point exists near a computed one, and that it
is nondegenerate.

Krawczyk's operator is applied to the equations whose regular zero it is. A fold is a zero of
`(F, F_x phi, l^T phi - 1)` in `(x, phi, value)`; a Hopf point one of
`(F, J q_r + w q_i, J q_i - w q_r, l^T q_r - 1, l^T q_i)` in `(x, q_r, q_i, w, value)`, with
`J = F_x / tau`. If the operator maps a box into its interior, the box holds exactly one zero. The
point is nondegenerate if balls exclude 0: at a fold those of `p^T B(phi, phi)` and `p^T F_value`,
at a Hopf point those of the first Lyapunov coefficient, whose sign has to be the computed one, and
of the speed at which the pair crosses the axis. That no other eigenvalue lies on the axis is not
shown.

Source: Krawczyk 1969 (existence); Kuznetsov, sections 3.3 and 5.4 (nondegeneracy).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flint import acb, acb_mat, arb, arb_mat, arb_series, ctx

from organics.branches.branch import Diagram, Event
from organics.branches.continuation import as_system
from organics.branches.family import Parameter, as_line
from organics.circuit.areas import Areas
from organics.circuit.gated import GatedHierarchy
from organics.proofs.balls import Inequality, column, exact, floats, from_entries, least
from organics.proofs.line import Equations, dot, times
from organics.proofs.precision import precision
from organics.rest.system import Driven

_BITS = 120
_NEWTON = 6
_INFLATIONS = 6
_NEAR = 1e-6  # relative distance of the point that is proved from the one that was computed


class EventProof(NamedTuple):
    """Whether a fold or Hopf point is proved, and on what that rests.

    Attributes
        proved: true if all inequalities hold.
        parameter: a ball around the value of the parameter, if it exists.
        evidence: the inequalities.
    """

    proved: bool
    parameter: arb | None
    evidence: tuple


def prove_event(circuit: Areas, z: Any, parameter: Parameter, event: Event) -> EventProof:
    """Whether a fold or Hopf point of `continuation(circuit, z, parameter, ...)` is proved to exist
    and to be nondegenerate; others are not tried.

    In the rectified model and in hierarchies, neurons count as active or silent as their computed
    `y` is, which is then shown; no proof is tried where one is 0, and none of a `GatedHierarchy`.
    """
    nothing = EventProof(False, None, ())
    if event.kind not in ("fold", "hopf") or not event.confirmed:
        return nothing
    if isinstance(circuit, GatedHierarchy):
        return nothing
    line = as_line(as_system(circuit, z, parameter), parameter)
    base, slope = line.base, line.slope
    assert isinstance(base, Driven) and isinstance(slope, Driven)
    kinked = any(area.rectified for area in circuit.areas) or len(circuit.areas) > 1
    if kinked and any(np.any(state.y == 0) for state in base.states(event.x)):
        return nothing
    equations = Equations.of(base, slope, event.x)
    with precision(_BITS):
        prove = _fold if event.kind == "fold" else _hopf
        try:
            return prove(equations, event)
        except (ZeroDivisionError, ValueError):  # of flint: a singular matrix, division by a ball
            return nothing


def prove_events(circuit: Areas, z: Any, parameter: Parameter, found: Diagram) -> Diagram:
    """The diagram, in which each fold and Hopf point says whether it is proved. After Ctrl-C,
    now or while the branches were followed, the others say `None`."""
    if found.interrupted:
        return found
    branches = [branch._replace(events=list(branch.events)) for branch in found.branches]
    try:
        for branch in branches:
            for i, event in enumerate(branch.events):
                if event.kind in ("fold", "hopf"):
                    proved = prove_event(circuit, z, parameter, event).proved
                    branch.events[i] = event._replace(proved=proved)
    except KeyboardInterrupt:
        found = found._replace(interrupted=True)
    return found._replace(branches=branches)


def _series(value: Any, slope: Any, order: int) -> arb_series:
    return arb_series([value, slope], order + 1)


def _coefficient(value: Any, k: int) -> arb:
    """A coefficient of a power series; a number is a constant one."""
    if isinstance(value, arb_series):
        return arb(value[k])
    return arb(value) if k == 0 else arb(0)


def _derivative(function: Callable[[list], list], Z: list[arb]) -> arb_mat:
    """The derivative at every point of a box, by power series."""
    columns = []
    for j in range(len(Z)):
        moved = [_series(z, int(i == j), 1) for i, z in enumerate(Z)]
        columns.append([_coefficient(value, 1) for value in function(moved)])
    return arb_mat(columns).transpose()


def _enclose(
    function: Callable[[list], list], start: list[float]
) -> tuple[list[arb] | None, Inequality]:
    """A box that holds exactly one zero of a function; `None` if that is not shown."""
    name = "Krawczyk: |K(Z) - Z| < radius of Z"
    size = len(start)
    Z = [arb(value) for value in start]
    for _ in range(_NEWTON):
        D = _derivative(function, Z).mid()
        step = D.solve(column(function(Z)).mid(), algorithm="approx").mid()
        Z = [(z - step[i, 0]).mid() for i, z in enumerate(Z)]
    identity = from_entries(size, lambda i, j: int(i == j))
    C = _derivative(function, Z).mid().solve(identity, algorithm="approx").mid()
    move = C * column(function(Z))
    shift = [-move[i, 0] for i in range(size)]
    if not all(value.is_finite() for value in shift):
        return None, Inequality(name, None, arb.nan())
    tiny = arb(2) ** (8 - ctx.prec)
    radius = [
        (2 * abs(s) + abs(z) * tiny + tiny * tiny).abs_upper()
        for s, z in zip(shift, Z, strict=True)
    ]
    inequality = Inequality(name, None, arb.nan())
    for _ in range(_INFLATIONS):
        around = [arb(0, r) for r in radius]
        CD = C * _derivative(function, [z + r for z, r in zip(Z, around, strict=True)])
        spread = (identity - CD) * column(around)
        moved = [s + spread[i, 0] for i, s in enumerate(shift)]
        if not all(value.is_finite() for value in moved):
            return None, inequality
        margin = least(1 - m.abs_upper() / r for m, r in zip(moved, radius, strict=True))
        inequality = Inequality.positive(name, margin)
        if inequality.holds:
            return [z + m for z, m in zip(Z, moved, strict=True)], inequality
        inequality = inequality._replace(holds=None)
        radius = [arb.max(2 * abs(m), r).abs_upper() for m, r in zip(moved, radius, strict=True)]
    return None, inequality


def _fold(equations: Equations, event: Event) -> EventProof:
    m = len(event.x)
    phi0 = np.asarray(event.vector) / np.linalg.norm(event.vector)
    ell = exact(phi0)

    def system(Z: list) -> list:
        x, phi, value = Z[:m], Z[m : 2 * m], Z[2 * m]
        bent = times(equations.jacobian(x, value), phi)
        return [*equations.imbalance(x, value), *bent, dot(ell, phi) - 1]

    box, exists = _enclose(system, [*event.x, *phi0, event.parameter])
    if box is None:
        return EventProof(False, None, (exists,))
    x, phi, value = box[:m], box[m : 2 * m], box[2 * m]
    J = arb_mat(equations.jacobian(x, value))
    left = exact(np.linalg.svd(floats(J))[0][:, -1])
    bordered = [[J[j, i] for j in range(m)] + [ell[i]] for i in range(m)] + [[*left, 0]]
    p = arb_mat(bordered).solve(arb_mat([[0]] * m + [[1]])).entries()[:m]
    moved = [_series(a, b, 1) for a, b in zip(x, phi, strict=True)]
    bend = times(equations.jacobian(moved, value + moved[0] * 0), phi)
    by_value = equations.imbalance([a + _series(arb(0), 0, 1) for a in x], _series(value, 1, 1))
    curvature = dot(p, [_coefficient(v, 1) for v in bend])
    push = dot(p, [_coefficient(v, 1) for v in by_value])
    evidence = (
        exists, _near(x, value, event), *equations.on_this_piece(x, value),
        _not_zero("p^T B(phi, phi)", curvature), _not_zero("p^T F_value", push),
    )  # fmt: skip
    return EventProof(all(bool(e.holds) for e in evidence), value, evidence)


def _hopf(equations: Equations, event: Event) -> EventProof:
    m = len(event.x)
    q0 = np.asarray(event.vector)
    q0 = q0 * np.exp(-0.5j * np.angle(np.sum(q0**2)))  # so that Re q and Im q are orthogonal
    r0, s0 = np.real(q0), np.imag(q0)
    size = np.linalg.norm(r0)
    r0, s0 = r0 / size, s0 / size
    ell = exact(r0)
    assert event.frequency_hz is not None
    w0 = event.frequency_hz * 2 * np.pi / 1000

    def system(Z: list) -> list:
        x, r, s, w, value = Z[:m], Z[m : 2 * m], Z[2 * m : 3 * m], Z[3 * m], Z[3 * m + 1]
        J = equations.rates(x, value)
        first = [a + w * b for a, b in zip(times(J, r), s, strict=True)]
        second = [a - w * b for a, b in zip(times(J, s), r, strict=True)]
        return [*equations.imbalance(x, value), *first, *second, dot(ell, r) - 1, dot(ell, s)]

    start = [*event.x, *r0, *s0, w0, event.parameter]
    box, exists = _enclose(system, start)
    if box is None:
        return EventProof(False, None, (exists,))
    x, r, s, w, value = box[:m], box[m : 2 * m], box[2 * m : 3 * m], box[3 * m], box[3 * m + 1]
    l1, speed = _hopf_form(equations, x, r, s, w, value, ell)
    evidence = (
        exists,
        _near(x, value, event),
        *equations.on_this_piece(x, value),
        Inequality.positive("frequency > 0", w),
        Inequality.positive("the frequency is near the computed one", _NEAR * w0 - abs(w - w0)),
        _signed("first Lyapunov coefficient", l1, event.first_lyapunov),
        _not_zero("speed of the crossing", speed),
    )
    return EventProof(all(bool(e.holds) for e in evidence), value, evidence)


def _hopf_form(equations: Equations, x, r, s, w, value, ell) -> tuple[arb, arb]:
    """Balls around the first Lyapunov coefficient and the speed of the pair."""
    m = len(x)
    J = acb_mat(arb_mat(equations.rates(x, value)))
    q = [acb(a, b) for a, b in zip(r, s, strict=True)]
    J0 = floats(arb_mat(equations.rates(x, value)))
    turned = J0.T - 1j * float(w.mid()) * np.eye(m)
    near = np.linalg.svd(turned)[2][-1]  # its conjugate is nearly u
    rows = [
        [J[j, i] - (acb(0, w) if i == j else 0) for j in range(m)] + [acb(ell[i])] for i in range(m)
    ]
    rows.append([acb(*map(float, (v.real, v.imag))) for v in near] + [acb(0)])
    u = acb_mat(rows).solve(acb_mat([[0]] * m + [[1]])).entries()[:m]  # u^T J = i w u^T
    u = [v / dot(u, q) for v in u]

    def along(direction: list, order: int, vector: list, move: Any = 0) -> list[arb]:
        """A derivative of `J vector` along a direction of `x`, and of the value."""
        moved = [_series(a, b, order) for a, b in zip(x, direction, strict=True)]
        rows = equations.rates(moved, _series(value, move, order))
        factor = 2 if order == 2 else 1
        return [factor * _coefficient(v, order) for v in times(rows, vector)]

    def bend(a: list, b: list) -> list[arb]:
        return along(a, 1, b)

    rr, ss, rs = bend(r, r), bend(s, s), bend(r, s)
    even = [a + b for a, b in zip(rr, ss, strict=True)]  # B(q, q')
    twice = [acb(a - b, 2 * c) for a, b, c in zip(rr, ss, rs, strict=True)]  # B(q, q)
    still = J.solve(acb_mat([[acb(v)] for v in even])).entries()
    shifted = acb_mat(
        [[(acb(0, 2 * w) if i == j else 0) - J[i, j] for j in range(m)] for i in range(m)]
    )
    ring = shifted.solve(acb_mat([[v] for v in twice])).entries()

    def complex_bend(a: list, b: list) -> list[acb]:
        (ar, ai), (br, bi) = ([[v.real for v in c], [v.imag for v in c]] for c in (a, b))
        one, two, three, four = bend(ar, br), bend(ai, bi), bend(ar, bi), bend(ai, br)
        return [acb(a - b, c + d) for a, b, c, d in zip(one, two, three, four, strict=True)]

    cubic_r = [a + b for a, b in zip(along(r, 2, r), along(s, 2, r), strict=True)]
    cubic_s = [a + b for a, b in zip(along(r, 2, s), along(s, 2, s), strict=True)]
    conjugate = [acb(a, -b) for a, b in zip(r, s, strict=True)]
    first, second = complex_bend(q, still), complex_bend(conjugate, ring)
    total = [
        acb(a, b) - 2 * c + d for a, b, c, d in zip(cubic_r, cubic_s, first, second, strict=True)
    ]
    length = dot(r, r) + dot(s, s)
    l1 = dot(u, total).real / (2 * w * length)
    by_value = [_coefficient(v, 1) for v in equations.imbalance(
        [_series(a, 0, 1) for a in x], _series(value, 1, 1))]  # fmt: skip
    moved = arb_mat(equations.jacobian(x, value)).solve(column([-v for v in by_value])).entries()
    change_r, change_s = along(moved, 1, r, 1), along(moved, 1, s, 1)
    speed = dot(u, [acb(a, b) for a, b in zip(change_r, change_s, strict=True)]).real
    return l1, speed


def _near(x: list[arb], value: arb, event: Event) -> Inequality:
    """Whether the point is the event: Newton's method may have gone to another one."""
    claimed = exact([*event.x, event.parameter])
    floor = max(map(abs, claimed)) / 1000
    margins = [
        _NEAR * arb.max(abs(claim), floor) - abs(ball - claim)
        for ball, claim in zip([*x, value], claimed, strict=True)
    ]
    return Inequality.positive("the point is near the computed one", least(margins))


def _signed(name: str, value: arb, computed: float | None) -> Inequality:
    """Whether a number has the sign of the computed one, if there is one, and is not 0."""
    if computed is None:
        return _not_zero(name, value)
    return Inequality.positive(f"{name} has the computed sign", value * int(np.sign(computed)))


def _not_zero(name: str, value: arb) -> Inequality:
    return Inequality.positive(f"{name} is not 0", arb(value.abs_lower()))
