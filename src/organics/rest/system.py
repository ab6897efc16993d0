"""What the search for steady states needs to know of a system under its drive."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.circuit.circuit import Circuit, State, require_valid, root
from organics.circuit.weights import Dense
from organics.linear.jacobian import imbalance_jacobian
from organics.linear.krylov import Linear, neuron_blocks, solve_linearized


class System(eqx.Module):
    """Equations `tau dx/dt = F(x)` of m numbers, with fixed parameters and drive.

    Subclasses give the equations, and override the defaults below where needed.

    Attributes
        drive: the name of the array that a contrast multiplies.
    """

    drive: ClassVar[str] = "z"

    @abstractmethod
    def time_constants(self) -> Float[Array, " m"]:
        """`tau`, in ms."""

    @abstractmethod
    def imbalance(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`F(x)`, which is 0 at rest."""

    @abstractmethod
    def terms(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """For each number, the sum of the absolute values of the terms in `imbalance`."""

    @abstractmethod
    def jacobian(self, x: Float[Array, " m"]) -> Float[Array, "m m"]:
        """The derivative `J` of `F`."""

    def contains(self, x: Float[Array, " m"]) -> Bool[Array, ""]:
        """Whether `x` is in the domain of the system; by default all states are."""
        del x
        return jnp.bool_(True)

    def without_underflow(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`x` with 0 in place of numbers whose products underflow; by default `x` itself."""
        return x

    def room(self, x: Float[Array, " m"], step: Float[Array, " m"]) -> Float[Array, ""]:
        """The largest fraction of a step that stays in the domain; by default any."""
        del step
        return jnp.full((), jnp.inf, x.dtype)

    def scales(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """The scale of each number for judging whether a step is small, besides its terms, which
        may be large and cancel."""
        return jnp.full_like(x, jnp.max(jnp.abs(x)))

    def product(self, x: Float[Array, " m"]) -> Linear:
        """The map `v -> J v`."""
        return jax.linearize(self.imbalance, x)[1]

    def nearly_inverse(self, x: Float[Array, " m"]) -> Linear:
        """An approximation to `v -> J^-1 v` that is cheap to compute."""
        del x
        return lambda v: -v

    def solve(self, x: Float[Array, " m"], b: Float[Array, " m"]) -> Float[Array, " m"]:
        """`v` in `J v = b`."""
        return jnp.linalg.solve(self.jacobian(x), b)

    def second(
        self, x: Float[Array, " m"], u: Float[Array, " m"], v: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        """The second derivative of `F` along `u` and `v`."""
        return jax.jvp(lambda x: jax.jvp(self.imbalance, (x,), (u,))[1], (x,), (v,))[1]

    def third(
        self,
        x: Float[Array, " m"],
        u: Float[Array, " m"],
        v: Float[Array, " m"],
        w: Float[Array, " m"],
    ) -> Float[Array, " m"]:
        """The third derivative of `F` along `u`, `v` and `w`."""
        return jax.jvp(lambda x: self.second(x, u, v), (x,), (w,))[1]

    def lengths(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """A small change of each number, by which distances between states are measured."""
        return jnp.full_like(x, 0.2 * jnp.maximum(1, jnp.max(jnp.abs(x))))

    def kinks(self) -> np.ndarray:
        """The indices of the numbers at whose zero the equations are not smooth; by default none
        that is known."""
        return np.zeros(0, int)

    def piece(self, positive: Bool[Array, " kinks"]) -> "System":
        """The smooth system that is equal to this one where the numbers with kinks have these
        signs."""
        del positive
        return self

    def parameters(self) -> dict[str, Callable]:
        """The arrays by name, each with the function that reads it from such a system."""
        arrays = (field.name for field in fields(self) if eqx.is_array(getattr(self, field.name)))
        return {name: attrgetter(name) for name in arrays}

    def require_valid(self) -> None:
        """Raise `ValueError`, naming the parameter, if one is out of its domain."""


class DrivenCircuit(System):
    """A circuit under the input drive `z`; its numbers are `y`, then `a`.

    With `by_products`, `J v = b` is solved by products with `W` and `W_r`.
    """

    circuit: Circuit
    z: Float[Array, " n"]
    by_products: bool = eqx.field(static=True, default=False)

    def imbalance(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`Circuit.imbalance`."""
        return jnp.concatenate(self.circuit.imbalance(as_state(x), self.z))

    def terms(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """`Circuit.terms`."""
        return jnp.concatenate(self.circuit.terms(as_state(x), self.z))

    def jacobian(self, x: Float[Array, " m"]) -> Float[Array, "m m"]:
        """Analytic."""
        return imbalance_jacobian(self.circuit, as_state(x))

    def time_constants(self) -> Float[Array, " m"]:
        """`tau_y`, then `tau_a`."""
        return jnp.concatenate([self.circuit.tau_y, self.circuit.tau_a])

    def contains(self, x: Float[Array, " m"]) -> Bool[Array, ""]:
        """Whether `a > 0`."""
        return jnp.all(as_state(x).a > 0)

    def without_underflow(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """0 for such a `y`."""
        y, a = as_state(x)
        least = float(jnp.finfo(y.dtype).tiny / jnp.finfo(y.dtype).eps)
        return jnp.concatenate([jnp.where(jnp.abs(y) < least, 0, y), a])

    def room(self, x: Float[Array, " m"], step: Float[Array, " m"]) -> Float[Array, ""]:
        """The fraction at which no `a` falls by more than nine tenths."""
        a, da = as_state(x).a, as_state(step).a
        return jnp.min(jnp.where(da < 0, -0.9 * a / jnp.where(da < 0, da, -1), jnp.inf))

    def scales(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """For every `y` the largest `y`; for `a` the terms are enough, as they are positive and do
        not cancel."""
        y, a = as_state(x)
        return jnp.concatenate([jnp.full_like(y, jnp.max(jnp.abs(y))), jnp.full_like(a, jnp.inf)])

    def nearly_inverse(self, x: Float[Array, " m"]) -> Linear:
        """The inverse of the part of `J` within each neuron."""
        return neuron_blocks(self.circuit, as_state(x))

    def second(
        self, x: Float[Array, " m"], u: Float[Array, " m"], v: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        """Analytic; at `y_i = 0` of the rectified model that of the left side."""
        circuit, (y, a), s = self.circuit, as_state(x), root(as_state(x).a)
        active, q = circuit.active(y), circuit.rectify(y)
        (b1, a1), (b2, a2) = ((active * b, a) for b, a in (as_state(u), as_state(v)))
        recur = circuit.recur
        return jnp.concatenate(
            [
                -(a1 * recur(b2) + a2 * recur(b1)) / (2 * s) + recur(q) * a1 * a2 / (4 * s**3),
                2 * circuit.pool.apply(a * b1 * b2 + q * (b1 * a2 + b2 * a1)),
            ]
        )

    def third(
        self,
        x: Float[Array, " m"],
        u: Float[Array, " m"],
        v: Float[Array, " m"],
        w: Float[Array, " m"],
    ) -> Float[Array, " m"]:
        """Analytic; at `y_i = 0` of the rectified model that of the left side."""
        circuit, y, s = self.circuit, as_state(x).y, root(as_state(x).a)
        active, q = circuit.active(y), circuit.rectify(y)
        (b1, a1), (b2, a2), (b3, a3) = ((active * b, a) for b, a in map(as_state, (u, v, w)))
        recur = circuit.recur
        mixed = recur(b1) * a2 * a3 + recur(b2) * a3 * a1 + recur(b3) * a1 * a2
        return jnp.concatenate(
            [
                mixed / (4 * s**3) - 3 * recur(q) * a1 * a2 * a3 / (8 * s**5),
                2 * circuit.pool.apply(b1 * b2 * a3 + b1 * b3 * a2 + b2 * b3 * a1),
            ]
        )

    def lengths(self, x: Float[Array, " m"]) -> Float[Array, " m"]:
        """Fifths: of `a`, and of the bound `W_ii^-1/2` on every `y_i` at rest."""
        y, a = as_state(x)
        own = jnp.max(self.circuit.pool.diagonal())
        bounded = own > 0
        most = jnp.where(bounded, jax.lax.rsqrt(jnp.where(bounded, own, 1)), jnp.max(jnp.abs(y)))
        return 0.2 * jnp.concatenate([jnp.full_like(y, most + 1e-3), a])

    def kinks(self) -> np.ndarray:
        """`y` of the rectified model."""
        return np.arange(self.circuit.n if self.circuit.rectified else 0)

    def piece(self, positive: Bool[Array, " kinks"]) -> System:
        """The main model in which nothing hears the neurons whose `y` is not positive."""
        c = self.circuit
        if not c.rectified:
            return self
        W, W_r = (Dense(jnp.where(positive, w.as_matrix(), 0)) for w in (c.pool, c.recurrent))
        main = Circuit(W, W_r, c.b, c.b0, c.sigma, c.tau_y, c.tau_a)
        return DrivenCircuit(main, self.z, self.by_products)

    def parameters(self) -> dict[str, Callable]:
        """Those of the circuit that are arrays, and `z`."""
        names = ("W", "W_r", "b", "b0", "sigma", "tau_y", "tau_a")
        arrays = (name for name in names if eqx.is_array(getattr(self.circuit, name)))
        return {"z": attrgetter("z")} | {name: attrgetter(f"circuit.{name}") for name in arrays}

    def require_valid(self) -> None:
        """As `Circuit` does."""
        require_valid(self.circuit)

    def solve(self, x: Float[Array, " m"], b: Float[Array, " m"]) -> Float[Array, " m"]:
        """By a factorization, or by products."""
        if self.by_products:
            return solve_linearized(self.circuit, self.z, as_state(x), b)
        return super().solve(x, b)


def as_state(x: Float[Array, " two_n"]) -> State:
    """`y` and `a` of a circuit's numbers."""
    return State(*jnp.split(x, 2))
