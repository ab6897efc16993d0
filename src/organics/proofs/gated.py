"""Proofs about a gated circuit in Euler steps, gates included: a fixed point exists, and attracts.

The weights of the layer are the exact numbers that it computes with. Fixed points do not depend on
the step sizes; whether they attract does: with `M = I + D(dt/tau) F'`, all eigenvalues of `M` have
a magnitude below 1 if `P` and `P - M^T P M` are positive definite for some `P` (Stein 1952).

Source: Rawat et al. 2024, the discretised ORGaNICs with learned gains.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from flint import arb, arb_mat
from jaxtyping import Float

from organics.kernels.equations import Options, Weights
from organics.proofs.balls import (
    Inequality,
    column,
    enclose,
    exact,
    exact_matrix,
    floats,
    from_entries,
    least,
)
from organics.proofs.lyapunov import definite
from organics.proofs.precision import precision

ATTRACTS = "a fixed point is enclosed, and it attracts"
EXISTS = "a fixed point is enclosed; that it attracts is not proved"
NOTHING = "no fixed point could be enclosed"


class BallGated(NamedTuple):
    """The equations of `organics.nn.ORGaNICs` with one circuit, under a constant input, in balls.

    The numbers are `y`, `a`, `b0` and `b`, n each. `z` and `gates_input` are what the drive and the
    gates receive from the input.
    """

    weights: Weights
    rectified: bool
    W_r: arb_mat | None
    W: arb_mat
    gates: arb_mat
    z: list[arb]
    gates_input: list[arb]
    offset: list[arb]

    @classmethod
    def of(cls, weights: Weights, options: Options, x: Float[np.ndarray, " m"]) -> "BallGated":
        """The circuit for the inputs of the kernels.

        Raises `ValueError` for `rectification="outside"` and for modulated time constants.
        """
        if weights.modulation is not None:
            raise ValueError("`layer` must have time constants that nothing modulates for a proof.")
        if options.rectified and options.rectified_after and weights.recurrent is not None:
            raise ValueError("`layer` must have `rectification='inside'` for a proof.")
        n = weights.offset.shape[0]
        projected = (exact_matrix(np.asarray(weights.input)) * column(exact(x))).entries()
        z = [arb.max(v, arb(0)) if options.rectified_drive else v for v in projected[:n]]
        recurrent = weights.recurrent
        return cls(
            weights,
            options.rectified,
            None if recurrent is None else exact_matrix(np.asarray(recurrent)),
            exact_matrix(np.asarray(weights.normalization)),
            exact_matrix(np.asarray(weights.gates)),
            z,
            projected[n:],
            exact(weights.offset),
        )

    @property
    def n(self) -> int:
        """Number of principal neurons."""
        return len(self.z)

    @property
    def tau(self) -> list[arb]:
        """The time constants in steps."""
        return [1 / rate for rate in exact(np.asarray(self.weights.rates).reshape(-1))]

    @property
    def positive(self) -> list[int]:
        """The places of `a` among the numbers."""
        return list(range(self.n, 2 * self.n))

    @property
    def signed(self) -> list[int]:
        """The places of those `y` at whose sign the equations have a kink."""
        return list(range(self.n)) if self.rectified else []

    def state(self, x: Sequence[arb]) -> list[arb]:
        """The numbers."""
        return list(x)

    def _seen(self, y: Sequence[arb]) -> list[arb]:
        return [arb.max(v, arb(0)) for v in y] if self.rectified else list(y)

    def _received(self, q: list[arb]) -> list[arb]:
        return q if self.W_r is None else (self.W_r * column(q)).entries()

    def _opened(self, y: Sequence[arb], a: Sequence[arb]) -> list[arb]:
        """The values that the gains b0 and b go to."""
        received = (self.gates * column([*y, *a])).entries()
        pairs = zip(received, self.gates_input, strict=True)
        return [1 / (1 + (-(r + given)).exp()) for r, given in pairs]

    def imbalance(self, x: Sequence[arb]) -> list[arb]:
        """The right-hand sides, 4n balls."""
        n = self.n
        y, a, b0, b = (x[i * n : (i + 1) * n] for i in range(4))
        q = self._seen(y)
        pooled = (self.W * column(v * v * m for v, m in zip(q, a, strict=True))).entries()
        received = self._received(q)
        opened = self._opened(y, a)
        return [
            *(-y[i] + b[i] * self.z[i] + (1 - a[i].sqrt()) * received[i] for i in range(n)),
            *(-a[i] + self.offset[i] * b0[i] ** 2 + pooled[i] for i in range(n)),
            *(-b0[i] + opened[i] for i in range(n)),
            *(-b[i] + opened[n + i] for i in range(n)),
        ]

    def imbalance_jacobian(self, x: Sequence[arb]) -> arb_mat:
        """Their derivatives, in balls; NaN where a kink is inside."""
        n = self.n
        y, a, b0, _ = (x[i * n : (i + 1) * n] for i in range(4))
        q, s = self._seen(y), [v.sqrt() for v in a]
        received, opened = self._received(q), self._opened(y, a)
        active = [arb(1)] * n
        if self.rectified:
            active = [arb(1) if v > 0 else arb(0) if v <= 0 else arb.nan() for v in y]
        zero = arb(0)
        rows = []
        for i in range(n):
            row = [zero] * (4 * n)
            for j in range(n):
                weight = arb(int(i == j)) if self.W_r is None else self.W_r[i, j]
                row[j] = (1 - s[i]) * weight * active[j]
            row[i] -= 1
            row[n + i] = -received[i] / (2 * s[i])
            row[3 * n + i] = self.z[i]
            rows.append(row)
        for i in range(n):
            row = [zero] * (4 * n)
            for j in range(n):
                row[j] = 2 * self.W[i, j] * a[j] * q[j]
                row[n + j] = self.W[i, j] * q[j] ** 2
            row[n + i] -= 1
            row[2 * n + i] = 2 * self.offset[i] * b0[i]
            rows.append(row)
        for i in range(2 * n):
            slope = opened[i] * (1 - opened[i])
            row = [zero] * (4 * n)
            for j in range(2 * n):
                row[j] = slope * self.gates[i, j]
            row[2 * n + i] -= 1
            rows.append(row)
        return arb_mat(rows)


class Awake(NamedTuple):
    """A circuit without the unknowns `y_i = 0` of its silent neurons.

    In the rectified model with `W_r = I`, a neuron whose drive is exactly 0 has `y_i = 0`, where
    its equation has a kink; the other equations have none there.
    """

    system: BallGated
    silent: list[int]
    kept: list[int]

    @classmethod
    def of(cls, system: BallGated) -> "Awake":
        """The circuit without its silent neurons' `y`."""
        may = system.rectified and system.W_r is None
        silent = [i for i, z in enumerate(system.z) if may and z == 0]
        return cls(system, silent, [i for i in range(4 * system.n) if i not in set(silent)])

    @property
    def tau(self) -> list[arb]:
        """The time constants in steps."""
        return [self.system.tau[i] for i in self.kept]

    @property
    def positive(self) -> list[int]:
        """The places of `a` among the unknowns."""
        return self._places(self.system.positive)

    @property
    def signed(self) -> list[int]:
        """The places of those `y` at whose sign the equations have a kink."""
        return self._places(self.system.signed)

    def _places(self, of_all: list[int]) -> list[int]:
        wanted = set(of_all)
        return [place for place, i in enumerate(self.kept) if i in wanted]

    def state(self, x: Sequence[arb]) -> list[arb]:
        """All 4n numbers."""
        numbers = dict(zip(self.kept, x, strict=True))
        return [numbers.get(i, arb(0)) for i in range(4 * self.system.n)]

    def imbalance(self, x: Sequence[arb]) -> list[arb]:
        """The right-hand sides of the unknowns; those of the silent `y` are 0."""
        found = self.system.imbalance(self.state(x))
        return [found[i] for i in self.kept]

    def imbalance_jacobian(self, x: Sequence[arb]) -> arb_mat:
        """Their derivatives."""
        J = self.system.imbalance_jacobian(self.state(x))
        return arb_mat([[J[i, j] for j in self.kept] for i in self.kept])

    def decays(self, x: Sequence[arb]) -> Inequality:
        """Whether the silent `y` near 0 shrink in every step, from above by the factor
        `1 - dt sqrt(a) / tau`, from below by `1 - dt / tau`."""
        n, numbers = self.system.n, self.state(x)
        rates = [1 / self.system.tau[i] for i in self.silent]
        factors = [r * numbers[n + i].sqrt() for i, r in zip(self.silent, rates, strict=True)]
        margin = least(arb.min(f, 2 - f) for f in [*factors, *rates])
        return Inequality.positive("silent neurons: |1 - dt sqrt(a) / tau| < 1", margin)


class Attraction(NamedTuple):
    """What was proved about a fixed point.

    Attributes
        statement: in words.
        attracts: whether it was proved to exist and to attract.
        exists: whether it was proved to exist.
        inequalities: those that were evaluated.
        enclosure: balls around its 4n numbers; `None` if there is none.
    """

    statement: str
    attracts: bool
    exists: bool
    inequalities: tuple[Inequality, ...]
    enclosure: list[arb] | None


def prove_attraction(
    weights: Weights,
    options: Options,
    x: Float[np.ndarray, " m"],
    state: Float[np.ndarray, " d"],
    bits: int = 106,
) -> Attraction:
    """Prove that there is a fixed point near `state`, and that it attracts.

    `x` is the input of the kernels, constant. By Krawczyk's test on all numbers, then by Stein's
    inequality for every matrix in the enclosure. The `y` of silent neurons (`Awake`) depend on no
    others and decay to 0; the others then are a contraction with a disturbance that vanishes.

    Raises `ValueError` as `BallGated.of`.
    """
    with precision(bits):
        awake = Awake.of(BallGated.of(weights, options, x))
        numbers, inside = enclose(awake, np.asarray(state, np.float64)[awake.kept])
        if numbers is None:
            return Attraction(NOTHING, False, False, (inside,), None)
        J, tau = awake.imbalance_jacobian(numbers), awake.tau
        M = from_entries(len(tau), lambda i, j: int(i == j) + J[i, j] / tau[i])
        inequalities = contracts(M)
        proved = bool(inequalities)
        if awake.silent:
            inequalities = (*inequalities, awake.decays(numbers))
        proved = proved and all(found.holds for found in inequalities)
        statement = ATTRACTS if proved else EXISTS
        return Attraction(statement, proved, True, (inside, *inequalities), awake.state(numbers))


def contracts(M: arb_mat) -> tuple[Inequality, ...]:
    """Two inequalities; if both hold, every matrix in the balls has eigenvalues of magnitude below
    1. None if there is no candidate for `P`."""
    middle = floats(M)
    m = len(middle)
    if not np.all(np.isfinite(middle)) or np.max(np.abs(np.linalg.eigvals(middle))) >= 1:
        return ()
    found = scipy.linalg.solve_discrete_lyapunov(middle.T, np.eye(m))
    found = (found + found.T) / 2
    try:
        root = np.linalg.cholesky(found)
    except np.linalg.LinAlgError:
        return ()
    P = exact_matrix(found)
    X = exact_matrix(scipy.linalg.solve_triangular(root, np.eye(m), lower=True).T)
    identity = from_entries(m, lambda i, j: int(i == j))
    decrease = P - M.transpose() * P * M
    decrease = (decrease + decrease.transpose()) / 2
    form = X.transpose() * P * X
    return (
        definite("P > 0", (form + form.transpose()) / 2, identity),
        definite("P - M^T P M > 0, M the derivative of a step", decrease, identity),
    )
