"""Weights among neurons: dense, diagonal, convolutional or low-rank, all used in the same way.

`Circuit` takes `W` and `W_r` as matrices or as one of these classes. Closed forms, simulations and
the matrix-free search only multiply by them; Jacobians, and all that needs one, form the matrix.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from organics.arguments import require_sizes
from organics.circuit.values import Values, as_real, require_values

_POWER_STEPS = 50  # of the power method, for the largest singular value


class Weights(eqx.Module):
    """Weights among n neurons: entry i of a product is the input of neuron i."""

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of neurons."""

    @property
    @abstractmethod
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the products."""

    @abstractmethod
    def entries(self) -> tuple:
        """The arrays that define it. The weights are >= 0 if all entries of these are."""

    @abstractmethod
    def apply(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The product with `x`."""

    @abstractmethod
    def diagonal(self) -> Float[Array, " n"]:
        """The weight of each neuron on itself."""

    @abstractmethod
    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The product with `x` without the weights of the neurons on themselves."""

    @abstractmethod
    def sizes(self) -> "Weights":
        """Weights for which `sizes().apply_others(abs(x))` is at least the sum of the absolute
        values of the terms in `apply_others(x)`."""

    @abstractmethod
    def as_matrix(self) -> Float[Array, "n n"]:
        """The matrix; row i holds the weights onto neuron i."""

    @abstractmethod
    def norm(self) -> Float[Array, ""]:
        """The largest singular value. For a `Convolution` the power method gives it, from below."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """`as_matrix`, for NumPy."""
        return np.array(self.as_matrix(), dtype, copy=copy)


class Identity(Weights):
    """Each neuron receives only itself, with weight 1."""

    neurons: int = eqx.field(static=True)
    kind: jnp.dtype = eqx.field(static=True)

    @property
    def n(self) -> int:
        """Number of neurons."""
        return self.neurons

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the circuit's other parameters."""
        return self.kind

    def entries(self) -> tuple:
        """None."""
        return ()

    def apply(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """`x`."""
        return x

    def diagonal(self) -> Float[Array, " n"]:
        """Ones."""
        return jnp.ones(self.n, self.dtype)

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Zeros."""
        return jnp.zeros_like(x)

    def sizes(self) -> "Identity":
        """The same."""
        return self

    def as_matrix(self) -> Float[Array, "n n"]:
        """The identity matrix."""
        return jnp.eye(self.n, dtype=self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # the matrix is always new
        return np.eye(self.n, dtype=self.dtype if dtype is None else dtype)

    def norm(self) -> Float[Array, ""]:
        """1."""
        return jnp.ones((), self.dtype)


class Diagonal(Weights):
    """Each neuron receives only itself, with a weight of its own.

    Arguments
        own: shape (n,): the weight of each neuron on itself.

    Raises `ValueError` unless this is a finite vector.
    """

    own: Float[Array, "*batch n"]

    def __init__(self, own: "Values"):
        self.own = _finite("own", own)
        if self.own.ndim != 1 or not self.own.size:
            raise ValueError(f"`own` must be of shape (neurons,), not {self.own.shape}.")

    @property
    def n(self) -> int:
        """Number of neurons."""
        return self.own.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the weights."""
        return self.own.dtype

    def entries(self) -> tuple:
        """The weights."""
        return (self.own,)

    def apply(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Each entry of `x` times its weight."""
        return self.own * x

    def diagonal(self) -> Float[Array, " n"]:
        """The weights."""
        return self.own

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Zeros."""
        return jnp.zeros_like(x)

    def sizes(self) -> "Identity":
        """No neuron receives others, as in the identity."""
        return Identity(self.n, self.dtype)

    def as_matrix(self) -> Float[Array, "n n"]:
        """The weights on the diagonal, zeros elsewhere."""
        return jnp.diag(self.own)

    def norm(self) -> Float[Array, ""]:
        """The largest absolute value."""
        return jnp.max(jnp.abs(self.own))


class Dense(Weights):
    """A weight for each pair of neurons; row i holds the weights onto neuron i."""

    matrix: Float[Array | np.ndarray, "*batch n n"]

    @property
    def n(self) -> int:
        """Number of neurons."""
        return self.matrix.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the matrix."""
        return self.matrix.dtype

    def entries(self) -> tuple:
        """The matrix."""
        return (self.matrix,)

    def apply(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The matrix times `x`."""
        return jnp.asarray(self.matrix) @ x

    def diagonal(self) -> Float[Array, " n"]:
        """The diagonal of the matrix."""
        return jnp.diagonal(jnp.asarray(self.matrix))

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The matrix with zeros on its diagonal, times `x`."""
        return jnp.where(jnp.eye(self.n, dtype=bool), 0, self.matrix) @ x

    def sizes(self) -> "Dense":
        """The absolute values of all weights."""
        return Dense(jnp.abs(self.matrix))

    def as_matrix(self) -> Float[Array, "n n"]:
        """The matrix."""
        return jnp.asarray(self.matrix)

    def norm(self) -> Float[Array, ""]:
        """The largest singular value of the matrix."""
        return jnp.linalg.norm(self.matrix, 2)


class Convolution(Weights):
    """Neurons on an image. Each receives its neighbours with the same weights at every position.

    Neurons are ordered by channel, row and column. Outside of the image there are none.

    Arguments
        kernel: shape (channels, heard, height, width), height and width odd: `kernel[i, j]` holds
            the weights onto a neuron of channel i from the neurons of channel j around it. `heard`
            is the number of channels, or 1 if each channel receives only itself.
        height, width: of the image.

    Raises `ValueError` if the kernel is of another shape, or its entries are not finite.
    """

    kernel: Float[Array, "channels heard kh kw"]
    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, kernel: "Values", height: int, width: int):
        require_sizes(height=height, width=width)
        kernel = _finite("kernel", kernel)
        if kernel.ndim != 4 or kernel.shape[1] not in (1, kernel.shape[0]) or 0 in kernel.shape:
            raise ValueError(
                "`kernel` must have shape (channels, channels, height, width), or (channels, 1, "
                f"height, width) where each channel hears itself alone, not {kernel.shape}."
            )
        if kernel.shape[2] % 2 == 0 or kernel.shape[3] % 2 == 0:
            raise ValueError(
                f"`kernel` must be of odd height and width, with a centre, not {kernel.shape[2:]}."
            )
        self.kernel, self.height, self.width = kernel, int(height), int(width)

    @property
    def n(self) -> int:
        """Number of neurons: one for each channel and position."""
        return self.kernel.shape[-4] * self.height * self.width

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the kernel."""
        return self.kernel.dtype

    def entries(self) -> tuple:
        """The kernel."""
        return (self.kernel,)

    def apply(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The convolution of `x` with the kernel."""
        channels, heard = self.kernel.shape[:2]
        image = x.reshape(1, channels, self.height, self.width)
        groups = 1 if heard == channels else channels
        convolved = jax.lax.conv_general_dilated(
            image, self.kernel, (1, 1), "SAME", feature_group_count=groups
        )
        return convolved.reshape(-1)

    def diagonal(self) -> Float[Array, " n"]:
        """The weight at the kernel's centre, of each channel on itself."""
        return jnp.repeat(self.kernel[self._centre()], self.height * self.width)

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The convolution with the kernel without the weight of each neuron on itself."""
        return self._with(self.kernel.at[self._centre()].set(0)).apply(x)

    def sizes(self) -> "Convolution":
        """The absolute values of the kernel."""
        return self._with(jnp.abs(self.kernel))

    def as_matrix(self) -> Float[Array, "n n"]:
        """The weight for each pair of neurons; nearly all are 0."""
        channels, heard, kh, kw = self.kernel.shape
        down, across = (
            np.arange(size)[None, :] - np.arange(size)[:, None] + kernel // 2
            for size, kernel in ((self.height, kh), (self.width, kw))
        )  # index in the kernel of the weight of each row or column on each other one
        inside = ((down >= 0) & (down < kh))[:, None, :, None] & ((across >= 0) & (across < kw))[
            None, :, None, :
        ]
        places = (
            np.clip(down, 0, kh - 1)[:, None, :, None],
            np.clip(across, 0, kw - 1)[None, :, None, :],
        )
        weights = jnp.where(inside, self.kernel[:, :, *places], 0)
        if heard != channels:
            itself = jnp.eye(channels, dtype=bool)[:, :, None, None, None, None]
            weights = jnp.where(itself, weights, 0)
        return jnp.transpose(weights, (0, 2, 3, 1, 4, 5)).reshape(self.n, self.n)

    def norm(self) -> Float[Array, ""]:
        """The largest singular value by the power method, from below."""
        x = jnp.asarray(np.random.default_rng(0).normal(size=self.n), self.dtype)

        def step(_, x):
            product, pull_back = jax.vjp(self.apply, x)
            (back,) = pull_back(product)
            size = jnp.linalg.norm(back)
            return back / jnp.where(size > 0, size, 1)

        x = jax.lax.fori_loop(0, _POWER_STEPS, step, x / jnp.linalg.norm(x))
        return jnp.linalg.norm(self.apply(x))

    def _with(self, kernel: Array) -> "Convolution":
        return eqx.tree_at(lambda weights: weights.kernel, self, kernel)

    def _centre(self) -> tuple[np.ndarray, np.ndarray | int, int, int]:
        channels, heard, height, width = self.kernel.shape
        itself = np.arange(channels) if heard == channels else 0
        return np.arange(channels), itself, height // 2, width // 2


class LowRank(Weights):
    """Weights of low rank, `left @ right.T`: each neuron receives a few weighted sums over all
    neurons.

    Arguments
        left: shape (n, rank): the weight of each sum on each neuron.
        right: shape (n, rank): the weight of each neuron in each sum.

    Raises `ValueError` unless these are two finite matrices of the same shape.
    """

    left: Float[Array, "n rank"]
    right: Float[Array, "n rank"]

    def __init__(self, left: "Values", right: "Values"):
        self.left = _finite("left", left)
        self.right = _finite("right", right, self.left.dtype)
        if self.left.ndim != 2 or self.left.shape != self.right.shape or 0 in self.left.shape:
            raise ValueError(
                "`left` and `right` must be of one shape (neurons, rank), not "
                f"{self.left.shape} and {self.right.shape}."
            )

    @property
    def n(self) -> int:
        """Number of neurons."""
        return self.left.shape[-2]

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the factors."""
        return self.left.dtype

    def entries(self) -> tuple:
        """Both factors."""
        return self.left, self.right

    def apply(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """`left (right.T x)`."""
        return self.left @ (self.right.T @ x)

    def diagonal(self) -> Float[Array, " n"]:
        """The diagonal: inner products of the rows of both factors."""
        return jnp.sum(self.left * self.right, axis=1)

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The product minus what each neuron receives from itself."""
        return self.apply(x) - self.diagonal() * x

    def sizes(self) -> "_LowRankSizes":
        """The absolute values of the factors; what a neuron receives from itself counts twice."""
        return _LowRankSizes(jnp.abs(self.left), jnp.abs(self.right))

    def as_matrix(self) -> Float[Array, "n n"]:
        """`left @ right.T`."""
        return self.left @ self.right.T

    def norm(self) -> Float[Array, ""]:
        """The largest singular value, from the small triangular factors of both matrices."""
        small = [jnp.linalg.qr(factor, mode="r") for factor in (self.left, self.right)]
        return jnp.linalg.norm(small[0] @ small[1].T, 2)


class _LowRankSizes(LowRank):
    """The terms of `LowRank.apply_others`: the whole product, and the subtracted part."""

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.apply(x) + self.diagonal() * x


def _finite(name: str, value: Values, dtype=None) -> Array:
    value = as_real(name, value, dtype)
    require_values(name, value, np.isfinite, "be finite")
    return value
