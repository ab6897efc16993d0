"""Which model describes a recording best: by information criteria and held-out stimuli."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from organics.arguments import require_among
from organics.data.recordings.recording import Recording
from organics.fitting.fit import Fit, fit, lanes_of
from organics.fitting.identifiability import NEGLIGIBLE
from organics.fitting.problem import layout_of
from organics.fitting.resolved import resolved
from organics.fitting.scoring import scoring
from organics.names import FittedRecurrence


class Comparison(NamedTuple):
    """One model of several for the same recording.

    Attributes
        recurrence: of the model.
        fit: to all stimuli.
        held_out: for each stimulus, the deviance of its responses (as `chi2`) from the predictions
            of a fit to all others; NaN without `hold_out`. Where spectra are of fewer trials than
            channels, it is one only up to a number that is the same for all models.
        uncertainty: for each stimulus, the part of that deviance to be expected because the others
            do not determine the parameters better, were the model right: infinite if they leave
            open what is predicted; NaN without `hold_out`.
        not_converged: the names of the stimuli without which the fit did not converge: `held_out`
            may be too large there.
    """

    recurrence: FittedRecurrence
    fit: Fit
    held_out: Float[np.ndarray, " k"]
    uncertainty: Float[np.ndarray, " k"]
    not_converged: tuple[str, ...]

    @property
    def is_erratic(self) -> bool:
        """Whether `held_out` says more about what the other stimuli leave open than about the
        model, as in a model of nearly as many parameters as data: three times as much of it is
        expected from `uncertainty` as from the errors of the data."""
        return bool(np.sum(self.uncertainty) > 3 * self.fit.recording.size)


def compare(
    recording: Recording,
    recurrences: Sequence[FittedRecurrence] = ("identity", "free"),
    *,
    hold_out: bool = True,
    **options: Any,
) -> tuple:
    """Fit several models, best AIC first. `options` are those of `fit`, the same for all models.

    With `hold_out`, each is also fitted to all stimuli but one, for each of them, from the fit to
    all. Raises as `fit` does.
    """
    if isinstance(recurrences, str) or not recurrences:
        raise ValueError(f"`recurrences` must be several words, not {recurrences!r}.")
    for recurrence in recurrences:
        require_among("recurrences", recurrence, FittedRecurrence)
    if len(recording.stimuli) < 2 and hold_out:
        raise ValueError("`hold_out` needs two stimuli or more.")
    recording = resolved(recording, recurrences)  # the same data for all models
    given = {"fixed": {}, "bounds": {}, "ties": (), "guess": {}}
    given |= {name: value for name, value in options.items() if name in given and value}
    for recurrence in recurrences:  # before the work for any
        layout_of(recording, recurrence, **given)
    none = np.full(len(recording.stimuli), np.nan)
    found = []
    for recurrence in recurrences:
        one = fit(recording, recurrence=recurrence, **options)
        if hold_out:
            found.append(_with_held_out(recurrence, one))
        else:
            found.append(Comparison(recurrence, one, none, none, ()))
    return tuple(sorted(found, key=lambda one: one.fit.aic))


def _with_held_out(recurrence: FittedRecurrence, of_all: Fit) -> Comparison:
    problem, k = of_all.problem, len(of_all.recording.stimuli)
    with jax.enable_x64(True):
        start = np.repeat(of_all.u[None], k, axis=0)
        near = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], k, axis=0), of_all.states)
        kept, lanes = np.zeros(start.shape, bool), lanes_of(of_all.agreeing[1])
        others = scoring(problem, start, near, kept, 1 - np.eye(k), lanes)
        # no evaluations beyond the first: the likelihood of the stimulus that was held out
        there = scoring(problem, others.u, others.near.states, kept, np.eye(k), lanes, most=1)
    pairs = zip(np.asarray(there.near.fisher), np.asarray(others.near.fisher), strict=True)
    converged = zip(of_all.recording.stimuli, np.asarray(others.converged), strict=True)
    lost = tuple(name for name, well in converged if not well)
    shares = np.array([_share(*pair) for pair in pairs])
    deviance = 2 * np.asarray(there.near.value)
    return Comparison(recurrence, of_all, deviance, shares, lost)


def _share(held_out: Float[np.ndarray, "p p"], others: Float[np.ndarray, "p p"]) -> float:
    """The trace of a Fisher matrix times the covariance by the other data."""
    s, V = np.linalg.eigh(others)
    known = s > NEGLIGIBLE**2 * max(s.max(initial=0), 1e-300)
    along = np.einsum("pi,pq,qi->i", V, held_out, V)
    if along[~known].sum() > NEGLIGIBLE * np.trace(held_out):
        return np.inf
    return float(np.sum(along[known] / s[known]))
