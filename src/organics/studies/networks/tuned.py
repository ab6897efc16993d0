"""Networks at the best of several learning rates."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from organics.machine.lapack import single_threaded_lapack
from organics.machine.side_by_side import side_by_side
from organics.studies.harness.target import Job
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
    settings: Mapping[str, SequenceConfig],
    rates: Sequence[float],
    seeds: Sequence[int],
    job: Job,
    study: str,
    *,
    trial_epochs: int | None = None,
) -> dict[str, Tuned]:
    """Train each network at every rate with the first seed, and at the rate with the best
    validation accuracy with all seeds; without more seeds if it diverges at every rate.

    Arguments
        settings: all but the rate and the seed, by the name of the network.
        study: the folder of its runs, in the first folder of the job's runs.
        trial_epochs: of the runs that choose the rate; by default as many as of the others.
    """
    job.progress(0.0, f"{len(settings)} networks")
    folder = (job.runs[0] / study).resolve()
    found = side_by_side(
        _tuned,
        [(*one, rates, seeds, folder, trial_epochs) for one in settings.items()],
        processes=job.processes,
        cluster=job.cluster,
    )
    return dict(zip(settings, found, strict=True))


def _tuned(
    network: str,
    setting: SequenceConfig,
    rates: Sequence[float],
    seeds: Sequence[int],
    folder: Path,
    trial_epochs: int | None,
) -> Tuned:
    name = re.sub(r"[^\w.]+", "-", network)
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
