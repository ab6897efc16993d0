"""Finds trained runs on sequences, and the commands that train them."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from organics.training.config import SequenceConfig, TaskConfig
from organics.training.run_folder import RunFolder


class Trained(NamedTuple):
    """A run on sequences with a model.

    Attributes
        folder: its folder.
        config: its settings.
        epochs: number of complete epochs, of `config.epochs`.
        validation_accuracy: of the best epoch, which the model is from.
        test_accuracy: of that model; None if the run is not complete.
        hours: of training so far.
    """

    folder: RunFolder
    config: SequenceConfig
    epochs: int
    validation_accuracy: float
    test_accuracy: float | None
    hours: float


def trained(places: Iterable[Path]) -> list[Trained]:
    """All runs on sequences in these folders and below, sorted by validation accuracy, best first.

    Of runs with the same settings, such as copies, only the longest counts. Unreadable folders are
    skipped, as anything may be there.
    """
    found: dict[SequenceConfig, Trained] = {}
    for path in sorted({p.parent for place in places for p in Path(place).rglob("config.json")}):
        try:
            folder = RunFolder.open(path)
            lines = folder.lines("metrics.jsonl")
            report = folder.load_report()
        except (ValueError, OSError):
            continue
        if not isinstance(folder.config, SequenceConfig) or not lines:
            continue
        if not (path / "model.safetensors").exists():
            continue
        best = max(line["validation_accuracy"] for line in lines)
        tested = None if report is None else report["test_accuracy"]
        hours = sum(line["seconds"] for line in lines) / 3600
        run = Trained(folder, folder.config, len(lines), best, tested, hours)
        other = found.setdefault(folder.config, run)
        if (run.test_accuracy is not None, run.epochs) > (
            other.test_accuracy is not None,
            other.epochs,
        ):
            found[folder.config] = run
    return sorted(found.values(), key=lambda run: -run.validation_accuracy)


def is_whole(config: SequenceConfig) -> bool:
    """Whether the task is the paper's: all pixels of the image, one per step."""
    return config.resize is None and not config.rows


def command(config: SequenceConfig | TaskConfig) -> str:
    """The command that trains with these settings."""
    default = type(config)()
    words = ["organics train", config.task]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "task" or value == getattr(default, field.name):
            continue
        flag = f"--{field.name.replace('_', '-')}"
        if field.name == "hyperparameters":
            pairs = " ".join(f"{name} {number:g}" for name, number in value)
            words.append(f"{flag} {pairs}")
        elif value is True:
            words.append(flag)
        elif value is False:
            words.append(f"--no-{field.name.replace('_', '-')}")
        elif isinstance(value, tuple):
            words.append(" ".join([flag, *map(str, value)]))
        else:
            words.append(f"{flag} {value}")
    return " ".join(words)


def in_words(run: Trained) -> str:
    """The run in words: recurrent weights, epochs, and the type of products if it is not full."""
    kind = f"{run.config.recurrent} W_r, " if run.config.model == "organics" else ""
    products = "" if run.config.products == "full" else f", {run.config.products}"
    if run.test_accuracy is not None:
        return f"{kind}{run.epochs} epochs{products}"
    return f"{kind}not complete: {run.epochs} of {run.config.epochs} epochs{products}"
