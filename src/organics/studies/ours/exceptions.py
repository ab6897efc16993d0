"""The smallest circuits without a stable steady state, for each of several classes of `W_r`.

Within the bounds of the conjecture: `0 <= W <= 1`, `0 < b, b0, sigma < 1`, and norms of `W_r` and
of the drive of at most 1; all time constants are equal.

A hunt begins with the best of some random circuits (with antisymmetric `W_r`, at the one exception
among 4,000), and changes all parameters at random. It keeps
what raises, at the state where it is smallest, the largest `Re l / |l|` of the eigenvalues `l`. In
the end all steady states are enclosed, and each is proved to be unstable.

Source: Rawat et al. 2024, the conjecture on general recurrence.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from organics.circuit.circuit import Circuit
from organics.circuit.file import save_circuit
from organics.enumeration.enclosed import ALL
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import newton, search
from organics.enumeration.states import SteadyStates, steady_states
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.ours.enumerated import distinct, spectra

_GAIN = 0.99  # of `b` and `b0`
_TAU = 2.0  # ms
_FIRST = 60  # random circuits of which the best is changed
_ENOUGH = 0.02  # of `Re l / |l|`
_DIGITS = (2, 3, 4, 6, 17)  # of the parameters in the file; as few as do

Matrix = Float[np.ndarray, "n n"]


class Class(NamedTuple):
    """A class of `W_r`: the number of neurons, and a matrix of the class made of any other."""

    n: int
    made: Callable[[Matrix], Matrix]


def _orthogonal(M: Matrix) -> Matrix:
    left, _, right = np.linalg.svd(M)
    return left @ right


def _rotation(M: Matrix) -> Matrix:
    Q = _orthogonal(M)
    return Q if np.linalg.det(Q) > 0 else Q[:, ::-1]


def _triangular(M: Matrix) -> Matrix:
    return np.tril(M, -1) + np.diag(np.abs(np.diag(M)))


CLASSES = {
    "symmetric": Class(1, lambda M: M + M.T),
    "orthogonal": Class(1, _orthogonal),
    "rotation": Class(2, _rotation),
    "nonnegative": Class(2, np.abs),
    "semidefinite": Class(2, lambda M: M @ M.T),
    "nonnegative and semidefinite": Class(2, lambda M: np.abs(M) @ np.abs(M).T),
    "antisymmetric": Class(2, lambda M: M - M.T),
    "triangular": Class(2, _triangular),
    "without poles": Class(2, lambda M: (np.eye(len(M)) + M / np.linalg.norm(M, 2)) / 2),
}
"""With the smallest n for which there is an exception: for n = 1 and `W_r >= 0` there is none.
Triangular ones have a positive diagonal; those without poles, a spectral norm of `2 W_r - I` of at
most 1, have `det(I - D(1 - s) W_r) > 0` for all `s > 0`."""


@dataclass(frozen=True)
class Sample:
    """The hunts."""

    classes: tuple[str, ...] = tuple(CLASSES)
    """Classes of `W_r`, among `CLASSES`."""
    hunts: int = 20
    """Most hunts for each, each with a seed of its own."""
    steps: int = 500
    """Changes that a hunt tries."""
    seed: int = 0
    """Of the first hunt."""


def compute(job: Job) -> Outcome:
    """Hunt, and prove."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, classes=("symmetric", "orthogonal"))
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """What the hunts of each class end with; the circuits are also written to files."""
    rows = []
    with jax.enable_x64(True):
        for i, name in enumerate(sample.classes):
            job.progress(i / len(sample.classes), name)
            piece = f"{_file_name(name)}-{sample.hunts}-{sample.steps}-{sample.seed}.json"
            row = kept_document(job.folder / piece, partial(_hunts, sample, name))
            if row["circuit"] is not None:
                row["file"] = f"exceptions/{_file_name(name)}.json"
                (job.out / "exceptions").mkdir(parents=True, exist_ok=True)
                parameters = dict(row["circuit"])
                z = parameters.pop("z")
                save_circuit(job.out / row["file"], Circuit(**parameters), np.array(z))
            rows.append(row)
    return {"classes": rows}


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def conclude(found: dict[str, Any]) -> Outcome:
    """A check for each class; `found` is the result of `measure`."""
    rows = found["classes"]
    checks = [
        Check(
            f"{row['class']}: no stable steady state, n = {row['n']}",
            _in_words(row),
            row["circuit"] is not None and _is_exception(row),
        )
        for row in rows
    ]
    some = [check.holds for check in checks]
    sizes = sorted({row["n"] for row, holds in zip(rows, some, strict=True) if holds})
    here = (
        f"proved in {sum(map(bool, some))} of {len(rows)} classes, with n = "
        f"{', '.join(map(str, sizes))}"
    )
    columns = ("`W_r`", "neurons", "norm", "steady states, all unstable",
               "largest real parts (1/ms)")  # fmt: skip
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in rows]))


def _is_exception(row: dict[str, Any]) -> bool:
    """Whether it is within the bounds, and all states are known and proved to be unstable."""
    within = max(row["norm"], np.linalg.norm(row["circuit"]["z"])) <= 1 + 1e-12
    unstable = (state["proved"] and state["spectral_abscissa"] > 0 for state in row["states"])
    return bool(within and row["outcome"] == ALL and row["states"] and all(unstable))


def _in_words(row: dict[str, Any]) -> str:
    if row["circuit"] is None:
        return f"none found in {row['hunts']} hunts"
    count = len(row["states"])
    return f"{count} steady state{'' if count == 1 else 's'}, {row['outcome']}, each unstable"


def _cells(row: dict[str, Any]) -> list[str]:
    if row["circuit"] is None:
        return [row["class"], str(row["n"]), "", _in_words(row), ""]
    abscissae = ", ".join(f"{state['spectral_abscissa']:.2g}" for state in row["states"])
    states = f"{len(row['states'])}; {row['outcome']}"
    return [row["class"], str(row["n"]), f"{row['norm']:.3g}", states, abscissae]


class _Prey(NamedTuple):
    """A circuit under a drive: a matrix of which `W_r` is made, logarithms of `W` and `sigma`, and
    a vector of which the drive is made."""

    M: Matrix
    log_W: Matrix
    log_sigma: Float[np.ndarray, " n"]
    vector: Float[np.ndarray, " n"]

    @classmethod
    def random(cls, rng: np.random.Generator, n: int) -> "_Prey":
        M, vector = rng.normal(size=(n, n)), rng.normal(size=n)
        log_W = np.log(10) * rng.uniform(-3, 0, (n, n))
        return cls(M, log_W, np.log(10) * rng.uniform(-2, 0, n), vector)

    def changed(self, rng: np.random.Generator, size: float) -> "_Prey":
        """With about half of the numbers changed at random."""
        return _Prey(
            *(x + size * rng.normal(size=x.shape) * (rng.random(x.shape) < 0.5) for x in self)
        )

    def built(self, made: Callable[[Matrix], Matrix], digits: int = 17) -> dict[str, Any]:
        """Circuit and drive, within the bounds, made of numbers with so many digits."""
        W_r, vector = made(_rounded(self.M, digits)), _rounded(self.vector, digits)
        return {
            "W": _rounded(np.exp(np.minimum(self.log_W, 0)), digits),
            "W_r": W_r / max(1, np.linalg.norm(W_r, 2)),
            "sigma": _rounded(np.exp(np.minimum(self.log_sigma, np.log(0.99))), digits),
            "z": vector / max(1, np.linalg.norm(vector)),
        }


_BEGINNINGS = {
    "antisymmetric": _Prey(
        np.array([[0.0, -1.0], [0.0, 0.0]]),
        np.log([[0.195, 0.015], [0.0092, 0.8]]),
        np.log([0.024, 0.85]),
        np.array([-0.123, 0.705]),
    )
}
"""Where hunts begin that do not succeed from random circuits."""


def _rounded(value: np.ndarray, digits: int) -> np.ndarray:
    return np.array([float(f"{x:.{digits}g}") for x in value.ravel()]).reshape(value.shape)


def _circuit(values: dict[str, Any]) -> Circuit:
    return Circuit(values["W"], values["W_r"], _GAIN, _GAIN, values["sigma"], _TAU, _TAU)


class _Examined(NamedTuple):
    """The states that were found, and the smallest of their largest `Re l / |l|`."""

    v: Float[np.ndarray, "k n"]
    growth: float

    @classmethod
    def of(cls, values: dict[str, Any], reduced: Reduced, v: Float[np.ndarray, "k n"]):
        if not len(v):
            return cls(v, -np.inf)
        rates = spectra(_circuit(values), [reduced.state(one) for one in v])
        return cls(v, float(np.min(np.max(np.real(rates) / np.abs(rates), axis=1))))


def _hunts(sample: Sample, name: str) -> dict[str, Any]:
    n, made = CLASSES[name]
    row = {"class": name, "n": n, "hunts": sample.hunts, "circuit": None}
    for seed in range(sample.seed, sample.seed + sample.hunts):
        prey = _hunt(n, made, _BEGINNINGS.get(name), sample.steps, seed)
        if prey is None:
            continue
        for digits in _DIGITS:
            values = prey.built(made, digits)
            proved = steady_states(_circuit(values), values["z"], prove=True)
            if proved.proved and not any(state.stable for state in proved.states):
                return row | _described(values, proved) | {"seed": seed}
    return row


def _described(values: dict[str, Any], proved: SteadyStates) -> dict[str, Any]:
    parameters = {name: value.tolist() for name, value in values.items()}
    return {
        "circuit": parameters | {"b": _GAIN, "b0": _GAIN, "tau_y": _TAU, "tau_a": _TAU},
        "norm": float(np.linalg.norm(values["W_r"], 2)),
        "outcome": proved.outcome,
        "states": [
            {
                "y": np.asarray(state.state.y).tolist(),
                "a": np.asarray(state.state.a).tolist(),
                "spectral_abscissa": float(state.linear.spectral_abscissa),
                "proved": state.proved,
            }
            for state in proved.states
        ],
    }


def _hunt(
    n: int, made: Callable[[Matrix], Matrix], begin: _Prey | None, steps: int, seed: int
) -> _Prey | None:
    """A circuit all of whose states are unstable, as far as a search finds them; if it succeeds."""
    rng = np.random.default_rng(seed)

    def look(prey: _Prey, known: Float[np.ndarray, "k n"] | None = None) -> tuple[_Examined, bool]:
        """The states near known ones, or all that a search finds, and whether none is missing."""
        values = prey.built(made)
        reduced = Reduced.of(_circuit(values), values["z"])
        if known is None:
            found = search(reduced)
            return _Examined.of(values, reduced, found.v), found.expected == sum(found.signs)
        with np.errstate(all="ignore"):
            v = distinct(newton(reduced, known))
        return _Examined.of(values, reduced, v), len(v) == len(known)

    first = [begin] if begin else [_Prey.random(rng, n) for _ in range(_FIRST)]
    looks = [look(prey)[0] for prey in first]
    i = int(np.argmax([one.growth for one in looks]))
    best, at, size = first[i], looks[i], 0.3
    for _ in range(steps):
        if at.growth > _ENOUGH:
            at, complete = look(best)
            if at.growth > _ENOUGH and complete:
                return best
        tried = best.changed(rng, size)
        moved, complete = look(tried, at.v)
        better = complete and moved.growth > at.growth
        best, at = (tried, moved) if better else (best, at)
        size = min(1.5 * size, 1.0) if better else max(0.95 * size, 1e-3)
    return None
