"""Parameters of known circuits, recovered from simulated recordings.

Each recording is made by the stochastic equation itself, not by the linear theory of the fit: six
drives, many trials of each, samples of both `y`; and steady responses with an error of 0.01. The
noise is weak enough that modulators stay positive: 5 to 20 % of `c` for them, 0.005 to 0.02 for
`y`. All else is the protocol of theory 21.6.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from matplotlib.figure import Figure

from organics.circuit.circuit import Circuit, State
from organics.data.recordings.recording import Channel, CrossSpectra, Recording
from organics.data.recordings.summary import Settings, chosen_frequencies
from organics.fitting.fit import fit
from organics.machine.lapack import single_threaded_lapack
from organics.plots import BLUE, GREY
from organics.rest.closed_form import closed_form
from organics.simulation.noise import Noise, simulate_noisy
from organics.spectra import mean_periodogram
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table

DRIVES = np.array([(0.1, 0.05), (0.3, 0.2), (1.0, 0.3), (0.3, -1.0), (0.6, 0.6), (0.05, 0.4)])
NAMES = ("W", "sigma", "tau_y", "tau_a", "noise_y", "noise_a")
_ERROR = 0.01  # of a steady response
_STEP = 0.1  # ms; Heun's method changes the variances by less than 0.1 %
_EVERY = 5  # steps between samples
_SETTLING = 120.0  # ms; ten of the longest time constants
_WITHIN = 0.05
_LEVEL = 0.9


@dataclass(frozen=True)
class Sample:
    """How much is simulated.

    Attributes
        circuits: of two neurons each.
        trials: of each of the six drives.
        duration: of a trial, in ms.
    """

    circuits: int = 20
    trials: int = 200
    duration: float = 500.0


def compute(job: Job) -> Outcome:
    """Simulate, fit and count."""
    return conclude(measure(Sample(1, 20, 250.0) if job.quick else Sample(), job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """Truth, estimates and intervals of each circuit."""
    rows = []
    with jax.enable_x64(True), single_threaded_lapack():
        for index in range(sample.circuits):
            job.progress(index / sample.circuits, f"circuit {index}")
            name = f"circuit-{job.seed}-{index}-{sample.trials}-{sample.duration:g}.json"
            make = partial(_recovered, sample, job.seed, index)
            rows.append(kept_document(job.folder / name, make))
    return asdict(sample) | {"rows": rows}


def truth_of(seed: int, index: int) -> dict[str, np.ndarray]:
    """The parameters of a circuit, with `b = b0 = 1`."""
    rng = np.random.default_rng((seed, index))
    truth = {
        "W": rng.uniform(0.2, 1, (2, 2)),
        "sigma": rng.uniform(0.05, 0.3, 2),
        "tau_y": rng.uniform(3, 12, 2),
        "tau_a": rng.uniform(3, 12, 2),
        "noise_y": rng.uniform(0.005, 0.02, 2),
    }
    return truth | {"noise_a": rng.uniform(0.05, 0.2, 2) * truth["sigma"] ** 2}


def simulated_recording(truth: dict[str, np.ndarray], sample: Sample, seed: Any) -> Recording:
    """A recording of the circuit with these parameters, by its stochastic equation."""
    circuit = Circuit(
        truth["W"], b=1.0, b0=1.0, sigma=truth["sigma"], tau_y=truth["tau_y"], tau_a=truth["tau_a"]
    )
    rng = np.random.default_rng(seed)
    key = jr.key(int(rng.integers(2**31)))
    x = np.asarray(_trials(circuit, Noise(truth["noise_y"], truth["noise_a"]), key, sample))
    dt, size = _STEP * _EVERY, int(sample.duration / (_STEP * _EVERY))
    x = x[..., -size:]
    found = [mean_periodogram(rows, dt, size, size) for rows in x]
    chosen = chosen_frequencies(found[0][0], size, Settings(low=2.0, high=250.0))
    mean = x.mean(axis=(1, 3)) + _ERROR * rng.normal(size=(len(DRIVES), 2))
    return Recording(
        neurons=("1", "2"),
        stimuli=tuple("abcdef"),
        drives=DRIVES,
        channels=(Channel("y", 0), Channel("y", 1)),
        mean=mean,
        error=np.full(mean.shape, _ERROR),
        spectra=(
            CrossSpectra(
                stimuli=np.arange(len(DRIVES)),
                channels=(0, 1),
                frequencies=found[0][0][chosen],
                cross=np.stack([cross[chosen] for _, cross, _ in found]),
                trials=np.array([trials for _, _, trials in found]),
                interval=dt,
            ),
        ),
    )


def _trials(circuit: Circuit, noise: Noise, key, sample: Sample):
    """`y` of each drive, shape (drives, trials, 2, samples), from rest on."""
    steps = int((sample.duration + _SETTLING) / (_STEP * _EVERY)) * _EVERY
    keys = jr.split(key, (len(DRIVES), sample.trials))
    return jnp.stack(
        [
            _of_drive(circuit, noise, jnp.asarray(z), k, steps)
            for z, k in zip(DRIVES, keys, strict=True)
        ]
    )


@partial(jax.jit, static_argnums=4)
def _of_drive(circuit: Circuit, noise: Noise, z, keys, steps: int):
    start = State(*closed_form(circuit, z))

    def trial(key):
        path = simulate_noisy(
            circuit, z, noise, _STEP, steps, start, key=key, scheme="heun", save_every=_EVERY,
            throw=False,
        )  # fmt: skip
        return jnp.where(path.ok, path.state.y, jnp.nan).T

    return jax.vmap(trial)(keys)


def _recovered(sample: Sample, seed: int, index: int) -> dict[str, Any]:
    truth = truth_of(seed, index)
    found = fit(simulated_recording(truth, sample, (seed, index, 1)), starts=4, level=_LEVEL)
    chosen = [one for one in found.estimates if one.name.partition("[")[0] in NAMES]
    return {
        "names": [one.name for one in chosen],
        "truth": np.concatenate([truth[name].ravel() for name in NAMES]),
        "values": [one.value for one in chosen],
        "low": [one.low for one in chosen],
        "high": [one.high for one in chosen],
        "chi2": found.chi2,
        "degrees_of_freedom": found.degrees_of_freedom,
        "converged": found.converged,
        "agreeing": found.agreeing[0],
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """How many parameters are close, and how many lie in their intervals."""
    rows = found["rows"]
    names = rows[0]["names"]
    truth, values, low, high = (
        np.array([row[key] for row in rows], float) for key in ("truth", "values", "low", "high")
    )
    error = values / truth - 1
    close, inside = np.abs(error) <= _WITHIN, (low <= truth) & (truth <= high)
    width = np.log(high / low) / 2 / 1.645
    converged = sum(row["converged"] for row in rows)
    spare = np.median([row["chi2"] / row["degrees_of_freedom"] for row in rows])
    total = truth.size
    checks = [
        Check("at least 90 % of the identifiable parameters within 5 % of the truth",
              f"{close.sum()} of {total}", bool(close.mean() >= 0.9), tolerance=">= 90 %"),
        Check("90 % intervals cover the truth", f"{inside.sum()} of {total}",
              bool(0.85 <= inside.mean() <= 0.95), tolerance="85 to 95 %"),
        Check("every search converges", f"{converged} of {len(rows)}", converged == len(rows)),
        Check("chi2 per degree of freedom", f"median {spare:.3f}", None, decides=False),
    ]  # fmt: skip
    cells = [
        [name, f"{np.median(width[:, i]):.2%}", f"{np.mean(error[:, i]):+.2%}",
         f"{close[:, i].sum()} of {len(rows)}", f"{inside[:, i].sum()} of {len(rows)}"]
        for i, name in enumerate(names)
    ]  # fmt: skip
    here = (
        f"{close.sum()} of {total} within 5 %; 90 % intervals cover {inside.sum()} "
        f"({inside.mean():.1%})"
    )
    columns = ("parameter", "median standard error", "mean error", "within 5 %", "covered")
    return Outcome(here, checks, found, Table(columns, cells))


def draw(outcome: Outcome) -> Figure:
    """Relative errors of the estimates, with their 90 % intervals, for each parameter and
    circuit."""
    rows = outcome.numbers["rows"]
    names = rows[0]["names"]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for k, row in enumerate(rows):
        truth, values, low, high = (
            np.array(row[key], float) for key in ("truth", "values", "low", "high")
        )
        x = np.arange(len(names)) + 0.8 * (k + 0.5) / len(rows) - 0.4
        axes.vlines(x, 100 * (low / truth - 1), 100 * (high / truth - 1), color=BLUE, lw=0.8)
        axes.plot(x, 100 * (values / truth - 1), ".", color=BLUE, ms=3)
    axes.axhline(0, color=GREY, lw=0.6, zorder=0)
    axes.set_xticks(np.arange(len(names)), names, rotation=45)
    axes.set(ylabel="error of the estimate (%)")
    return figure
