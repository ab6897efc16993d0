"""`organics train`"""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from organics.cli.answer import Answer, note
from organics.cli.devices import Devices, only_answers_on_standard_output
from organics.names import (
    Backend,
    DatasetName,
    Drive,
    MadeTaskName,
    Memory,
    OwnModelName,
    ProductType,
    ReadAt,
    Recurrence,
    Schedule,
    TargetKind,
    TaskName,
)
from organics.training.config import AnyConfig, SequenceConfig, TaskConfig, TrainConfig


class _Flags:
    def __post_init__(self):
        """Nothing: the settings made of these flags are checked, with an error of one line."""


@dataclass(frozen=True)
class _Static(_Flags, TrainConfig):
    # given by the name of the command: no flag
    dataset: tyro.conf.Suppress[DatasetName] = "mnist"


@dataclass(frozen=True)
class _Sequence(_Flags, SequenceConfig):
    task: tyro.conf.Suppress[TaskName] = "smnist"


@dataclass(frozen=True)
class _Task(_Flags, TaskConfig):
    task: tyro.conf.Suppress[MadeTaskName] = "adding"


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


@dataclass(frozen=True)
class TrainTask(_Options):
    """Train a recurrent network on trials made on the fly."""

    config: _Task = field(default_factory=_Task)

    def run(self) -> Answer | None:
        return _train(TaskConfig(**vars(self.config)), self)


_FILES = """Your own examples, in a file: sequences or vectors, classes or numbers.

An .npz has the arrays x, (samples, features) or (samples, time, features), and y, and may have
lengths, x_test, y_test and lengths_test. A .csv has the names of its columns in the first line: y,
features, for sequences also id, and set if there is a test set. A .ts is of the time series
archives. What is not given is chosen by the size of the data.

Example: organics train my.npz --units 32"""


@dataclass(frozen=True, kw_only=True)
class TrainFile(_Options):
    # the help is that of the command, below

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Examples: .npz, .csv or .ts."""
    test: Path | None = None
    """Another file, with the test set; by default 20 % of the examples are the test set."""
    test_share: float | None = None
    """Another share of the examples to test with."""
    validation_share: float | None = None
    """Share of the remaining examples that choose the epoch; by default 15 %."""
    no_standardize: bool = False
    """Take the inputs as they are."""
    target: TargetKind | None = None
    """Whether y are classes or numbers, if that is not clear."""
    at: ReadAt | None = None
    """Learn at the last step of each sequence, or at every step; by default what y is given for."""
    model: OwnModelName | None = None
    """Network: "organics", "mlp" (for vectors), or for sequences another recurrent layer."""
    units: int | None = None
    """Principal neurons, or units, of the layer."""
    layers: int | None = None
    """Number of stacked circuits."""
    encoder: tuple[int, ...] | None = None
    """Widths of the encoder, for vectors."""
    recurrent: Recurrence | None = None
    """Recurrent weights of circuits; by default the identity."""
    drive: Drive | None = None
    """Input drive of circuits, for sequences."""
    dt_tau_max_y: float | None = None
    """Largest ratio of step size to time constant for y, for sequences; its inverse is about the
    reach of memory in steps. By default chosen by the number of steps; also the next two."""
    dt_tau_max_a: float | None = None
    dt_tau_max_gates: float | None = None
    backend: Backend | None = None
    """Implementation of the recurrence."""
    memory: Memory | None = None
    """"less" trains more slowly, in less memory."""
    products: ProductType | None = None
    """"bfloat16" rounds the factors of matrix products, and is quicker on some processors."""
    clip_norm: float | None = None
    """Clip gradients at this norm; not for organics."""
    epochs: int | None = None
    """Number of passes over the training examples."""
    batch_size: int | None = None
    """Examples per step."""
    learning_rate: float | None = None
    """Largest learning rate."""
    schedule: Schedule | None = None
    """Learning rate over the run; by default "warmup-cosine"."""
    weight_decay: float | None = None
    """L2 penalty."""
    input_noise: float | None = None
    """Standard deviation of noise added to the inputs in training, in units of theirs."""
    averaging: float | None = None
    """Decay of an exponential average of the parameters; by default there is none."""
    seed: int | None = None
    """Seed of the split, the initial parameters and the order of the examples."""

    def run(self) -> Answer | None:
        from organics.training.choices import in_words, task_of_file

        names = [item.name for item in fields(TrainFile) if item.name not in _NOT_SETTINGS]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.no_standardize:
            given["standardize"] = False
        task = task_of_file(self.file, self.test, **given)
        if not self.quiet:
            for line in in_words(task):
                note(line)
        answer = _train_task(task, self)
        if answer is not None:
            answer.document["settings"] = vars(task.config)
        return answer


_NOT_SETTINGS = {item.name for item in fields(_Options)} | {"file", "test", "no_standardize"}


def _train(config: AnyConfig, options: _Options) -> Answer | None:
    from organics.training.task import task_of

    return _train_task(task_of(config), options)


def _train_task(task: Any, options: _Options) -> Answer | None:
    from organics.cli.circuits import check_figure_path
    from organics.training.loop import run

    check_figure_path(options.figure, "figure")
    sharing = options.sharing
    out = Path("runs") / task.config.name if options.out is None else options.out
    with only_answers_on_standard_output(sharing.coordinator is not None):
        first = sharing.start()
        report = run(task, out, options.resume, not options.quiet, sharing.devices)
    if not first:
        return None
    if options.figure is not None:
        from organics.plots import save_figure, training_curves
        from organics.training.run_folder import RunFolder

        save_figure(training_curves(RunFolder.open(out).lines("metrics.jsonl")), options.figure)
    document = {"run": out, **asdict(report)}
    text = [
        *_tested(report),
        f"{report.parameters:,} parameters, {report.seconds_per_epoch:.2f} s per epoch",
        f"everything about it is in {out}",
    ]
    wrote = () if options.figure is None else (options.figure,)
    return Answer(document, text, wrote=wrote)


def _tested(report: Any) -> list[str]:
    """What a report says of the test."""
    if hasattr(report, "test_score"):
        name = report.measure.replace("_", " ")
        return [
            f"test {name} {report.test_score:.4g} on 1,000 trials (without learning: "
            f"{report.trivial_score:.4g})",
            f"epoch {report.best_epoch}, chosen by its validation loss; validation {name} "
            f"{report.validation_score:.4g}",
        ]
    if hasattr(report, "test_error"):
        return [
            f"test error {report.test_error:.4g} (root mean square, in the units of y; always "
            f"guessing the mean: {report.test_guessing:.4g})",
            f"epoch {report.best_epoch}, chosen by its validation loss; validation error "
            f"{report.validation_error:.4g}",
        ]
    tested, validated = f"{report.test_accuracy:.2%}", f"{report.validation_accuracy:.2%}"
    if report.test_guessing is None:
        return [
            f"test accuracy {tested} (epoch {report.best_epoch}, chosen by its validation "
            f"accuracy, {validated})"
        ]
    by_class = list(report.classes.items())[:20]
    return [
        f"test accuracy {tested} (always guessing the commonest class: {report.test_guessing:.2%})",
        *(f"  {name}: {accuracy:.2%}" for name, accuracy in by_class),
        f"epoch {report.best_epoch}, chosen by its validation loss; validation accuracy "
        f"{validated}",
    ]


def _command(name: str, what: str, example: str) -> Any:
    """The sub-command for one data set or task."""
    given: Any = name
    if name in get_args(DatasetName):
        default: Any = Train(config=_Static(given))
    elif name in get_args(TaskName):
        default = TrainSequence(config=_Sequence(given))
    else:
        default = TrainTask(config=_Task(given))
    text = f"{what}\n\nExample: organics train {name} {example}"
    return Annotated[type(default), tyro.conf.subcommand(name, default=default, description=text)]


_DATA = (
    ("digits", "Circuits at rest, on 8 x 8 images of digits.", "--layers 50 --epochs 20"),
    ("mnist", "Circuits at rest, on MNIST.", "--layers 120 60"),
    ("fashion-mnist", "Circuits at rest, on Fashion-MNIST.", "--seed 1"),
    ("cifar-10", "Circuits at rest, on CIFAR-10.", "--layers 120 60"),
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
    (
        "scifar",
        "Recurrent, on CIFAR-10, a pixel or a row a step; padded by noise, a task of memory.",
        "--rows --pad-to 1000 --noise once --units 128",
    ),
)

_TASKS = (
    ("adding", "The sum of two marked numbers of a sequence.", "--steps 1000 --units 64"),
    ("copy", "Ten symbols, to be said after a delay.", "--steps 100 --epochs 100"),
    ("flip-flop", "A memory of three bits, flipped by pulses.", "--units 32 --epochs 100"),
    ("match-to-sample", "Is the test the sample?", "--delay 2000"),
    ("match-to-category", "Are sample and test of one category?", "--delay 2000"),
    ("parametric", "Which of two values was larger?", "--delay 3000"),
    ("paired-association", "Go if the second odour belongs to the first.", "--units 32"),
    ("dual-match", "Two samples; a cue says which one is tested.", "--units 64"),
    ("perceptual-decision", "Which of two noisy inputs is larger?", "--units 32"),
    ("delayed-decision", "The same, said after a delay.", "--units 32"),
    ("pulse-decision", "Which channel had more pulses?", "--units 32"),
    ("context-decision", "The context says which input counts.", "--units 64"),
    ("multisensory", "Two inputs share the evidence.", "--units 32"),
    ("go-nogo", "Go after one stimulus, not after the other.", "--delay 1000"),
    ("anti-reach", "Answer opposite to the stimulus.", "--units 64"),
    ("interval-discrimination", "Which stimulus lasted longer?", "--units 32"),
    ("ready-set-go", "Produce an interval that was shown.", "--units 32"),
)

COMMANDS = {name: _command(name, what, example) for name, what, example in _DATA + _TASKS} | {
    "file": Annotated[TrainFile, tyro.conf.subcommand("file", description=_FILES)]
}
