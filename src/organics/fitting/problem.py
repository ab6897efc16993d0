"""From a recording to the problem that a fit solves, and where its search begins."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from organics.circuit.circuit import State
from organics.data.recordings.recording import CrossSpectra, Recording
from organics.fitting.conventions import conventions
from organics.fitting.likelihood import Courses, Problem, Spectra
from organics.fitting.model import AtRest, Model, linear_response
from organics.fitting.parameters import Parameters, broadcast, parameters, unhalf
from organics.fitting.sampling import blurred, folded
from organics.fitting.scoring import settled
from organics.names import FittedRecurrence

_TAU = 10.0  # ms, to begin with
_FED_BACK = 0.05  # weight between two neurons, to begin with
_TONIC = 0.1  # share of `a` that no stimulus drives, to begin with


def problem_of(
    recording: Recording,
    recurrence: FittedRecurrence,
    rectified: bool,
    *,
    fixed: Mapping[str, Any],
    bounds: Mapping[str, tuple],
    ties: Sequence[str],
    guess: Mapping[str, Any],
) -> Problem:
    """The problem, whose search begins near `u = 0`. Raises `ValueError` as `parameters` does."""

    def from_guess(guess: Mapping[str, Any]) -> Problem:
        layout = layout_of(
            recording, recurrence, fixed=fixed, bounds=bounds, ties=ties, guess=guess
        )
        return _assembled(recording, layout, rectified)

    _require_free(guess, fixed, _conventions(recording, recurrence, fixed, ties))
    return from_guess(_levels(from_guess(guess), recording, fixed) | dict(guess))


def layout_of(
    recording: Recording,
    recurrence: FittedRecurrence,
    *,
    fixed: Mapping[str, Any],
    bounds: Mapping[str, tuple],
    ties: Sequence[str],
    guess: Mapping[str, Any],
) -> Parameters:
    """The parameters of a fit, before levels of noise and gains are guessed from the data.

    Raises `ValueError` as `parameters` does.
    """
    conventional = _conventions(recording, recurrence, fixed, ties)
    start = _guess(recording, recurrence, conventional)
    labels = labels_of(recording)
    if recurrence == "identity" and "W_r" in guess:
        raise ValueError("`guess` must not name 'W_r', which is I.")
    for name, value in guess.items():
        if name not in start:
            raise ValueError(f"`guess` must name parameters ({', '.join(start)}), not {name!r}.")
        start[name] = broadcast("guess", name, value, start[name].shape)
        if (name != "W_r" or recurrence == "feedback") and not (
            np.isfinite(start[name]) & (start[name] > 0)
        ).all():
            raise ValueError(f"`guess` must give {name!r} values > 0, not {value!r}.")
        if not np.isfinite(start[name]).all():
            raise ValueError(f"`guess` must give {name!r} finite values, not {value!r}.")
    if recurrence == "half":
        start["W_r"] = unhalf(start["W_r"])
    whole = {}
    if recurrence == "feedback" and "W_r" in fixed:  # of weights between neurons
        fixed = dict(fixed)
        whole["W_r"] = _between_neurons(fixed.pop("W_r"), start["W_r"].shape)
    # where a user names all of an array, that says more than a convention about one of it
    given = {k: v for k, v in conventional.items() if k.partition("[")[0] not in fixed}
    fixed = whole | given | dict(fixed)
    return parameters(start, labels, recurrence, fixed=fixed, bounds=bounds, ties=ties)


def _require_free(
    guess: Mapping[str, Any], fixed: Mapping[str, Any], conventional: Mapping[str, Any]
) -> None:
    """Refuse a guess of what is not searched for."""
    for name in guess:
        value = fixed.get(name, conventional.get(name))
        if value is not None:
            why = "`fixed`" if name in fixed else f"convention; `fixed={{{name!r}: None}}` frees it"
            raise ValueError(
                f"`guess` must name what is fitted, not {name!r}, which is {value} by {why}."
            )


def _between_neurons(value: Any, shape: tuple[int, ...]) -> Any:
    """Fixed feedback, beside the 1 of each neuron itself. Raises `ValueError` for a matrix with
    others."""
    if np.ndim(value) and not np.all(np.diagonal(broadcast("fixed", "W_r", value, shape)) == 1):
        raise ValueError(
            "`fixed` must give 'W_r' a diagonal of 1 with feedback, which adds to the identity, "
            f"not {np.diagonal(value)}."
        )
    return value


def _conventions(
    recording: Recording,
    recurrence: FittedRecurrence,
    fixed: Mapping[str, Any],
    ties: Sequence[str],
) -> dict[str, float]:
    return conventions(recording, recurrence, labels_of(recording), fixed=fixed, ties=ties)


def labels_of(recording: Recording) -> dict[str, tuple]:
    """The names of the entries of each parameter, along each axis."""
    each = recording.neurons
    vectors = ("b", "b0", "sigma", "tau_y", "tau_a", "noise_y", "noise_a")
    unknown = [i for i, channel in enumerate(recording.channels) if not channel.gain_known]
    gains = tuple(recording.channel_name(i) for i in unknown)
    square = {name: (each, each) for name in ("W", "W_r")}
    return square | {name: (each,) for name in vectors} | {"gain": (gains,)}


def _guess(
    recording: Recording, recurrence: FittedRecurrence, conventional: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Parameters of a circuit that responds about as strongly as the recorded one."""
    n, z = len(recording.neurons), recording.drives
    a = np.ones(n)  # at the strongest response of each neuron
    for column, (quantity, i, gain_known) in enumerate(recording.channels):
        shown = recording.mean[:, column]
        known = gain_known or f"gain[{recording.channel_name(column)}]" in conventional
        if quantity not in ("y", "rate") or not known or np.isnan(shown).all():
            continue
        k = int(np.nanargmax(np.abs(shown)))
        y = np.sqrt(abs(shown[k])) if quantity == "rate" else abs(shown[k])
        if y > 0 and z[k, i]:
            a[i] = (z[k, i] / y) ** 2
    strongest = np.max(np.sum(z**2, axis=1), initial=1e-12)
    start = {
        "W": np.repeat((1 - _TONIC) * a[:, None] / strongest, n, axis=1),
        "b": np.ones(n),
        "b0": np.ones(n),
        "sigma": np.sqrt(_TONIC * a),
        "tau_y": np.full(n, _TAU),
        "tau_a": np.full(n, _TAU),
        "noise_y": np.full(n, 0.1),
        "noise_a": 0.1 * a,
        "gain": np.ones(sum(not channel.gain_known for channel in recording.channels)),
    }
    if recurrence != "identity":
        start["W_r"] = 0.9 * np.eye(n)
    if recurrence == "feedback":
        start["W_r"] = np.where(np.eye(n), 1.0, _FED_BACK)
    return start


def _assembled(recording: Recording, layout: Parameters, rectified: bool) -> Problem:
    known = ~np.isnan(recording.mean)
    mean = np.where(known, recording.mean, 0)
    weight = np.where(known, 1 / np.where(known, recording.error, 1), 0)
    return Problem(
        model=Model(layout, jnp.asarray(recording.drives), recording.channels, rectified),
        mean=jnp.asarray(mean),
        weight=jnp.asarray(weight),
        counted=jnp.ones(len(mean)),
        spectra=tuple(map(_spectra, recording.spectra)),
        courses=tuple(
            Courses(
                stimuli=jnp.asarray(one.stimuli),
                channels=one.channels,
                times=jnp.asarray(one.times),
                mean=jnp.asarray(one.mean),
                weight=jnp.asarray(one.weight),
            )
            for one in recording.courses
        ),
    )


def _spectra(one: CrossSpectra) -> Spectra:
    channels = len(one.channels)
    whole = one.trials >= channels
    size = np.linalg.slogdet(np.where(whole[:, None, None, None], one.cross, np.eye(channels)))[1]
    nodes, blur = blurred(one.frequencies, one.segment, one.interval)
    return Spectra(
        stimuli=jnp.asarray(one.stimuli),
        channels=one.channels,
        frequencies=jnp.asarray(one.frequencies),
        nodes=jnp.asarray(nodes),
        folded=jnp.asarray(folded(nodes, one.interval)),
        blur=blur,
        cross=jnp.asarray(one.cross),
        trials=jnp.asarray(one.trials, float),
        saturated=jnp.asarray(np.where(whole, np.sum(size + channels, axis=1), 0.0)),
    )


@jax.jit
def _linearized(model: Model, states: State) -> AtRest:
    return model.linearized(jnp.zeros(model.parameters.free), states)


@jax.jit
def _power(rest: AtRest, Q, frequencies):
    none = jax.tree.map(lambda x: jnp.zeros((*x.shape, 0)), rest)
    S = linear_response(rest._replace(Q=Q), none, frequencies, jnp.zeros_like(frequencies))[0]
    return jnp.diagonal(S, axis1=-2, axis2=-1).real


def _levels(
    problem: Problem, recording: Recording, fixed: Mapping[str, Any]
) -> dict[str, Float[np.ndarray, "..."]]:
    """Gains and levels of noise, from what the guess without them predicts."""
    model = problem.model
    begin = settled(model, np.zeros((1, model.parameters.free)))
    rest = _linearized(model, jax.tree.map(lambda x: x[0], begin))
    unknown = [i for i, channel in enumerate(recording.channels) if not channel.gain_known]
    predicted = np.asarray(rest.mean)
    found = {"gain": np.ones(len(unknown))}
    for place, i in enumerate(unknown):
        shown = np.abs(recording.mean[:, i]) / np.where(predicted[:, i], predicted[:, i], np.nan)
        shown = shown[np.isfinite(shown) & (shown > 0)]
        if len(shown) and not {"gain", f"gain[{recording.channel_name(i)}]"} & fixed.keys():
            found["gain"][place] = np.median(shown)
    ratios: dict[str, list] = {"noise_y": [], "noise_a": []}
    n = len(recording.neurons)
    for one in problem.spectra:
        measured = np.einsum("kfss->kfs", np.asarray(one.cross)).real
        squared = {i: found["gain"][place] ** 2 for place, i in enumerate(unknown)}
        gains = np.array([squared.get(i, 1.0) for i in one.channels])
        for name, part in (("noise_y", slice(0, n)), ("noise_a", slice(n, 2 * n))):
            Q = np.zeros(rest.Q.shape)
            Q[:, part] = np.asarray(rest.Q)[:, part]
            power = np.asarray(_power(rest, jnp.asarray(Q), one.frequencies))
            power = power[np.asarray(one.stimuli)][..., list(one.channels)] * gains
            ratio = measured[power > 0] / power[power > 0]
            ratios[name].append(np.median(ratio) / 2 if ratio.size else 1.0)
    for name, values in ratios.items():
        if values:
            found[name] = np.asarray(_start_of(model, name)) * np.sqrt(np.mean(values))
    return found


def _start_of(model: Model, name: str):
    return model.parameters.arrays(jnp.zeros(model.parameters.free))[name]
