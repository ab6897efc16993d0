"""The circuit: its parameters, its state, and the only place that defines its equations.

Symbols are those of Rawat, Heeger & Martiniani (NeurIPS 2024, arXiv 2409.18946):

=========  =======  =========  ==============================================================
symbol     shape    domain     meaning
=========  =======  =========  ==============================================================
`y`        n        real       membrane potentials of the principal (excitatory) neurons
`a`        n        > 0        membrane potentials of the modulator (inhibitory) neurons
`z`        n        real       input drive
`b`, `b0`  n        > 0        input gain of `z`, input gain of `sigma`
`sigma`    n        > 0        semi-saturation constant
`W`        n x n    >= 0       normalization weights; row i is the pool of neuron i
`W_r`      n x n    real       recurrent weights; the identity, `None`, or any others
`tau_y`    n        > 0        time constants of `y`, in ms
`tau_a`    n        > 0        time constants of `a`, in ms
=========  =======  =========  ==============================================================

Time is in milliseconds, so eigenvalues are in 1/ms and frequencies in kHz.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray, ScalarLike

from organics.arguments import (
    float_type,
    is_positive,
    require_float_type,
    require_square,
    require_vector,
    require_whole,
)
from organics.circuit.areas import Areas, State
from organics.circuit.values import Values, as_real, require_values
from organics.circuit.weights import Dense, Diagonal, Identity, Weights
from organics.machine.lapack import never_divide

never_divide()  # before a program is compiled


class FiringRates(NamedTuple):
    """Firing rates, each of shape (n,): `y_plus = relu(y)^2`, `y_minus = relu(-y)^2` (zero in the
    rectified model, which has no such neurons) and `a_plus = sqrt(relu(a))`."""

    y_plus: Float[Array, "*batch n"]
    y_minus: Float[Array, "*batch n"]
    a_plus: Float[Array, "*batch n"]


def root(a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`sqrt(relu(a))`, with derivative 0 (not infinite, not NaN) where `a <= 0`; of NaN, NaN."""
    closed = a <= 0
    safe = jnp.where(closed, 1, a)  # both branches of a `where` are differentiated
    return jnp.where(closed, 0, jnp.sqrt(safe))


def gate(a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`1 - sqrt(relu(a))`, accurate to rounding also where `a` is close to 1."""
    return (1 - jax.nn.relu(a)) / (1 + root(a))


class Circuit(Areas):
    r"""An ORGaNICs circuit of n principal and n modulator neurons.

    Main model (firing rates written out, `sqrt` of a negative `a` read as 0):

        tau_y dy/dt = -y + b z + (1 - sqrt(a)) * (W_r y)
        tau_a da/dt = -a + (b0 sigma)^2 + W (y^2 a)

    The rectified model, which has no `y_minus` neurons, replaces `y` by `relu(y)` in both
    recurrent terms.

    Arguments
        W: normalization weights, shape (n, n), entries >= 0; or `Weights` with such entries.
        W_r: recurrent weights, shape (n, n), or `Weights`; `None` is the identity: then the circuit
            is stable whatever its parameters, and its steady state has a closed form.
        b, b0, sigma: input gain, gain of the semi-saturation constant, semi-saturation constant;
            scalars or shape (n,), > 0. The defaults are those of the paper's Figure 1.
        tau_y, tau_a: time constants in ms; scalars or shape (n,), > 0.
        rectified: the rectified model instead of the main one.

    The floating-point type of all parameters is that of `W`. Values are checked unless they are
    being traced by a JAX transformation.

    Raises `ValueError`, naming the argument, if a shape or a value is not as above.

    Source: Rawat et al. 2024, equations of the main and of the rectified model.
    """

    W: Float[Array, "n n"] | Weights
    W_r: Float[Array, "n n"] | Weights | None
    b: Float[Array, " n"]
    b0: Float[Array, " n"]
    sigma: Float[Array, " n"]
    tau_y: Float[Array, " n"]
    tau_a: Float[Array, " n"]
    rectified: bool = eqx.field(static=True)

    def __init__(
        self,
        W: "Values | Weights",
        W_r: "Values | Weights | None" = None,
        b: "Values" = 0.5,
        b0: "Values" = 0.5,
        sigma: "Values" = 0.1,
        tau_y: "Values" = 2.0,
        tau_a: "Values" = 2.0,
        rectified: bool = False,
    ):
        self.W = _weights("W", W, None, None)
        n, dtype = self.n, self.dtype
        for entries in self.pool.entries():
            require_values("W", entries, lambda W: W >= 0, "be >= 0")
        known = W_r is None or isinstance(W_r, Identity)
        self.W_r = None if known else _weights("W_r", W_r, n, dtype)
        self.b = _positive_vector("b", b, n, dtype)
        self.b0 = _positive_vector("b0", b0, n, dtype)
        self.sigma = _positive_vector("sigma", sigma, n, dtype)
        self.tau_y = _positive_vector("tau_y", tau_y, n, dtype)
        self.tau_a = _positive_vector("tau_a", tau_a, n, dtype)
        if not isinstance(rectified, bool | np.bool_):
            raise ValueError(f"`rectified` must be True or False, not {rectified!r}.")
        self.rectified = bool(rectified)

    @classmethod
    def random(
        cls,
        key: "PRNGKeyArray",
        n: int,
        spectral_norm: "ScalarLike | None" = 1.0,
        *,
        tau_y: "Values" = 2.0,
        tau_a: "Values" = 2.0,
        rectified: bool = False,
        dtype: "DTypeLike | None" = None,
    ) -> "Circuit":
        """A random circuit under the law of the paper's trials (its Figure 4).

        `b, b0, sigma ~ U(0, 1)`, `W ~ U(0, 1)` entrywise, `W_r` Gaussian scaled to the given
        largest singular value (`spectral_norm=None`: the identity). `dtype` defaults to JAX's
        default float. Can be mapped over keys: `jax.vmap(lambda k: Circuit.random(k, 10))(keys)`.

        Raises `ValueError` unless `n` is a whole number above 0 and `dtype` float32 or, with
        `jax_enable_x64`, float64.
        """
        require_whole("n", n)
        W, W_r, b, b0, sigma = _draw(key, n, spectral_norm, float_type(dtype))
        return cls(W, W_r, b, b0, sigma, tau_y, tau_a, rectified)

    @property
    def n(self) -> int:
        """Number of principal neurons."""
        return self.pool.n

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the parameters."""
        return self.pool.dtype

    @property
    def pool(self) -> Weights:
        """`W` as `Weights`."""
        return self.W if isinstance(self.W, Weights) else Dense(self.W)

    @property
    def recurrent(self) -> Weights:
        """`W_r` as `Weights`."""
        if self.W_r is None:
            return Identity(self.n, self.dtype)
        return self.W_r if isinstance(self.W_r, Weights) else Dense(self.W_r)

    @property
    def has_identity_recurrence(self) -> bool:
        """Whether `W_r` is known to be the identity, so that the steady state is divisive
        normalization."""
        return self.W_r is None

    @property
    def areas(self) -> tuple:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The circuit is one area."""
        return (self,)

    @property
    def is_cascade(self) -> bool:
        """True: one area has no feedback."""
        return True

    @property
    def time_constants(self) -> State:
        """`tau_y` and `tau_a`, in ms."""
        return State(self.tau_y, self.tau_a)

    @property
    def c(self) -> Float[Array, "*batch n"]:
        """Tonic drive of the modulator neurons, `(b0 sigma)^2`; every steady state has `a >= c`."""
        return jnp.square(self.b0 * self.sigma)

    @property
    def valid(self) -> Bool[Array, ""]:
        """Whether all parameters are in their domains. Needed for traced or replaced parameters,
        which nothing else checks."""
        found = jnp.bool_(True)
        for entries in self.pool.entries():
            found &= jnp.all((entries >= 0) & jnp.isfinite(entries))
        for entries in self.recurrent.entries():
            found &= jnp.all(jnp.isfinite(entries))
        for positive in (self.b, self.b0, self.sigma, self.tau_y, self.tau_a):
            found &= jnp.all((positive > 0) & jnp.isfinite(positive))
        return found

    def rectify(self, y: Float[Array, " n"]) -> Float[Array, " n"]:
        """`y` as the recurrent terms see it: `relu(y)` in the rectified model, else `y`."""
        return jax.nn.relu(y) if self.rectified else y

    def active(self, y: Float[Array, " n"]) -> Float[Array, " n"]:
        """Derivative of `rectify`: 1, or 0 where the rectified model has `y <= 0`."""
        return (y > 0).astype(y.dtype) if self.rectified else jnp.ones_like(y)

    def among(self, active: Bool[Array, " n"]) -> "Circuit":
        """The main model in which nothing hears the neurons that are not active: where these are
        the silent ones, equal to the rectified model."""
        W, W_r = (Dense(jnp.where(active, w.as_matrix(), 0)) for w in (self.pool, self.recurrent))
        return Circuit(W, W_r, self.b, self.b0, self.sigma, self.tau_y, self.tau_a)

    def recur(self, q: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W_r q`."""
        return self.recurrent.apply(q)

    @property
    def own_recurrence(self) -> Float[Array, " n"]:
        """The diagonal of `W_r`."""
        return self.recurrent.diagonal()

    def own_gain(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        """`(1 - sqrt(a_i)) W_r,ii - 1`: how the imbalance of `y_i` changes with an active `y_i`.

        For `W_r,ii = 1` it is computed as `-sqrt(a_i)`, which loses no digits however small it is.
        """
        s, own = root(a), self.own_recurrence
        return jnp.where(s < 0.5, (own - 1) - own * s, own * gate(a) - 1)

    def own_gain_size(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        """The sum of the absolute values of the terms of `own_gain`."""
        own = self.own_recurrence
        beside = jnp.abs(own - 1) + jnp.abs(own) * root(a)
        return jnp.minimum(beside, 1 + jnp.abs(own * gate(a)))

    def from_others(self, q: Float[Array, " n"], *, sizes: bool = False) -> Float[Array, " n"]:
        """`W_r q` without the diagonal of `W_r`; with `sizes`, the same for the absolute values of
        both."""
        if sizes:
            return self.recurrent.sizes().apply_others(jnp.abs(q))
        return self.recurrent.apply_others(q)

    def imbalance(self, state: State, z: Float[Array, " n"]) -> State:
        """Right-hand sides of the circuit's equations, before division by the time constants.

        Dimensionless; zero exactly at the steady states, which do not depend on time constants.
        Arranged so that rounding is small compared with `terms`, the terms of each equation.
        """
        return _imbalance(self, state, z)

    def terms(self, state: State, z: Float[Array, " n"]) -> State:
        """For each equation, the sum of the absolute values of the terms that `imbalance` adds
        up; where `a` is close to 1, at least so much that its rounding is below the tolerance of
        `steady_state`."""
        y, a = state
        q = self.rectify(y)
        own = self.own_gain_size(a) * jnp.abs(q)
        rounding = float(jnp.finfo(a.dtype).eps) ** 0.25 * root(a)
        others = jnp.maximum(jnp.abs(gate(a)), rounding) * self.from_others(q, sizes=True)
        return State(
            y=jnp.abs(self.b * z) + jnp.abs(y - q) + own + others,
            # the pooled terms are all positive; where the equation balances, they are `a - c`
            a=2 * jnp.abs(a) + self.c,
        )

    def is_inert(self, states: tuple) -> Bool[Array, ""]:
        """True: one area has no feedback."""
        del states
        return jnp.bool_(True)

    def never_acts(self, z: Values) -> bool:
        """True: one area has no feedback."""
        del z
        return True

    def drives(self, states: tuple, z: Float[Array, " n"]) -> tuple:
        """That of the one area."""
        del states
        return (z,)

    def by_area(self, state: Any) -> tuple:
        """The state of the one area."""
        return (state,)

    def of_areas(self, values: tuple) -> Any:
        """That of the one area."""
        return values[0]

    def names_of_areas(self, name: str) -> tuple:
        """The name of the argument itself."""
        return (name,)

    def split(self, x: Float[Array | np.ndarray, "*batch m"]) -> State:
        """`y` and `a` of numbers along the last axis."""
        return State(*jnp.split(x, 2, axis=-1))

    def known_identities(self) -> "Circuit":
        """With `W_r=None` if the recurrence is known to be the identity."""
        return identity_recurrence(self) or self

    def require_valid(self) -> None:
        """Refuse a circuit, naming the parameter, if `eqx.tree_at`, which checks nothing, put an
        invalid value into it."""
        Circuit(
            self.W,
            self.W_r,
            self.b,
            self.b0,
            self.sigma,
            self.tau_y,
            self.tau_a,
            self.rectified,
        )

    def require_one(self) -> None:
        """Refuse a stack of circuits, and one whose parameters were replaced by ones of another
        shape, or converted to a type that circuits do not compute in."""
        if self.b.ndim != 1:
            raise ValueError(
                f"`circuit` must be one circuit, not a stack of them (`b` has shape "
                f"{self.b.shape}): map over them, as in `jax.vmap(steady_state)(circuits, drives)`."
            )
        n = self.n
        shapes = {name: (n,) for name in ("b", "b0", "sigma", "tau_y", "tau_a")}
        shapes |= {name: (n, n) for name in ("W", "W_r") if hasattr(getattr(self, name), "shape")}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise ValueError(
                    f"`{name}` of a circuit must have shape {shape}, not {value.shape}."
                )
            require_float_type(name, value.dtype)

    def firing_rates(self, state: State) -> FiringRates:
        """Firing rates of all neurons at `state`."""
        y, a = state
        y_minus = jnp.zeros_like(y) if self.rectified else jnp.square(jax.nn.relu(-y))
        return FiringRates(jnp.square(jax.nn.relu(y)), y_minus, root(a))


@jax.jit  # traced once for all its uses
def _imbalance(circuit: Circuit, state: State, z: Float[Array, " n"]) -> State:
    y, a = state
    q = circuit.rectify(y)
    own, others = circuit.own_gain(a) * q, gate(a) * circuit.from_others(q)
    return State(
        y=circuit.b * z - (y - q) + own + others,
        a=-a + circuit.c + circuit.pool.apply(jnp.square(root(a) * q)),
    )


@partial(jax.jit, static_argnums=(1, 3))  # one program instead of many small ones
def _draw(key: PRNGKeyArray, n: int, spectral_norm: ScalarLike | None, real):
    """Draw `W`, `W_r`, `b`, `b0` and `sigma` for `Circuit.random`."""
    k_b, k_b0, k_sigma, k_W, k_W_r = jr.split(key, 5)
    # the open interval: the circuit's gains must not vanish
    uniform = lambda k: jr.uniform(k, (n,), real, minval=jnp.finfo(real).eps)  # noqa: E731
    W_r = None
    if spectral_norm is not None:
        W_r = jr.normal(k_W_r, (n, n), real)
        W_r = W_r * (jnp.asarray(spectral_norm, real) / jnp.linalg.norm(W_r, 2))
    return jr.uniform(k_W, (n, n), real), W_r, uniform(k_b), uniform(k_b0), uniform(k_sigma)


@partial(jax.jit, static_argnums=(1,), static_argnames=("dtype",))
def random_drive(
    key: "PRNGKeyArray", n: int, norm: "ScalarLike" = 1.0, *, dtype: "DTypeLike | None" = None
) -> Float[Array, " n"]:
    """A Gaussian input drive of shape (n,), scaled to Euclidean norm `norm`."""
    require_whole("n", n)
    z = jr.normal(key, (n,), float_type(dtype))
    return norm * z / jnp.linalg.norm(z)


def as_drive(circuit: Areas, z: Values, name: str = "z") -> Float[Array, " n"]:
    """`z` as an array of the type of a circuit, or of the first area of a hierarchy, and of shape
    (n,).

    Raises `ValueError`, naming the argument, if the shape differs, a value is not finite, or
    `circuit` is not one system whose parameters fit together.
    """
    if not isinstance(circuit, Areas):
        raise ValueError(f"`circuit` must be a `Circuit`, not {circuit!r}.")
    circuit.require_one()
    circuit = circuit.areas[0]
    z = as_real(name, z, circuit.dtype)
    if z.shape != (circuit.n,):
        raise ValueError(
            f"`{name}` must have shape ({circuit.n},), one input drive per neuron, not {z.shape}. "
            "Several drives are for several calls, or for `jax.vmap` of a function that traces."
        )
    require_values(name, z, np.isfinite, "be finite")
    return z


def identity_recurrence(circuit: Circuit) -> Circuit | None:
    """The circuit with `W_r=None` if its recurrence is known to be the identity, else `None`."""
    if circuit.has_identity_recurrence:
        return circuit
    recurrent = circuit.recurrent
    if any(isinstance(entries, Tracer) for entries in recurrent.entries()):
        return None
    match recurrent:
        case Dense(matrix=matrix):
            found = np.array_equal(np.asarray(matrix), np.eye(circuit.n))
        case Diagonal(own=own):
            found = np.all(np.asarray(own) == 1)
        case _:
            found = False
    return eqx.tree_at(lambda c: c.W_r, circuit, None) if found else None


def _weights(name: str, value, n: int | None, dtype) -> Array | Weights:
    if isinstance(value, Weights):
        if n not in (None, value.n) or dtype not in (None, value.dtype):
            raise ValueError(
                f"`{name}` must be weights among the {n} neurons of `W` and of its type {dtype}, "
                f"not among {value.n} of type {value.dtype}."
            )
        for entries in value.entries():
            require_values(name, entries, np.isfinite, "be finite")
        if isinstance(value, Dense):
            require_square(name, value.matrix.shape, n)
        return value
    value = as_real(name, value, dtype)
    require_square(name, value.shape, n)
    require_values(name, value, np.isfinite, "be finite")
    return value


def _positive_vector(name: str, value, n: int, dtype) -> Array:
    value = as_real(name, value, dtype)
    require_vector(name, value.shape, n)
    require_values(name, value, is_positive, "be finite and > 0")
    if value.ndim == 1:
        return value
    if isinstance(value, Tracer):
        return jnp.broadcast_to(value, (n,))
    return jax.device_put(np.full(n, value))
