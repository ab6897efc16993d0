"""Patterns on a ring of 64 neurons: where they begin, their wavelength, frequency and speed.

Neurons excite those a wavelength of 8 away more than in between, by a band in the transfer function
of `W_r` around 8 periods. Three circuits:

* turing: one pool for all, equal time constants. Beyond the onset a still pattern grows.
* hopf: slower modulators, and pools that prefer neurons a wavelength away. The pattern oscillates.
* travelling: the same, with recurrence that is stronger to one side. It moves.

The dispersion relation gives the onset, the rates and frequencies. Simulations start at the uniform
state with a small perturbation. While it is small, each wave is a sum of two exponentials: their
rates follow from its course by Prony's method, and are compared with the eigenvalues. Later the
pattern saturates, 3 % beyond the onset.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex
from matplotlib.figure import Figure

from organics.circuit.circuit import Circuit, State
from organics.circuit.weights import Convolution
from organics.linear_stability.dispersion import Dispersion, dispersion
from organics.plots import BLUE, GREY, VERMILION, letter, style
from organics.simulation.ode import simulate
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome

N, PERIODS = 64, 8
DRIVE, SIGMA = 0.6, 0.1
KINDS = ("turing", "hopf", "travelling")
EVERY = 2  # ms between the moments that are kept for the figure


@dataclass(frozen=True)
class Sample:
    """The simulations."""

    linear: float = 100.0
    """Duration of those of small perturbations, in ms."""
    late: float = 4000.0
    """Duration until the pattern has its shape, in ms."""
    beyond: float = 1.03
    """Strength of the band, in units of that at the onset."""
    seed: int = 0
    """Seed of the perturbations."""


def circuit(kind: str, strength: float) -> tuple[Circuit, np.ndarray]:
    """A circuit whose band in the transfer function of `W_r` is `1 + strength` high, and its
    drive."""
    modes = np.fft.fftfreq(N, 1 / N)
    band = 1 + strength * np.exp(-0.5 * (np.abs(modes) - PERIODS) ** 2)
    band[0] = 1
    transfer = band + 0j
    if kind == "travelling":
        transfer += 0.3j * np.sign(modes) * (band - 1)
    kernel = np.fft.fftshift(np.fft.ifft(transfer.conj()).real)
    angles = 2 * np.pi * (np.arange(N) - N // 2) * PERIODS / N
    pool = np.ones(N) if kind == "turing" else 1 + 0.95 * np.cos(angles)
    on_ring = lambda k: Convolution(k[None, None, None], 1, N, "periodic")  # noqa: E731
    tau_a = 2.0 if kind == "turing" else 10.0
    c = Circuit(on_ring(pool / N), on_ring(kernel), 1.0, 1.0, SIGMA, 2.0, tau_a)
    return c, np.full(N, DRIVE)


def onset(kind: str) -> float:
    """The strength at which the fastest wave neither grows nor decays, by bisection of the
    dispersion relation."""
    low, high = 0.0, 8.0
    for _ in range(50):
        middle = (low + high) / 2
        grows = dispersion(*circuit(kind, middle)).spectral_abscissa > 0
        low, high = (low, middle) if grows else (middle, high)
    return (low + high) / 2


def compute(job: Job) -> Outcome:
    """Predict and simulate."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, late=600.0, beyond=1.2)
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """Predictions and simulations of each circuit."""
    found = {}
    with jax.enable_x64(True):
        for i, kind in enumerate(KINDS):
            job.progress(i / len(KINDS), kind)
            name = f"{kind}-{sample.linear:g}-{sample.late:g}-{sample.beyond:g}-{sample.seed}.json"
            found[kind] = kept_document(job.folder / name, partial(_one, sample, kind))
    return {"neurons": N, "beyond": sample.beyond, "circuits": found}


def _one(sample: Sample, kind: str) -> dict[str, Any]:
    begins = onset(kind)
    rows: dict[str, Any] = {}
    for name, factor in (("below", 2 - sample.beyond), ("above", sample.beyond)):
        known = dispersion(*circuit(kind, factor * begins))
        rows[name] = {
            "predicted": _predicted(known),
            "simulated": rates(sample, *circuit(kind, factor * begins), known),
        }
    known = dispersion(*circuit(kind, sample.beyond * begins))
    late = pattern(sample, *circuit(kind, sample.beyond * begins), known)
    row = known.eigenvalues[0, :, 0]
    formula = None
    if known.turing is not None and known.hopf is not None:
        formula = float(min(known.turing[0, PERIODS], known.hopf[0, PERIODS]) - 1)
    return {
        "onset": begins,
        "formula": formula,
        **rows,
        "late": late,
        "growth": np.real(row)[: N // 2 + 1],
        "hertz": 1000 * np.abs(np.imag(row[: N // 2 + 1])) / (2 * np.pi),
    }


def _predicted(known: Dispersion) -> dict[str, float]:
    wave = known.leading
    return {
        "rate": wave.rate,
        "frequency": wave.frequency,
        "wavelength": wave.wavelength,
        "speed": abs(wave.speed),
    }


def _course(c: Circuit, z: np.ndarray, known: Dispersion, size: float, times, seed: int):
    """`y` of all neurons at the times, from the uniform state and a perturbation of this size."""
    rng = np.random.default_rng(seed)
    y, a = (np.full(N, float(part[0])) for part in known.point.state)
    begin = State(jnp.asarray(y + size * rng.normal(size=N)), jnp.asarray(a))
    found = simulate(c, z, times, begin, rtol=1e-10, atol=1e-14, max_steps=200_000)
    return np.asarray(found.state.y), float(y[0])


def rates(sample: Sample, c: Circuit, z: np.ndarray, known: Dispersion) -> dict[str, float]:
    """Rate and frequency of the leading wave in a simulation of a small perturbation."""
    times = np.arange(0.0, sample.linear + 0.5, 1.0)
    y, level = _course(c, z, known, 1e-4, times, sample.seed)
    k = known.leading.periods[1]
    wave = (y - level) @ np.exp(-2j * np.pi * k * np.arange(N) / N)
    value = prony(wave)[0]
    return {"rate": np.real(value), "frequency": abs(np.imag(value)) / (2 * np.pi)}


def prony(course: Complex[np.ndarray, " t"]) -> Complex[np.ndarray, " two"]:
    """The two rates, by falling real part, of a sum of two exponentials at steps of 1 ms."""
    # each row relative to its own size, as a growing wave would hide its beginning
    rows = np.column_stack([course[1:-1], course[:-2], course[2:]])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    p, q = np.linalg.lstsq(rows[:, :2], rows[:, 2], rcond=None)[0]
    values = np.log(np.roots([1, -p, -q]))
    return values[np.argsort(-np.real(values))]


def pattern(sample: Sample, c: Circuit, z: np.ndarray, known: Dispersion) -> dict[str, Any]:
    """What has become of a perturbation of a hundredth after a long time: in the last tenth of it
    the wavelength, frequency and speed of the pattern, its size, and its last 200 ms."""
    times = np.arange(0.0, sample.late + 0.5, 1.0)
    y, level = _course(c, z, known, 1e-2, times, sample.seed)
    last = y[-len(times) // 10 :]
    waves = np.fft.fft(last - last.mean(axis=1, keepdims=True), axis=1)
    power = np.mean(np.abs(waves) ** 2, axis=0)[1 : N // 2]
    k = 1 + int(np.argmax(power))
    size = np.abs(waves[:, k])
    turns = np.unwrap(np.angle(waves[:, k])) / (2 * np.pi)
    speed = -(turns[-1] - turns[0]) / (len(turns) - 1) * N / k
    place = last[:, 0] - last[:, 0].mean()
    crossings = np.flatnonzero((place[:-1] < 0) & (place[1:] >= 0))
    oscillates = np.ptp(place) > 1e-3 * np.ptp(last) and len(crossings) > 2
    exact = crossings - place[crossings] / (place[crossings + 1] - place[crossings])
    frequency = (len(exact) - 1) / (exact[-1] - exact[0]) if oscillates else 0.0
    return {
        "wavelength": N / k,
        "frequency": float(frequency),
        "speed": abs(float(speed)),
        "steadiness": float(size.min() / size.max()),
        "size": float(np.max(np.abs(last - level))),
        "last": np.round(last[-200::EVERY], 3),
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of predictions against simulations; `found` is the result of `measure`."""
    checks, words = [], []
    for kind, one in found["circuits"].items():
        pairs = [(one[side]["predicted"], one[side]["simulated"]) for side in ("below", "above")]
        signs = all((a["rate"] > 0) == (b["rate"] > 0) == above
                    for (a, b), above in zip(pairs, (False, True), strict=True))  # fmt: skip
        error = max(
            abs(2j * np.pi * (a["frequency"] - b["frequency"]) + a["rate"] - b["rate"])
            for a, b in pairs
        )
        checks += [
            Check(
                f"{kind}: small waves decay below the predicted onset and grow above it",
                f"at {2 - found['beyond']:.2f} and {found['beyond']:.2f} of it: "
                f"{pairs[0][1]['rate']:+.2e} and {pairs[1][1]['rate']:+.2e} 1/ms",
                signs,
            ),
            Check(
                f"{kind}: their rates and frequencies are the eigenvalues",
                f"within {error:.1e} 1/ms",
                error < 1e-4,
                tolerance="1e-4 1/ms",
            ),
        ]
        known, late = one["above"]["predicted"], one["late"]
        checks.append(
            Check(
                f"{kind}: the pattern has the predicted wavelength",
                f"{late['wavelength']:.3g} neurons, predicted {known['wavelength']:.3g}",
                bool(np.isclose(late["wavelength"], known["wavelength"])),
            )
        )
        words.append(f"{kind}: from {1 + one['onset']:.3f} on, wavelength {late['wavelength']:.3g}")
        if kind != "turing":
            checks.append(
                Check(
                    f"{kind}: the saturated pattern has the predicted frequency",
                    f"{1000 * late['frequency']:.2f} Hz, predicted {1000 * known['frequency']:.2f}",
                    abs(late["frequency"] / known["frequency"] - 1) < 0.05,
                    tolerance="5 %",
                )
            )
            words[-1] += f", {1000 * late['frequency']:.1f} Hz"
        if kind == "travelling":
            checks.append(
                Check(
                    f"{kind}: it moves at the predicted speed",
                    f"{late['speed']:.4f} neurons per ms, predicted {known['speed']:.4f}",
                    abs(late["speed"] / known["speed"] - 1) < 0.05,
                    tolerance="5 %",
                )
            )
            words[-1] += f", {late['speed']:.3f} neurons per ms"
        if one["formula"] is not None:
            checks.append(
                Check(
                    f"{kind}: the closed form of the onset is where the spectrum says",
                    f"{one['formula']:.6f}, by the spectrum {one['onset']:.6f}",
                    abs(one["formula"] - one["onset"]) < 1e-6,
                    tolerance="1e-6",
                )
            )
    return Outcome("; ".join(words), checks, found)


@style()
def draw(outcome: Outcome) -> Figure:
    """Above: rate of growth of each wave, slightly beyond the onset of three circuits on a ring.
    Below: the potentials of all neurons during the last 200 ms of long simulations: a still
    pattern, an oscillating and a travelling one."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots(2, len(KINDS))
    for column, kind in enumerate(KINDS):
        one = outcome.numbers["circuits"][kind]
        above, below = axes[:, column]
        growth = np.asarray(one["growth"])
        above.axhline(0, color=GREY, linewidth=0.6)
        above.plot(growth, ".-", color=BLUE, markersize=3)
        grows = np.flatnonzero(growth > 0)
        above.plot(grows, growth[grows], "D", color=VERMILION, markersize=3)
        above.set(xlabel="periods on the ring", xlim=(0, 24))
        letter(above, "abc"[column], kind)
        last = np.asarray(one["late"]["last"])
        image = below.imshow(last.T, aspect="auto", origin="lower", cmap="viridis",
                             extent=(0, EVERY * len(last), 0, N))  # fmt: skip
        image.set_rasterized(True)
        below.set(xlabel="time (ms)")
    axes[0, 0].set_ylabel("rate (1/ms)")
    axes[1, 0].set_ylabel("neuron")
    return figure
