"""`organics train`"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from organics.cli.answer import Answer
from organics.cli.devices import Devices, only_answers_on_standard_output
from organics.names import DatasetName, TaskName
from organics.training.config import AnyConfig, SequenceConfig, TrainConfig


@dataclass(frozen=True)
class _Static(TrainConfig):
    # given by the name of the command: no flag
    dataset: tyro.conf.Suppress[DatasetName] = "mnist"


@dataclass(frozen=True)
class _Sequence(SequenceConfig):
    task: tyro.conf.Suppress[TaskName] = "smnist"


@dataclass(frozen=True)
class _Options:
    """Options of a run besides its settings."""

    out: Path | None = None
    """Folder for the settings, the metrics of every epoch, checkpoints, the best model and the
    report; by default runs/DATA-MODEL-SIZE-seedN."""
    resume: bool = False
    """Continue the run in that folder, if there is one. The results are exactly those of an
    uninterrupted run (on the same machine and versions)."""
    quiet: bool = False
    """No progress bar."""
    figure: Annotated[Path | None, tyro.conf.arg(help="Figure of the training curves.")] = None
    json: bool = False
    """One JSON document on standard output."""
    sharing: Devices = field(default_factory=Devices)


@dataclass(frozen=True)
class Train(_Options):
    """Train a classifier of images with Adam, without gradient clipping."""

    config: _Static = field(default_factory=_Static)

    def run(self) -> Answer | None:
        return _train(TrainConfig(**vars(self.config)), self)


@dataclass(frozen=True)
class TrainSequence(_Options):
    """Train a recurrent classifier of sequences with Adam, by backpropagation through time."""

    config: _Sequence = field(default_factory=_Sequence)

    def run(self) -> Answer | None:
        return _train(SequenceConfig(**vars(self.config)), self)


def _train(config: AnyConfig, options: _Options) -> Answer | None:
    from organics.cli.circuits import check_figure_path
    from organics.training import train

    check_figure_path(options.figure)
    sharing = options.sharing
    out = Path("runs") / config.name if options.out is None else options.out
    with only_answers_on_standard_output(sharing.coordinator is not None):
        first = sharing.start()
        report = train(config, out, options.resume, not options.quiet, sharing.devices)
    if not first:
        return None
    if options.figure is not None:
        from organics.plots import save_figure, training_curves
        from organics.training.run_folder import RunFolder

        save_figure(training_curves(RunFolder.open(out).lines("metrics.jsonl")), options.figure)
    document = {"run": out, **asdict(report)}
    text = [
        f"test accuracy {report.test_accuracy:.2%} (epoch {report.best_epoch}, chosen by its "
        f"validation accuracy, {report.validation_accuracy:.2%})",
        f"{report.parameters:,} parameters, {report.seconds_per_epoch:.2f} s per epoch",
        f"everything about it is in {out}",
    ]
    return Answer(document, text)


def _command(name: str, what: str, example: str) -> Any:
    """The sub-command for one data set or task."""
    if name in get_args(DatasetName):
        default: Any = Train(config=_Static(name))  # pyright: ignore[reportArgumentType]
    else:
        default = TrainSequence(config=_Sequence(name))  # pyright: ignore[reportArgumentType]
    text = f"{what}\n\nExample: organics train {name} {example}"
    return Annotated[type(default), tyro.conf.subcommand(name, default=default, description=text)]


_DATA = (
    ("digits", "Circuits at rest, on 8 x 8 images of digits.", "--layers 50 --epochs 20"),
    ("mnist", "Circuits at rest, on MNIST.", "--layers 120 60"),
    ("fashion-mnist", "Circuits at rest, on Fashion-MNIST.", "--seed 1"),
    (
        "sdigits",
        "Recurrent, on 8 x 8 images of digits, a pixel a step.",
        "--recurrent identity --batch-size 32 --learning-rate 0.02 --epochs 20",
    ),
    (
        "smnist",
        "Recurrent, on MNIST, a pixel a step.",
        "--resize 14 --epochs 20 --schedule warmup-cosine",
    ),
    ("psmnist", "Recurrent, on MNIST, a pixel a step in permuted order.", "--units 128"),
)

COMMANDS = {name: _command(name, what, example) for name, what, example in _DATA}
