"""The parameters of a circuit from a recording, with what the recording says about each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float

from organics.arguments import is_number, require_flag, require_whole
from organics.circuit.circuit import Circuit, State
from organics.data.recordings.recording import Recording
from organics.errors import Failed, NoSteadyState
from organics.fitting.identifiability import Identified, determined, identify
from organics.fitting.likelihood import (
    Courses,
    Predicted,
    Problem,
    Spectra,
    evaluated,
    predicted,
)
from organics.fitting.model import circuit_of, noise_of
from organics.fitting.parameters import UNITS, Parameters
from organics.fitting.problem import problem_of
from organics.fitting.profile import far_from_quadratic, profiles
from organics.fitting.resolved import resolved
from organics.fitting.scoring import Fitted, scoring, settled
from organics.fitting.vanishing import brought_back
from organics.names import FittedRecurrence
from organics.printing import Lines, in_html, in_words
from organics.simulation.noise import Noise

_SPREAD = 0.7  # of the starts, in coordinates
_LANES = 4  # few, as each waits for the slowest
_SAME = 0.01  # starts end at the same place if their likelihoods differ by less
_LOST = "interval not converged"


class Estimate(NamedTuple):
    """One parameter.

    Attributes
        name: such as `W[2,1]`, with the names of the neurons.
        value: the estimate; where it is not identified only a convention.
        low, high: ends of the interval; NaN where there is none, 0 or infinite where it is open.
        how: "Fisher" or "profile", how the interval was found; or "fixed", "not identified", "at
            its bound" or "interval not converged", without one.
        unit: "ms", or none.
    """

    name: str
    value: float
    low: float
    high: float
    how: str
    unit: str


@dataclass(frozen=True)
class Fit:
    """A fitted circuit, and how far the data determine it.

    Attributes
        circuit, noise: with the estimates as their parameters, in the type that JAX is set to.
        estimates: of all parameters, see `Estimate`.
        undetermined: directions along which no response changes, see
            `organics.fitting.Direction`.
        chi2: twice the loss of likelihood compared with a model that fits every number; NaN if
            there are spectra of fewer trials than channels.
        rank: number of parameters that the data determine, those that went to 0 included.
        size: number of independent real numbers in the data.
        aic, bic: information criteria, to compare models of the same data; lower is better.
        converged: whether the search ended at a minimum.
        agreeing: how many of the starts ended there, and how many there were.
        level: of the intervals.
        recording: what was fitted: without spectra that were left out, see `fit`.
        problem, u: the likelihood and the coordinates of the estimates.
        states: the steady state for each stimulus, `y` and `a` of shape (k, n).
    """

    circuit: Circuit
    noise: Noise
    estimates: tuple
    undetermined: tuple
    chi2: float
    rank: int
    size: int
    aic: float
    bic: float
    converged: bool
    agreeing: tuple
    level: float
    recording: Recording = field(repr=False)
    problem: Problem = field(repr=False)
    u: Float[np.ndarray, " p"] = field(repr=False)
    states: State = field(repr=False)

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of this name. Raises `KeyError` if there is none."""
        for one in self.estimates:
            if one.name == name:
                return one
        raise KeyError(name)

    @property
    def degrees_of_freedom(self) -> int:
        """Numbers in the data beyond those that are determined by them."""
        return self.size - self.rank

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        rows = [(one.name, _in_words(one)) for one in self.estimates]
        rows += [
            (f"undetermined: {one.name}", _listed(one.parameters)) for one in self.undetermined
        ]
        rows.append(("chi2", f"{self.chi2:.6g} with {self.degrees_of_freedom} degrees of freedom"))
        rows.append(("AIC, BIC", f"{self.aic:.6g}, {self.bic:.6g}"))
        verdict = "fitted" if self.converged else "not converged"
        same, starts = self.agreeing
        return Lines(f"{verdict}; {same} of {starts} starts ended there", tuple(rows))

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def require_search(starts: Any, seed: Any, level: Any) -> None:
    """Raise `ValueError`, naming the argument, if the search cannot be done in this way."""
    require_whole("starts", starts)
    require_whole("seed", seed, 0)
    if not is_number(level) or not 0 < level < 1:
        raise ValueError(f"`level` must be a number in (0, 1), not {level!r}.")


def fit(
    recording: Recording,
    *,
    recurrence: FittedRecurrence = "identity",
    rectified: bool = False,
    fixed: Mapping[str, Any] | None = None,
    bounds: Mapping[str, tuple] | None = None,
    ties: Sequence[str] = (),
    guess: Mapping[str, Any] | None = None,
    starts: int = 8,
    seed: int = 0,
    level: float = 0.9,
) -> Fit:
    """Fit a circuit to steady responses, spectra and time courses together, by maximum likelihood.

    The parameters are `W`, `b`, `b0`, `sigma`, `tau_y`, `tau_a`, the levels of additive noise
    `noise_y` and `noise_a`, `W_r`, and a `gain` for each channel in units other than the model's.
    Names such as "tau_y" mean all entries, names such as "tau_y[2]" one, by the name of the neuron.
    By convention `b0` is 1, since only `b0 sigma` matters. So is `b` of a neuron, or a `gain`, if
    these data tell only ratios to it: for identity recurrence if the unit of `a` is unknown and no
    time constant of `y` is given, otherwise if the unit of `y` is unknown.

    Parameters that the data do not determine have no interval; `undetermined` says why. Intervals
    come from the Fisher matrix, or from the profile of the likelihood where that is far from
    quadratic.

    The spectra of a channel that does not fluctuate for a stimulus are left out: a rate without
    spikes, or, as linear theory predicts none, a rate under a blank stimulus, or of a neuron that
    the stimulus does not excite. The `recording` of the result is what was fitted.

    Arguments
        recurrence: "identity", "free" for any `W_r`, "half" for `W_r = (I + K) / 2` with a norm of
            K below 1, or "feedback" for the identity and weights > 0 between neurons: feedback in
            the additive form of a `Hierarchy`. `fixed={"W_r[1,2]": 0.0}` means none from 2 to 1.
        fixed: values that are kept, by name; `None` frees what is fixed by convention. A `W[2,1]`
            of 0 is no connection.
        bounds: lowest and highest value, by name.
        ties: names of what is one number, such as "tau_y"; several are joined by "+".
        guess: where the search begins, by the name of an array.
        starts: number of starts; all but the first are drawn at random around the guess.
        seed: of the starts.
        level: of the intervals, in (0, 1).

    Raises
        ValueError: naming the argument, if one is not as above; naming stimulus and channels, if
            spectra are of channels that are multiples or sums of each other, or of rectified
            neurons without drive, for which there is no linear theory.
        NoSteadyState: if no start has a stable steady state for each stimulus.
        Failed: if one has, but its spectra are singular or its time courses cannot be followed.
    """
    require_search(starts, seed, level)
    require_flag("rectified", rectified)
    recording = resolved(recording, (recurrence,))
    if rectified:
        _require_no_kinks(recording, recurrence)
    with jax.enable_x64(True):
        problem = problem_of(
            recording, recurrence, rectified, fixed=fixed or {}, bounds=bounds or {}, ties=ties,
            guess=guess or {},
        )  # fmt: skip
        if not problem.model.parameters.free:
            raise ValueError("`fixed` must leave something to be fitted.")
        found, agreeing = _best(problem, recording, starts, seed)
        result = _concluded(recording, problem, found, (agreeing, starts), level)
    # in the precision that JAX is set to, as those of a caller are
    circuit, noise = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf)), (result.circuit, result.noise)
    )
    return replace(result, circuit=circuit, noise=noise)


def _require_no_kinks(recording: Recording, recurrence: FittedRecurrence) -> None:
    """Refuse spectra of rectified neurons that are at `y = 0`, where there is no linear theory."""
    for spectra in recording.spectra:
        for k in spectra.stimuli:
            silent = np.asarray(recording.drives[k]) == 0
            if recurrence != "identity":  # a neuron without drive may hear another one
                silent &= silent.all()
            for i in spectra.channels:
                quantity, neuron, _ = recording.channels[i]
                if quantity == "lfp" and silent.any() or quantity == "y" and silent[neuron]:
                    raise ValueError(
                        f"`rectified` must be False, or the spectra at {recording.stimuli[k]!r} be "
                        f"left out: {recording.channel_name(i)} has neurons without drive, and at "
                        "`y = 0` the rectified model has no linear theory."
                    )


def _best(problem: Problem, recording: Recording, starts: int, seed: int) -> tuple[Fitted, int]:
    """The best of all starts, and how many ended there."""
    p = problem.model.parameters.free
    drawn = _SPREAD * np.random.default_rng(seed).normal(size=(starts, p))
    drawn[0] = 0
    kept = np.zeros((starts, p), bool)
    counted = np.ones((starts, len(problem.counted)))
    near = settled(problem.model, drawn)
    every = scoring(problem, drawn, near, kept, counted, lanes_of(starts))
    values = np.asarray(every.near.value)
    if not np.isfinite(values).any():
        raise _without_start(problem, recording, drawn, near)
    best = int(np.argmin(values))
    return jax.tree.map(lambda x: x[best], every), int(np.sum(values < values[best] + _SAME))


def _without_start(problem: Problem, recording: Recording, drawn, near: State) -> Failed:
    """Why the likelihood is nowhere finite, from the first start with stable steady states."""
    at_rest = replace(problem, spectra=(), courses=())
    for i, u in enumerate(jnp.asarray(drawn)):
        value, _, _, states = evaluated(at_rest, u, jax.tree.map(lambda x, i=i: x[i], near))
        if np.isfinite(value):
            return Failed(_unusable(problem, recording, predicted(problem, u, states)))
    return NoSteadyState("no start has a stable steady state for every stimulus.")


def _unusable(problem: Problem, recording: Recording, shown: Predicted) -> str:
    """Which predictions have no likelihood, in words."""
    for one, S in zip(problem.spectra, shown.spectra, strict=True):
        whole = np.isfinite(np.asarray(jnp.linalg.cholesky(S))).all(axis=(1, 2, 3))
        if not whole.all():
            k = int(np.argmin(whole))
            power = np.real(np.diagonal(np.asarray(S)[k], axis1=1, axis2=2))
            bad = ~(power > 0).all(axis=0)
            return (
                f"no start can be used: the predicted spectra of {_channels(recording, one, bad)} "
                f"for stimulus {_stimulus(recording, one, k)} are singular. Leave out the samples "
                "of this channel, or of this stimulus."
            )
    for one, course in zip(problem.courses, shown.courses, strict=True):
        whole = np.isfinite(np.asarray(course)).all(axis=(1, 2))
        if not whole.all():
            return (
                "no start can be used: the time courses for stimulus "
                f"{_stimulus(recording, one, int(np.argmin(whole)))} cannot be followed, as the "
                "circuit is too fast for their times. Try longer time constants."
            )
    return "no start can be used: the likelihood is infinite, though each prediction is finite."


def _channels(recording: Recording, one: Spectra, bad: Any) -> str:
    """The bad channels by name; all, if it is not one of them."""
    chosen = np.flatnonzero(bad) if bad.any() else range(len(one.channels))
    return ", ".join(recording.channel_name(one.channels[i]) for i in chosen)


def _stimulus(recording: Recording, one: Spectra | Courses, k: int) -> str:
    return repr(recording.stimuli[int(one.stimuli[k])])


def lanes_of(starts: int) -> int:
    """How many searches of a fit run at once."""
    return min(starts, _LANES)


@jax.jit
def _reported(layout: Parameters, u):
    """The reported numbers, their derivatives, and the parameters by name."""
    return layout.reported(u), jax.jacfwd(layout.reported)(u), layout.arrays(u)


def _concluded(
    recording: Recording, problem: Problem, found: Fitted, agreeing: tuple, level: float
) -> Fit:
    layout, u, states = problem.model.parameters, np.asarray(found.u), found.near.states

    def at(u):
        value, _, _, there = evaluated(problem, jnp.asarray(u), states)
        reported, D, arrays = jax.tree.map(np.asarray, _reported(layout, jnp.asarray(u)))
        back = brought_back(problem, u, there)
        R = evaluated(problem, jnp.asarray(back), there).R
        D_back = np.asarray(_reported(layout, jnp.asarray(back))[1])
        as_reported = dict(arrays)
        if layout.recurrence == "feedback":  # of weights that are fitted as logarithms
            as_reported["W_r"] = (arrays["W_r"] != 0).astype(float)
        known = identify(
            np.asarray(R), D_back, layout.entries, as_reported, recording.neurons,
            recording.channels,
        )  # fmt: skip
        return float(value), known, reported, D, arrays, there, back

    value, known, reported, D, arrays, states, back = here = at(u)
    # what is not determined stays as it was guessed: along symmetries nothing else changes
    guessed = u - known.exact @ (known.exact.T @ u)
    moved = at(guessed) if known.exact.size else here
    if moved[0] <= value + 1e-6 and moved[1].rank == known.rank:
        u, (value, known, reported, D, arrays, states, back) = guessed, moved
    chi2 = (
        2 * value if all(np.all(np.asarray(s.saturated) != 0) for s in problem.spectra) else np.nan
    )
    return Fit(
        circuit=circuit_of({k: jnp.asarray(v) for k, v in arrays.items()}, problem.model.rectified),
        noise=noise_of(arrays),
        estimates=_estimates(
            problem, back, states, value, known, reported, D, level, lanes_of(agreeing[1])
        ),
        undetermined=known.directions,
        chi2=chi2,
        rank=known.rank,
        size=recording.size,
        aic=2 * value + 2 * known.rank,
        bic=2 * value + known.rank * float(np.log(recording.size)),
        converged=bool(found.converged),
        agreeing=agreeing,
        level=level,
        recording=recording,
        problem=problem,
        u=u,
        states=states,
    )


def _estimates(
    problem: Problem,
    u,
    states,
    value: float,
    known: Identified,
    reported,
    D,
    level: float,
    lanes: int,
) -> tuple:
    layout = problem.model.parameters
    width = float(scipy.stats.norm.ppf((1 + level) / 2))
    identified = np.array([determined(row, known.null) for row in D])
    error = np.sqrt(np.einsum("ai,ij,aj->a", D, known.covariance, D))
    low, high = reported - width * error, reported + width * error
    groups = layout.groups()
    single = np.array([bool(identified[at].all()) for at in groups], bool)
    if layout.recurrence == "half":  # an entry of W_r depends on several coordinates
        single &= [layout.entries[at[0]].group != "W_r" for at in groups]
    odd = far_from_quadratic(problem, u, states, value, known.covariance, single, width)
    how = np.where(np.any(D != 0, axis=1), "Fisher", "fixed").astype(object)
    if odd.any():
        ends = profiles(
            problem, u, states, value, known.covariance, np.flatnonzero(odd), width, lanes
        )
        for i, lowest, highest in zip(*(x.tolist() for x in ends), strict=True):
            lost = np.isnan(lowest) or np.isnan(highest)
            for entry in groups[i]:
                how[entry] = _LOST if lost else "profile"
                low[entry], high[entry] = (
                    _moved_to(layout, u, i, end)[entry] for end in (lowest, highest)
                )
    positive, bounded = np.asarray(layout.positive), np.asarray(layout.bounded)
    low = np.where(bounded, np.maximum(low, layout.low), low)
    high = np.where(bounded, np.minimum(high, layout.high), high)
    how[(how != "fixed") & ~identified] = "not identified"
    with np.errstate(invalid="ignore"):  # bounds may be infinite
        slope = np.linalg.norm(D, axis=1) / np.subtract(layout.high, layout.low)
    how[(how != "fixed") & bounded & (slope < 1e-3)] = "at its bound"
    without = np.isin(how, ("fixed", "not identified", "at its bound", _LOST))
    low, high = np.where(without, np.nan, low), np.where(without, np.nan, high)
    as_values = lambda x: np.where(positive, np.exp(np.where(positive, x, 0)), x)  # noqa: E731
    columns = as_values(reported), as_values(low), as_values(high)
    return tuple(
        Estimate(e.name, float(x), float(a), float(b), str(h), UNITS.get(e.group, ""))
        for e, x, a, b, h in zip(layout.entries, *columns, how, strict=True)
    )


def _moved_to(layout: Parameters, u, i: int, end: float) -> np.ndarray:
    """The reported numbers with one coordinate at another value."""
    if np.isfinite(end):
        moved = np.where(np.arange(len(u)) == i, end, u)
        return np.asarray(_reported(layout, jnp.asarray(moved))[0])
    bound = layout.high if end > 0 else layout.low
    return np.where(layout.bounded, bound, end)


def _in_words(one: Estimate) -> str:
    value = f"{one.value:.4g} {one.unit}".rstrip()
    if one.how in ("Fisher", "profile"):
        return f"{value}  ({one.low:.4g} to {one.high:.4g}, {one.how})"
    return f"{value}  ({one.how})"


def _listed(names: tuple) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
