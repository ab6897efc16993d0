"""Trials of settings, all of them in one file.

    python -m organics.studies.harness.trials runs/trials results/trials.json

collects the runs on sequences and on tasks in a folder: the command of each, how far it came, and
what it had learned, the best last. Weights are not kept.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.files.atomic import write_atomically
from organics.machine.provenance import machine, versions
from organics.studies.networks.trained import command
from organics.training.config import SequenceConfig, TaskConfig
from organics.training.run_folder import RunFolder


@dataclass(frozen=True)
class Trials:
    """Collect trials."""

    runs: Annotated[Path, tyro.conf.Positional]
    """Folder with the runs, at any depth."""
    out: Annotated[Path, tyro.conf.Positional] = Path("results/trials.json")
    """File for the table; trials that it has already and the folder has not are kept."""


def collected(runs: Path) -> list[dict[str, Any]]:
    """One record for each run on sequences or on a task in the folder or below.

    Raises `ValueError`, naming the folder, if a run is damaged.
    """
    folders = (RunFolder.open(path.parent) for path in sorted(runs.rglob("config.json")))
    return [
        _record(folder, folder.config)
        for folder in folders
        if isinstance(folder.config, SequenceConfig | TaskConfig)
    ]


def _record(folder: RunFolder, config: SequenceConfig | TaskConfig) -> dict[str, Any]:
    lines, report = folder.lines("metrics.jsonl"), folder.load_report()
    norms = [line["gradient_norm_max"] for line in lines]
    measure, tested = "accuracy", "test_accuracy"
    if isinstance(config, TaskConfig):
        measure, tested = "loss", "test_score"
    validation = f"validation_{measure}"
    return {
        "command": command(config),
        "epochs": f"{len(lines)} of {config.epochs}",
        validation: [round(line[validation], 4) for line in lines],
        "largest_gradient_norm": max(norms, default=None),
        tested: None if report is None else round(report[tested], 4),
    }


def merged(known: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of them, a new one in place of a known one with its command, the best last."""
    by_command = {trial["command"]: trial for trial in (*known, *new)}
    return sorted(by_command.values(), key=lambda trial: (_best(trial), trial["command"]))


def _best(trial: dict[str, Any]) -> float:
    """The best validation accuracy, or minus the least validation loss."""
    if "validation_loss" in trial:
        return -min(trial["validation_loss"], default=math.inf)
    return max(trial["validation_accuracy"], default=0.0)


def main(trials: Trials) -> None:
    """Write the file: the trials, and the versions and the machine that collected them last."""
    known = json.loads(trials.out.read_text())["trials"] if trials.out.exists() else []
    found = merged(known, collected(trials.runs))
    document = {
        "command": "python -m organics.studies.harness.trials RUNS results/trials.json",
        "versions": versions(),
        "machine": machine(),
    }
    head = "".join(f"  {json.dumps(k)}: {json.dumps(v)},\n" for k, v in document.items())
    lines = ",\n".join(f"    {json.dumps(trial, allow_nan=False)}" for trial in found)
    text = f'{{\n{head}  "trials": [\n{lines}\n  ]\n}}\n'
    write_atomically(trials.out, text.encode())
    print(f"{len(found)} trials in {trials.out}")


if __name__ == "__main__":
    main(tyro.cli(Trials))
