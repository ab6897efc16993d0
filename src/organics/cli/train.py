"""`organics train`"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from organics.cli.answer import Answer
from organics.training.config import TrainConfig


@dataclass(frozen=True)
class Train:
    """Train a classifier with Adam, without gradient clipping.

    Leaves a folder with the settings, the metrics of every epoch, checkpoints, the best model and a
    report. It may be interrupted at any time, and goes on with --resume to the very same numbers.

    Example: organics train --dataset digits --layers 50 --epochs 20 --out runs/digits
    """

    config: TrainConfig = field(default_factory=TrainConfig)
    out: Path | None = None
    """Folder of the run; by default runs/DATASET-MODEL-LAYERS-seedN."""
    resume: bool = False
    """Go on with the run in that folder, if there is one."""
    quiet: bool = False
    """No progress bar."""
    figure: Annotated[Path | None, tyro.conf.arg(help="Figure of the training curves.")] = None
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from organics.cli.circuits import check_figure_path
        from organics.training import train

        check_figure_path(self.figure)
        config = self.config
        sizes = "-".join(map(str, config.layers))
        name = f"{config.dataset}-{config.model}-{sizes}-seed{config.seed}"
        out = Path("runs") / name if self.out is None else self.out
        report = train(config, out, resume=self.resume, progress=not self.quiet)
        if self.figure is not None:
            from organics.plots import save_figure, training_curves
            from organics.training.run_folder import RunFolder

            save_figure(training_curves(RunFolder.open(out).lines("metrics.jsonl")), self.figure)
        document = {"run": out, **asdict(report)}
        text = [
            f"test accuracy {report.test_accuracy:.2%} (epoch {report.best_epoch}, chosen by its "
            f"validation accuracy, {report.validation_accuracy:.2%})",
            f"{report.parameters:,} parameters, {report.seconds_per_epoch:.2f} s per epoch",
            f"everything about it is in {out}",
        ]
        return Answer(document, text)


COMMANDS = Train
