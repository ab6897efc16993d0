"""How fast neurons and modulators may be: what learns sequences, and what diverges.

    python -m organics.experiments.step_sizes

Trains the recurrent circuits with several of the largest step sizes over time constants, of `y` and
of `a`, for each kind of recurrent weights and with all else alike. The larger they are, the less
the discrete network is the circuit of which stability is proved. Interrupt and repeat it at will.
"""

import json
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import tyro

from organics.atomic import write_atomically
from organics.nn.recurrent import Recurrent
from organics.training import Diverged, SequenceConfig, train
from organics.training.run_folder import RunFolder


@dataclass(frozen=True)
class Config:
    """Train the recurrent circuits with each pair of step sizes."""

    out: Path = Path("runs/step_sizes")
    """Folder for the folders of the runs; a run that is complete in it is not repeated."""
    results: Path = Path("results/step_sizes.json")
    """File for the outcome."""
    task: Literal["smnist", "psmnist", "sdigits"] = "psmnist"
    """Task."""
    resize: int = 14
    """Pixels a side of MNIST's images."""
    recurrent: tuple[Recurrent, ...] = ("identity", "semidefinite", "bounded")
    """Kinds of recurrent weights."""
    dt_tau_max_y: tuple[float, ...] = (0.2, 0.4, 0.8)
    """Largest step sizes of `y` over its time constant."""
    dt_tau_max_a: tuple[float, ...] = (0.05, 0.2, 1.0)
    """The same of `a`."""
    dt_tau_max_gates: float = 1.0
    """The same of the gains, in all runs."""
    units: int = 64
    """Neurons."""
    epochs: int = 6
    """Epochs of each run."""
    batch_size: int = 32
    """Images per step."""
    learning_rate: float = 0.02
    """The largest of each run."""
    seed: int = 0
    """Of each run."""


def compute(config: Config, progress: bool = True) -> dict[str, Any]:
    """Train what is not complete yet; the outcome so far is always in `config.results`."""
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    where: dict[str, Any] = {}
    for kind, y, a in product(config.recurrent, config.dt_tau_max_y, config.dt_tau_max_a):
        folder = config.out / f"{config.task}-{kind}-{y:g}-{a:g}-seed{config.seed}"
        setting = _setting(config, kind, y, a)
        diverged, report = None, None
        try:
            report = train(setting, folder, resume=True, progress=progress)
            where = {name: getattr(report, name) for name in ("versions", "device", "platform")}
        except Diverged as error:
            diverged = error.step
        lines = _epochs(folder)
        rows.append(
            {
                "recurrent": kind,
                "dt_tau_max_y": y,
                "dt_tau_max_a": a,
                "diverged_at_step": diverged,
                "epochs": len(lines),
                "validation_accuracy": [round(line["validation_accuracy"], 6) for line in lines],
                "test_accuracy": None if report is None else round(report.test_accuracy, 6),
                "largest_gradient_norm": _largest(lines, "gradient_norm_max"),
                "largest_step_radius": _largest(lines, "largest_step_radius"),
            }
        )
        summary = {
            "command": " ".join(["python -m organics.experiments.step_sizes", *sys.argv[1:]]),
            "settings": _shared(config),
            "rows": rows,
            **where,
        }
        config.results.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(config.results, (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _setting(config: Config, kind: Recurrent, y: float, a: float) -> SequenceConfig:
    return SequenceConfig(
        task=config.task,
        resize=None if config.task == "sdigits" else config.resize,
        units=config.units,
        recurrent=kind,
        dt_tau_max_y=y,
        dt_tau_max_a=a,
        dt_tau_max_gates=config.dt_tau_max_gates,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        schedule="warmup-cosine",
        seed=config.seed,
    )


def _shared(config: Config) -> dict[str, Any]:
    """What is alike in all runs."""
    values = json.loads(_setting(config, "identity", 1.0, 1.0).to_json())
    for name in ("recurrent", "dt_tau_max_y", "dt_tau_max_a"):
        del values[name]
    return values


def _epochs(folder: Path) -> list[dict[str, Any]]:
    """The metrics of those that are complete; a run that diverges in its first leaves nothing."""
    try:
        return RunFolder.open(folder).lines("metrics.jsonl")
    except ValueError:
        return []


def _largest(lines: list[dict[str, Any]], name: str) -> float | None:
    """Of the epochs where it is finite; None if it is in none."""
    return max((line[name] for line in lines if line[name] is not None), default=None)


def main() -> None:
    """Run the experiment from the command line."""
    json.dump(compute(tyro.cli(Config)), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
