"""Which model describes a recording best: by information criteria and held-out stimuli."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from organics.arguments import require_among
from organics.data.recordings.recording import Recording
from organics.fitting.fit import EVALUATIONS, Fit, fit
from organics.fitting.likelihood import Problem
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
        start = jnp.asarray(of_all.u)[None]
        near = jax.tree.map(lambda x: jnp.asarray(x)[None], of_all.states)
        kept, evaluations = jnp.zeros(start.shape, bool), jnp.int32(EVALUATIONS)
        found = []
        for counted in 1 - np.eye(k):
            others = scoring(_counting(problem, counted), start, near, kept, evaluations)
            # no evaluations beyond the first: the likelihood of the stimulus that was held out
            there = scoring(
                _counting(problem, 1 - counted), others.u, others.near.states, kept, jnp.int32(1)
            )
            found.append(2 * float(there.near.value[0]))
    return np.array(found)


def _counting(problem: Problem, counted: np.ndarray) -> Problem:
    return eqx.tree_at(lambda problem: problem.counted, problem, jnp.asarray(counted))
