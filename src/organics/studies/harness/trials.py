"""Trials of settings, all of them in one file.

    python -m organics.studies.harness.trials runs/trials results/trials.json

collects the runs on sequences in a folder: the command of each, how far it came, and what it had
learned, the best last. Weights are not kept.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.files.atomic import write_atomically
from organics.machine.provenance import machine, versions
from organics.studies.networks.trained import command
from organics.training.config import SequenceConfig
from organics.training.run_folder import RunFolder


@dataclass(frozen=True)
class Trials:
    """Collect trials."""

    runs: Annotated[Path, tyro.conf.Positional]
    """Folder with the runs, at any depth."""
    out: Annotated[Path, tyro.conf.Positional] = Path("results/trials.json")
    """File for the table; trials that it has already and the folder has not are kept."""


def collected(runs: Path) -> list[dict[str, Any]]:
    """One record for each run on sequences in the folder or below.

    Raises `ValueError`, naming the folder, if a run is damaged.
    """
    folders = (RunFolder.open(path.parent) for path in sorted(runs.rglob("config.json")))
    return [
        _record(folder, folder.config)
        for folder in folders
        if isinstance(folder.config, SequenceConfig)
    ]


def _record(folder: RunFolder, config: SequenceConfig) -> dict[str, Any]:
    lines, report = folder.lines("metrics.jsonl"), folder.load_report()
    norms = [line["gradient_norm_max"] for line in lines]
    return {
        "command": command(config),
        "epochs": f"{len(lines)} of {config.epochs}",
        "validation_accuracy": [round(line["validation_accuracy"], 4) for line in lines],
        "largest_gradient_norm": max(norms, default=None),
        "test_accuracy": None if report is None else round(report["test_accuracy"], 4),
    }


def merged(known: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of them, a new one in place of a known one with its command, the best last."""
    by_command = {trial["command"]: trial for trial in (*known, *new)}
    best = lambda trial: max(trial["validation_accuracy"], default=0.0)  # noqa: E731
    return sorted(by_command.values(), key=lambda trial: (best(trial), trial["command"]))


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
