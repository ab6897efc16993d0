"""A circuit's steady state as a feed-forward layer."""

from functools import partial
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import (
    fixed_gain,
    float_type,
    require_among,
    require_flag,
    require_positive,
    require_sizes,
    require_squares,
)
from organics.circuit.circuit import Circuit
from organics.circuit.constraints import (
    at_most_one,
    cap_spectral_norm,
    positive,
    unit_interval,
    unit_norm,
)
from organics.linear.jacobian import jacobian
from organics.names import PoolWeights, StaticRecurrence
from organics.nn.arguments import Built, as_built, as_input, require_as_built, require_finite
from organics.nn.protocols import Linearization, Settled
from organics.rest.search import steady_state


class Normalization(eqx.Module):
    r"""Firing rates at the steady state of an ORGaNICs circuit driven by the layer's input.

    The input `x`, shape (m,), sets the circuit's drive and its input gain,

        z = W_zx x / ||W_zx x||,    b = sigmoid(W_bx x),

    and the layer returns `relu(y)^2`, shape (n,), at the steady state. The other parameters do not
    depend on the input: `b0 = sigmoid(beta)`, `W = exp(log_W)`, `sigma`, and `W_r`. Whatever the
    free parameters, the constraints of `Circuit` hold.

    Arguments
        input_size, size: m and n.
        recurrent: "identity", `W_r = I`: the steady state is divisive normalization in closed
            form, and stable whatever the parameters. Or "bounded", `W_r` is learned with spectral
            norm at most 1 (starting from the identity): the steady state is found by iteration and
            differentiated implicitly. It need not be stable: `stability` tells.
        gain: "input" learns the attention-like gain above; a number in (0, 1] is a fixed `b`.
        pool: "positive": `W = exp(log_W)`; "bounded": this clamped to at most 1, as without a bound
            on `W` and with `W_r` other than the identity there may be no steady state.
        rectified: the rectified circuit instead of the main one.
        sigma: semi-saturation constant, fixed.
        tau: time constants of all neurons, in ms. They affect the eigenvalues of the circuit, not
            the layer's output.
        dtype: of the parameters; JAX's default float if not given.

    With "bounded" recurrence a steady state may not be found. The output is then NaN, and
    `organics.training` stops with an error. The search is matrix-free (see `steady_state`), and
    with more than 8 neurons does not check whether a state is a saddle.

    Source: Rawat et al. 2024, static classification; their parameterisation and initialisation.
    """

    W_zx: Float[Array, "n m"]
    W_bx: Float[Array, "n m"] | None
    W_r: Float[Array, "n n"] | None
    log_W: Float[Array, "n n"]
    beta: Float[Array, " n"]
    gain: float = eqx.field(static=True)  # used if it is fixed and `W_bx` is None
    pool: PoolWeights = eqx.field(static=True)
    rectified: bool = eqx.field(static=True)
    sigma: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    built: Built = eqx.field(static=True, repr=False)
    may_be_lost: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        size: int,
        *,
        key: "PRNGKeyArray",
        recurrent: StaticRecurrence = "identity",
        gain: Literal["input"] | float = "input",
        pool: PoolWeights = "positive",
        rectified: bool = False,
        sigma: float = 1.0,
        tau: float = 2.0,
        dtype: "DTypeLike | None" = None,
    ):
        require_sizes(input_size=input_size, size=size)
        require_positive(sigma=sigma, tau=tau)
        require_flag("rectified", rectified)
        require_among("recurrent", recurrent, StaticRecurrence)
        require_among("pool", pool, PoolWeights)
        learned = isinstance(gain, str) and gain == "input"
        kind = float_type(dtype)
        require_squares(kind, sigma=sigma)
        self.W_zx, W_bx, W_r, self.log_W, self.beta = _draw(key, input_size, size, kind)
        self.W_bx = W_bx if learned else None
        self.gain = 1.0 if learned else fixed_gain(gain)
        self.W_r = W_r if recurrent == "bounded" else None
        self.pool = pool
        self.rectified = rectified
        self.sigma = float(sigma)
        self.tau = float(tau)
        self.built = as_built(self)

    @property
    def size(self) -> int:
        """Number of principal neurons, n."""
        return self.W_zx.shape[0]

    @property
    def units(self) -> int:
        """The same as `size`."""
        return self.size

    def circuit(self, x: Float[Array, " m"]) -> tuple[Circuit, Float[Array, " n"]]:
        """The circuit for the input `x`, shape (m,), and its input drive `z`.

        Use it as `steady_state(*layer.circuit(x))`. Raises `ValueError` as the call does.
        """
        require_as_built(self, self.built)
        x = as_input(x, (self.W_zx.shape[1],)).astype(self.W_zx.dtype)
        require_finite("x", x)
        circuit = Circuit(
            W=at_most_one(self.log_W) if self.pool == "bounded" else positive(self.log_W),
            W_r=None if self.W_r is None else cap_spectral_norm(self.W_r),
            b=self.gain if self.W_bx is None else unit_interval(self.W_bx @ x),
            b0=unit_interval(self.beta),
            sigma=self.sigma,
            tau_y=self.tau,
            tau_a=self.tau,
            rectified=self.rectified,
        )
        return circuit, unit_norm(self.W_zx @ x)

    def __call__(
        self, x: Float[Array, " m"], *, key: "PRNGKeyArray | None" = None
    ) -> Float[Array, " n"]:
        """Rates of the principal neurons at the steady state for the input `x`.

        `key` is ignored; `eqx.nn.Sequential` passes it.

        Raises `ValueError` if `x` has the wrong shape, or is not finite (unless traced), or if the
        layer's arrays no longer match its options.
        """
        del key
        circuit, z = self.circuit(x)
        # the inputs of a batch share `W` and `W_r`, whose norm is at most 1
        found = steady_state(circuit, z, spectral_norm=1.0, matrix_free=True)
        rates = circuit.firing_rates(found.state).y_plus
        if circuit.has_identity_recurrence:  # a closed form cannot fail to converge
            return rates
        return jnp.where(found.converged, rates, jnp.nan)

    def settle(self, x: Float[Array, " m"]) -> Settled:
        """The rates, which are NaN if no steady state is found; `found` is always true."""
        return Settled(self(x), jnp.asarray(True))

    def linearize(self, x: Float[Array, " m"]) -> Linearization:
        """The circuit near the steady state for the input `x`; its Jacobian is (2 n, 2 n)."""
        circuit, z = self.circuit(x)
        steady = steady_state(circuit, z)
        by_theorem = jnp.asarray(circuit.has_identity_recurrence)
        return Linearization(jacobian(circuit, steady.state), steady.converged, by_theorem)


@partial(jax.jit, static_argnums=(1, 2, 3))  # one program instead of many small ones
def _draw(key: PRNGKeyArray, input_size: int, size: int, dtype) -> tuple[Array, ...]:
    """The initial parameters: `W_zx`, `W_bx`, `W_r`, `log_W`, `beta`."""
    k_zx, k_bx, k_W = jr.split(key, 3)
    W_zx, W_bx = (uniform_fan_in(k, (size, input_size), input_size, dtype) for k in (k_zx, k_bx))
    identity = jnp.eye(size, dtype=dtype)
    log_W = (1 - identity) * jr.uniform(k_W, (size, size), dtype, minval=-1, maxval=0)
    return W_zx, W_bx, identity, log_W, jnp.zeros(size, dtype)


def uniform_fan_in(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, dtype) -> Array:
    """Uniform on +-1/sqrt(fan_in): Kaiming's uniform initialisation with slope sqrt(5)."""
    # `jax.nn.initializers.variance_scaling(1/3, "fan_in", "uniform")` differs in the last digit for
    # some sizes, which would change all trained networks
    limit = 1 / fan_in**0.5
    return jr.uniform(key, shape, dtype, minval=-limit, maxval=limit)
