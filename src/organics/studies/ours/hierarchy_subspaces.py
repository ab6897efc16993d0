"""How many dimensions two areas share, and whom an area talks to.

Two rings of 36 neurons under a broad stimulus, with balanced feedback of weight 1: the dimensions
of communication within the first and from it to the second, for several recurrent weights. And an
area of two classes of neurons, one of which projects to each of two higher areas, which feed back
to those that drive them: V1 with V4 and V5.

Source: Pal, Rawat, Heeger & Martiniani 2025, bioRxiv 2025.07.15.664935, for the findings; the
circuits are ours.
"""

from typing import Any

import jax
import numpy as np
import scipy.linalg
from matplotlib.figure import Figure

from organics.circuit.circuit import Circuit
from organics.circuit.hierarchy import Hierarchy
from organics.linear_stability.spectrum import stability
from organics.machine.lapack import single_threaded_lapack
from organics.plots import COLOURS
from organics.rest.point import OperatingPoint
from organics.rest.search import steady_state
from organics.simulation.noise import Noise
from organics.spectra import stationary_covariance
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.subspaces import average_subspace, communication_subspace, rate_covariance

N, CLASS = 36, 12  # neurons of a ring; of a class of V1, of V4 and of V5
CONTRASTS = (0.1, 0.5, 1.0)
IDENTITY, GAUSSIAN, FIVE, NINE = "identity", "Gaussian", "5 patterns", "9 patterns"
GAMMAS = (0.5, 1.0, 1.3)
FEEDBACK = ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))  # from V4, from V5
_WEAK = CONTRASTS[0]
_DRAWN = CONTRASTS[1]
_NOISE = Noise(1.0, 1.0)
_MEASUREMENT = 0.01  # noise of a recording, relative to the variance


def gaussian(n: int, width: float) -> np.ndarray:
    """A circulant Gaussian of this width in neurons, with row sums 1."""
    distance = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.exp(-0.5 * (distance / width) ** 2)
    return np.asarray(scipy.linalg.circulant(kernel / kernel.sum()))


def patterns(n: int, highest: int) -> np.ndarray:
    """The projection onto the `2 highest + 1` slowest patterns around the ring."""
    frequency = np.minimum(np.arange(n), n - np.arange(n))
    column = np.fft.ifft((frequency <= highest).astype(float)).real
    return np.asarray(scipy.linalg.circulant(column))


RECURRENCE = {
    IDENTITY: np.eye(N),
    GAUSSIAN: gaussian(N, 2.0),
    FIVE: patterns(N, 2),
    NINE: patterns(N, 4),
}


def broad(n: int, contrast: float) -> np.ndarray:
    """The drive of a stimulus with broad tuning on a background of 5 %."""
    v = np.cos((2 * np.pi * np.arange(n) / n - np.pi) / 2) ** 2 + 0.05
    return 0.7 * contrast * v / np.linalg.norm(v)


def rings(recurrence: str) -> Hierarchy:
    """Two rings with these recurrent weights."""
    area, G = Circuit(np.ones((N, N)), RECURRENCE[recurrence]), gaussian(N, 2.0)
    return Hierarchy([area, area], [G], [0.7 * G])


def three_areas(gamma: float, from_V4: float, from_V5: float) -> Hierarchy:
    """V1 with one pool; above it V4 and V5, each with its own."""
    both = lambda one, other: np.asarray(scipy.linalg.block_diag(one, other))  # noqa: E731
    W_r, K, pool = patterns(CLASS, 2), gaussian(CLASS, 1.0), np.ones((CLASS, CLASS))
    first = Circuit(np.ones((2 * CLASS, 2 * CLASS)), both(W_r, W_r))
    above = Circuit(both(pool, pool), both(W_r, W_r))
    back = both(from_V4 * K, from_V5 * K)
    return Hierarchy([first, above], [both(K, K)], [back], gamma)


def compute(job: Job) -> Outcome:
    """Dimensions for each recurrence and contrast, and predictions for each feedback."""
    draws = 10 if job.quick else 200
    contrasts = CONTRASTS[:2] if job.quick else CONTRASTS
    cases = [(name, contrast) for name in RECURRENCE for contrast in contrasts]
    pairs = [(gamma, fed) for gamma in GAMMAS for fed in FEEDBACK]
    total, dimensions, talks = len(cases) + len(pairs), [], []
    with jax.enable_x64(True), single_threaded_lapack():
        for i, (name, contrast) in enumerate(cases):
            job.progress(i / total, f"{name}, contrast {contrast:g}")
            dimensions.append({"recurrence": name, "contrast": contrast}
                              | _dimensions(name, contrast, draws, job.seed))  # fmt: skip
        for i, (gamma, fed) in enumerate(pairs):
            job.progress((len(cases) + i) / total, f"V4 and V5, gamma {gamma:g}")
            talks.append({"gamma": gamma, "from_V4": fed[0], "from_V5": fed[1]}
                         | _predictions(gamma, *fed))  # fmt: skip
    return conclude({"dimensions": dimensions, "talks": talks})


def _covariance(point: OperatingPoint) -> Any:
    return rate_covariance(point, stationary_covariance(point, _NOISE), measurement=_MEASUREMENT)


def _dimensions(name: str, contrast: float, draws: int, seed: int) -> dict[str, Any]:
    point = steady_state(rings(name), broad(N, contrast))
    C, first, second = _covariance(point), np.arange(N), N + np.arange(N)
    found: dict[str, Any] = {"stable": bool(stability(point).stable)}
    for where, targets in (("within", first), ("between", second)):
        one = average_subspace(C, first, targets, size=N // 2, draws=draws, seed=seed)
        found |= {where: float(one.dimension), f"{where}_R2": float(one.performance[-1])}
        if contrast == _DRAWN:
            found[f"{where}_curve"] = np.round(np.asarray(one.performance), 5)
    return found


def _predictions(gamma: float, from_V4: float, from_V5: float) -> dict[str, Any]:
    """How well all of V1 predicts V4 and V5."""
    drive = np.tile(broad(CLASS, _WEAK), 2) / np.sqrt(2)
    point = steady_state(three_areas(gamma, from_V4, from_V5), drive)
    C, first = _covariance(point), np.arange(2 * CLASS)
    found: dict[str, Any] = {"stable": bool(stability(point).stable)}
    for name, start in (("V4", 2 * CLASS), ("V5", 3 * CLASS)):
        one = communication_subspace(C, first, start + np.arange(CLASS))
        found |= {name: float(one.performance[-1]), f"{name}_dimension": int(one.dimension)}
    y = np.asarray(point.state[0].y)
    return found | {"y_to_V4": float(y[:CLASS].max()), "y_to_V5": float(y[CLASS:].max())}


def conclude(found: dict[str, Any]) -> Outcome:
    """The findings as checks."""
    dimensions, talks = found["dimensions"], found["talks"]
    by = {name: [row for row in dimensions if row["recurrence"] == name] for name in RECURRENCE}
    structured = [*by[FIVE], *by[NINE]]
    told = {(row["gamma"], row["from_V4"]): row for row in talks}
    least, usual, most = GAMMAS

    def both(rows: list) -> str:
        return ", ".join(f"{row['between']:.3g} and {row['within']:.3g}" for row in rows)

    def shares(gamma: float, weight: float) -> str:
        return f"{told[gamma, weight]['V4']:.3g} and {told[gamma, weight]['V5']:.3g}"

    checks = [
        Check("where `W_r` projects onto a few patterns, communication between areas has fewer "
              "dimensions than within", f"between and within: {both(structured)}",
              all(row["between"] < row["within"] for row in structured),
              tolerance="5 and 9 patterns, each contrast"),
        Check("and the more of them the more patterns there are",
              f"within: {_listed(by[FIVE], 'within')} against {_listed(by[NINE], 'within')}",
              all(a["within"] < b["within"] for a, b in zip(by[FIVE], by[NINE], strict=True)),
              tolerance="5 against 9 patterns"),
        Check("with identity recurrence it does not have fewer", both(by[IDENTITY]),
              all(row["between"] >= row["within"] for row in by[IDENTITY]),
              tolerance="each contrast"),
        Check("with a Gaussian `W_r` it has fewer", both(by[GAUSSIAN]),
              all(row["between"] < row["within"] for row in by[GAUSSIAN]),
              tolerance="each contrast", decides=False),
        Check("feedback of weight 1.3 from one of two higher areas decides which of them V1 "
              "predicts", f"V4 and V5: {shares(most, 1.0)} with feedback from V4, "
              f"{shares(most, 0.0)} from V5",
              told[most, 1.0]["V4"] > 10 * told[most, 1.0]["V5"]
              and told[most, 0.0]["V5"] > 10 * told[most, 0.0]["V4"], tolerance="10 times"),
        Check("feedback from both treats them alike", shares(most, 0.5),
              abs(told[most, 0.5]["V4"] / told[most, 0.5]["V5"] - 1) < 0.01, tolerance="1 %"),
        Check("feedback of weight 0.5 has the opposite effect", shares(least, 1.0),
              told[least, 1.0]["V5"] > told[least, 1.0]["V4"], tolerance="V5 more"),
        Check("that of weight 1 has hardly any", shares(usual, 1.0),
              abs(told[usual, 1.0]["V4"] / told[usual, 1.0]["V5"] - 1) < 0.05, tolerance="5 %"),
        Check("every state is stable", f"{sum(row['stable'] for row in [*dimensions, *talks])} of "
              f"{len(dimensions) + len(talks)}",
              all(row["stable"] for row in [*dimensions, *talks]), tolerance="all"),
    ]  # fmt: skip
    middle = next(row for row in by[NINE] if row["contrast"] == _DRAWN)
    here = (
        f"{middle['between']:.3g} dimensions between areas and {middle['within']:.3g} within, for "
        f"9 patterns; V1 predicts {100 * told[most, 1.0]['V4']:.0f} % of V4 and "
        f"{100 * told[most, 1.0]['V5']:.1f} % of V5 with feedback from V4"
    )
    columns = ("recurrence", "contrast", "within", "R^2", "between", "R^2")
    cells = [
        [row["recurrence"], f"{row['contrast']:g}"]
        + [f"{row[key]:.3g}" for key in ("within", "within_R2", "between", "between_R2")]
        for row in dimensions
    ]
    return Outcome(here, checks, found, Table(columns, cells))


def _listed(rows: list, what: str) -> str:
    return ", ".join(f"{row[what]:.3g}" for row in rows)


def draw(outcome: Outcome) -> Figure:
    """Left: share of the variance that m dimensions of the first area predict, at half contrast, of
    the best prediction, within (solid) and between areas (dashed). Right: how well V1 predicts V4
    and V5, for feedback from one of them or both."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = [row for row in outcome.numbers["dimensions"] if "within_curve" in row]
    for colour, row in zip(COLOURS, rows, strict=False):
        for where, style in (("within", "-"), ("between", "--")):
            curve = np.asarray(row[f"{where}_curve"])
            label = row["recurrence"] if where == "within" else None
            left.plot(curve / curve[-1], style, color=colour, label=label)
    left.axhline(0.95, color="0.8", linewidth=1)
    left.set(xlabel="dimensions", ylabel="share of the best prediction", xlim=(0, 12))
    left.legend(title="$W_r$")
    for colour, gamma in zip(COLOURS, GAMMAS, strict=False):
        talks = [row for row in outcome.numbers["talks"] if row["gamma"] == gamma]
        weights = [row["from_V4"] for row in talks]
        right.plot(weights, [row["V4"] for row in talks], "o-", color=colour, label=f"{gamma:g}")
        right.plot(weights, [row["V5"] for row in talks], "s--", color=colour)
    right.set(xlabel="feedback from V4 (the rest from V5)",
              ylabel="$R^2$ of V4 (solid), V5 (dashed)")  # fmt: skip
    right.legend(title="$\\gamma$")
    return figure
