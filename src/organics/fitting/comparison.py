"""Which model describes a recording best: by information criteria and held-out stimuli."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from organics.arguments import require_among
from organics.data.recordings.recording import Recording
from organics.fitting.fit import Fit, fit, lanes_of
from organics.fitting.problem import layout_of
from organics.fitting.scoring import scoring
from organics.names import FittedRecurrence


class Comparison(NamedTuple):
    """One model of several for the same recording.

    Attributes
        recurrence: of the model.
        fit: to all stimuli.
        held_out: for each stimulus, the deviance of its responses (as `chi2`) from the predictions
            of a fit to all others; NaN without `hold_out`.
    """

    recurrence: FittedRecurrence
    fit: Fit
    held_out: Float[np.ndarray, " k"]


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
    for recurrence in recurrences:
        require_among("recurrences", recurrence, FittedRecurrence)
    if len(recording.stimuli) < 2 and hold_out:
        raise ValueError("`hold_out` needs two stimuli or more.")
    given = {"fixed": {}, "bounds": {}, "ties": (), "guess": {}}
    given |= {name: value for name, value in options.items() if name in given and value}
    for recurrence in recurrences:  # before the work for any
        layout_of(recording, recurrence, **given)
    found = [
        Comparison(
            recurrence, one, _held_out(one) if hold_out else np.full(len(recording.stimuli), np.nan)
        )
        for recurrence in recurrences
        for one in [fit(recording, recurrence=recurrence, **options)]
    ]
    return tuple(sorted(found, key=lambda one: one.fit.aic))


def _held_out(of_all: Fit) -> Float[np.ndarray, " k"]:
    problem, k = of_all.problem, len(of_all.recording.stimuli)
    with jax.enable_x64(True):
        start = np.repeat(of_all.u[None], k, axis=0)
        near = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], k, axis=0), of_all.states)
        kept, lanes = np.zeros(start.shape, bool), lanes_of(of_all.agreeing[1])
        others = scoring(problem, start, near, kept, 1 - np.eye(k), lanes)
        # no evaluations beyond the first: the likelihood of the stimulus that was held out
        there = scoring(problem, others.u, others.near.states, kept, np.eye(k), lanes, most=1)
    return 2 * np.asarray(there.near.value)
