"""Intervals by profile likelihood: for numbers whose likelihood is not nearly quadratic."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from organics.circuit.circuit import State
from organics.fitting.likelihood import Problem, evaluated
from organics.fitting.scoring import scoring

_FAR = 5.0  # coordinates: a factor of 150 for positive numbers
_ROUNDS = 80  # few are needed where the others follow quickly
_CLOSE = 0.02  # relative error of the square root of the likelihood ratio at an end
_TOLERANCE = 1e-3  # of the logarithm of the likelihood
_ODD = 0.3  # relative difference from the quadratic from which on a profile is computed
_EVALUATIONS = 30  # of the likelihood, for each point of a profile


class Profiles(NamedTuple):
    """Ends of intervals in some coordinates: infinite where an interval is open, NaN where the
    search did not find the end.

    Attributes
        coordinates: indices, shape (k,).
        low, high: shape (k,).
    """

    coordinates: Int[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]


def far_from_quadratic(
    problem: Problem,
    u: Float[np.ndarray, " p"],
    states: State,
    value: float,
    covariance: Float[np.ndarray, "p p"],
    known: Bool[np.ndarray, " p"],
    width: float,
) -> Bool[np.ndarray, " p"]:
    """Whether the likelihood at the ends of an interval of `width` standard errors, with the other
    coordinates along the ridge, is not what its quadratic expansion says."""
    errors = np.sqrt(np.diag(covariance))
    steps = width * covariance / np.where(errors > 0, errors, 1)[:, None]
    points = np.concatenate([u + steps, u - steps])
    points = np.where(np.abs(points - u) < 50, points, u)  # no such number can be computed
    values = [float(evaluated(problem, jnp.asarray(point), states).value) for point in points]
    rise = np.array(values).reshape(2, -1) - value
    expected = width**2 / 2
    odd = ~(np.abs(rise / expected - 1) < _ODD)
    return known & odd.any(axis=0)


def profiles(
    problem: Problem,
    u: Float[np.ndarray, " p"],
    states: State,
    value: float,
    covariance: Float[np.ndarray, "p p"],
    coordinates: Int[np.ndarray, " k"],
    width: float,
    lanes: int,
) -> Profiles:
    """The ends at which the likelihood, maximal over all other coordinates, has fallen by
    `width^2 / 2`; searched for up to 5 away, that is a factor of 150 for positive numbers."""
    k = len(coordinates)
    ends = 2 * k
    at, side = np.tile(coordinates, 2), np.repeat([1.0, -1.0], k)
    kept = at[:, None] == np.arange(len(u))
    error = np.sqrt(np.diag(covariance))[at]
    ridge = covariance[at] / np.where(error > 0, error**2, 1)[:, None]
    inner, outer = np.zeros(ends), np.full(ends, np.inf)
    inner_root, outer_root = np.zeros(ends), np.full(ends, np.inf)
    done, before = np.zeros(ends, bool), np.full(ends, np.nan)
    place = np.minimum(width * error, 1.0)
    warm = np.repeat(u[None], ends, axis=0)
    near = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], ends, axis=0), states)
    counted = np.repeat(np.asarray(problem.counted)[None], ends, axis=0)
    for _ in range(_ROUNDS):
        start = warm + ridge * (u[at] + side * place - warm[np.arange(ends), at])[:, None]
        start = np.where(np.abs(start - u) < _FAR, start, warm)
        start[np.arange(ends), at] = u[at] + side * place
        found = scoring(
            problem, start, near, kept, counted, lanes, _EVALUATIONS, _TOLERANCE,
        )  # fmt: skip
        rise = np.asarray(found.near.value) - value
        root = np.sqrt(2 * np.maximum(np.where(np.isfinite(rise), rise, np.inf), 0))
        below = root < width
        # at most so large where the others are not yet the best: not enough to be above
        unsure = ~below & np.isfinite(root) & ~np.asarray(found.converged)
        above = ~below & ~unsure
        warm = np.where((below | unsure)[:, None], np.asarray(found.u), warm)
        inner, inner_root = np.where(below, place, inner), np.where(below, root, inner_root)
        outer, outer_root = np.where(above, place, outer), np.where(above, root, outer_root)
        near_one = (np.abs(root - width) < _CLOSE * width) & ~unsure
        # a second time, as along a flat ridge the others are not yet the best
        sure = near_one & (np.abs(root - before) < _CLOSE * width)
        before = np.where(near_one, root, np.nan)
        # where the likelihood jumps, none is near
        done = sure | (inner >= _FAR) | (outer - inner < _CLOSE * outer)
        if done.all():
            break
        secant = (width - inner_root) / np.where(
            outer_root > inner_root, outer_root - inner_root, 1
        )
        usable = np.isfinite(outer) & np.isfinite(outer_root)
        secant = np.clip(np.where(usable, secant, 0.5), 0.1, 0.9)
        between = inner + secant * np.where(np.isfinite(outer), outer - inner, 0)
        ahead = np.minimum(2 * place, _FAR)
        moved = np.where(np.isfinite(outer), between, ahead)
        place = np.where(done | unsure | near_one, place, moved)
    end = np.where(inner >= _FAR, np.inf, np.where(done, place, np.nan))
    return Profiles(coordinates, u[coordinates] - end[k:], u[coordinates] + end[:k])
