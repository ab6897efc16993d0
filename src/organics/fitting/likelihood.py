r"""How well a circuit predicts a recording: the negative logarithm of the likelihood.

Steady responses and time courses are Gaussian about their predictions `h`, and the mean `I` of K
cross-periodograms has the Whittle likelihood of its spectrum `S`:

    sum (x - h)^2 / (2 se^2) + K sum_f [log det S + tr(S^-1 I) - log det I - s]

The last two terms, which are left out where `I` is singular as K < s, make it half of a deviance.
With `S = L L*`, the whitened residuals `(x - h) / se` and `sqrt(K) (L^-1 I L^-* - 1)`, and the
derivatives of `h / se` and of `sqrt(K) L^-1 dS L^-*` as the columns of `R`, the score is `R^T r`
and the Fisher matrix is `R^T R`, as in least squares.

Source: P. Whittle, J. R. Stat. Soc. B 15, 125 (1953); theory, chapter 21.5.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from organics.circuit.circuit import State
from organics.fitting.courses import responses_in_time
from organics.fitting.model import AtRest, Model, linear_response
from organics.fitting.sampling import Blur


class Spectra(eqx.Module):
    """Measured cross-spectra of s channels; as a recording has them.

    The model's are computed at the `nodes`, where `folded` is as for `linear_response`, and `blur`
    makes of them what a window shows. `saturated` is the sum over frequencies of `log det I + s`
    for each stimulus, or 0.
    """

    stimuli: Int[Array, " k"]
    channels: tuple = eqx.field(static=True)
    frequencies: Float[Array, " f"]
    nodes: Float[Array, " g"]
    folded: Float[Array, " g"]
    blur: Blur | None
    cross: Complex[Array, "k f s s"]
    trials: Float[Array, " k"]
    saturated: Float[Array, " k"]


class Courses(eqx.Module):
    """Measured time courses of some channels; as a recording has them."""

    stimuli: Int[Array, " k"]
    channels: tuple = eqx.field(static=True)
    times: Float[Array, " t"]
    mean: Float[Array, "k t s"]
    weight: Float[Array, "k t s"]


class Problem(eqx.Module):
    """A model and what it is fitted to.

    Attributes
        mean, weight: steady responses and `1/se`, shape (k, c); the weight is 0 where there is no
            response.
        counted: 1 for a stimulus that is fitted, 0 for one that is held out, shape (k,).
    """

    model: Model
    mean: Float[Array, "k c"]
    weight: Float[Array, "k c"]
    counted: Float[Array, " k"]
    spectra: tuple
    courses: tuple


class Quadratic(NamedTuple):
    """The likelihood near `u`: value, score (downhill), Fisher matrix, and the steady states."""

    value: Float[Array, ""]
    score: Float[Array, " p"]
    fisher: Float[Array, "p p"]
    states: State


class Residuals(NamedTuple):
    """The likelihood at `u`.

    Attributes
        value: infinite where the circuit has no stable steady state, its spectra are singular, or
            its time courses cannot be followed.
        r, R: whitened residuals, shape (rows,), and derivatives of predictions, shape (rows, p).
        states: the steady states, one for each stimulus.
    """

    value: Float[Array, ""]
    r: Float[Array, " rows"]
    R: Float[Array, "rows p"]
    states: State


def residuals(problem: Problem, u: Float[Array, " p"], near: State) -> Residuals:
    """The likelihood at `u`, with steady states searched for from those in `near`."""
    model = problem.model

    def at_rest(u):
        rest, states, converged = model.at_rest(u, near)
        return rest, (rest, states, converged)

    change, (rest, states, converged) = jax.jacfwd(at_rest, has_aux=True)(u)
    share = jnp.sqrt(problem.counted)
    weight = problem.weight * share[:, None]
    values, r, R = [], [(weight * (problem.mean - rest.mean)).ravel()], []
    R.append((weight[..., None] * change.mean).reshape(-1, len(u)))
    values.append(jnp.sum(jnp.square(r[0])) / 2)
    for one in problem.spectra:
        value, r_one, R_one = _whittle(one, rest, change, share[one.stimuli])
        values.append(value)
        r.append(r_one)
        R.append(R_one)
    for one in problem.courses:
        value, r_one, R_one = _in_time(model, one, u, share[one.stimuli])
        values.append(value)
        r.append(r_one)
        R.append(R_one)
    total = jnp.sum(jnp.stack(values))
    good = converged & jnp.isfinite(total) & model.is_stable(rest.J)
    total = jnp.where(good, total, jnp.inf)
    return Residuals(total, jnp.concatenate(r), jnp.concatenate(R), states)


evaluated = jax.jit(residuals)
"""`residuals` as one program, for single evaluations."""


class Predicted(NamedTuple):
    """Attributes
    mean: steady responses, shape (k, c).
    spectra: cross-spectra, shape (k', f, s, s), for each of the recording's.
    courses: responses, shape (k', t, s), for each of its time courses.
    """

    mean: Float[Array, "k c"]
    spectra: tuple
    courses: tuple


@jax.jit
def predicted(problem: Problem, u: Float[Array, " p"], states: State) -> Predicted:
    """What the model predicts at `u` with these steady states."""
    model = problem.model
    rest = model.linearized(u, states)
    none = jax.tree.map(lambda x: jnp.zeros((*x.shape, 0), x.dtype), rest)
    return Predicted(
        rest.mean,
        tuple(_response(one, rest, none)[0] for one in problem.spectra),
        tuple(_shown(model, one, u) for one in problem.courses),
    )


def quadratic(problem: Problem, u: Float[Array, " p"], near: State) -> Quadratic:
    """Value, score and Fisher matrix at `u`."""
    value, r, R, states = residuals(problem, u, near)
    return Quadratic(value, R.T @ r, R.T @ R, states)


def _response(one: Spectra, rest: AtRest, change: AtRest):
    """`linear_response` for what was measured, as the window shows it."""

    def of_these(part: AtRest) -> AtRest:
        part = jax.tree.map(lambda x: x[one.stimuli], part)
        return part._replace(seen=part.seen[:, jnp.array(one.channels)])

    found = linear_response(of_these(rest), of_these(change), one.nodes, one.folded)
    return found if one.blur is None else tuple(map(one.blur.of, found))


def _whittle(one: Spectra, rest: AtRest, change: AtRest, share: Float[Array, " k"]):
    S, dS = _response(one, rest, change)
    count = jnp.sqrt(one.trials) * share
    scale = count.astype(S.dtype)[:, None, None, None]
    L = jnp.linalg.cholesky(S)
    inverse = jnp.linalg.inv(L)  # small, and used for all derivatives
    white = inverse @ one.cross @ inverse.conj().swapaxes(-1, -2)
    size = jnp.sum(2 * jnp.log(jnp.diagonal(L, axis1=-2, axis2=-1).real), axis=-1)
    value = size + jnp.trace(white, axis1=-2, axis2=-1).real
    r = scale * (white - jnp.eye(len(one.channels), dtype=white.dtype)[None, None])
    R = jnp.einsum("kfab,kfbcp,kfdc->kfadp", inverse, dS, inverse.conj())
    R = scale[..., None] * R
    total = jnp.sum(jnp.square(count) * (jnp.sum(value, axis=1) - one.saturated))
    return total, _real(r).ravel(), _real(R).reshape(-1, dS.shape[-1])


def _real(x: Complex[Array, "*shape"]) -> Float[Array, "*two_shape"]:
    """Real and imaginary parts, which have the same products as Hermitian matrices have traces."""
    return jnp.stack([x.real, x.imag])


def _shown(model: Model, one: Courses, u: Float[Array, " p"]) -> Float[Array, "k t s"]:
    """`responses_in_time` for what was measured."""
    every = responses_in_time(model, u, model.drives[one.stimuli], one.times)
    return every[..., jnp.array(one.channels)]


def _in_time(model: Model, one: Courses, u: Float[Array, " p"], share: Float[Array, " k"]):
    weight = one.weight * share[:, None, None]

    def predicted(u):
        shown = weight * _shown(model, one, u)
        return shown, shown

    R, shown = jax.jacfwd(predicted, has_aux=True)(u)
    r = (weight * one.mean - shown).ravel()
    return jnp.sum(jnp.square(r)) / 2, r, R.reshape(-1, len(u))
