"""`organics stability`"""

from dataclasses import dataclass, field
from pathlib import Path

from organics.cli.answer import Answer
from organics.cli.circuits import check_figure_path, in_double_precision
from organics.cli.workers import Workers


@dataclass(frozen=True)
class Stability:
    """Stability of random circuits, drawn as in the paper's trials.

    Gains, semi-saturation constants and normalization weights are uniform in (0, 1), the recurrent
    matrix is Gaussian with the given largest singular value, the drive Gaussian with norm 1. By
    default one process runs all trials, on all processors.

    Example: organics stability --n 10 --trials 1000 --spectral-norm 2
    """

    n: int = 10
    """Principal neurons of each circuit; there are as many modulator neurons."""
    trials: int = 1000
    """Number of circuits."""
    spectral_norm: float = 1.0
    """Largest singular value of the recurrent matrix."""
    identity: bool = False
    """Identity recurrence instead, for which stability is a theorem."""
    rectified: bool = False
    """Use the rectified model."""
    seed: int = 0
    """Seed of all circuits and drives."""
    verdicts: bool = False
    """Only decide which circuits are stable. Faster; the largest real part is then unknown."""
    check: bool = False
    """Exit with 1 unless every circuit is stable."""
    out: Path | None = None
    """Figure: histogram of the spectral abscissa (.png, .svg or .pdf)."""
    json: bool = False
    """One JSON document on standard output."""
    workers: Workers = field(default_factory=Workers)

    def run(self) -> Answer:
        check_figure_path(self.out)
        if self.verdicts and self.out is not None:
            raise ValueError("`--out` draws what `--verdicts` leaves out: give one of them.")
        if self.identity and self.spectral_norm != Stability.spectral_norm:
            raise ValueError(
                "`spectral_norm` must be left out with `identity`, which has norm 1, not "
                f"{self.spectral_norm:g}."
            )
        cluster = self.workers.cluster()
        in_double_precision()
        import numpy as np
        from rich.console import Console
        from rich.progress import Progress

        from organics.rest.point import METHODS
        from organics.trials import fraction_interval, run_trials

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("random circuits", total=self.trials)
            outcome = run_trials(
                self.n,
                self.trials,
                None if self.identity else self.spectral_norm,
                seed=self.seed,
                rectified=self.rectified,
                abscissae="none" if self.verdicts else "all" if self.out else "largest",
                processes=1 if self.workers.processes is None else self.workers.processes,
                cluster=cluster,
                on_progress=lambda done: progress.advance(task, done),
            )
        stable = int(outcome.stable.sum())
        low, high = fraction_interval(stable, self.trials)
        found = outcome.spectral_abscissa[outcome.converged]
        if self.out is not None:
            from organics.plots import abscissa_histogram, save_figure

            save_figure(abscissa_histogram({f"n = {self.n}": found}, of="circuits"), self.out)
        largest = float(found.max()) if len(found) and not self.verdicts else None
        residual = float(outcome.residual[outcome.converged].max()) if len(found) else None
        counts = np.bincount(outcome.method, minlength=len(METHODS))
        document = {
            "n": self.n,
            "trials": self.trials,
            "spectral_norm": None if self.identity else self.spectral_norm,
            "rectified": self.rectified,
            "seed": self.seed,
            "stable": stable,
            "fraction_stable": stable / self.trials,
            "interval_95": [low, high],
            "converged": int(outcome.converged.sum()),
            "largest_spectral_abscissa": largest,
            "largest_residual": residual,
            "methods": dict(zip(METHODS, counts, strict=True)),
        }
        text = [
            f"stable: {stable} of {self.trials} ({stable / self.trials:.2%}, "
            f"95 % interval {low:.2%} to {high:.2%})",
            f"steady state found: {int(outcome.converged.sum())}, "
            + ", ".join(f"{count} by {name}" for name, count in zip(METHODS, counts, strict=True)),
        ]
        if residual is not None:
            first = "" if largest is None else f"largest real part {largest:.4g} 1/ms, "
            text.append(f"{first}largest residual {residual:.1e}")
        return Answer(document, text, positive=stable == self.trials or not self.check)


COMMANDS = Stability
