"""Circuits on images: neurons with local receptive fields and local normalization pools."""

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
    require_sizes,
)
from organics.circuit.circuit import Circuit
from organics.circuit.constraints import positive, unit_interval
from organics.circuit.weights import Convolution
from organics.names import Padding, PoolReach
from organics.nn.arguments import Built, as_built, as_input, require_as_built, require_finite
from organics.nn.normalization import uniform_fan_in
from organics.rest.search import steady_state


class NormalizationConv2d(eqx.Module):
    r"""Firing rates at the steady state of a circuit whose neurons lie on an image.

    One neuron per channel and position, `W_r = I`. Drive, gain and pool are convolutions,

        z = k_in * x,    b = sigmoid(k_gain * x),    W q = k_pool * q,    k_pool = exp(log_pool),

    so no matrix of all pairs of positions is formed. Pools end at the border of the image. The
    layer maps `x` of shape (in_channels, h, w) to `relu(y)^2` of shape (out_channels,
    h', w'), at a cost proportional to the number of positions. It is stable whatever its
    parameters, like every circuit with `W_r = I`.

    Arguments
        in_channels, out_channels: number of channels.
        kernel_size: height and width of the receptive fields; one number for both.
        pool_size: height and width, odd, of the normalization pools; one number for both.
        pool: "across": a neuron is normalized by all channels; "within": by its own only.
        padding: "same" keeps the size of the image, padding it with zeros; "valid" has neurons
            only where the receptive field lies inside the image.
        rectified, sigma, tau, dtype: as for `Normalization`.

    Source: the convolutional variant of Rawat et al. 2024, with local pools instead of its dense
    ones, and one `b0 = sigmoid(beta)` for each channel.
    """

    k_in: Float[Array, "c_out c_in kh kw"]
    k_gain: Float[Array, "c_out c_in kh kw"]
    log_pool: Float[Array, "c_out pooled ph pw"]
    beta: Float[Array, " c_out"]
    pool: PoolReach = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    rectified: bool = eqx.field(static=True)
    sigma: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    built: Built = eqx.field(static=True, repr=False)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        pool_size: int | tuple[int, int] = 5,
        *,
        key: "PRNGKeyArray",
        pool: PoolReach = "across",
        padding: Padding = "same",
        rectified: bool = False,
        sigma: float = 1.0,
        tau: float = 2.0,
        dtype: "DTypeLike | None" = None,
    ):
        kernel, window = _pair("kernel_size", kernel_size), _pair("pool_size", pool_size)
        require_sizes(in_channels=in_channels, out_channels=out_channels)
        require_positive(sigma=sigma, tau=tau)
        require_flag("rectified", rectified)
        require_among("pool", pool, PoolReach)
        require_among("padding", padding, Padding)
        if window[0] % 2 == 0 or window[1] % 2 == 0:
            raise ValueError(f"`pool_size` must be odd, so that a pool has a centre, not {window}.")
        k_in, k_gain, k_pool = jr.split(key, 3)
        kind = float_type(dtype)
        shape = (out_channels, in_channels, *kernel)
        fan_in = in_channels * kernel[0] * kernel[1]
        self.k_in = uniform_fan_in(k_in, shape, fan_in, kind)
        self.k_gain = uniform_fan_in(k_gain, shape, fan_in, kind)
        pooled = out_channels if pool == "across" else 1
        log_pool = jr.uniform(k_pool, (out_channels, pooled, *window), kind, minval=-1, maxval=0)
        itself = jnp.arange(out_channels) if pool == "across" else 0
        centre = (jnp.arange(out_channels), itself, window[0] // 2, window[1] // 2)
        self.log_pool = log_pool.at[centre].set(0)  # a neuron's weight on itself starts at 1
        self.beta = jnp.zeros(out_channels, kind)
        self.pool = pool
        self.padding = padding
        self.rectified = rectified
        self.sigma = float(sigma)
        self.tau = float(tau)
        self.built = as_built(self)

    def __call__(
        self, x: Float[Array, "c_in h w"], *, key: "PRNGKeyArray | None" = None
    ) -> Float[Array, "c_out h2 w2"]:
        """Rates of the principal neurons at the steady state for the image `x`.

        `key` is ignored; `eqx.nn.Sequential` passes it.

        Raises `ValueError` if `x` has the wrong shape, or is not finite (unless traced), or if the
        layer's arrays no longer match its options.
        """
        del key
        circuit, z = self.circuit(x)
        rates = circuit.firing_rates(steady_state(circuit, z).state).y_plus
        pool = circuit.W
        assert isinstance(pool, Convolution)
        return rates.reshape(-1, pool.height, pool.width)

    def circuit(self, x: Float[Array, "c_in h w"]) -> tuple[Circuit, Float[Array, " n"]]:
        """The circuit for the image `x`, and its drive, as `steady_state` takes them.

        Its neurons are in row-major order of (channel, row, column), and its `W` is a
        `organics.Convolution`. Raises `ValueError` as the call does.
        """
        z, b = self._drive_and_gain(x)
        b0 = jnp.broadcast_to(unit_interval(self.beta)[:, None, None], z.shape)
        circuit = Circuit(
            W=Convolution(positive(self.log_pool), *z.shape[1:]),
            b=b.reshape(-1),
            b0=b0.reshape(-1),
            sigma=self.sigma,
            tau_y=self.tau,
            tau_a=self.tau,
            rectified=self.rectified,
        )
        return circuit, z.reshape(-1)

    def _drive_and_gain(self, x: Array) -> tuple[Array, Array]:
        require_as_built(self, self.built)
        channels, *kernel = self.k_in.shape[1:]
        x = as_input(x, (channels, "height", "width")).astype(self.k_in.dtype)
        if self.padding == "valid" and (x.shape[1] < kernel[0] or x.shape[2] < kernel[1]):
            raise ValueError(
                f"`x` must have at least the height and width {tuple(kernel)} of a receptive "
                f"field, as `padding` is 'valid', not {x.shape[1:]}."
            )
        require_finite("x", x)
        drive = _convolve(x, self.k_in, self.padding)
        return drive, unit_interval(_convolve(x, self.k_gain, self.padding))


def _convolve(x: Array, kernel: Array, padding: str) -> Array:
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 1), padding.upper())[0]


def _pair(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    require_sizes(**{name: height})
    require_sizes(**{name: width})
    return int(height), int(width)
