"""Networks at the best of several learning rates."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from organics.machine.lapack import single_threaded_lapack
from organics.studies.networks.runs import Run, accuracies, reports, run
from organics.training import SequenceConfig


class Tuned(NamedTuple):
    """The runs with the first seed at all rates, and those with all seeds at the best one."""

    tried: list[Run]
    chosen: list[Run]

    def all(self) -> list[Run]:
        """Each once, in the order of training."""
        return list({one.folder: one for one in (*self.tried, *self.chosen)}.values())


def tuned(
    name: str,
    setting: SequenceConfig,
    rates: Sequence[float],
    seeds: Sequence[int],
    folder: Path,
    *,
    trial_epochs: int | None = None,
) -> Tuned:
    """Train a network at every rate, and with all seeds at the rate with the best validation
    accuracy; without more seeds if it diverges at every rate.

    Arguments
        name: begins the names of the runs' folders in `folder`.
        setting: all but the rate and the seed.
        trial_epochs: of the runs that choose the rate; by default as many as of the others.
    """

    done: dict[Path, Run] = {}

    def one(rate: float, seed: int, epochs: int) -> Run:
        its = folder / f"{name}-rate{rate:g}-epochs{epochs}-seed{seed}"
        if its not in done:
            this = replace(setting, learning_rate=rate, seed=seed, epochs=epochs)
            done[its] = run(this, its)
        return done[its]

    with single_threaded_lapack():
        epochs = setting.epochs if trial_epochs is None else trial_epochs
        tried = [one(rate, seeds[0], epochs) for rate in rates]
        best = max(tried, key=_validated)
        if best.report is None:
            return Tuned(tried, [best])
        rate = best.setting.learning_rate
        return Tuned(tried, [one(rate, seed, setting.epochs) for seed in seeds])


def _validated(one: Run) -> float:
    return 0.0 if one.report is None else one.report.validation_accuracy


def summary(found: Tuned) -> dict[str, Any]:
    """What was tried and chosen, and the accuracies and gradient norms of the chosen runs."""
    complete = reports(found.chosen)
    norms = [
        norm for one in found.chosen if one.report is not None for norm in one.gradient_norms()
    ]
    return {
        "tried": [
            {
                "learning_rate": one.setting.learning_rate,
                "validation_accuracy": None if one.report is None else round(_validated(one), 6),
            }
            for one in found.tried
        ],
        "learning_rate": found.chosen[0].setting.learning_rate,
        "parameters": complete[0].parameters if complete else None,
        **accuracies(complete),
        "largest_gradient_norm": max(norms, default=None),
        "diverged_at_step": [one.diverged_at_step for one in found.all()],
        "seconds_per_epoch": [round(report.seconds_per_epoch, 2) for report in complete],
    }
