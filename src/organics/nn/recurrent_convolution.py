"""The gated circuit on images as a recurrent layer on sequences of images."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import (
    float_type,
    require_among,
    require_flag,
    require_positive,
    require_share,
    require_sizes,
    require_squares,
)
from organics.circuit.circuit import Circuit
from organics.circuit.constraints import at_most_one
from organics.circuit.weights import Convolution, Weights
from organics.kernels.equations import Products, velocity
from organics.names import ImageRecurrence, PoolReach
from organics.nn.arguments import (
    Built,
    as_built,
    as_input,
    require_as_built,
    require_finite,
    require_state,
    require_type,
)
from organics.nn.convolution import convolve, draw_pool, identity_kernel, odd_pair
from organics.nn.normalization import uniform_fan_in
from organics.nn.recurrent import CellState


class ORGaNICsConv2d(eqx.Module):
    r"""A recurrent layer on sequences of images: one circuit neuron per channel and position, with
    gated input gains, advanced by Euler steps.

    The equations are those of `ORGaNICs`, and every matrix is a convolution: drive `k_zx * x`,
    recurrence `k_r * q`, pools `min(exp(log_pool), 1) * (q^2 a)`, and gates. Images have a border
    beyond which there is nothing. Time constants are those of a channel. The layer maps `x` of
    shape (time, in_channels, height, width), or a batch of these, to `y` with out_channels
    channels, for images of any size.

    Arguments
        in_channels, out_channels: number of channels.
        kernel_size: height and width, odd, of the receptive fields; one number for both.
        recurrent: "identity", `W_r = I`; "bounded", a learned kernel whose norm is at most 1,
            starting from the identity; "free", the same kernel without a bound.
        recurrent_size: height and width, odd, of the kernels of `W_r` and of the gates.
        pool_size, pool: of the normalization pools, as for `NormalizationConv2d`.
        rectified: `relu(y)` in place of `y` in both recurrent terms.
        sigma: semi-saturation constant, fixed.
        dt: duration of a step, in ms.
        dt_tau_max_y, dt_tau_max_a, dt_tau_max_gates: largest ratios of step size to time constant,
            in (0, 1].
        dtype: of the parameters; JAX's default float if not given.

    Every sequence begins at `y = 0`, `a = sigma^2`, `b0 = 1`, `b = 1/2`.

    Raises `ValueError`, naming the argument, for a value other than these.

    Source: Rawat et al. 2024, the discretised ORGaNICs with learned gains, on images.
    """

    k_input: Float[Array, "three_c c_in kh kw"]
    k_gates: Float[Array, "two_c two_c rh rw"]
    k_r: Float[Array, "c c rh rw"] | None
    log_pool: Float[Array, "c pooled ph pw"]
    raw_rates: Float[Array, "4 c"]
    recurrent: ImageRecurrence = eqx.field(static=True)
    rectified: bool = eqx.field(static=True)
    sigma: float = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    largest_rates: tuple[float, float, float, float] = eqx.field(static=True)
    built: Built = eqx.field(static=True, repr=False)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        key: "PRNGKeyArray",
        recurrent: ImageRecurrence = "identity",
        recurrent_size: int | tuple[int, int] = 3,
        pool_size: int | tuple[int, int] = 5,
        pool: PoolReach = "across",
        rectified: bool = True,
        sigma: float = 1.0,
        dt: float = 1.0,
        dt_tau_max_y: float = 0.1,
        dt_tau_max_a: float = 0.1,
        dt_tau_max_gates: float = 0.1,
        dtype: "DTypeLike | None" = None,
    ):
        require_sizes(in_channels=in_channels, out_channels=out_channels)
        require_positive(sigma=sigma, dt=dt)
        require_flag("rectified", rectified)
        require_among("recurrent", recurrent, ImageRecurrence)
        require_among("pool", pool, PoolReach)
        kernel = odd_pair("kernel_size", kernel_size)
        near, window = odd_pair("recurrent_size", recurrent_size), odd_pair("pool_size", pool_size)
        require_share(
            dt_tau_max_y=dt_tau_max_y, dt_tau_max_a=dt_tau_max_a, dt_tau_max_gates=dt_tau_max_gates
        )
        kind, c = float_type(dtype), out_channels
        require_squares(kind, sigma=sigma)
        k_in, k_gates, k_pool, k_rates = jr.split(key, 4)
        fan_in, fan_gates = in_channels * kernel[0] * kernel[1], 2 * c * near[0] * near[1]
        self.k_input = uniform_fan_in(k_in, (3 * c, in_channels, *kernel), fan_in, kind)
        self.k_gates = uniform_fan_in(k_gates, (2 * c, 2 * c, *near), fan_gates, kind)
        self.k_r = None if recurrent == "identity" else identity_kernel(c, near, kind)
        self.log_pool = draw_pool(k_pool, c, pool, window, kind)
        self.raw_rates = jr.normal(k_rates, (4, c), kind)
        self.recurrent, self.rectified = recurrent, rectified
        self.sigma, self.dt = float(sigma), float(dt)
        most_y, most_a, most_gates = map(float, (dt_tau_max_y, dt_tau_max_a, dt_tau_max_gates))
        self.largest_rates = (most_y, most_a, most_gates, most_gates)
        self.built = as_built(self)

    @property
    def channels(self) -> int:
        """Number of channels of the output."""
        return self.raw_rates.shape[1]

    def weights(self, height: int, width: int) -> tuple[Convolution, Weights | None]:
        """Pools and recurrence on an image of this size; `None` is the identity."""
        pool = Convolution(at_most_one(self.log_pool), height, width)
        if self.k_r is None:
            return pool, None
        recurrent = Convolution(self.k_r, height, width)
        return pool, recurrent.capped(1.0) if self.recurrent == "bounded" else recurrent

    def initial_state(self, height: int, width: int) -> CellState:
        """The state before every sequence, arrays (channels, height, width)."""
        require_sizes(height=height, width=width)
        ones = jnp.ones((self.channels, height, width), self.raw_rates.dtype)
        return CellState(0 * ones, self.sigma**2 * ones, ones, 0.5 * ones)

    def __call__(
        self,
        x: Float[Array, "*batch time c_in h w"],
        state: CellState | None = None,
        *,
        sequence: bool = True,
    ) -> tuple[Float[Array, "..."], CellState]:
        """`y` after every step, (time, channels, height, width), or with `sequence=False` after the
        last, and the final state; with a batch axis if `x` has one.

        `state` is the final state of an earlier call, by default `initial_state`; without a batch
        axis it is that of all sequences.

        Raises `ValueError` if `x` or `state` has the wrong shape or type or, unless traced, is not
        finite, or if the layer's arrays no longer match its options.
        """
        require_as_built(self, self.built)
        require_flag("sequence", sequence)
        channels = self.k_input.shape[1]
        x = as_input(
            x, ("time", channels, "height", "width"), ("batch", "time", channels, "height", "width")
        )
        require_type("x", x, self.k_input.dtype)
        require_finite("x", x)
        batched = x.ndim == 5
        rows = x if batched else x[None]
        batch, time, _, height, width = rows.shape
        drive = convolve(rows.reshape(batch * time, *rows.shape[2:]), self.k_input, "same")
        drive = jnp.moveaxis(drive.reshape(batch, time, -1), 1, 0)
        if state is None:
            start = self.initial_state(height, width)
        else:
            start = self._as_state(state, height, width, batch if batched else None)
        shape = (batch, self.channels, height, width)
        packed = jnp.concatenate(
            [jnp.broadcast_to(part, shape).reshape(batch, -1) for part in start], axis=1
        )
        weights = self.weights(height, width)

        def advance(packed, drive):
            packed = self._step(weights, drive, packed)
            return packed, packed[:, : packed.shape[1] // 4] if sequence else None

        last, outputs = jax.lax.scan(advance, packed, drive)
        parts = (part.reshape(shape) for part in jnp.split(last, 4, axis=1))
        final = CellState(*(part if batched else part[0] for part in parts))
        if outputs is None:
            return final.y, final
        y = jnp.moveaxis(outputs.reshape(time, *shape), 0, 1)
        return (y if batched else y[0]), final

    def circuit(
        self, x: Float[Array, "c_in h w"], state: CellState
    ) -> tuple[Circuit, Float[Array, " n"]]:
        """The circuit at a moment, and its drive: with the gains of `state` and the image `x` held,
        the layer's steps of `y` and `a` are its Euler steps of `dt` ms.

        Raises `ValueError` if `x` or `state` has the wrong shape or type or, unless traced, is not
        finite.
        """
        require_as_built(self, self.built)
        x = as_input(x, (self.k_input.shape[1], "height", "width"))
        require_type("x", x, self.k_input.dtype)
        require_finite("x", x)
        _, height, width = x.shape
        state = self._as_state(state, height, width, None)
        z = convolve(x[None], self.k_input[: self.channels], "same")[0]
        pool, recurrent = self.weights(height, width)
        taus = self.dt / self._rates(z.shape[1] * z.shape[2])
        circuit = Circuit(
            W=pool,
            W_r=recurrent,
            b=state.b.reshape(-1),
            b0=state.b0.reshape(-1),
            sigma=self.sigma,
            tau_y=taus[0],
            tau_a=taus[1],
            rectified=self.rectified,
        )
        return circuit, z.reshape(-1)

    def _as_state(self, state: CellState, height: int, width: int, batch: int | None) -> CellState:
        """The state, checked: of images of this size, one for all or one for each of the batch."""
        if not isinstance(state, tuple) or len(state) != len(CellState._fields):
            raise ValueError(f"`state` must be a `CellState`, not {state!r}.")
        shape = (self.channels, height, width)
        for name, part in zip(CellState._fields, state, strict=True):
            require_state(f"state.{name}", part, shape, self.k_input.dtype, batch)
        return CellState(*state)

    def _rates(self, sites: int) -> Float[Array, "4 n"]:
        """Step size over the time constants of all neurons."""
        largest = jnp.asarray(self.largest_rates, self.raw_rates.dtype)[:, None]
        return jnp.repeat(largest * jax.nn.sigmoid(self.raw_rates), sites, axis=1)

    def _step(
        self, weights: tuple, drive: Float[Array, "batch three_n"], packed: Float[Array, "batch m"]
    ) -> Float[Array, "batch m"]:
        """One Euler step, all right-hand sides at the old state; parts `y | a | b0 | b`."""
        pool, recurrent = weights
        n = pool.n
        y, a = packed[:, :n], packed[:, n : 2 * n]
        q = jax.nn.relu(y) if self.rectified else y
        image = packed[:, : 2 * n].reshape(-1, 2 * self.channels, pool.height, pool.width)
        gates = convolve(image, self.k_gates, "same").reshape(y.shape[0], -1)
        found = Products(
            z=drive[:, :n],
            yhat=q if recurrent is None else jax.vmap(recurrent.apply)(q),
            pool=jax.vmap(pool.apply)(jnp.square(q) * jax.nn.relu(a)),
            gates=jax.nn.sigmoid(drive[:, n:] + gates),
            rates=self._rates(pool.height * pool.width).reshape(1, -1),
        )
        offset = jnp.full(n, self.sigma**2, packed.dtype)
        return packed + found.rates * velocity(offset, packed, found)
