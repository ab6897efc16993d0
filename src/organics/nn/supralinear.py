"""The stabilized supralinear network at rest, as a feed-forward layer, for comparison."""

from functools import partial
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from organics.arguments import float_type, require_among, require_positive, require_sizes
from organics.circuit.constraints import positive
from organics.linear.krylov import LARGE, solve_by_products
from organics.machine.mesh import advising, alike
from organics.names import SupralinearDrive, SupralinearOutput
from organics.nn.arguments import Built, as_built, as_input, require_as_built, require_finite
from organics.nn.normalization import uniform_fan_in
from organics.nn.protocols import Linearization, Settled
from organics.rest.balance import judge
from organics.rest.implicit import implicit
from organics.rest.newton import newton, newton_krylov
from organics.rest.relaxation import relax
from organics.rest.system import System

_RELAXATION_TIME = 100.0  # in units of the slower time constant
_RELAXATION_STEPS = 500  # for time constants of a ratio of up to ...
_STIFF = 4.0  # ... this; above it as many more
_CLOSE = 1e-3  # relative imbalance below which Newton takes over; error of a step
_NEAR = 0.1  # relative imbalance from which on more accurate steps may come closer

# Total weights between the populations (rows: to E and I; columns: from E and I) of the cortical
# model, which has a stable steady state; Rubin, Van Hooser & Miller 2015, from memory.
_TOTAL_WEIGHTS = ((2.5, 1.3), (2.4, 1.0))


_FIRST_DRIVE = (1.0, 0.1, 1.0)  # scale, threshold and power of the drive "one-to-one"


class Rest(NamedTuple):
    """Where a network comes to rest.

    Attributes
        u: membrane potentials, (n,); 0 if not found.
        found: whether the network, started at `u = 0`, comes to rest there: each equation balances
            to within `eps^(3/4)` of its terms, and no eigenvalue crossed 0 on the way.
    """

    u: Float[Array, " n"]
    found: Bool[Array, ""]


class SSN(eqx.Module):
    r"""Firing rates at the steady state of a stabilized supralinear network.

    Excitatory units (E, the first) and inhibitory ones (I), n together, follow

        tau du/dt = -u + h + W_s r,    r = k relu(u)^2,    h = W_in x + bias,

    for the layer's input `x`, shape (m,). `W_s = +-exp(log_W)`: the columns of E units are positive
    and those of I units negative, whatever `log_W` is. The layer returns the rates of E, or their
    potentials `u`.

    With the drive "one-to-one" each E unit has an input of its own, `h_i = s (relu(x_i) + t)^p`,
    and every I unit the constant `h_i = s t^p`; `s, t, p = exp(log_drive)` are learned.

    A steady state need not exist, be stable or be unique. The layer integrates the network from
    `u = 0` until it comes to rest, polishes that state by Newton, and differentiates it by the
    implicit function theorem. If the network does not come to rest, as when excitation runs away,
    `__call__` gives NaN and `rest` has `found` false.

    Arguments
        input_size, excitatory, inhibitory: m, and the numbers of E and I units.
        drive: "weights", the learned weights `W_in` to all units; or "one-to-one", for which m is
            the number of E units.
        output: "rates" or "potentials".
        k: gain of the rates.
        tau_E, tau_I: time constants, in ms.
        dtype: of the parameters; JAX's default float if not given.

    Raises `ValueError`, naming the argument, for one that is not positive, an unknown `drive` or
    `output`, an `input_size` that the drive cannot have, or a `dtype` other than float32 and
    float64; when called, if `x` has the wrong shape or is not finite (unless traced), or if the
    layer's arrays no longer match its options.

    Source: the network that Table 1 of Rawat et al. 2024 cites; equations of Rubin, Van Hooser &
    Miller 2015, from memory. The drive "one-to-one" with potentials read out is the form of Soo &
    Lengyel 2022, without their noise. The initialisation is ours.
    """

    W_in: Float[Array, "n m"] | None
    bias: Float[Array, " n"] | None
    log_drive: Float[Array, "3"] | None
    log_W: Float[Array, "n n"]
    excitatory: int = eqx.field(static=True)
    output: SupralinearOutput = eqx.field(static=True)
    k: float = eqx.field(static=True)
    tau_E: float = eqx.field(static=True)
    tau_I: float = eqx.field(static=True)
    built: Built = eqx.field(static=True, repr=False)
    may_be_lost: ClassVar[bool] = True

    def __init__(
        self,
        input_size: int,
        excitatory: int,
        inhibitory: int,
        *,
        key: "PRNGKeyArray",
        drive: SupralinearDrive = "weights",
        output: SupralinearOutput = "rates",
        k: float = 0.3,
        tau_E: float = 20.0,
        tau_I: float = 10.0,
        dtype: "DTypeLike | None" = None,
    ):
        require_sizes(input_size=input_size, excitatory=excitatory, inhibitory=inhibitory)
        require_positive(k=k, tau_E=tau_E, tau_I=tau_I)
        require_among("drive", drive, SupralinearDrive)
        require_among("output", output, SupralinearOutput)
        if drive == "one-to-one" and input_size != excitatory:
            raise ValueError(
                f"`input_size` must be the number of E units, {excitatory}, for the drive "
                f"one-to-one, not {input_size}."
            )
        kind = float_type(dtype)
        counts = np.asarray([excitatory, inhibitory], int)
        n = excitatory + inhibitory
        k_in, k_W = jr.split(key)
        weights = drive == "weights"
        self.W_in = uniform_fan_in(k_in, (n, input_size), input_size, kind) if weights else None
        self.bias = jnp.zeros(n, kind) if weights else None
        self.log_drive = None if weights else jnp.asarray(np.log(_FIRST_DRIVE), kind)
        each = np.repeat(np.repeat(np.asarray(_TOTAL_WEIGHTS) / counts, counts, 0), counts, 1)
        spread = jr.uniform(k_W, (n, n), kind, minval=-1, maxval=0)
        self.log_W = jnp.asarray(np.log(each), kind) + spread
        self.excitatory, self.output = excitatory, output
        self.k, self.tau_E, self.tau_I = float(k), float(tau_E), float(tau_I)
        self.built = as_built(self)

    @property
    def units(self) -> int:
        """Number of units, n."""
        return self.log_W.shape[0]

    @property
    def size(self) -> int:
        """Number of outputs: of E units."""
        return self.excitatory

    @property
    def W_s(self) -> Float[Array, "n n"]:
        """Recurrent weights: from E positive, from I negative."""
        signs = np.where(np.arange(self.units) < self.excitatory, 1, -1)
        return positive(self.log_W) * jnp.asarray(signs, self.log_W.dtype)[None, :]

    @property
    def tau(self) -> Float[Array, " n"]:
        """Time constants, in ms."""
        values = np.where(np.arange(self.units) < self.excitatory, self.tau_E, self.tau_I)
        return jnp.asarray(values, self.log_W.dtype)

    def drive(self, x: Float[Array, " m"]) -> Float[Array, " n"]:
        """`h`, the external input for `x`."""
        require_as_built(self, self.built)
        size = self.excitatory if self.W_in is None else self.W_in.shape[1]
        x = as_input(x, (size,)).astype(self.log_W.dtype)
        require_finite("x", x)
        if self.log_drive is None:
            assert self.W_in is not None and self.bias is not None
            return self.W_in @ x + self.bias
        scale, threshold, power = positive(self.log_drive)
        own = jnp.zeros_like(self.tau).at[:size].set(jax.nn.relu(x))
        return scale * (own + threshold) ** power

    def rates(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """`r = k relu(u)^2`."""
        u = self._potentials(u)
        return _rates(self.k, u)

    def velocity(self, u: Float[Array, " n"], x: Float[Array, " m"]) -> Float[Array, " n"]:
        """`du/dt`, per ms."""
        u = self._potentials(u)
        return self._driven(self.drive(x)).imbalance(u) / self.tau

    def jacobian(self, u: Float[Array, " n"]) -> Float[Array, "n n"]:
        """Derivative of `velocity` with respect to `u`, in 1/ms."""
        u = self._potentials(u)
        return self._driven(jnp.zeros_like(u)).jacobian(u) / self.tau[:, None]

    def _potentials(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        return as_input(u, (len(self.log_W),), name="u")

    def rest(self, x: Float[Array, " m"]) -> Rest:
        """Where the network comes to rest for the input `x`; differentiable.

        If it does not, `u`, the rates and all derivatives are 0.
        """
        return _rest(self._driven(self.drive(x)))

    def __call__(
        self, x: Float[Array, " m"], *, key: "PRNGKeyArray | None" = None
    ) -> Float[Array, " E"]:
        """Rates, or potentials, of the E units at rest for the input `x`; NaN if the network does
        not come to rest.

        `key` is ignored; `eqx.nn.Sequential` passes it.
        """
        del key
        rates, found = self.settle(x)
        return jnp.where(found, rates, jnp.nan)

    def settle(self, x: Float[Array, " m"]) -> Settled:
        """The layer's output for the input `x`, 0 if the network does not come to rest; and whether
        it does.

        Unlike `rest`, uses products with `W_s`, which the inputs of a batch share. Where they
        suffice, which is nearly always, it does not check whether an eigenvalue crossed 0.
        """
        u, found = _rest(self._driven(self.drive(x), by_products=True))
        given = self.rates(u) if self.output == "rates" else u
        return Settled(given[: self.excitatory], found)

    def driven(self, x: Float[Array, " m"]) -> System:
        """The network under the input `x`, such as `organics.continuation` takes it; its arrays are
        `W`, the drive `h` and `tau`, and its numbers the potentials `u`."""
        return self._driven(self.drive(x))

    def _driven(self, h: Float[Array, " n"], *, by_products: bool = False) -> "_Driven":
        return _Driven(self.W_s, h, self.tau, self.k, self.excitatory, by_products)

    def circuit(self, x: Float[Array, " m"]) -> None:
        """None: the network is not a `Circuit`."""
        del x

    def linearize(self, x: Float[Array, " m"]) -> Linearization:
        """The network linearized at rest for the input `x`; its Jacobian is (n, n)."""
        u, found = self.rest(x)
        return Linearization(self.jacobian(u), found, jnp.asarray(False))


def _rates(k: float, u: Float[Array, " n"]) -> Float[Array, " n"]:
    return k * jnp.square(jax.nn.relu(u))


class _Driven(System):
    """The network under the drive `h`; its numbers are the potentials `u`.

    With `by_products`, linear systems are solved by products with `W` where these suffice.
    """

    W: Float[Array, "n n"]
    h: Float[Array, " n"]
    tau: Float[Array, " n"]
    k: float = eqx.field(static=True)
    excitatory: int = eqx.field(static=True)
    by_products: bool = eqx.field(static=True, default=False)
    drive: ClassVar[str] = "h"

    def time_constants(self) -> Float[Array, " n"]:
        return self.tau

    def imbalance(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.h + self.W @ _rates(self.k, x) - x

    def terms(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        r, n = _rates(self.k, x), self.excitatory
        received = self.W[:, :n] @ r[:n] - self.W[:, n:] @ r[n:]  # whose weights are negative
        return jnp.abs(x) + jnp.abs(self.h) + received

    def jacobian(self, x: Float[Array, " n"]) -> Float[Array, "n n"]:
        slope = 2 * self.k * jax.nn.relu(x)
        return self.W * slope[None, :] - jnp.eye(x.shape[0], dtype=x.dtype)

    def solve(self, x: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
        """By a factorization, or by products."""
        if not self.by_products:
            return super().solve(x, b)
        inverse = self.nearly_inverse(x)  # its own transpose
        few = len(b) <= 2 * LARGE
        product = self.product(x)
        return solve_by_products(product, lambda _: inverse, self.jacobian, x, b, factorize=few)


def _rest(driven: _Driven) -> Rest:
    """Where the network comes to rest; u is 0 if it does not."""
    u, found = _search(jax.lax.stop_gradient(driven))
    return Rest(jnp.where(found, implicit(driven, jnp.where(found, u, 0)), 0), found)


@advising
@jax.jit
def _search(driven: _Driven) -> tuple[Array, Array]:
    """Relaxation from `u = 0`, then Newton once it hardly moves; and whether that found a steady
    state."""
    driven = alike(driven)

    def with_slope(u):
        judged = judge(driven, u)
        return judged, judged.imbalance / driven.tau

    fastest, slowest = jnp.min(driven.tau), jnp.max(driven.tau)
    along = partial(
        relax,
        with_slope,
        lambda judged: judged.error <= _CLOSE,
        longest=_RELAXATION_TIME * slowest,
        most=(_RELAXATION_STEPS * jnp.maximum(slowest / fastest / _STIFF, 1)).astype(jnp.int32),
        shortest=1e-6 * fastest,
    )
    path = along(jnp.zeros_like(driven.h), step=0.1 * fastest, accuracy=_CLOSE)
    # where steps are as long as is stable, their errors keep the fast neurons moving
    jitters = (path.judged.error > _CLOSE) & (path.judged.error < _NEAR)
    close = along(path.x, step=path.step, accuracy=0.1 * _CLOSE, wanted=jitters).judged
    tolerance = float(jnp.finfo(driven.h.dtype).eps) ** 0.75
    wanted, quick = close.error <= _CLOSE, jnp.bool_(False)
    if driven.by_products:
        close = newton_krylov(driven, tolerance, close, wanted).found
        quick = close.converged
    polished = newton(driven, tolerance, close, wanted & ~quick)
    return polished.found.x, polished.found.converged & (polished.may_be_stable | quick)
