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
from jaxtyping import Array, Complex, Float, ScalarLike

from organics.arguments import is_positive, require_among, require_sizes
from organics.circuit.values import Values, as_real, require_values
from organics.names import Border

_POWER_STEPS = 50  # of the power method, for the largest singular value
_DIRECT = 49  # products of one neuron with more weights than this are by the Fourier transform,
_DIRECT_IN_ROW = 128  # or than this, if these are of one row or column


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
        """The largest singular value; from below, by the power method, for a `Convolution` that
        ends at a border and a `LowRank` with weights of neurons on themselves."""

    def norm_bound(self) -> Float[Array, ""]:
        """The largest singular value, or an upper bound where `norm` is from below."""
        return self.norm()

    @abstractmethod
    def scaled(self, factor: "ScalarLike") -> "Weights":
        """All weights times `factor`. Raises `ValueError` unless this is a finite number."""

    def capped(self, bound: "ScalarLike" = 1.0) -> "Weights":
        """The weights, scaled down so that `norm_bound` is at most `bound`: a constraint by
        construction, as `organics.circuit.constraints` has them for matrices.

        Raises `ValueError` unless `bound` is a number > 0.
        """
        bound = _number("bound", bound, self.dtype)
        require_values("bound", bound, is_positive, "be finite and > 0")
        exceeds = _norm_bound(self) / bound
        return self.scaled(1 / jnp.where(exceeds > 1, exceeds, 1))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """`as_matrix`, for NumPy."""
        with jax.ensure_compile_time_eval():  # also while another program is traced
            return np.array(_as_matrix(self), dtype, copy=copy)


# programs instead of many small ones
_as_matrix = jax.jit(lambda weights: weights.as_matrix(), inline=True)
_norm_bound = jax.jit(lambda weights: weights.norm_bound(), inline=True)


def diagonal_of(matrix: Float[Array | np.ndarray, "n n"]) -> Float[Array, " n"]:
    """The diagonal of a matrix, by a program that compiles faster than that of `jnp.diagonal`."""
    n = matrix.shape[0]
    return jax.lax.slice(jnp.reshape(matrix, -1), (0,), (n * n,), (n + 1,))


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

    def scaled(self, factor: "ScalarLike") -> "Diagonal":
        """The factor as the weight of each neuron on itself."""
        return Diagonal(_number("factor", factor, self.dtype) * jnp.ones(self.n, self.dtype))


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

    def scaled(self, factor: "ScalarLike") -> "Diagonal":
        """Each weight times the factor."""
        return Diagonal(_number("factor", factor, self.dtype) * self.own)


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
        return diagonal_of(self.matrix)

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

    def scaled(self, factor: "ScalarLike") -> "Dense":
        """The matrix times the factor."""
        return Dense(_number("factor", factor, self.dtype) * jnp.asarray(self.matrix))


class Convolution(Weights):
    """Neurons on an image, a torus or a ring. Each receives its neighbours with the same weights at
    every position.

    Neurons are ordered by channel, row and column. A ring is one row with a periodic border.
    Products with wide kernels are computed by the fast Fourier transform: their rounding errors are
    those of the largest products, not of each.

    Arguments
        kernel: shape (channels, heard, height, width), height and width odd: `kernel[i, j]` holds
            the weights onto a neuron of channel i from the neurons of channel j around it. `heard`
            is the number of channels, or 1 if each channel receives only itself.
        height, width: of the image.
        border: "zeros": outside of the image there are no neurons. "periodic": the image is a
            torus, whose opposite borders meet; the kernel may then be of any size, with its centre
            at `size // 2`, and one wider than the image goes round.

    Raises `ValueError` if the kernel is of another shape, or its entries are not finite.
    """

    kernel: Float[Array, "channels heard kh kw"]
    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    border: Border = eqx.field(static=True)

    def __init__(self, kernel: "Values", height: int, width: int, border: Border = "zeros"):
        require_sizes(height=height, width=width)
        require_among("border", border, Border)
        kernel = _finite("kernel", kernel)
        if kernel.ndim != 4 or kernel.shape[1] not in (1, kernel.shape[0]) or 0 in kernel.shape:
            raise ValueError(
                "`kernel` must have shape (channels, channels, height, width), or (channels, 1, "
                f"height, width) where each channel hears itself alone, not {kernel.shape}."
            )
        if border == "zeros" and (kernel.shape[2] % 2 == 0 or kernel.shape[3] % 2 == 0):
            raise ValueError(
                f"`kernel` must be of odd height and width, with a centre, not {kernel.shape[2:]}."
            )
        self.kernel, self.height, self.width = kernel, int(height), int(width)
        self.border = border

    @classmethod
    def from_transfer(cls, transfer: "Values") -> "Convolution":
        """Symmetric weights on a torus by their eigenvalues, the real `transfer` function.

        `transfer` has shape (height, width), or (channels, heard, height, width), and its entry
        `[..., k, l]` belongs to the waves with `k` periods over the height and `l` over the width,
        as in `numpy.fft.fft2`. The eigenvalues of `(k, l)` and `(-k, -l)` are the same: the mean of
        both entries. Of one channel with entries in [0, 1], such as `sigmoid(raw)`, the weights are
        positive semidefinite with norm at most 1.

        Raises `ValueError` unless `transfer` is finite and of such a shape.
        """
        values = _finite("transfer", transfer)
        if values.ndim not in (2, 4):
            raise ValueError(
                "`transfer` must have shape (height, width) or (channels, heard, height, width), "
                f"not {values.shape}."
            )
        values = values.reshape((1, 1, *values.shape)) if values.ndim == 2 else values
        kernel = jnp.fft.fftshift(jnp.fft.ifft2(values).real, axes=(2, 3))
        # `shift` puts the centre at `size // 2`; the kernel is even, so correlation is convolution
        height, width = values.shape[2:]
        return cls(kernel.astype(values.dtype), height, width, "periodic")

    @property
    def n(self) -> int:
        """Number of neurons: one for each channel and position."""
        return self.channels * self.height * self.width

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.kernel.shape[-4]

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the kernel."""
        return self.kernel.dtype

    def entries(self) -> tuple:
        """The kernel."""
        return (self.kernel,)

    def apply(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The convolution of `x` with the kernel."""
        _, heard, kh, kw = self.kernel.shape
        kind = jnp.result_type(x, self.kernel)
        image = x.astype(kind).reshape(self.channels, self.height, self.width)
        wraps = kh > self.height or kw > self.width
        most = _DIRECT_IN_ROW if 1 in (kh, kw) else _DIRECT
        if kh * kw > most or (self.border == "periodic" and wraps):
            return self._by_frequencies(image).reshape(-1)
        around = ((kh // 2, (kh - 1) // 2), (kw // 2, (kw - 1) // 2))
        if self.border == "periodic":
            image, around = jnp.pad(image, ((0, 0), *around), mode="wrap"), "VALID"
        convolved = jax.lax.conv_general_dilated(
            image[None],
            self.kernel.astype(kind),
            (1, 1),
            around,
            feature_group_count=1 if heard == self.channels else self.channels,
        )
        return convolved.reshape(-1)

    def transfer(
        self, grid: tuple[int, int] | None = None
    ) -> Complex[Array, "channels heard gh gw"]:
        """The factors by which the kernel multiplies waves on a torus: a wave
        `exp(2 pi i (k row / height + l column / width))` of channel j is multiplied by entry
        `[i, j, k, l]` in channel i.

        `grid` is the size of the torus, by default that of the image.
        """
        return jnp.fft.fft2(self._around_origin(grid or (self.height, self.width))).conj()

    def diagonal(self) -> Float[Array, " n"]:
        """The weight of each neuron on itself: that at the kernel's centre."""
        of_channel = jnp.sum(jnp.where(self._on_itself(), self.kernel, 0), axis=(2, 3))
        own = jnp.diagonal(of_channel) if self._hears_all else of_channel[:, 0]
        return jnp.repeat(own, self.height * self.width)

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The convolution with the kernel without the weight of each neuron on itself."""
        itself = np.eye(self.channels, dtype=bool) if self._hears_all else np.ones((1, 1), bool)
        removed = itself[:, :, None, None] & self._on_itself()
        return self._with(jnp.where(removed, 0, self.kernel)).apply(x)

    def sizes(self) -> "Convolution":
        """The absolute values of the kernel."""
        return self._with(jnp.abs(self.kernel))

    def as_matrix(self) -> Float[Array, "n n"]:
        """The weight for each pair of neurons; nearly all are 0 if the kernel is small."""
        grid = self._grid
        kernel = self._around_origin(grid)
        down, across = (
            (np.arange(size)[None, :] - np.arange(size)[:, None]) % around
            for size, around in ((self.height, grid[0]), (self.width, grid[1]))
        )  # where the weight of each row or column on each other one stands
        weights = kernel[:, :, down[:, None, :, None], across[None, :, None, :]]
        if not self._hears_all:
            itself = jnp.eye(self.channels, dtype=bool)[:, :, None, None, None, None]
            weights = jnp.where(itself, weights, 0)
        return jnp.transpose(weights, (0, 2, 3, 1, 4, 5)).reshape(self.n, self.n)

    def norm(self) -> Float[Array, ""]:
        """The largest singular value: that of `transfer` over all waves, or, with a border, by the
        power method, from below."""
        if self.border == "periodic":
            return self.norm_bound()
        return _by_power_method(self)

    def norm_bound(self) -> Float[Array, ""]:
        """The largest singular value on the torus, or one so large that the weights are a part of
        those on it."""
        kernel = self._around_origin(self._grid)
        waves = jnp.fft.rfft2(kernel)
        if not self._hears_all or self.channels == 1:
            return jnp.max(jnp.abs(waves))
        each = jnp.moveaxis(waves.reshape(self.channels, self.channels, -1), 2, 0)
        return jnp.max(jnp.linalg.svd(each, compute_uv=False))

    def scaled(self, factor: "ScalarLike") -> "Convolution":
        """The kernel times the factor."""
        return self._with(_number("factor", factor, self.dtype) * self.kernel)

    @property
    def _hears_all(self) -> bool:
        return self.kernel.shape[-3] == self.channels

    @property
    def _grid(self) -> tuple[int, int]:
        """A torus on which no neuron of the image receives another one from two sides, unless the
        image is a torus."""
        if self.border == "periodic":
            return self.height, self.width
        from scipy.fft import next_fast_len  # a twentieth of a second that few circuits need

        kh, kw = self.kernel.shape[2:]
        sizes = self.height + kh - 1, self.width + kw - 1
        return int(next_fast_len(sizes[0], True)), int(next_fast_len(sizes[1], True))  # pyright: ignore[reportArgumentType]

    def _around_origin(self, grid: tuple[int, int]) -> Float[Array, "channels heard gh gw"]:
        """The kernel on a torus, its centre at the origin."""
        channels, heard, kh, kw = self.kernel.shape
        down, across = (np.arange(k) - k // 2 for k in (kh, kw))
        where = (slice(None), slice(None), (down % grid[0])[:, None], (across % grid[1])[None, :])
        empty = jnp.zeros((channels, heard, *grid), self.dtype)
        return empty.at[where].add(self.kernel)

    def _by_frequencies(self, image: Array) -> Array:
        grid = self._grid
        kernel = jnp.fft.rfft2(self._around_origin(grid)).conj()
        waves = jnp.fft.rfft2(image, grid)
        product = (
            jnp.einsum("ijkl,jkl->ikl", kernel, waves) if self._hears_all else kernel[:, 0] * waves
        )
        found = jnp.fft.irfft2(product, grid)[:, : self.height, : self.width]
        # rounding may make a sum of nothing but positive products negative, as that of a pool; the
        # derivatives are those of the product
        positive = jnp.all(self.kernel >= 0) & jnp.all(image >= 0)
        rounding = jnp.where(positive & (found < 0), -found, 0)
        return found + jax.lax.stop_gradient(rounding)

    def _with(self, kernel: Array) -> "Convolution":
        return eqx.tree_at(lambda weights: weights.kernel, self, kernel)

    def _on_itself(self) -> np.ndarray:
        """Which entries of the kernel are of a neuron on itself, or on that of another channel at
        its place; several if the kernel goes round a torus."""
        kh, kw = self.kernel.shape[2:]
        down, across = np.arange(kh) - kh // 2, np.arange(kw) - kw // 2
        if self.border == "periodic":
            down, across = down % self.height, across % self.width
        return (down == 0)[:, None] & (across == 0)[None, :]


class LowRank(Weights):
    """Weights of low rank, `left @ right.T`: each neuron receives a few weighted sums over all
    neurons. With `own`, each also receives itself: `diag(own) + left @ right.T`.

    Arguments
        left: shape (n, rank): the weight of each sum on each neuron.
        right: shape (n, rank): the weight of each neuron in each sum.
        own: shape (n,): the weight of each neuron on itself, besides that; none if left out.

    Raises `ValueError` unless these are finite, two matrices of the same shape and a vector.
    """

    left: Float[Array, "n rank"]
    right: Float[Array, "n rank"]
    own: Float[Array, " n"] | None

    def __init__(self, left: "Values", right: "Values", own: "Values | None" = None):
        self.left = _finite("left", left)
        self.right = _finite("right", right, self.left.dtype)
        if self.left.ndim != 2 or self.left.shape != self.right.shape or 0 in self.left.shape:
            raise ValueError(
                "`left` and `right` must be of one shape (neurons, rank), not "
                f"{self.left.shape} and {self.right.shape}."
            )
        self.own = None if own is None else _finite("own", own, self.left.dtype)
        if self.own is not None and self.own.shape != self.left.shape[:1]:
            raise ValueError(
                f"`own` must be of shape ({self.left.shape[0]},), one number for each neuron, not "
                f"{self.own.shape}."
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
        """Both factors, and the weights of neurons on themselves."""
        return (self.left, self.right) if self.own is None else (self.left, self.right, self.own)

    def apply(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """`left (right.T x)`, plus `own x`."""
        product = self.left @ (self.right.T @ x)
        return product if self.own is None else product + self.own * x

    def diagonal(self) -> Float[Array, " n"]:
        """The diagonal: inner products of the rows of both factors, plus `own`."""
        return self._of_factors() if self.own is None else self._of_factors() + self.own

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The product minus what each neuron receives from itself."""
        return self.left @ (self.right.T @ x) - self._of_factors() * x

    def sizes(self) -> "_LowRankSizes":
        """The absolute values of the factors; what a neuron receives from itself counts twice."""
        own = None if self.own is None else jnp.abs(self.own)
        return _LowRankSizes(jnp.abs(self.left), jnp.abs(self.right), own)

    def as_matrix(self) -> Float[Array, "n n"]:
        """`left @ right.T`, plus `own` on the diagonal."""
        product = self.left @ self.right.T
        return product if self.own is None else product + jnp.diag(self.own)

    def norm(self) -> Float[Array, ""]:
        """The largest singular value, from the small triangular factors of both matrices; with
        `own` by the power method, from below."""
        return self._norm_of_factors() if self.own is None else _by_power_method(self)

    def norm_bound(self) -> Float[Array, ""]:
        """That of the factors plus the largest absolute value of `own`."""
        if self.own is None:
            return self._norm_of_factors()
        return self._norm_of_factors() + jnp.max(jnp.abs(self.own))

    def scaled(self, factor: "ScalarLike") -> "LowRank":
        """The left factor, and `own`, times the factor."""
        factor = _number("factor", factor, self.dtype)
        own = None if self.own is None else factor * self.own
        return LowRank(factor * self.left, self.right, own)

    def _of_factors(self) -> Float[Array, " n"]:
        return jnp.sum(self.left * self.right, axis=1)

    def _norm_of_factors(self) -> Float[Array, ""]:
        return _norm_of_product(self.left, self.right)


class _LowRankSizes(LowRank):
    """The terms of `LowRank.apply_others`: the whole product, and the subtracted part."""

    def apply_others(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.left @ (self.right.T @ x) + self._of_factors() * x


@jax.custom_jvp
def _norm_of_product(left: Array, right: Array) -> Array:
    """The largest singular value of `left @ right.T`."""
    return _leading(left, right)[0]


@_norm_of_product.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # by singular vectors: the derivative of the triangular factors is NaN where ranks are deficient
    (left, right), (d_left, d_right) = primals, tangents
    norm, u, v = _leading(left, right)
    return norm, (u @ d_left) @ (right.T @ v) + (u @ left) @ (d_right.T @ v)


def _leading(left: Array, right: Array) -> tuple[Array, Array, Array]:
    """The largest singular value of `left @ right.T`, and its left and right vector."""
    (q, r), (p, s) = jnp.linalg.qr(left), jnp.linalg.qr(right)
    u, values, v = jnp.linalg.svd(r @ s.T, full_matrices=False)
    return values[0], q @ u[:, 0], p @ v[0]


def _by_power_method(weights: Weights) -> Float[Array, ""]:
    """The largest singular value, from below."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=weights.n), weights.dtype)

    def step(_, x):
        product, pull_back = jax.vjp(weights.apply, x)
        (back,) = pull_back(product)
        size = _length(back)
        return back / jnp.where(size > 0, size, 1)

    x = jax.lax.fori_loop(0, _POWER_STEPS, step, x / jnp.linalg.norm(x))
    return _length(weights.apply(x))


def _length(x: Float[Array, " n"]) -> Float[Array, ""]:
    """The Euclidean norm; of zeros with derivative 0."""
    nonzero = jnp.any(x != 0)
    return jnp.where(nonzero, jnp.linalg.norm(jnp.where(nonzero, x, 1)), 0)


def _number(name: str, value: "ScalarLike", dtype) -> Array:
    value = _finite(name, value, dtype)
    if value.ndim:
        raise ValueError(f"`{name}` must be one number, not of shape {value.shape}.")
    return value


def _finite(name: str, value: Values, dtype=None) -> Array:
    value = as_real(name, value, dtype)
    require_values(name, value, np.isfinite, "be finite")
    return value
