"""One circuit and one drive in ball arithmetic: every number is an interval that contains the true
one.

Parameters and drive are exact floating-point numbers. Each computed number is a ball, a midpoint
with `flint.ctx.prec` bits and a radius that bounds all rounding, so a comparison of balls is true
only if it is true of the exact numbers. The equations are those of `Circuit.imbalance`, written a
second time; the tests compare the two.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from flint import arb, arb_mat, ctx, fmpq
from jaxtyping import Array, Float

from organics.circuit.circuit import Circuit
from organics.circuit.weights import Convolution, LowRank, Weights

_INFLATIONS = 8  # of the box in which a steady state is searched for


class BallCircuit(NamedTuple):
    """A circuit under one drive: exact parameters, and `d = b z`, `c = (b0 sigma)^2` as balls.

    `W_r` is `None` for identity recurrence. `undriven` are the neurons without recurrent input
    (zero row of `W_r`).
    """

    W: arb_mat
    W_r: arb_mat | None
    d: list[arb]
    c: list[arb]
    tau_y: list[arb]
    tau_a: list[arb]
    rectified: bool
    undriven: list[int]

    @classmethod
    def of(cls, circuit: Circuit, z: Float[Array, " n"]) -> "BallCircuit":
        """The circuit with products rounded outwards to the working precision."""
        recurrent, n = circuit.recurrent, circuit.n
        is_product = isinstance(recurrent, LowRank)
        # a zero row receives nothing; in a product of factors, a zero row of the left one
        if is_product:
            rows = _receivers(recurrent).tolist()
        elif is_computed(recurrent):
            rows = [rational_row(recurrent, i) for i in range(n)]
        else:
            rows = np.asarray(recurrent).tolist()
        identity = not is_product and rows == [[int(i == j) for j in range(n)] for i in range(n)]
        gains = zip(exact(circuit.b0), exact(circuit.sigma), strict=True)
        return cls(
            W=weights_in_balls(circuit.pool),
            W_r=None if identity else weights_in_balls(recurrent),
            d=[b * z for b, z in zip(exact(circuit.b), exact(z), strict=True)],
            c=[(b0 * sigma) ** 2 for b0, sigma in gains],
            tau_y=exact(circuit.tau_y),
            tau_a=exact(circuit.tau_a),
            rectified=circuit.rectified,
            undriven=[i for i, row in enumerate(rows) if not any(row)],
        )

    @property
    def n(self) -> int:
        """Number of principal neurons."""
        return len(self.d)

    @property
    def tau(self) -> list[arb]:
        """The time constants of all 2n numbers."""
        return self.tau_y + self.tau_a

    @property
    def positive(self) -> list[int]:
        """The places of `a` among the numbers."""
        return list(range(self.n, 2 * self.n))

    def state(self, x: Sequence[arb]) -> "Box":
        """The numbers as a box."""
        return Box.of(x)

    def imbalance(self, x: Sequence[arb]) -> list[arb]:
        """`Circuit.imbalance` at every state of the box."""
        return imbalance(self, Box.of(x))

    def imbalance_jacobian(self, x: Sequence[arb]) -> arb_mat:
        """Its derivative, at every state of the box."""
        return imbalance_jacobian(self, Box.of(x))

    def responds(self, i: int) -> bool:
        """Whether neuron i contributes to the recurrent terms if `y_i` has the sign of `d_i`, which
        must be certain: see `unsure`."""
        return not self.rectified or bool(self.d[i] > 0)

    def unsure(self) -> "Inequality | None":
        """The drive whose sign decides whether a neuron responds, if a ball leaves it open. That
        of a product is certain, that of a sum, as of an area's drive from below, may not be."""
        if self.rectified:
            for i, d in enumerate(self.d):
                if not (d > 0 or d <= 0):
                    return Inequality(f"the sign of the drive of neuron {i + 1}", None, d)
        return None

    def alone(self, i: int) -> "BallCircuit":
        """Neuron i as a circuit of its own."""
        W_r = None if self.W_r is None else arb_mat([[self.W_r[i, i]]])
        d, c, tau_y, tau_a = ([v[i]] for v in (self.d, self.c, self.tau_y, self.tau_a))
        undriven = [0] if i in self.undriven else []
        return BallCircuit(
            arb_mat([[self.W[i, i]]]), W_r, d, c, tau_y, tau_a, self.rectified, undriven
        )


@runtime_checkable
class Equations(Protocol):
    """A circuit or hierarchy under one drive, as equations of numbers in balls."""

    @property
    def tau(self) -> list[arb]: ...

    @property
    def positive(self) -> list[int]: ...

    def state(self, x: Sequence[arb]) -> Any: ...

    def imbalance(self, x: Sequence[arb]) -> list[arb]: ...

    def imbalance_jacobian(self, x: Sequence[arb]) -> arb_mat: ...


class Box(NamedTuple):
    """An enclosure of a state: `y` and `a` as n balls each."""

    y: list[arb]
    a: list[arb]

    @classmethod
    def of(cls, balls: Sequence[arb]) -> "Box":
        """The box whose 2n balls are those of `y`, then those of `a`."""
        n = len(balls) // 2
        return cls(list(balls[:n]), list(balls[n:]))


class Inequality(NamedTuple):
    """An inequality and its margin.

    Attributes
        name: the inequality in words.
        holds: true or false if certain, `None` if the ball does not decide.
        margin: a ball around the quantity that must be positive (or not negative).
    """

    name: str
    holds: bool | None
    margin: arb

    @classmethod
    def positive(cls, name: str, margin: arb) -> "Inequality":
        """`margin > 0`."""
        return cls(name, True if margin > 0 else False if margin <= 0 else None, margin)

    @classmethod
    def not_negative(cls, name: str, margin: arb) -> "Inequality":
        """`margin >= 0`."""
        return cls(name, True if margin >= 0 else False if margin < 0 else None, margin)


def exact(values) -> list[arb]:
    """The floating-point numbers of a vector, each as a ball of radius 0."""
    return [arb(value) for value in np.asarray(values, np.float64).tolist()]


def exact_matrix(values) -> arb_mat:
    """The floating-point numbers of a matrix, each as a ball of radius 0."""
    return arb_mat(np.asarray(values, np.float64).tolist())


def weights_in_balls(weights: Weights) -> arb_mat:
    """The matrix of the weights: their entries, sums of the entries of a kernel that goes round, or
    the product of exact factors."""
    if not isinstance(weights, LowRank):
        first, *more = map(exact_matrix, _without_sums(weights))
        return sum(more, first)
    product = exact_matrix(weights.left) * exact_matrix(weights.right).transpose()
    return product if weights.own is None else product + exact_matrix(np.diag(weights.own))


def is_computed(weights: Weights) -> bool:
    """Whether the entries of the matrix are sums or products, which floats round."""
    return isinstance(weights, LowRank) or len(_without_sums(weights)) > 1


def _without_sums(weights: Weights) -> list[Weights]:
    """Weights whose sum these are, and of whose entries none is a sum that was rounded."""
    if not isinstance(weights, Convolution) or weights.border != "periodic":
        return [weights]
    kernel, (h, w) = weights.kernel, (weights.height, weights.width)
    parts = []
    for i in range(0, kernel.shape[2], h):
        for j in range(0, kernel.shape[3], w):
            block = np.s_[:, :, i : i + h, j : j + w]  # no wider than the torus
            part = jnp.zeros_like(kernel).at[block].set(kernel[block])
            parts.append(eqx.tree_at(lambda c: c.kernel, weights, part))
    return parts


def _receivers(weights: LowRank) -> Float[np.ndarray, "n parts"]:
    """Rows of zeros for the neurons that receive nothing."""
    own = np.zeros(weights.n) if weights.own is None else np.asarray(weights.own)
    return np.column_stack([weights.left, own])


def rational(values) -> list[fmpq]:
    """The floating-point numbers of a vector, each as the fraction that it is."""
    return [fmpq(*float(value).as_integer_ratio()) for value in np.asarray(values)]


def rational_row(weights: Weights, i: int) -> list[fmpq]:
    """The weights onto neuron i, as fractions."""
    if not isinstance(weights, LowRank):
        rows = (rational(np.asarray(part)[i]) for part in _without_sums(weights))
        return [sum(entries, fmpq(0)) for entries in zip(*rows, strict=True)]
    left = rational(np.asarray(weights.left)[i])
    rows = (rational(row) for row in np.asarray(weights.right))
    found = [sum((p * q for p, q in zip(left, row, strict=True)), fmpq(0)) for row in rows]
    if weights.own is not None:
        found[i] += rational(np.asarray(weights.own)[i : i + 1])[0]
    return found


def floats(matrix: arb_mat) -> Float[np.ndarray, "rows columns"]:
    """The midpoints of a matrix, rounded to float64."""
    entries = [float(entry.mid()) for entry in matrix.entries()]
    return np.array(entries).reshape(matrix.nrows(), matrix.ncols())


def column(values: Iterable[arb]) -> arb_mat:
    """The matrix with this one column."""
    return arb_mat([[value] for value in values])


def least(values: Iterable[arb]) -> arb:
    """A ball around the smallest of some numbers."""
    return reduce(arb.min, values)


def from_entries(n: int, entry: Callable[[int, int], arb | int]) -> arb_mat:
    """The n x n matrix with these entries."""
    return arb_mat([[entry(i, j) for j in range(n)] for i in range(n)])


def imbalance(circuit: BallCircuit, state: Box) -> list[arb]:
    """`Circuit.imbalance` at every state of the box, 2n balls."""
    y, a = state
    q = _seen(circuit, y)
    recurrent = (q if circuit.W_r is None else circuit.W_r * q).entries()
    pooled = (circuit.W * column(q * q * a for q, a in zip(q.entries(), a, strict=True))).entries()
    first = [
        -y + d + (1 - a.sqrt()) * r for y, a, d, r in zip(y, a, circuit.d, recurrent, strict=True)
    ]
    return first + [-a + c + p for a, c, p in zip(a, circuit.c, pooled, strict=True)]


def imbalance_jacobian(circuit: BallCircuit, state: Box) -> arb_mat:
    """Derivative of `imbalance` with respect to `(y, a)`, at every state of the box.

    In the rectified model the slopes of all sides belong to a ball around `y_i = 0`: the balls
    hold all generalized derivatives.
    """
    n, (y, a) = circuit.n, state
    q = _seen(circuit, y)
    recurrent = (q if circuit.W_r is None else circuit.W_r * q).entries()
    q, s = q.entries(), [a.sqrt() for a in a]
    active = [arb(1)] * n
    if circuit.rectified:
        active = [step(y) for y in y]

    def entry(i: int, j: int) -> arb | int:
        k, m = i % n, j % n
        leak = -1 if i == j else 0
        if i < n and j < n:
            weight = int(k == m) if circuit.W_r is None else circuit.W_r[k, m]
            return (1 - s[k]) * weight * active[m] + leak
        if i < n:
            return -recurrent[k] / (2 * s[k]) if k == m else 0
        if j < n:
            return circuit.W[k, m] * 2 * q[m] * a[m]
        return circuit.W[k, m] * q[m] * q[m] + leak

    return from_entries(2 * n, entry)


def rates(system: Equations, x: Sequence[arb]) -> arb_mat:
    """The Jacobian of the velocity, in 1/ms, at every state of the box."""
    J, tau = system.imbalance_jacobian(x), system.tau
    return from_entries(len(tau), lambda i, j: J[i, j] / tau[i])


def enclose(system: Equations, x: Float[np.ndarray, " m"]) -> tuple[list[arb] | None, Inequality]:
    """Balls around a state that contain exactly one steady state; `None` if that fails.

    Newton's method takes the state to the working precision; then Krawczyk's operator
    `K(X) = x - C F(x) + (I - C F'(X)) (X - x)` must map a box `X` around it into the interior of
    `X`. `a` must be > 0 in all of `X`. `F` may have kinks there, as `F'(X)` holds all generalized
    derivatives, so that the mean-value theorem for Lipschitz functions applies.
    """
    m = len(x)
    name = "Krawczyk: |K(X) - x| < radius of X"
    nothing = None, Inequality(name, None, arb.nan())
    tiny = arb(2) ** (4 - ctx.prec)
    try:
        middle = _newton(system, exact(x))
        J = system.imbalance_jacobian(middle).mid()
        C = J.solve(from_entries(m, lambda i, j: int(i == j)), algorithm="approx").mid()
    except ZeroDivisionError:
        return nothing
    move = C * column(system.imbalance(middle))
    shift = [-move[i, 0] for i in range(m)]
    if not all(value.is_finite() for value in shift):
        return nothing
    principal = set(range(m)) - set(system.positive)
    size = max(float(abs(middle[i])) for i in principal) or 1.0
    floor = [abs(value) * tiny if value != 0 else arb(size) * tiny * tiny for value in middle]
    radius = [(2 * abs(s) + f).abs_upper() for s, f in zip(shift, floor, strict=True)]
    found = nothing
    for _ in range(_INFLATIONS):
        around = [arb(0, r) for r in radius]
        box = [x + r for x, r in zip(middle, around, strict=True)]
        if not all(box[i] > 0 for i in system.positive):
            return found
        CJ = C * system.imbalance_jacobian(box)
        spread = from_entries(m, lambda i, j, CJ=CJ: int(i == j) - CJ[i, j]) * column(around)
        moved = [s + spread[i, 0] for i, s in enumerate(shift)]
        if not all(value.is_finite() for value in moved):
            return found
        margin = least(1 - m.abs_upper() / r for m, r in zip(moved, radius, strict=True))
        inequality = Inequality.positive(name, margin)
        if inequality.holds:
            return [x + m for x, m in zip(middle, moved, strict=True)], inequality
        found = None, Inequality(name, None, margin)  # failure in this box decides nothing
        radius = [arb.max(2 * abs(m), r).abs_upper() for m, r in zip(moved, radius, strict=True)]
    return found


def _newton(system: Equations, x: list[arb]) -> list[arb]:
    """Midpoints near `x` that solve the equations about as accurately as the precision allows."""
    steps = 3 + max(0, ctx.prec // 26).bit_length()  # the digits double, from those of float64
    for _ in range(steps):
        J = system.imbalance_jacobian(x).mid()
        step = J.solve(column(system.imbalance(x)).mid(), algorithm="approx").mid()
        moved = [(value - step[i, 0]).mid() for i, value in enumerate(x)]
        finite = all(value.is_finite() for value in moved)
        if not finite or not all(moved[i] > 0 for i in system.positive):
            return x
        x = moved
    return x


def step(y: arb) -> arb:
    """The derivative of `relu` at every number of a ball: 0 and 1 and all between, if the ball
    holds 0."""
    return arb(1) if y > 0 else arb(0) if y < 0 else arb(0.5, 0.5)


def _seen(circuit: BallCircuit, y: list[arb]) -> arb_mat:
    """`Circuit.rectify` of `y`, as a column."""
    if not circuit.rectified:
        return column(y)
    return column(arb.max(y, arb(0)) for y in y)
