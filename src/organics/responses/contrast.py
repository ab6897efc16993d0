"""Responses against contrast, alone and with a second stimulus."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, ArrayLike, Bool, Float

from organics.arguments import require_entries
from organics.circuit.areas import Areas, State
from organics.circuit.circuit import Circuit, as_drive
from organics.circuit.values import as_real
from organics.rest.search import steady_state

_LEAST = 4  # contrasts for a fit of three numbers


class Responses(NamedTuple):
    """Rates at rest, `relu(y)^2`.

    Attributes
        contrast: of the stimulus, shape (c,).
        other: of the second stimulus, shape (c,); 0 without one.
        rates: shape (c, m), of m principal neurons, in a hierarchy area after area.
        converged: whether a steady state was found for each contrast, shape (c,); the rates are
            NaN where not.
    """

    contrast: Float[Array, " c"]
    other: Float[Array, " c"]
    rates: Float[Array, "c m"]
    converged: Bool[Array, " c"]


class NakaRushton(NamedTuple):
    """`r = r_max C^q / (C^q + c50^q)` for each of m neurons; each field of shape (m,).

    Attributes
        r_max: rate at infinite contrast.
        c50: contrast at half of that.
        exponent: `q`.
        error: largest difference from the rates that it was fitted to, relative to `r_max`; 0 where
            it is exact.
    """

    r_max: Float[np.ndarray, " m"]
    c50: Float[np.ndarray, " m"]
    exponent: Float[np.ndarray, " m"]
    error: Float[np.ndarray, " m"]

    def __call__(self, contrast: Float[np.ndarray, " c"]) -> Float[np.ndarray, "c m"]:
        """Rates at these contrasts.

        Raises `ValueError` if an `r_max` is infinite, as of a neuron without pool, if a contrast is
        below 0, or if there is no list of contrasts.
        """
        if np.ndim(contrast) != 1:
            raise ValueError(f"`contrast` must have shape (c,), not {np.shape(contrast)}.")
        require_entries("r_max", self.r_max, lambda r: ~np.isinf(r), "be finite for rates")
        require_entries("contrast", np.asarray(contrast), lambda C: ~(C < 0), "be >= 0")
        C = np.asarray(contrast)[:, None]
        # in logarithms, as powers may vanish
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            share = 1 / (1 + np.exp(self.exponent[None] * (np.log(self.c50[None]) - np.log(C))))
        return self.r_max[None] * np.where(C == 0, 0, share)


def contrast_response(
    system: Areas,
    z: 'Float[ArrayLike, " n"]',
    contrasts: 'Float[ArrayLike, " c"]',
    *,
    other: 'Float[ArrayLike, " n"] | None' = None,
    other_contrasts: 'Float[ArrayLike, "*c"] | None' = None,
) -> Responses:
    """Rates of a circuit or hierarchy for the drives `contrast z + other_contrast other`.

    A mask that does not drive a neuron suppresses it (cross-orientation suppression); so does a
    surround, whose contrast is usually that of the stimulus.

    Arguments
        z: drive of the stimulus at contrast 1, shape (n,).
        contrasts: >= 0, shape (c,).
        other: drive of a second stimulus at contrast 1, shape (n,).
        other_contrasts: >= 0, one number or shape (c,); to be given with `other`.

    Raises `ValueError`, naming the argument, if one is not as above.
    """
    z = as_drive(system, z)
    second = jnp.zeros_like(z) if other is None else as_drive(system, other, "other")
    if other is None and other_contrasts is not None:
        raise ValueError("`other_contrasts` must only be given with `other`.")
    if other is not None and other_contrasts is None:
        raise ValueError("`other_contrasts` must be given with `other`.")
    contrast = as_contrasts(contrasts, z.dtype)
    given = 0.0 if other_contrasts is None else other_contrasts
    others = as_real("other_contrasts", given, z.dtype)
    if others.shape not in ((), contrast.shape):
        raise ValueError(
            f"`other_contrasts` must be one number or have shape {contrast.shape}, not "
            f"{others.shape}."
        )
    _require_contrasts("other_contrasts", others)
    others = jnp.broadcast_to(jnp.asarray(others), contrast.shape)
    rates, converged = _rates(system, z, second, jnp.asarray(contrast), others)
    return Responses(jnp.asarray(contrast), others, rates, converged)


def as_contrasts(contrasts: ArrayLike, dtype) -> Float[Array, " c"]:
    """`contrasts`, checked."""
    contrast = as_real("contrasts", contrasts, dtype)
    if contrast.ndim != 1 or not len(contrast):
        raise ValueError(f"`contrasts` must have shape (c,), not {contrast.shape}.")
    _require_contrasts("contrasts", contrast)
    return contrast


def _require_contrasts(name: str, given: Array) -> None:
    require_entries(
        name, np.asarray(given), lambda c: np.isfinite(c) & (c >= 0), "be finite and >= 0"
    )


@jax.jit
def _rates(system, z, second, contrast, other):
    def one(contrast, other):
        point = steady_state(system, contrast * z + other * second)
        return jnp.where(point.converged, rates_of(point.state), jnp.nan), point.converged

    return jax.vmap(one)(contrast, other)


def rates_of(state: State | tuple) -> Float[Array, " m"]:
    """`relu(y)^2`, of a hierarchy area after area."""
    areas = (state,) if isinstance(state, State) else state
    return jnp.concatenate([jnp.square(jax.nn.relu(area.y)) for area in areas])


def naka_rushton(circuit: Circuit, z: 'Float[ArrayLike, " n"]') -> NakaRushton:
    """The contrast response of a circuit with identity recurrence, in closed form.

    With `d = b z`, `r_max = d^2 / (W d^2)`, `c50 = b0 sigma / sqrt(W d^2)`, and the exponent is 2.
    `r_max` is 0 for a neuron without drive, and infinite for one without pool. Source: theory,
    chapter 21.1.

    Raises `ValueError` if `W_r` is not the identity, or `z` has the wrong shape or is not finite.
    """
    if not isinstance(circuit, Circuit) or not circuit.has_identity_recurrence:
        raise ValueError(
            "`circuit` must have `W_r=None` for a closed form; `fit_naka_rushton` takes responses."
        )
    d = np.asarray(circuit.b * as_drive(circuit, z), float)
    d = np.maximum(d, 0) if circuit.rectified else d
    scale = np.abs(d).max() or 1.0  # whose square the circuit's type may not hold
    d = d / scale
    pooled = np.asarray(circuit.pool.apply(jnp.asarray(d**2, circuit.dtype)), float)
    driven = np.maximum(d, 0) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        r_max = np.where(driven > 0, driven / pooled, 0)
        c50 = np.asarray(circuit.b0 * circuit.sigma, float) / np.sqrt(pooled) / scale
    return NakaRushton(r_max, c50, np.full(len(d), 2.0), np.zeros(len(d)))


def fit_naka_rushton(
    contrasts: 'Float[ArrayLike, " c"]', rates: 'Float[ArrayLike, "c m"]'
) -> NakaRushton:
    """The Naka-Rushton function nearest to each neuron's rates, by least squares from three starts;
    of rates that jump, it may be the nearest only among similar ones.

    Only contrasts above 0 are fitted and count in `error`: at 0 the function is 0. NaN for a neuron
    that does not respond to any of them.

    Raises `ValueError`, naming the argument, if there are fewer than four different contrasts above
    0, shapes do not fit, or a rate is negative or not finite.
    """
    contrast, r = np.asarray(contrasts, float), np.asarray(rates, float)
    if contrast.ndim != 1 or r.shape[:1] != contrast.shape or r.ndim != 2:
        raise ValueError(
            f"`rates` must have shape (c, m), with c contrasts, not {r.shape} and {contrast.shape}."
        )
    require_entries("rates", r, lambda r: np.isfinite(r) & (r >= 0), "be finite and >= 0")
    require_entries("contrasts", contrast, lambda c: np.isfinite(c) & (c >= 0), "be finite, >= 0")
    if len(np.unique(contrast[contrast > 0])) < _LEAST:
        raise ValueError(
            f"`contrasts` must be {_LEAST} or more different ones above 0, not {contrast}."
        )
    found = [_nearest(contrast, column) for column in r.T]
    return NakaRushton(*np.reshape(found, (-1, len(NakaRushton._fields))).T)


def _nearest(contrast: np.ndarray, r: np.ndarray) -> tuple[float, float, float, float]:
    """`r_max`, `c50`, `exponent` and `error`."""
    known = contrast > 0
    top = r[known].max()
    if top <= 0:
        return np.nan, np.nan, np.nan, np.nan
    log_c = np.log(contrast[known])

    def difference(p):
        return np.exp(p[0]) / (1 + np.exp(-np.exp(p[2]) * (log_c - p[1]))) - r[known] / top

    above = log_c[np.argmax(r[known] >= top / 2)]
    starts = [(0.1, above, np.log(q)) for q in (1.0, 2.0, 4.0)]
    search = partial(scipy.optimize.least_squares, difference, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    best = min(map(search, starts), key=lambda found: found.cost)
    r_max, c50, exponent = np.exp(best.x)
    return r_max * top, c50, exponent, float(np.max(np.abs(best.fun)) / r_max)
