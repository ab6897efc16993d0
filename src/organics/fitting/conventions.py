"""Which parameters are 1 by convention: those that data tell only in combination with others.

The equations have exact symmetries (theory, chapter 21.4): the scale of each modulator, the unit of
each `y`, and `b0` against `sigma`. Channels of known gain, fixed numbers and ties take some of them
away. Each that is left fixes one number, and no other is fixed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from organics.data.recordings.recording import Recording
from organics.fitting.identifiability import FAMILIES
from organics.fitting.parameters import Entry, broadcast, entries_of
from organics.names import FittedRecurrence

_ZERO = 1e-9


def conventions(
    recording: Recording,
    recurrence: FittedRecurrence,
    labels: Mapping[str, Sequence],
    *,
    fixed: Mapping[str, Any],
    ties: Sequence[str],
) -> dict[str, float]:
    """The numbers that are 1 by convention, by name; `labels` are those of `labels_of`.

    Those that `fixed` frees are among them.
    """
    n = len(recording.neurons)
    used = {
        name: axes for name, axes in labels.items() if recurrence != "identity" or name != "W_r"
    }
    entries = entries_of({name: tuple(map(len, axes)) for name, axes in used.items()}, labels)
    changes = _changes(recording, recurrence, entries)
    limits = [
        *_of_channels(recording, n),
        *_of_choices(recording, recurrence, entries, changes, fixed, ties),
    ]
    left = _null(np.array(limits, float).reshape(-1, changes.shape[1]))
    found = []
    for group in ("b0", "b", "gain"):
        for entry, change in zip(entries, changes, strict=True):
            if entry.group == group and np.linalg.norm(change @ left) > _ZERO:
                found.append(entry)
                left = left @ _null((change @ left)[None])
    names = {entry.name: 1.0 for entry in found}
    for group in ("b0", "b"):
        each = [entry.name for entry in found if entry.group == group]
        if len(each) == n:
            names = {group: 1.0} | {k: v for k, v in names.items() if k not in each}
    if recurrence == "feedback":
        names |= {f"W_r[{name},{name}]": 1.0 for name in recording.neurons}
    return names


def _changes(
    recording: Recording, recurrence: FittedRecurrence, entries: Sequence[Entry]
) -> Float[np.ndarray, "q s"]:
    """How the logarithms of all numbers change with each symmetry: of every neuron the scale of
    `a`, then the units of `y`, then the products of `b0` and `sigma`."""
    n = len(recording.neurons)
    arrays = {"b": np.ones(n), "W_r": np.ones((n, n))}  # any in which all neurons hear each other
    found = np.zeros((len(entries), len(FAMILIES), n))
    for k, family in enumerate(FAMILIES):
        if family is FAMILIES[0] and recurrence != "identity":
            continue  # the 1 in `1 - sqrt(a)` fixes the scale
        for i in range(n):
            _, _, change = family(i, arrays, recording.channels)
            found[:, k, i] = [change(entry.group, entry.place) for entry in entries]
    return found.reshape(len(entries), -1)


def _of_channels(recording: Recording, n: int) -> list[Float[np.ndarray, " s"]]:
    """What must be 0, as channels of known gain would change; a mean of all `y` allows one change
    of unit for all."""
    unit = np.eye(3 * n)
    limits = []
    for quantity, i, known in recording.channels:
        if quantity == "lfp":
            limits += [unit[n + j] - unit[n] for j in range(1, n)] + [unit[n]] * known
        elif known:
            limits.append(unit[i if quantity == "a" else n + i])
    return limits


def _of_choices(
    recording: Recording,
    recurrence: FittedRecurrence,
    entries: Sequence[Entry],
    changes: Float[np.ndarray, "q s"],
    fixed: Mapping[str, Any],
    ties: Sequence[str],
) -> list[Float[np.ndarray, " s"]]:
    """What must be 0, as numbers that matter are fixed, or would no longer be equal."""
    dynamic = bool(recording.spectra or recording.courses)
    matters = {"tau_y": dynamic, "tau_a": dynamic, "noise_y": bool(recording.spectra)}
    matters["noise_a"] = matters["noise_y"]
    counted = [i for i, entry in enumerate(entries) if matters.get(entry.group, True)]

    def meant(name: str) -> list[int]:
        return [i for i in counted if name in (entries[i].group, entries[i].name)]

    limits = [
        changes[i] for i in counted if recurrence == "half" and entries[i].group == "W_r"
    ]  # whose norm is bounded
    for name, value in fixed.items():
        if value is not None and (at := meant(name)):
            shape = tuple(
                1 + max(axis) for axis in zip(*(entries[i].place for i in at), strict=True)
            )
            given = broadcast("fixed", name, value, shape if name == entries[at[0]].group else ())
            # a weight of 0 stays 0
            limits += [changes[i] for i, x in zip(at, given.ravel(), strict=True) if x]
    for tie in ties:
        at = [i for name in re.split(r"\+", tie) for i in meant(name)]
        limits += [changes[i] - changes[at[0]] for i in at[1:]]
    return limits


def _null(rows: Float[np.ndarray, "r s"]) -> Float[np.ndarray, "s k"]:
    """An orthonormal basis of the vectors that all rows are orthogonal to."""
    _, sizes, V = np.linalg.svd(rows) if len(rows) else (None, np.zeros(0), np.eye(rows.shape[1]))
    sizes = np.concatenate([sizes, np.zeros(len(V) - len(sizes))])
    return V[sizes <= _ZERO].T
