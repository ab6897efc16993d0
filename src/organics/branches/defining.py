"""Systems of equations whose regular solutions are the points where a curve changes.

A fold is a zero of `(F, F_x phi, |phi|^2 - 1)`; a Hopf point one of
`(F, J q_r + w q_i, J q_i - w q_r, |q|^2 - 1, l^T q_i)`, with `J = F_x / tau`; a branch point of a
curve `H(X) = 0` one of `(H + beta p_0, H_X^T p, p_0^T p - 1)`; a kink where the number k is 0 one
of `(F, x_k)`. Newton's method solves them to the accuracy of rounding. With one more parameter they
are curves again.

Source: Kuznetsov, Elements of Applied Bifurcation Theory, chapter 10.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int

from organics.branches.arclength import Mapped, bordered
from organics.branches.family import Family
from organics.branches.steady import SteadyCurve, rates, units

_STEPS = 8
_CLOSE = 1e-10  # Newton's last step, in units


class Fold(NamedTuple):
    """A fold: the state, the null vector `phi` of `F_x`, and the parameters."""

    x: Float[Array, " m"]
    phi: Float[Array, " m"]
    values: Float[Array, " k"]


class Hopf(NamedTuple):
    """A Hopf point: the state, `q` in `J q = i w q`, `w` in rad/ms, and the parameters."""

    x: Float[Array, " m"]
    q: Complex[Array, " m"]
    w: Float[Array, ""]
    values: Float[Array, " k"]


class Found(NamedTuple):
    """A solution as a vector, Newton's last step in units, and whether that is small."""

    Z: Float[Array, " size"]
    error: Float[Array, ""]
    good: Bool[Array, ""]


class FoldSystem(eqx.Module):
    """The equations of a fold of a family; its numbers are `(x, phi, values)`. With one parameter
    there are as many equations as numbers, with two the folds form a curve."""

    family: Family
    sizes: Float[Array, " m"]  # the units in which vectors are of length 1
    widths: Float[Array, " k"]

    def parts(self, Z: Float[Array, " size"]) -> Fold:
        """The parts of a point."""
        m = len(self.sizes)
        return Fold(Z[:m], Z[m : 2 * m], Z[2 * m :])

    def residual(self, X: Float[Array, " size"]) -> Float[Array, " rows"]:
        """The defining equations."""
        x, phi, values = self.parts(X)
        system = self.family.at(*values)
        length = jnp.sum((phi / self.sizes) ** 2)
        return jnp.concatenate(
            [system.imbalance(x), system.jacobian(x) @ phi, (length - 1)[None] / 2]
        )

    def lengths(self, X: Float[Array, " size"]) -> Float[Array, " size"]:
        """The vector is measured like the state."""
        x, _, values = self.parts(X)
        U = units(self.family.at(*values), x, *self.widths)
        return jnp.concatenate([U[: len(x)], U])

    def room(self, X: Float[Array, " size"], step: Float[Array, " size"]) -> Float[Array, ""]:
        """That of the system."""
        x, _, values = self.parts(X)
        return self.family.at(*values).room(x, step[: len(x)])


class HopfSystem(eqx.Module):
    """The equations of a Hopf point; its numbers are `(x, Re q, Im q, w, values)`."""

    family: Family
    sizes: Float[Array, " m"]
    ell: Float[Array, " m"]  # fixes the phase of the vector
    w0: Float[Array, ""]
    widths: Float[Array, " k"]

    def parts(self, Z: Float[Array, " size"]) -> Hopf:
        """The parts of a point."""
        m = len(self.ell)
        q = jax.lax.complex(Z[m : 2 * m], Z[2 * m : 3 * m])
        return Hopf(Z[:m], q, Z[3 * m], Z[3 * m + 1 :])

    def residual(self, X: Float[Array, " size"]) -> Float[Array, " rows"]:
        """The defining equations."""
        x, q, w, values = self.parts(X)
        system = self.family.at(*values)
        J, q_r, q_i = rates(system, x), q.real, q.imag
        length = jnp.sum((q_r / self.sizes) ** 2) + jnp.sum((q_i / self.sizes) ** 2)
        ends = jnp.stack([(length - 1) / 2, self.ell @ q_i])
        return jnp.concatenate([system.imbalance(x), J @ q_r + w * q_i, J @ q_i - w * q_r, ends])

    def lengths(self, X: Float[Array, " size"]) -> Float[Array, " size"]:
        """The vectors are measured like the state."""
        x, _, _, values = self.parts(X)
        U = units(self.family.at(*values), x, *self.widths)
        m = len(x)
        return jnp.concatenate([U[:m], U[:m], U[:m], 0.2 * self.w0[None], U[m:]])

    def room(self, X: Float[Array, " size"], step: Float[Array, " size"]) -> Float[Array, ""]:
        """That of the system."""
        x, _, _, values = self.parts(X)
        return self.family.at(*values).room(x, step[: len(x)])


def fold_system(family: Family, x, phi, values, widths) -> tuple[FoldSystem, Float[Array, " size"]]:
    """The equations of a fold near a state with a null vector, and that point."""
    U = family.at(*values).lengths(x)
    phi = phi / jnp.linalg.norm(phi / U)
    return FoldSystem(family, U, widths), jnp.concatenate([x, phi, values])


def hopf_system(
    family: Family, x, q, w, values, widths
) -> tuple[HopfSystem, Float[Array, " size"]]:
    """The equations of a Hopf point near a state with an eigenvector, and that point."""
    U = family.at(*values).lengths(x)
    scaled = jax.lax.complex(q.real / U, q.imag / U)
    turn = jnp.exp(jax.lax.complex(jnp.zeros(()), -jnp.angle(jnp.sum(scaled**2)) / 2))
    scaled = scaled * turn  # then its real and imaginary part are orthogonal, the former longer
    size = jnp.linalg.norm(scaled)
    r, i = scaled.real / size, scaled.imag / size
    ell, q = r / U, jax.lax.complex(r * U, i * U)
    Z = jnp.concatenate([x, q.real, q.imag, w[None], values])
    return HopfSystem(family, U, ell, jnp.abs(w), widths), Z


def solve(curve: FoldSystem | HopfSystem, Z: Float[Array, " size"]) -> Found:
    """Newton's method for the equations of a family with one parameter."""
    return _newton(curve.residual, Z, curve.lengths(Z))


def _newton(residual, Z: Float[Array, " size"], U: Float[Array, " size"]) -> Found:
    def step(_, at):
        Z, _ = at
        J = jax.jacfwd(residual)(Z) * U[None, :]
        scale = jnp.maximum(jnp.max(jnp.abs(J), axis=1), 1e-300)
        d = -jnp.linalg.solve(J / scale[:, None], residual(Z) / scale)
        return Z + U * d, jnp.linalg.norm(d)

    Z, error = jax.lax.fori_loop(0, _STEPS, step, (Z, jnp.full((), jnp.inf, Z.dtype)))
    return Found(Z, error, error < _CLOSE)


@Mapped
def polish_fold(curve: SteadyCurve, X: Float[Array, " k1"]) -> tuple[Found, Fold]:
    """The fold near a point of a branch."""
    U = curve.lengths(X)
    phi = jnp.linalg.svd(curve.jacobian(X)[:, :-1] * U[None, :-1])[2][-1] * U[:-1]
    system, Z = fold_system(curve.family, X[:-1], phi, X[-1:], curve.width[None])
    found = solve(system, Z)
    return found, system.parts(found.Z)


@Mapped
def polish_hopf(curve: SteadyCurve, X: Float[Array, " k1"]) -> tuple[Found, Hopf]:
    """The Hopf point near a point of a branch; none where two real eigenvalues cancel."""
    x, value = X[:-1], X[-1]
    J = rates(curve.family.at(value), x)
    values, vectors = jnp.linalg.eig(J)
    upper = values.imag > 0
    nearest = jnp.argmin(jnp.where(upper, jnp.abs(values.real), jnp.inf))
    w = jnp.abs(values[nearest].imag)
    system, Z = hopf_system(
        curve.family, x, vectors[:, nearest], jnp.where(w > 0, w, 1), X[-1:], curve.width[None]
    )
    found = solve(system, Z)
    parts = system.parts(found.Z)
    good = found.good & jnp.any(upper) & (parts.w > 0)
    return found._replace(good=good), parts


@Mapped
def polish_branch_point(curve: SteadyCurve, X: Float[Array, " k1"]) -> tuple[Found, Array]:
    """The branch point near a point of a curve, and that point."""
    U = curve.lengths(X)
    k = len(X) - 1
    _, _, scale, _ = bordered(curve, X, jnp.zeros_like(X), U)
    p0 = jnp.linalg.svd(curve.jacobian(X) * U[None, :] / scale[:, None])[0][:, -1]

    def residual(Z):
        X, beta, p = Z[: k + 1], Z[k + 1], Z[k + 2 :]
        H = curve.residual(X) / scale + beta * p0
        across = (curve.jacobian(X) * U[None, :] / scale[:, None]).T @ p
        return jnp.concatenate([H, across, (p0 @ p - 1)[None]])

    Z = jnp.concatenate([X, jnp.zeros(1), p0])
    found = _newton(residual, Z, jnp.concatenate([U, jnp.ones(k + 1)]))
    good = found.good & (jnp.abs(found.Z[k + 1]) < 1e-8)
    return found._replace(good=good), found.Z[: k + 1]


@Mapped
def polish_kink(curve: SteadyCurve, X: Float[Array, " k1"], k: Int[Array, ""]) -> Found:
    """The point near `X` at which the number k is 0."""
    return _newton(lambda Z: jnp.append(curve.residual(Z), Z[k]), X, curve.lengths(X))
