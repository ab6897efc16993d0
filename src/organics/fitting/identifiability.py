"""What a recording cannot tell: directions in the parameters along which no prediction changes.

They are found numerically, as null vectors of the derivative of all predictions, and named by the
exact symmetries of the equations (theory, chapter 21.4).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from organics.fitting.parameters import Entry

NEGLIGIBLE = 1e-7
"""A singular value below this share of the largest counts as 0."""
_EXACT = 1e-6  # a symmetry must be a null vector, and a number be determined, to this accuracy
_PRODUCT = "product of b0 and sigma"
_NAMED = 1e-4  # share of a number in a direction, from which on it is listed


class Direction(NamedTuple):
    """One direction along which the data say nothing.

    Attributes
        name: of the symmetry, or of the lack of data.
        parameters: the numbers that change along it, by name.
        determined: the combinations that the data do determine, in words; may be empty.
    """

    name: str
    parameters: tuple
    determined: str


class Identified(NamedTuple):
    """What the data determine.

    Attributes
        rank: the number of directions that they do.
        covariance: of the coordinates, within those directions, shape (p, p).
        null: orthonormal directions that they do not, shape (p, k).
        exact: those of them along which nothing changes however far one goes, shape (p, j).
        directions: names for a basis of these.
    """

    rank: int
    covariance: Float[np.ndarray, "p p"]
    null: Float[np.ndarray, "p k"]
    exact: Float[np.ndarray, "p j"]
    directions: tuple


def identify(
    R: Float[np.ndarray, "rows p"],
    D: Float[np.ndarray, "q p"],
    entries: Sequence[Entry],
    arrays: dict,
    neurons: Sequence[str],
    channels: Sequence[tuple],
) -> Identified:
    """Determined and undetermined directions.

    Arguments
        R: derivative of all predictions, in units of their errors, by the p free coordinates.
        D: derivative of the q reported numbers by the coordinates.
        entries: these numbers.
        arrays: the parameters.
        neurons, channels: of the recording.
    """
    p = R.shape[1]
    _, s, V = np.linalg.svd(R, full_matrices=len(R) < p)
    s = np.concatenate([s, np.zeros(p - len(s))])
    kept = s > NEGLIGIBLE * max(s.max(initial=0), 1e-300)
    null = V[~kept].T
    scaled = V[kept] / s[kept, None]
    directions, explained = [], np.zeros((p, 0))

    def remaining(vectors: np.ndarray) -> np.ndarray:
        return vectors - explained @ (explained.T @ vectors)

    silent = np.flatnonzero(np.linalg.norm(R, axis=0) <= NEGLIGIBLE * s.max(initial=0))
    if len(silent):
        explained = np.eye(p)[:, silent]
        named = [e.name for e, row in zip(entries, D, strict=True) if np.any(row[silent])]
        directions.append(Direction("no response depends on these", tuple(named), ""))
    for direction, vector in _named(D @ null, entries, arrays, neurons, channels):
        unit, *_ = np.linalg.lstsq(D, vector, rcond=None)
        rest = remaining(unit / np.linalg.norm(unit))
        if np.linalg.norm(rest) > _EXACT:
            explained = np.column_stack([explained, rest / np.linalg.norm(rest)])
            directions.append(direction)
    left, sizes, _ = np.linalg.svd(remaining(null), full_matrices=False)
    for direction in _echelon(left[:, sizes > 0.5].T):  # each with few numbers
        directions.append(
            Direction(
                "these data do not separate these numbers", _moved(D @ direction, entries), ""
            )
        )
    return Identified(int(kept.sum()), scaled.T @ scaled, null, explained, tuple(directions))


def determined(row: Float[np.ndarray, " p"], null: Float[np.ndarray, "p k"]) -> bool:
    """Whether a number with this derivative is constant along all undetermined directions."""
    return bool(np.linalg.norm(row @ null) <= _EXACT * np.linalg.norm(row))


def _moved(vector: np.ndarray, entries: Sequence[Entry]) -> tuple:
    """The numbers that change along a direction, by name."""
    least = _NAMED * np.max(np.abs(vector), initial=0)
    return tuple(e.name for e, x in zip(entries, vector, strict=True) if abs(x) > least)


def _named(undetermined: np.ndarray, entries, arrays, neurons, channels):
    """The symmetries, and combinations of them, that lie in the span of the undetermined changes of
    the numbers; each a `Direction` and the change.

    A symmetry of which something is fixed or tied is no such change, but a combination of several
    may be: these are the null vectors of what is left of all outside of the span, in echelon form.
    """
    alone = np.eye(len(neurons))  # rows of `W_r` without input from others
    W_r = arrays.get("W_r", alone)
    symmetries = [
        (family, i)
        for family in FAMILIES
        for i in range(len(neurons))
        if family is not _modulators or np.array_equal(W_r[i], alone[i])
    ]
    vectors, words = [], []
    for family, i in symmetries:
        name, combinations, change = family(i, arrays, channels)
        vectors.append(
            [
                change(entry.group, entry.place) if arrays[entry.group][entry.place] else 0.0
                for entry in entries
            ]
        )  # a weight of 0 stays 0
        words.append((name, combinations, neurons[i]))
    G = np.array(vectors, float).T
    span, sizes, _ = np.linalg.svd(undetermined, full_matrices=False)
    span = span[:, sizes > NEGLIGIBLE * sizes.max(initial=0)]
    _, s, V = np.linalg.svd(G - span @ (span.T @ G))
    s = np.concatenate([s, np.zeros(len(V) - len(s))])
    for row in _echelon(V[s < _EXACT]):
        used = [word for word, share in zip(words, row, strict=True) if abs(share) > _EXACT]
        names = list(dict.fromkeys(name for name, _, _ in used))
        if len(names) > 1 and _PRODUCT in names:
            names.remove(_PRODUCT)  # which stands in for a fixed b0
        of = ", ".join(dict.fromkeys(neuron for _, _, neuron in used))
        determined = used[0][1] if len(names) == 1 else ""
        vector = G @ row
        yield (
            Direction(f"{' with '.join(names)} of {of}", _moved(vector, entries), determined),
            vector,
        )


def _echelon(rows: np.ndarray) -> np.ndarray:
    """The reduced echelon form of linearly independent rows."""
    rows, done = rows.copy(), 0
    for column in range(rows.shape[1]):
        if done == len(rows):
            break
        best = done + int(np.argmax(np.abs(rows[done:, column])))
        if abs(rows[best, column]) < _EXACT:
            continue
        rows[[done, best]] = rows[[best, done]]
        rows[done] /= rows[done, column]
        others = np.arange(len(rows)) != done
        rows[others] -= rows[others, column][:, None] * rows[done]
        done += 1
    return rows


def _products(i: int, arrays: dict, channels):
    """`b0_i` and `sigma_i` enter only as a product."""
    del arrays, channels
    powers = {"b0": 1.0, "sigma": -1.0}
    return (
        _PRODUCT, "b0 sigma",
        lambda group, index: powers.get(group, 0.0) * (index == (i,)),
    )  # fmt: skip


def _modulators(i: int, arrays: dict, channels):
    """Where row i of `W_r` is that of the identity: `a_i -> k a_i`. With `y` it keeps all spectra
    of `y`."""
    del arrays
    powers = {"b": 0.5, "b0": 0.5, "tau_y": 0.5, "noise_y": 0.25, "noise_a": 1.0}
    gains = _gains(channels, {"a": -1.0}, i)

    def change(group: str, index: tuple) -> float:
        if group == "W":
            return float(index[0] == i) - float(index[1] == i)
        if group == "gain":
            return gains[index[0]]
        return powers.get(group, 0.0) * (index == (i,))

    return (
        "scale of the modulator",
        "(b0 sigma / b)^2, W_ij b_j^2 / b_i^2, tau_y / b, tau_a, noise_y / sqrt(b), noise_a / b^2",
        change,
    )


def _units(i: int, arrays: dict, channels):
    """`y_i -> g y_i`, where its gains are unknown."""
    gains = _gains(channels, {"y": -1.0, "rate": -2.0, "lfp": -1.0 / _count(arrays)}, i)

    def change(group: str, index: tuple) -> float:
        if group == "W":
            return -2.0 * (index[1] == i)
        if group == "W_r":
            return float(arrays["W_r"][index]) * (float(index[0] == i) - float(index[1] == i))
        if group == "gain":
            return gains[index[0]]
        return float(group in ("b", "noise_y")) * (index == (i,))

    return (
        "unit of y",
        "gain b (of rates gain b^2), W_ij b_j^2, W_r_ij b_j / b_i, noise_y / b",
        change,
    )


FAMILIES = (_modulators, _units, _products)
"""The exact symmetries. Each gives, for a neuron, its name, what it leaves as it is, and by how
much it changes an entry of an array, in logarithms where positive."""


def _count(arrays: dict) -> int:
    return len(arrays["b"])


def _gains(channels, powers: dict, i: int) -> list[float]:
    """How the unknown gains change, so that what is shown does not."""
    return [
        powers.get(quantity, 0.0) * (neuron in (i, -1))
        for quantity, neuron, gain_known in channels
        if not gain_known
    ]
