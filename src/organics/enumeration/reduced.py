"""The steady states as the zeros of n equations in n unknowns, without an inverse.

With `v = sqrt(a) y` the steady states of the main model are the zeros, in all of R^n, of

    G(v) = y - (1 - s) (W_r y) - b z,    s = sqrt((b0 sigma)^2 + W v^2),    y = v / s,

as `a = s^2 > 0` holds by construction. In the rectified model an active neuron has `v_i > 0`, and
one that is not has `v_i = y_i <= 0`; then `relu(v)` and `relu(y)` take the place of `v` and `y` in
both recurrent terms.

The determinants of `dG/dv` and of `-J`, where `J` is the circuit's Jacobian, have the same sign.

Source: Rawat et al. 2024, equations of both models.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from organics.circuit.circuit import Circuit, State

_ROUNDED = 1e-3  # of `s`, of which 1e-12 counts as balanced


class Reduced(NamedTuple):
    """The equations of a circuit under one drive, in float64: `c = (b0 sigma)^2`, `d = b z`."""

    W: Float[np.ndarray, "n n"]
    W_r: Float[np.ndarray, "n n"]
    c: Float[np.ndarray, " n"]
    d: Float[np.ndarray, " n"]
    rectified: bool

    @classmethod
    def of(cls, circuit: Circuit, z: Float[np.ndarray, " n"]) -> "Reduced":
        """The equations of a circuit for the drive `z`."""
        arrays = circuit.pool, circuit.recurrent, _c(circuit), circuit.b, z
        W, W_r, c, b, z = (np.asarray(x, np.float64) for x in arrays)
        return cls(W, W_r, c, b * z, circuit.rectified)

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return len(self.d)

    @property
    def may_have_one_pool(self) -> bool:
        """Whether all neurons have the same pool, up to rounding; exactly, `one_pool` tells."""
        alike = [np.allclose(values, values[:1], rtol=1e-9, atol=0) for values in (self.W, self.c)]
        return all(alike)

    def active(self, v: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k n"]:
        """1, or 0 where the rectified model has `v <= 0`."""
        return np.where(v > 0, 1.0, 0.0) if self.rectified else np.ones_like(v)

    def values(self, v: Float[np.ndarray, "k n"]) -> "Values":
        """All terms at each row of `v`."""
        p = np.maximum(v, 0) if self.rectified else v
        s = np.sqrt(self.c + (p * p) @ self.W.T)
        q = p / s
        return Values(p, s, q, q @ self.W_r.T)

    def state(self, v: Float[np.ndarray, " n"]) -> State:
        """`y` and `a`."""
        p, s, q, _ = self.values(v[None])
        return State(*jax.device_put(((q + (v - p))[0], (s * s)[0])))

    def unknowns(self, state: State) -> Float[np.ndarray, " n"]:
        """`v` of a state."""
        y = np.asarray(state.y, np.float64)
        v = np.sqrt(np.asarray(state.a, np.float64)) * y
        return np.where(y > 0, v, y) if self.rectified else v

    def residual(self, v: Float[np.ndarray, "k n"], at: "Values") -> Float[np.ndarray, "k n"]:
        """`G`, arranged so that rounding is small compared with `terms`."""
        own = np.diag(self.W_r)
        others = (1 - at.s) * (at.u - own * at.q)
        return (v - at.p) + (1 - own) * at.q + own * at.p - others - self.d

    def terms(self, v: Float[np.ndarray, "k n"], at: "Values") -> Float[np.ndarray, "k n"]:
        """The sum of the absolute values of the terms of `G`; where `s` is close to 1, at least so
        much that its rounding is small beside them."""
        own = np.abs(np.diag(self.W_r))
        q, p = np.abs(at.q), np.abs(at.p)
        others = np.maximum(np.abs(1 - at.s), _ROUNDED * at.s) * (q @ np.abs(self.W_r).T - own * q)
        sizes = np.abs(1 - np.diag(self.W_r)) * q + own * p
        return np.abs(v - at.p) + sizes + others + np.abs(self.d)

    def derivative(self, v: Float[np.ndarray, "k n"], at: "Values") -> Float[np.ndarray, "k n n"]:
        """`dG/dv`; in the rectified model with the slopes of the active neurons."""
        active, diagonal = self.active(v), np.arange(self.n)
        ds = self.W * (at.p[:, None, :] / at.s[:, :, None])
        dq = (-at.q / at.s)[:, :, None] * ds
        dq[:, diagonal, diagonal] += active / at.s
        dG = np.matmul(self.W_r, dq)  # in place from here, as fresh memory takes most of the time
        dG *= (at.s - 1)[:, :, None]
        dG += dq
        ds *= at.u[:, :, None]
        dG += ds
        dG[:, diagonal, diagonal] += 1 - active
        return dG

    def signs(self, v: Float[np.ndarray, "k n"]) -> list[int]:
        """The sign of `det(-J)` at each row: 1 at every stable steady state."""
        derivative = self.derivative(v, self.values(v))
        return [int(sign) for sign in np.linalg.slogdet(derivative)[0]]


class Values(NamedTuple):
    """At k points: `v` and `y` as the recurrent terms see them, `s`, and `u = W_r q`; each of shape
    (k, n)."""

    p: Float[np.ndarray, "k n"]
    s: Float[np.ndarray, "k n"]
    q: Float[np.ndarray, "k n"]
    u: Float[np.ndarray, "k n"]


_c = jax.jit(lambda circuit: circuit.c)  # one program, instead of one for each step
