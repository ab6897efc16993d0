"""Training runs for comparison, and summaries of their reports."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from organics.files.atomic import read_whole, write_atomically
from organics.files.documents import parse_object, sealed, unsealed
from organics.machine.provenance import system, versions
from organics.training import Diverged, NumbersReport, Report, SequenceConfig, train
from organics.training.config import AnyConfig, read_config
from organics.training.run_folder import NoRun, RunFolder

_MOST_BYTES = 2**20  # of the record of a run that diverged


class Run(NamedTuple):
    """A complete run with its report, or a diverged one with the step."""

    setting: SequenceConfig
    folder: Path
    report: Report | None
    diverged_at_step: int | None

    def gradient_norms(self) -> list[float]:
        """The gradient norm at every step of the complete epochs, before clipping."""
        return [
            norm for line in lines(self.folder, "steps.jsonl") for norm in line["gradient_norm"]
        ]

    def largest_gradient_norm(self) -> float:
        """The largest of `gradient_norms`; 0 without a complete epoch."""
        each = (line["gradient_norm_max"] for line in lines(self.folder, "metrics.jsonl"))
        return max(each, default=0.0)


def lines(folder: Path, file: str) -> list[dict[str, Any]]:
    """The lines of a run's `.jsonl` file; none if it has not begun, or diverged in its first epoch.

    Raises `ValueError`, naming the file, if it is damaged.
    """
    try:
        return RunFolder.open(folder).lines(file)
    except NoRun:
        return []


def found(setting: SequenceConfig, folders: Iterable[Path]) -> Run | None:
    """The run with these settings in one of the folders, complete (weights or not) or diverged;
    else None.

    Raises `ValueError`, naming the file, if its report or the record of its divergence is damaged.
    """
    for folder in folders:
        if (step := _diverged_at_step(setting, folder)) is not None:
            return Run(setting, folder, None, step)
        try:
            there = RunFolder.open(folder)
        except NoRun:
            continue
        if setting.differing(there.config) or (document := there.load_report()) is None:
            continue
        if isinstance(report := Report.from_document(document), Report):
            return Run(setting, folder, report, None)
    return None


def run(setting: SequenceConfig, folder: Path) -> Run:
    """Train, unless already done; an interrupted run continues from its last epoch.

    That a run diverged, and at which step, is kept in a file beside its folder.
    """
    if (step := _diverged_at_step(setting, folder)) is not None:
        return Run(setting, folder, None, step)
    try:
        return Run(setting, folder, train(setting, folder, resume=True, progress=False), None)
    except Diverged as error:
        made = {"versions": versions(), "platform": system()}
        document = {"config": json.loads(setting.to_json()), "step": error.step, **made}
        folder.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(sealed(document), indent=2) + "\n"
        write_atomically(_record(folder), text.encode())
        return Run(setting, folder, None, error.step)


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.diverged.json")


def _diverged_at_step(setting: SequenceConfig, folder: Path) -> int | None:
    """The step at which the run with these settings is known to diverge."""
    path = _record(folder)
    try:
        document = unsealed(parse_object(read_whole(path, _MOST_BYTES)))
        config = read_config(json.dumps(document["config"]))
        step = int(document["step"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the record of a run that diverged: {error!r}") from None
    return None if setting.differing(config) else step


def reports(runs: Iterable[Run]) -> list[Report]:
    """The reports of the complete runs."""
    return [one.report for one in runs if one.report is not None]


def in_common(setting: AnyConfig, differing: Sequence[str]) -> dict[str, Any]:
    """The settings without those, by name, in which runs differ."""
    values = json.loads(setting.to_json())
    return {name: value for name, value in values.items() if name not in differing}


def accuracies(reports: Sequence[Report]) -> dict[str, Any]:
    """Test accuracies of runs with different seeds, with mean and standard deviation."""
    tested = [report.test_accuracy for report in reports]
    return {
        "seeds": [report.seed for report in reports],
        "test_accuracy": [round(accuracy, 6) for accuracy in tested],
        "mean_test_accuracy": round(mean(tested), 6) if tested else None,
        "sd_test_accuracy": round(stdev(tested), 6) if len(tested) > 1 else None,
        "validation_accuracy": [round(report.validation_accuracy, 6) for report in reports],
        "best_epoch": [report.best_epoch for report in reports],
    }


def accuracy_in_words(row: dict[str, Any]) -> str:
    """Mean and standard deviation of the test accuracies in a row with those of `accuracies`."""
    sd = row["sd_test_accuracy"]
    return f"{row['mean_test_accuracy']:.1%}" + ("" if sd is None else f" ± {sd:.1%}")


def where(reports: Sequence[Report | NumbersReport]) -> dict[str, Any]:
    """Versions, device and platform, of the last run."""
    names = ("versions", "device", "platform")
    return {name: getattr(reports[-1], name) if reports else None for name in names}
