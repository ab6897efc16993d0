"""`organics simulate`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from organics.cli.answer import Answer, note
from organics.cli.circuits import check_figure_path, describe, load, one_drive
from organics.memory import require_memory


@dataclass(frozen=True)
class Simulate:
    """Trajectory of a circuit from rest under a constant input drive, with or without noise.

    Example: organics simulate examples/figure3b.json --duration 100 --out trajectory.png
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Circuit file, .json or .npz."""
    drive: int = 0
    """Which of the file's input drives, from 0."""
    duration: float = 100.0
    """In ms."""
    samples: int = 201
    """Number of evenly spaced times to report, both ends included."""
    method: Literal["explicit", "implicit"] = "explicit"
    """Solver without noise: "implicit" for stiff circuits."""
    noise: float = 0.0
    """Level of additive noise in the principal neurons."""
    noise_a: float = 0.0
    """Level of additive noise in the modulator neurons; it must not push `a` below 0."""
    dt: float = 0.02
    """Longest step with noise, in ms."""
    seed: int = 0
    """Of the noise."""
    check: bool = False
    """Exit with 1 unless the trajectory ends at rest."""
    out: Path | None = None
    """Figure of the trajectory (.png, .svg or .pdf)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        check_figure_path(self.out)
        if not 0 < self.duration < float("inf"):
            raise ValueError(f"`duration` must be finite and > 0 ms, not {self.duration}.")
        if self.samples < 2:
            raise ValueError(f"`samples` must be at least 2, not {self.samples}.")
        for name in ("noise", "noise_a"):
            if not 0 <= (level := getattr(self, name)) < float("inf"):
                raise ValueError(f"`{name}` must be finite and >= 0, not {level}.")
        if not 0 < self.dt < float("inf"):
            raise ValueError(f"`dt` must be finite and > 0 ms, not {self.dt}.")
        ((circuit, drives),) = load(self.file)
        z = one_drive(drives, self.drive)
        neurons = 2 * circuit.n
        samples = f"a trajectory of {self.samples:,} samples"
        require_memory(8 * self.samples * (1 + neurons), "samples", samples)
        import math
        import warnings

        import jax.random as jr
        import numpy as np

        if self.noise or self.noise_a:
            from organics.noise import Noise, simulate_noisy

            interval = self.duration / (self.samples - 1)
            steps = interval / self.dt
            require_memory(8 * steps * neurons, "dt", f"the noise of {steps:.3g} steps")
            save_every = math.ceil(steps)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                result = simulate_noisy(
                    circuit,
                    z,
                    Noise(self.noise, self.noise_a),
                    dt=interval / save_every,
                    steps=save_every * (self.samples - 1),
                    key=jr.key(self.seed),
                    save_every=save_every,
                )
            for warning in said:
                note(f"organics: {warning.message}")
        else:
            from organics.simulation import simulate

            times = np.linspace(0, self.duration, self.samples)
            result = simulate(circuit, z, times, method=self.method)
        t, (y, a) = np.asarray(result.t), (np.asarray(x) for x in result.state)
        last = type(result.state)(result.state.y[-1], result.state.a[-1])
        residual = float(np.linalg.norm(np.concatenate(circuit.imbalance(last, z))))
        at_rest = residual < 1e-4
        if self.out is not None:
            from organics.plots import save_figure, trajectory

            save_figure(trajectory(t, y, a), self.out)
        document = {
            "file": self.file,
            "z": z,
            "noise": self.noise,
            "noise_a": self.noise_a,
            "t": t,
            "y": y,
            "a": a,
            "residual": residual,
            "at_rest": at_rest,
        }
        state = "at rest" if at_rest else "moving"
        text = [
            describe(circuit),
            f"after {self.duration:g} ms: {state} (residual {residual:.2e})",
            f"y = {np.array2string(y[-1], precision=6, threshold=12)}",
            f"a = {np.array2string(a[-1], precision=6, threshold=12)}",
        ]
        return Answer(document, text, positive=at_rest or not self.check)


COMMANDS = Simulate
