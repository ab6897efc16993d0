"""Circuits on images: neurons with local receptive fields and local normalization pools."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from organics.arguments import (
    float_type,
    require_among,
    require_flag,
    require_positive,
    require_sizes,
    require_squares,
)
from organics.circuit.circuit import Circuit
from organics.circuit.constraints import positive, unit_interval
from organics.circuit.weights import Convolution
from organics.names import Padding, PoolReach, StaticRecurrence
from organics.nn.arguments import Built, as_built, as_input, require_as_built, require_finite
from organics.nn.normalization import uniform_fan_in
from organics.rest.search import steady_state


class NormalizationConv2d(eqx.Module):
    r"""Firing rates at the steady state of a circuit whose neurons lie on an image.

    One neuron per channel and position. Drive, gain and pool are convolutions,

        z = k_in * x,    b = sigmoid(k_gain * x),    W q = k_pool * q,    k_pool = exp(log_pool),

    so no matrix of all pairs of positions is formed. Pools end at the border of the image. The
    layer maps `x` of shape (in_channels, h, w) to `relu(y)^2` of shape (out_channels,
    h', w'), at a cost proportional to the number of positions. With `W_r = I` it is stable whatever
    its parameters.

    Arguments
        in_channels, out_channels: number of channels.
        kernel_size: height and width of the receptive fields; one number for both.
        pool_size: height and width, odd, of the normalization pools; one number for both.
        pool: "across": a neuron is normalized by all channels; "within": by its own only.
        recurrent: "identity", `W_r = I`; or "bounded", `W_r q = k_r * q` with a learned kernel
            whose norm is at most 1, starting from the identity: the steady state is then found by
            iteration, without a matrix, and differentiated implicitly. It need not be stable:
            `stability` tells. Where none is found, the output is NaN.
        recurrent_size: height and width, odd, of `k_r`; one number for both.
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
    k_r: Float[Array, "c_out c_out rh rw"] | None
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
        recurrent: StaticRecurrence = "identity",
        recurrent_size: int | tuple[int, int] = 3,
        padding: Padding = "same",
        rectified: bool = False,
        sigma: float = 1.0,
        tau: float = 2.0,
        dtype: "DTypeLike | None" = None,
    ):
        kernel, window = pair("kernel_size", kernel_size), odd_pair("pool_size", pool_size)
        near = odd_pair("recurrent_size", recurrent_size)
        require_sizes(in_channels=in_channels, out_channels=out_channels)
        require_positive(sigma=sigma, tau=tau)
        require_flag("rectified", rectified)
        require_among("pool", pool, PoolReach)
        require_among("padding", padding, Padding)
        require_among("recurrent", recurrent, StaticRecurrence)
        k_in, k_gain, k_pool = jr.split(key, 3)
        kind = float_type(dtype)
        require_squares(kind, sigma=sigma)
        shape = (out_channels, in_channels, *kernel)
        fan_in = in_channels * kernel[0] * kernel[1]
        self.k_in = uniform_fan_in(k_in, shape, fan_in, kind)
        self.k_gain = uniform_fan_in(k_gain, shape, fan_in, kind)
        self.log_pool = draw_pool(k_pool, out_channels, pool, window, kind)
        bounded = recurrent == "bounded"
        self.k_r = identity_kernel(out_channels, near, kind) if bounded else None
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
        # the images of a batch share the kernels, and the norm of `W_r` is at most 1
        known = {} if self.k_r is None else {"spectral_norm": 1.0, "matrix_free": True}
        found = steady_state(circuit, z, **known)
        rates = circuit.firing_rates(found.state).y_plus
        good = found.converged
        if self.k_r is None:  # a closed form only fails where squares overflow
            good = jnp.all(jnp.isfinite(found.state.a))
        rates = jnp.where(good, rates, jnp.nan)
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
        size = z.shape[1], z.shape[2]
        recurrent = None if self.k_r is None else Convolution(self.k_r, *size).capped(1.0)
        circuit = Circuit(
            W=Convolution(positive(self.log_pool), *size),
            W_r=recurrent,
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
        drive, gain = (convolve(x[None], k, self.padding)[0] for k in (self.k_in, self.k_gain))
        return drive, unit_interval(gain)


def convolve(
    x: Float[Array, "batch c_in h w"], kernel: Float[Array, "c_out c_in kh kw"], padding: Padding
) -> Float[Array, "batch c_out h2 w2"]:
    """The convolution of images with a kernel."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding.upper())


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def draw_pool(
    key: PRNGKeyArray, channels: int, pool: PoolReach, window: tuple[int, int], dtype
) -> Float[Array, "c pooled ph pw"]:
    """The initial `log_pool`, uniform in (-1, 0); a neuron's weight on itself starts at 1."""
    pooled = channels if pool == "across" else 1
    log_pool = jr.uniform(key, (channels, pooled, *window), dtype, minval=-1, maxval=0)
    itself = jnp.arange(channels) if pool == "across" else 0
    return log_pool.at[jnp.arange(channels), itself, window[0] // 2, window[1] // 2].set(0)


def identity_kernel(channels: int, window: tuple[int, int], dtype) -> Float[Array, "c c rh rw"]:
    """The kernel of `W_r = I`."""
    kernel = np.zeros((channels, channels, *window), dtype)
    itself = np.arange(channels)
    kernel[itself, itself, window[0] // 2, window[1] // 2] = 1
    return jnp.asarray(kernel)


def odd_pair(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width, both odd."""
    found = pair(name, size)
    if found[0] % 2 == 0 or found[1] % 2 == 0:
        raise ValueError(f"`{name}` must be odd, so that there is a centre, not {found}.")
    return found


def pair(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    height, width = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    require_sizes(**{name: height})
    require_sizes(**{name: width})
    return int(height), int(width)
