"""Which step sizes of `y` and `a` learn sequences, and which diverge.

    python -m organics.studies.ours.step_sizes

Trains the recurrent circuits with several largest ratios of step size to time constant, for `y` and
for `a`, for each kind of recurrent weights, all else equal. The larger they are, the less the
discrete network is like the continuous circuit, whose stability is proved. It can be interrupted
and repeated.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from organics.names import Recurrence, TaskName
from organics.settings import Settings
from organics.studies.harness.outcome import command, run_from_command_line, write
from organics.studies.networks.runs import Run, in_common, lines, reports, run, where
from organics.training import SequenceConfig


@dataclass(frozen=True)
class Config(Settings):
    """Train the recurrent circuits with each pair of step sizes."""

    out: Path = Path("runs/step_sizes")
    """Folder with a folder for each run; complete runs are not repeated."""
    results: Path = Path("results/step_sizes.json")
    """File for the outcome."""
    task: TaskName = "psmnist"
    """Task."""
    resize: int = 14
    """Pixels a side of MNIST's images."""
    recurrent: tuple[Recurrence, ...] = ("identity", "semidefinite", "bounded")
    """Kinds of recurrent weights."""
    dt_tau_max_y: tuple[float, ...] = (0.2, 0.4, 0.8)
    """Largest ratios of step size to time constant, for `y`."""
    dt_tau_max_a: tuple[float, ...] = (0.05, 0.2, 1.0)
    """The same for `a`."""
    dt_tau_max_gates: float = 1.0
    """The same for the gains, in all runs."""
    units: int = 64
    """Neurons."""
    epochs: int = 6
    """Epochs of each run."""
    batch_size: int = 32
    """Images per step."""
    learning_rate: float = 0.02
    """Largest learning rate."""
    seed: int = 0
    """Seed of each run."""


def compute(config: Config, progress: bool = True) -> dict[str, Any]:
    """Train runs that are not complete; the outcome so far is always in `config.results`."""
    done: list[Run] = []
    summary: dict[str, Any] = {}
    for kind, y, a in product(config.recurrent, config.dt_tau_max_y, config.dt_tau_max_a):
        setting = _setting(config, kind, y, a)
        folder = config.out / f"{config.task}-{kind}-{y:g}-{a:g}-seed{config.seed}"
        done.append(run(setting, folder, progress))
        summary = {
            "command": command("step_sizes"),
            "settings": in_common(setting, ("recurrent", "dt_tau_max_y", "dt_tau_max_a")),
            "rows": [_row(one) for one in done],
            **where(reports(done)),
        }
        write(config.results, summary)
    return summary


def _setting(config: Config, kind: Recurrence, y: float, a: float) -> SequenceConfig:
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


def _row(found: Run) -> dict[str, Any]:
    epochs = lines(found.folder, "metrics.jsonl")
    return {
        "recurrent": found.setting.recurrent,
        "dt_tau_max_y": found.setting.dt_tau_max_y,
        "dt_tau_max_a": found.setting.dt_tau_max_a,
        "diverged_at_step": found.diverged_at_step,
        "epochs": len(epochs),
        "validation_accuracy": [round(line["validation_accuracy"], 6) for line in epochs],
        "test_accuracy": None if found.report is None else round(found.report.test_accuracy, 6),
        "largest_gradient_norm": _largest(epochs, "gradient_norm_max"),
        "largest_step_radius": _largest(epochs, "largest_step_radius"),
    }


def _largest(lines: list[dict[str, Any]], name: str) -> float | None:
    """The largest finite value over the epochs; None if there is none."""
    return max((line[name] for line in lines if line[name] is not None), default=None)


if __name__ == "__main__":
    run_from_command_line(compute, Config)
