r"""Communication subspaces: how many dimensions of one population's fluctuations predict another's.

With the covariance `C` of the fluctuations of firing rates, sources S and targets T (disjoint), the
best prediction of T from m dimensions of S, of all linear ones, explains the share

    R^2(m) = sum of the m largest eigenvalues of C_TS C_SS^-1 C_ST, divided by tr C_TT

of the variance of T: reduced-rank regression. The covariance is that of the linear theory
(`rate_covariance`), that within a band of frequencies (the real part of `cross_spectrum` there), or
one estimated from recordings (`numpy.cov`).

Source: Semedo, Zandvakili, Machens, Yu & Kohn 2019 for the measure; the formula is that of
reduced-rank regression.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from organics.arguments import require_not_negative, require_whole
from organics.circuit.circuit import State
from organics.circuit.values import as_real
from organics.printing import Lines, in_html, in_words, numbers
from organics.rest.point import OperatingPoint, require_any_point


class Subspace(NamedTuple):
    """How well m dimensions of the sources predict the targets.

    Attributes
        performance: `R^2(m)` for m = 0, 1, ..., shape (k + 1,), where k is the smaller number of
            neurons.
        dimension: the least m with `R^2(m) >= 0.95 R^2(k)`; 0 if nothing is predicted. For draws
            at random both are means.
    """

    performance: Float[Array, " k1"]
    dimension: Int[Array, ""] | Float[Array, ""]

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        rows = (
            ("R^2 from all", numbers(self.performance[-1])),
            ("R^2 of m = 0, 1, ...", numbers(self.performance)),
        )
        return Lines(f"{float(self.dimension):.3g} dimensions", rows)

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


_SHARE = 0.95  # of the best prediction, which the dimensions that count must reach


def rate_covariance(
    point: OperatingPoint, covariance: 'Float[ArrayLike, "m m"]', *, measurement: float = 0.0
) -> Float[Array, "n n"]:
    """Covariance of the firing rates `y_plus = relu(y)^2` of all principal neurons, to first order.

    Arguments
        point: a circuit or hierarchy at rest; the neurons are those of the first area, then of the
            second, and so on.
        covariance: of all potentials, from `stationary_covariance`; or the real part of
            `cross_spectrum` at one frequency.
        measurement: variance of independent noise added to each neuron, relative to the mean
            variance of its area.

    Raises `ValueError` if the covariance has another shape, or `measurement` is not >= 0.
    """
    require_not_negative(measurement=measurement)
    state = require_any_point(point).state
    states = (state,) if isinstance(state, State) else state
    sizes = [len(area.y) for area in states]
    widths = [sum(len(part) for part in area) for area in states]
    m = sum(widths)
    if np.shape(covariance) != (m, m):
        raise ValueError(
            f"`covariance` must have shape ({m}, {m}), as all potentials, not "
            f"{np.shape(covariance)}."
        )
    starts = np.cumsum([0, *widths])[:-1]
    places = np.concatenate([start + np.arange(n) for start, n in zip(starts, sizes, strict=True)])
    slopes = jnp.concatenate([2 * jax.nn.relu(area.y) for area in states])
    C = slopes[:, None] * jnp.asarray(covariance)[places][:, places] * slopes[None, :]
    # a silent neuron has no rate to first order, even where its potential has no linear theory
    C = jnp.where((slopes[:, None] > 0) & (slopes[None, :] > 0), C, 0)
    own = jnp.diagonal(C)
    parts = jnp.split(own, np.cumsum(sizes)[:-1])
    added = jnp.concatenate([jnp.full_like(part, jnp.mean(part)) for part in parts])
    return C + jnp.diag(measurement * added)


def communication_subspace(
    covariance: 'Float[ArrayLike, "n n"]',
    sources: 'Int[ArrayLike, " s"]',
    targets: 'Int[ArrayLike, " t"]',
) -> Subspace:
    """The subspace of the sources that predicts the targets. Can be jitted and mapped.

    `sources` and `targets` are the places of neurons in the covariance. Raises `ValueError` if they
    overlap, are empty, repeated or do not exist, or if the covariance is not a square matrix,
    finite and symmetric, with correlations from -1 to 1.
    """
    C, one, other = _checked(covariance, sources=sources, targets=targets)
    if np.isin(one, other).any():
        raise ValueError("`targets` must not be among `sources`: a neuron predicts itself.")
    return _subspace(C, one, other)


def average_subspace(
    covariance: 'Float[ArrayLike, "n n"]',
    sources: 'Int[ArrayLike, " s"]',
    targets: 'Int[ArrayLike, " t"]',
    *,
    size: int,
    draws: int = 200,
    seed: int = 0,
) -> Subspace:
    """The mean over random draws of `size` sources and `size` targets, disjoint from each other.

    With the same neurons as `sources` and `targets` this is the subspace within a population, with
    two populations that between them, at equal numbers of neurons.

    Raises `ValueError` as `communication_subspace` does, or if there are too few neurons to draw.
    """
    require_whole("draws", draws)
    require_whole("size", size)
    C, one, other = _checked(covariance, sources=sources, targets=targets)
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(draws):
        first = rng.permutation(one)[:size]
        left = np.setdiff1d(other, first)
        if len(first) < size or len(left) < size:
            raise ValueError(
                f"`size` must leave enough neurons to draw: {size} sources of {len(one)} and "
                f"as many other targets of {len(other)}."
            )
        pairs.append((first, rng.permutation(left)[:size]))
    each = _subspaces(C, *(np.stack(places) for places in zip(*pairs, strict=True)))
    return Subspace(jnp.mean(each.performance, axis=0), jnp.mean(each.dimension.astype(C.dtype)))


def _checked(covariance: Any, **places: Any) -> tuple[Array, np.ndarray, np.ndarray]:
    C = as_real("covariance", covariance, None)
    if C.ndim != 2 or C.shape[0] != C.shape[1]:
        raise ValueError(f"`covariance` must be a square matrix (n, n), not of shape {C.shape}.")
    if not isinstance(C, Tracer):
        _require_covariance(np.asarray(C))
    found = []
    for name, value in places.items():
        value = np.asarray(value)
        if value.ndim != 1 or not value.size or value.dtype.kind not in "iu":
            raise ValueError(f"`{name}` must be a list of places of neurons, not {value!r}.")
        if not (value.min() >= 0 and value.max() < len(C)):
            raise ValueError(f"`{name}` must be from 0 to {len(C) - 1}, not {value!r}.")
        if len(set(value.tolist())) < len(value):
            raise ValueError(f"`{name}` must be different neurons, not {value!r}.")
        found.append(value)
    one, other = found
    return C, one, other


def _require_covariance(C: np.ndarray) -> None:
    own = np.diagonal(C)
    if not np.all(np.isfinite(C)):
        raise ValueError("`covariance` must be finite.")
    sizes = np.sqrt(np.abs(own))
    rounding = float(np.finfo(C.dtype).eps) ** 0.5 * np.outer(sizes, sizes)
    if np.any(own < 0) or np.any(np.abs(C - C.T) > rounding):
        raise ValueError("`covariance` must be symmetric, with variances >= 0 on its diagonal.")
    if np.any(np.abs(C) > np.outer(sizes, sizes) + rounding):
        raise ValueError("`covariance` must have correlations from -1 to 1.")


@jax.jit
def _subspace(C: Float[Array, "n n"], sources, targets) -> Subspace:
    C_SS, C_ST = C[sources][:, sources], C[sources][:, targets]
    # silent neurons, and those that follow others, predict nothing more
    scale = _inverse(jnp.sqrt(jnp.diagonal(C_SS)))
    correlations = scale[:, None] * C_SS * scale[None]
    scaled = scale[:, None] * C_ST
    predicted = scaled.T @ jnp.linalg.pinv(correlations, hermitian=True) @ scaled
    gains = jnp.maximum(jnp.linalg.eigvalsh((predicted + predicted.T) / 2)[::-1], 0)
    gains = gains[: min(len(sources), len(targets))]
    total = jnp.trace(C[targets][:, targets])
    sums = jnp.concatenate([jnp.zeros(1, C.dtype), jnp.cumsum(gains)])
    performance = sums * _inverse(total)
    return Subspace(performance, jnp.sum(performance < _SHARE * performance[-1]))


def _inverse(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`1 / x`, and 0 at 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


_subspaces = jax.jit(jax.vmap(_subspace, (None, 0, 0)))
