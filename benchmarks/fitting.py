"""How long a fit takes, against SciPy's least squares with finite differences.

    python -m benchmarks.fitting [--quick] [--seconds N] [--out FILE]

The recording is that of `organics reproduce recovery`, drawn from the Whittle likelihood: two
neurons, six drives, 60 frequencies, 200 trials; 14 parameters, from one start. SciPy minimizes
the same likelihood, as a sum of squares of the roots of deviances, from the same start, with the
circuit's steady state and spectra in NumPy. Both must end at the same minimum. Ours is compiled
before.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.optimize

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.data.recordings.recording import Channel, CrossSpectra, Recording
from organics.fitting.problem import problem_of
from organics.fitting.scoring import scoring, settled
from organics.machine.lapack import single_threaded_lapack
from organics.studies.ours.recovery import DRIVES, NAMES, truth_of

FREQUENCIES = np.linspace(0.002, 0.25, 60)  # kHz
TRIALS, ERROR, STARTS, SPREAD = 200, 0.01, 1, 0.3
TIMES = 20.0  # faster, at least
_SAME = 1e-4  # by which the minima may differ


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time both.

    Arguments
        out: file for the result.
        quick: few frequencies and rounds.
        seconds: limit; what does not fit into it is left out.
    """
    agenda = Agenda("fitting", 5, quick=quick, seconds=seconds)
    frequencies = FREQUENCIES[::10] if quick else FREQUENCIES
    with jax.enable_x64(True), single_threaded_lapack():
        found = agenda.take([Measurement("a fit", 20, 15, partial(_seconds, agenda, frequencies))])
    targets = []
    for name, one in found.items():
        ratio = one["scipy"]["median"] / one["organics"]["median"]
        targets.append(target(f"{name}, times as fast as SciPy", ratio, "at least", TIMES))
    document = {"seconds_each": found, "targets": targets}
    return conclude(agenda, command("fitting", quick=quick, seconds=seconds), document, out)


def predicted(theta: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steady `y`, shape (6, 2), and cross-spectra, shape (6, f, 2, 2), of the circuit whose
    parameters have these logarithms."""
    W, sigma, tau_y, tau_a, noise_y, noise_a = np.split(np.exp(theta), [4, 6, 8, 10, 12])
    W = W.reshape(2, 2)
    a = sigma**2 + DRIVES**2 @ W.T
    y = DRIVES / np.sqrt(a)
    J = np.zeros((len(DRIVES), 4, 4))
    for i in range(2):
        J[:, i, i] = -np.sqrt(a[:, i])
        J[:, i, 2 + i] = -y[:, i] / (2 * np.sqrt(a[:, i]))
        J[:, 2 + i, :2] = W[i] * 2 * y * a
        J[:, 2 + i, 2:] = W[i] * y**2
        J[:, 2 + i, 2 + i] -= 1
    tau = np.concatenate([tau_y, tau_a])
    w = 2 * np.pi * frequencies[:, None, None]
    H = np.linalg.inv(1j * w * np.eye(4) - (J / tau[:, None])[:, None])[:, :, :2]
    Q = np.concatenate([noise_y, noise_a]) ** 2 / tau
    return y, (H * Q) @ H.conj().swapaxes(-1, -2)


def _recorded(frequencies: np.ndarray) -> tuple[Recording, np.ndarray]:
    truth = truth_of(0, 0)
    theta = np.log(np.concatenate([truth[name].ravel() for name in NAMES]))
    y, S = predicted(theta, frequencies)
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(2, *S.shape[:-1], TRIALS)) / np.sqrt(2)
    X = np.linalg.cholesky(S) @ (drawn[0] + 1j * drawn[1])
    recording = Recording(
        neurons=("1", "2"),
        stimuli=tuple("abcdef"),
        drives=DRIVES,
        channels=(Channel("y", 0), Channel("y", 1)),
        mean=y + ERROR * rng.normal(size=y.shape),
        error=np.full(y.shape, ERROR),
        spectra=(
            CrossSpectra(
                stimuli=np.arange(len(DRIVES)),
                channels=(0, 1),
                frequencies=frequencies,
                cross=X @ X.conj().swapaxes(-1, -2) / TRIALS,
                trials=np.full(len(DRIVES), TRIALS),
            ),
        ),
    )
    return recording, theta


def _seconds(agenda: Agenda, frequencies: np.ndarray) -> dict[str, Any]:
    recording, theta = _recorded(frequencies)
    truth = truth_of(0, 0)
    problem = problem_of(recording, "identity", False, fixed={}, bounds={}, ties=(), guess=truth)
    starts = SPREAD * np.random.default_rng(1).normal(size=(STARTS, len(theta)))
    near = settled(problem.model, starts)
    kept, counted = np.zeros(starts.shape, bool), np.ones((STARTS, len(DRIVES)))
    spectra = recording.spectra[0].cross

    def residuals(theta: np.ndarray) -> np.ndarray:
        y, S = predicted(theta, frequencies)
        ratio = np.linalg.solve(S, spectra)
        deviance = np.trace(ratio, axis1=-2, axis2=-1).real - np.linalg.slogdet(ratio)[1] - 2
        roots = np.sqrt(2 * TRIALS * np.maximum(deviance, 0))
        return np.concatenate([((y - recording.mean) / ERROR).ravel(), roots.ravel()])

    def by_scipy() -> float:
        search = partial(scipy.optimize.least_squares, residuals, xtol=1e-8, ftol=1e-10, gtol=1e-8)
        return min(search(theta + u).cost for u in starts)

    def ours() -> float:
        found = scoring(problem, starts, near, kept, counted, STARTS)
        return float(np.min(found.near.value))

    functions = {"organics": ours, "scipy": by_scipy}
    values = {name: function() for name, function in functions.items()}  # this compiles ours
    if abs(values["scipy"] - values["organics"]) > _SAME:
        raise ArithmeticError(f"the minima differ: {values}.")
    times = time_in_turn(functions, agenda.rounds())
    return {"minima": values} | {name: spread(x, 5) for name, x in times.items()}


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
