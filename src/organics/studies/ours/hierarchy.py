"""Two areas with feedback: responses, rhythms, coherence and communication against contrast.

A ring of 36 neurons in each of two areas, feedforward and feedback by a Gaussian kernel, balanced
feedback of weight `gamma`, white noise on all neurons. The findings of the preprint (as far as its
abstract and code tell) are checked on this ring, which is not its circuit: it has identity
recurrence and no gating populations, but the same steady states for the same parameters.

Source: Pal, Rawat, Heeger & Martiniani 2025, bioRxiv 2025.07.15.664935.
"""

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from organics.circuit.circuit import Circuit
from organics.circuit.hierarchy import Hierarchy
from organics.linear_stability.certificate import certify
from organics.linear_stability.spectrum import stability
from organics.machine.lapack import single_threaded_lapack
from organics.plots import COLOURS
from organics.rest.point import OperatingPoint
from organics.rest.search import steady_state
from organics.simulation.noise import Noise
from organics.spectra import coherence, power_spectrum, stationary_covariance
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.subspaces import average_subspace, rate_covariance

N = 36
GAMMAS = (0.5, 1.0, 1.05)
CONTRASTS = (0.03, 0.1, 0.5, 1.0)
_PREFERRED = (N // 2, 2 * N + N // 2)  # `y` of the first and of the second area
_NOISE = Noise(1.0, 1.0)
_HERTZ = np.arange(1, 481) / 4
_DRAWN = slice(0, None, 8)  # of the frequencies
_HALF = N // 2  # sources, and as many targets, of a subspace
_MEASUREMENT = 0.01  # noise of a recording, relative to the variance


def ring(gamma: float, g: float = 1.0) -> Hierarchy:
    """The reference ring."""
    distance = np.minimum(np.arange(N), N - np.arange(N))
    kernel = np.exp(-0.5 * (distance / 2) ** 2)
    G = np.stack([np.roll(kernel / kernel.sum(), i) for i in range(N)])
    area = Circuit(np.ones((N, N)))
    return Hierarchy([area, area], [G], [G], gamma, g)


def grating(contrast: float) -> np.ndarray:
    """The drive of an oriented stimulus, at the preferred orientation of neuron 18."""
    v = np.abs(np.cos((2 * np.pi * np.arange(N) / N - np.pi) / 2)) ** 17
    return 0.7 * contrast * v / np.linalg.norm(v)


def compute(job: Job) -> Outcome:
    """Steady state, spectra and subspaces for each contrast and weight of feedback."""
    contrasts = CONTRASTS[::2] if job.quick else CONTRASTS
    hertz = _HERTZ[::16] if job.quick else _HERTZ
    cases = [(contrast, gamma) for contrast in contrasts for gamma in GAMMAS]
    rows = []
    with jax.enable_x64(True), single_threaded_lapack():
        silent = power_spectrum(steady_state(ring(1.0), grating(1e-9)), hertz / 1000, _NOISE)
        for i, (contrast, gamma) in enumerate(cases):
            job.progress(i / (len(cases) + 2), f"contrast {contrast:g}, gamma {gamma:g}")
            point = steady_state(ring(gamma), grating(contrast))
            rows.append(
                {"contrast": contrast, "gamma": gamma}
                | _at_rest(point)
                | _rhythms(point, hertz, np.asarray(silent)[:, _PREFERRED[0]])
            )
        job.progress(len(cases) / (len(cases) + 2), "subspaces")
        subspaces = [_communication(gamma, 20 if job.quick else 200) for gamma in GAMMAS[:2]]
    return conclude({"hertz": hertz[_DRAWN], "rows": rows, "subspaces": subspaces})


def _at_rest(point: OperatingPoint) -> dict[str, Any]:
    linear = stability(point)
    areas = {
        f"{name}_{k + 1}": float(value)
        for k, (y, a) in enumerate(point.state)
        for name, value in {"y": y.max(), "a": a[0], "rate": (y**2).mean()}.items()
    }
    return areas | {
        "converged": bool(point.converged),
        "abscissa": float(linear.spectral_abscissa),
        "stable": bool(linear.stable),
        "certificate": certify(point, linear).kind,
    }


def _rhythms(point: OperatingPoint, hertz: np.ndarray, silent: np.ndarray) -> dict[str, Any]:
    """Power of the preferred neuron of the first area, relative to that without stimulus, and its
    coherence with that of the second."""
    one, other = _PREFERRED
    power = np.asarray(power_spectrum(point, hertz / 1000, _NOISE))[:, one]
    together = np.asarray(coherence(point, hertz / 1000, _NOISE))[:, one, other]
    gain = power / silent
    return {
        "gain": _short(gain[_DRAWN]),
        "coherence": _short(together[_DRAWN]),
        "peak_hz": float(hertz[gain.argmax()]),
        "coherence_peak_hz": float(hertz[together.argmax()]),
    }


def _short(values: np.ndarray) -> list[float]:
    """Rounded to the digits that a figure shows."""
    return [float(f"{value:.4g}") for value in values]


def _communication(gamma: float, draws: int) -> dict[str, Any]:
    """Subspaces within the first area and from it to the second, at half contrast."""
    point = steady_state(ring(gamma), grating(0.5))
    C = rate_covariance(point, stationary_covariance(point, _NOISE), measurement=_MEASUREMENT)
    first, second = np.arange(N), N + np.arange(N)
    found = {
        name: average_subspace(C, first, targets, size=_HALF, draws=draws)
        for name, targets in (("within", first), ("between", second))
    }
    return {"gamma": gamma} | {
        f"{name}_{what}": value
        for name, one in found.items()
        for what, value in (
            ("dimension", float(one.dimension)),
            ("performance", np.asarray(one.performance)),
        )
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """The findings of the preprint as checks."""
    rows, by = found["rows"], {(r["contrast"], r["gamma"]): r for r in found["rows"]}
    contrasts = sorted({row["contrast"] for row in rows})
    low, middle, high = GAMMAS

    def ratios(what: str) -> list[float]:
        return [by[c, middle][what] / by[c, low][what] for c in contrasts]

    def listed(values) -> str:
        return ", ".join(f"{value:.3g}" for value in values)

    first, second = ratios("rate_1"), ratios("rate_2")
    peaks = {gamma: [by[c, gamma]["peak_hz"] for c in contrasts] for gamma in (low, middle)}
    coherent = {
        gamma: [
            hertz
            for c in contrasts
            if (hertz := by[c, gamma]["coherence_peak_hz"]) > found["hertz"][0]
        ]
        for gamma in (low, middle)
    }
    shared = [c for c in contrasts if c <= 0.1]
    within, between = (
        [one[f"{where}_dimension"] for one in found["subspaces"]] for where in ("within", "between")
    )
    weakest = contrasts[0]
    checks = [
        Check("feedback of weight 1 instead of 0.5 raises the mean rates of both areas at every "
              "contrast", f"{listed(first)} and {listed(second)} times",
              min(*first, *second) > 1, tolerance="> 1"),
        Check("and more so in the higher area where that is not saturated",
              f"{listed(second[: len(shared)])} against {listed(first[: len(shared)])} times",
              all(b > a for a, b in zip(first, second[: len(shared)], strict=False)),
              tolerance="contrasts up to 10 %"),
        Check("the peak of the rhythm moves to higher frequencies with contrast",
              "; ".join(f"gamma {g:g}: {listed(p)} Hz" for g, p in peaks.items()),
              all(np.all(np.diff(p) > 0) for p in peaks.values()), tolerance="at each gamma"),
        Check("and with feedback", f"{listed(peaks[middle])} against {listed(peaks[low])} Hz",
              all(a > b for a, b in zip(peaks[middle], peaks[low], strict=True)),
              tolerance="at every contrast"),
        Check("the slow rhythm at the weakest contrast is gone at gamma = 1.05",
              f"{by[weakest, high]['peak_hz']:g} Hz, after {by[weakest, middle]['peak_hz']:g}",
              by[weakest, high]["peak_hz"] == found["hertz"][0],
              tolerance="no peak above the lowest frequency"),
        Check("the coherence of the areas peaks at higher frequencies with contrast",
              "; ".join(f"gamma {g:g}: {listed(p)} Hz" for g, p in coherent.items()),
              all(len(p) > 1 and np.all(np.diff(p) > 0) for p in coherent.values()),
              tolerance="at each gamma, of the contrasts at which it has a peak"),
        Check("every state is found and stable", listed([r["abscissa"] for r in rows]) + " 1/ms",
              all(row["converged"] and row["stable"] for row in rows), tolerance="all"),
        Check("communication between areas has fewer dimensions than within",
              f"{listed(between)} between, {listed(within)} within",
              all(b < w for b, w in zip(between, within, strict=True)),
              tolerance="gamma 0.5 and 1, half contrast"),
    ]  # fmt: skip
    held = sum(bool(check.holds) for check in checks)
    here = (
        f"{held} of {len(checks)} findings on the reference ring; peaks from "
        f"{min(peaks[low]):g} to {max(peaks[middle]):g} Hz"
    )
    columns = ("contrast", "gamma", "max y 1", "a 1", "max y 2", "a 2", "largest real part, 1/ms",
               "peak, Hz", "peak of coherence, Hz", "certificate")  # fmt: skip
    cells = [
        [f"{row['contrast']:g}", f"{row['gamma']:g}"]
        + [f"{row[key]:.7f}" for key in ("y_1", "a_1", "y_2", "a_2", "abscissa")]
        + [f"{row['peak_hz']:g}", f"{row['coherence_peak_hz']:g}", row["certificate"]]
        for row in rows
    ]
    return Outcome(here, checks, found, Table(columns, cells))


def draw(outcome: Outcome) -> Figure:
    """Left: power of the preferred neuron of the first area, relative to that without stimulus.
    Right: its coherence with that of the second area. A colour for each contrast; solid lines are
    gamma = 1, dashed ones 0.5."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    hertz, rows = outcome.numbers["hertz"], outcome.numbers["rows"]
    contrasts = sorted({row["contrast"] for row in rows})
    for row in rows:
        if row["gamma"] not in GAMMAS[:2]:
            continue
        solid = row["gamma"] == GAMMAS[1]
        style = {
            "color": COLOURS[contrasts.index(row["contrast"])],
            "linestyle": "-" if solid else "--",
            "label": f"{100 * row['contrast']:g} %" if solid else None,
        }
        axes[0].plot(hertz, row["gain"], **style)
        axes[1].plot(hertz, row["coherence"], **style)
    axes[0].set(xlabel="frequency (Hz)", ylabel="power, relative", yscale="log")
    axes[1].set(xlabel="frequency (Hz)", ylabel="coherence of the two areas")
    axes[0].legend(title="contrast")
    return figure
