"""Networks at the best of several learning rates."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from organics.machine.lapack import single_threaded_lapack
from organics.machine.side_by_side import call_each
from organics.studies.harness.target import Job
from organics.studies.networks.runs import Run, accuracies, found, reports, run
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

    All networks with the first seed come before any with the second. A complete run in any of the
    job's folders is not trained again, even if its weights were removed.

    Arguments
        settings: all but the rate and the seed, by the name of the network.
        study: the folder of its runs; new ones go into the first folder of the job's runs.
        trial_epochs: of the runs that choose the rate; by default as many as of the others.
    """
    job.progress(0.0, f"{len(settings)} networks")
    folders = [(runs / study).resolve() for runs in job.runs]
    names = {network: re.sub(r"[^\w.]+", "-", network) for network in settings}
    first = call_each(
        _with_first_seed,
        [
            (folders, names[network], setting, rates, seeds[0], trial_epochs or setting.epochs)
            for network, setting in settings.items()
        ],
        job.submit,
    )
    result = dict(zip(settings, first, strict=True))
    again = [
        (network, seed)
        for seed in seeds[1:]
        for network, one in result.items()
        if one.chosen[0].report is not None
    ]
    job.progress(len(settings) / (len(settings) + len(again)), "further seeds")
    further = call_each(
        _one,
        [
            (
                folders,
                names[network],
                settings[network],
                result[network].chosen[0].setting.learning_rate,
                seed,
                settings[network].epochs,
            )
            for network, seed in again
        ],
        job.submit,
    )
    for (network, _), one in zip(again, further, strict=True):
        result[network].chosen.append(one)
    return result


def _with_first_seed(
    folders: list[Path],
    name: str,
    setting: SequenceConfig,
    rates: Sequence[float],
    seed: int,
    trial_epochs: int,
) -> Tuned:
    """The runs at all rates, and the one at the best, if that does not diverge."""
    tried = [_one(folders, name, setting, rate, seed, trial_epochs) for rate in rates]
    best = max(tried, key=_validated)
    if best.report is None or trial_epochs == setting.epochs:
        return Tuned(tried, [best])
    rate = best.setting.learning_rate
    return Tuned(tried, [_one(folders, name, setting, rate, seed, setting.epochs)])


def _one(
    folders: list[Path], name: str, setting: SequenceConfig, rate: float, seed: int, epochs: int
) -> Run:
    this = replace(setting, learning_rate=rate, seed=seed, epochs=epochs)
    places = [folder / f"{name}-rate{rate:g}-epochs{epochs}-seed{seed}" for folder in folders]
    with single_threaded_lapack():
        return found(this, places) or run(this, places[0])


def _validated(one: Run) -> float:
    return 0.0 if one.report is None else one.report.validation_accuracy


def summary(network: Tuned) -> dict[str, Any]:
    """What was tried and chosen, and the accuracies and gradient norms of the chosen runs."""
    complete = reports(network.chosen)
    norms = [one.largest_gradient_norm() for one in network.chosen if one.report is not None]
    return {
        "tried": [
            {
                "learning_rate": one.setting.learning_rate,
                "validation_accuracy": None if one.report is None else round(_validated(one), 6),
            }
            for one in network.tried
        ],
        "learning_rate": network.chosen[0].setting.learning_rate,
        "parameters": complete[0].parameters if complete else None,
        **accuracies(complete),
        "largest_gradient_norm": max(norms, default=None),
        "diverged_at_step": [one.diverged_at_step for one in network.all()],
        "seconds_per_epoch": [round(report.seconds_per_epoch, 2) for report in complete],
    }
