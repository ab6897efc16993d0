"""What happens near a fold or a Hopf point, from the derivatives of the equations there.

At a fold, with `J phi = 0`, `J^T p = 0`, `p^T phi = 1` and `|phi| = 1`, the coefficient is
`p^T B(phi, phi) / 2`; it is 0 at a cusp. At a Hopf point, with `J q = i w q`, `J^T p = -i w p`,
`p^* q = q^* q = 1`, the first Lyapunov coefficient is

    l_1 = Re p^*[C(q, q, q') - 2 B(q, J^-1 B(q, q')) + B(q', (2 i w - J)^-1 B(q, q))] / (2 w),

`q'` the conjugate of `q`; where it is negative a stable cycle is born, if all other eigenvalues are
stable. `B` and `C` are the second and third derivatives of the velocity.

Source: Kuznetsov, Elements of Applied Bifurcation Theory, sections 3.3 and 5.4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from organics.branches.arclength import Mapped
from organics.branches.defining import Fold, Hopf
from organics.branches.family import Family
from organics.branches.steady import rates
from organics.rest.system import System


class HopfForm(NamedTuple):
    """The first Lyapunov coefficient, without a unit of time, and how fast the real part of the
    pair changes with the parameter, in 1/ms."""

    first_lyapunov: Float[Array, ""]
    speed: Float[Array, ""]


def fold_coefficient(system: System, x: Float[Array, " m"], phi: Float[Array, " m"]):
    """`p^T B(phi, phi) / 2`."""
    phi = phi / jnp.linalg.norm(phi)
    U = system.lengths(x)
    p = jnp.linalg.svd(rates(system, x) * U[None, :])[0][:, -1]
    p = p / jnp.dot(p, phi)
    return jnp.dot(p, system.second(x, phi, phi) / system.time_constants()) / 2


def lyapunov(system: System, x: Float[Array, " m"], q: Complex[Array, " m"], w: Float[Array, ""]):
    """The first Lyapunov coefficient, and `p` and `q` normalized."""
    J, tau = rates(system, x), system.time_constants()
    q, p = eigenvectors(J, q, w)

    def B(u, v):
        return _complex(lambda a, b: system.second(x, a, b) / tau, u, v)

    def C(u, v, w):
        along = lambda part: _complex(lambda a, b: system.third(x, a, b, part) / tau, u, v)  # noqa: E731
        return along(w.real) + 1j * along(w.imag)

    conj = jnp.conj(q)
    J = J.astype(q.dtype)
    shift = jnp.linalg.solve(J, B(q, conj))
    twice = jnp.linalg.solve(_along_axis(2 * w, J) - J, B(q, q))
    total = C(q, q, conj) - 2 * B(q, shift) + B(conj, twice)
    return jnp.real(jnp.vdot(p, total)) / (2 * w), p, q


def eigenvectors(J: Float[Array, "m m"], q: Complex[Array, " m"], w: Float[Array, ""]):
    """`q` and `p` normalized, from an approximate `q`."""
    q = q / jnp.linalg.norm(q).astype(q.dtype)
    p = jnp.conj(jnp.linalg.svd(J.T.astype(q.dtype) + _along_axis(w, q))[2][-1])
    return q, p / jnp.conj(jnp.vdot(p, q))


def _along_axis(w: Float[Array, ""], like: Array) -> Complex[Array, "m m"]:
    """`i w` times the identity."""
    identity = w * jnp.eye(len(like))
    return jax.lax.complex(jnp.zeros_like(identity), identity)


def _complex(bilinear, u, v):
    real = bilinear(u.real, v.real) - bilinear(u.imag, v.imag)
    return jax.lax.complex(real, bilinear(u.real, v.imag) + bilinear(u.imag, v.real))


@Mapped
def fold_form(family: Family, fold: Fold) -> Float[Array, ""]:
    """The coefficient of a fold, in 1/ms."""
    return fold_coefficient(family.at(*fold.values), fold.x, fold.phi)


@Mapped
def hopf_form(family: Family, hopf: Hopf) -> HopfForm:
    """The normal form of a Hopf point."""
    system, value = family.at(*hopf.values), hopf.values[0]
    l1, p, q = lyapunov(system, hopf.x, hopf.q, hopf.w)

    def moved(value):
        at = family.at(value, *hopf.values[1:])
        by_value = jax.jvp(
            lambda v: family.at(v, *hopf.values[1:]).imbalance(hopf.x), (value,), (jnp.ones(()),)
        )[1]
        shift = -jnp.linalg.solve(at.jacobian(hopf.x), by_value)
        along = lambda d: rates(family.at(value + d, *hopf.values[1:]), hopf.x + d * shift)  # noqa: E731
        return jax.jvp(along, (jnp.zeros(()),), (jnp.ones(()),))[1]

    return HopfForm(l1, jnp.real(jnp.vdot(p, moved(value).astype(q.dtype) @ q)))
