"""Settings of training runs: everything that decides the results. Imports nothing heavy."""

import dataclasses
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

from organics.files.documents import parse_object, unsealed
from organics.names import (
    Backend,
    DatasetName,
    Drive,
    MadeTaskName,
    Memory,
    ModelName,
    Noise,
    NumbersTaskName,
    OptimizerName,
    OwnModelName,
    ProductType,
    ReadAt,
    Rectification,
    Recurrence,
    Schedule,
    SequenceModelName,
    StaticRecurrence,
    TargetKind,
    TaskName,
    TimeConstants,
)
from organics.settings import Needs, Settings, fields_of


def _single(value: float) -> float:
    """A number rounded to float32, the type of training; infinite if too large."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.inf


_IN_SINGLE = Needs(
    "that float32 holds",
    lambda value: math.isfinite(_single(value)) and bool(_single(value)) == bool(value),
)

Count = Annotated[int, Needs(">= 1", lambda value: value >= 1)]
Size = Annotated[Count, Needs("up to 1,000,000", lambda value: value <= 1_000_000)]
"""Size of a layer."""
Sizes = Annotated[
    tuple[Size, ...],
    Needs("sizes from 1 to 1,000,000"),
    Needs("1 to 100 sizes", lambda x: 1 <= len(x) <= 100),
]
Layers = Annotated[Count, Needs("up to 100", lambda value: value <= 100)]
"""Number of stacked circuits; each adds to the compilation time."""
Epochs = Annotated[Count, Needs("up to 999,999", lambda value: value < 1_000_000)]
EpochNumbers = Annotated[
    tuple[Epochs, ...],
    Needs("numbers of epochs, each larger than the last", lambda x: list(x) == sorted(set(x))),
]
Seed = Annotated[int, Needs("from 0 to 2^32 - 1", lambda value: 0 <= value < 2**32)]
Real = Annotated[float, _IN_SINGLE]
Positive = Annotated[float, Needs("> 0", lambda value: value > 0), _IN_SINGLE]
NotNegative = Annotated[float, Needs(">= 0", lambda value: value >= 0), _IN_SINGLE]
Decay = Annotated[
    float,
    Needs("from 0 to below 1", lambda value: 0 <= value < 1),
    Needs("below 1 in float32, too", lambda value: _single(value) < 1),
]
Share = Annotated[float, Needs("in (0, 0.5]", lambda value: 0 < value <= 0.5)]
AtMostOne = Annotated[float, Needs("in (0, 1]", lambda value: 0 < value <= 1), _IN_SINGLE]


@dataclass(frozen=True)
class Optimization(Settings):
    """How a model is trained."""

    epochs: Epochs = 60
    """Number of passes over the training examples; with `patience`, at most."""
    patience: Count | None = None
    """Stop after so many epochs in a row without a better validated model; by default never."""
    batch_size: Count = 256
    """Examples per step."""
    optimizer: OptimizerName = "adam"
    """"adam"; "adamw", with decoupled weight decay; "sgd" (stochastic gradient descent); or
    "adagrad"."""
    momentum: Decay = 0.0
    """Of "sgd"."""
    learning_rate: Positive = 1e-3
    """Learning rate of the optimizer; with a schedule, the largest one."""
    schedule: Schedule = "constant"
    """Learning rate over the run: "constant"; "step": times 0.8 every 30 epochs; "drops": times
    `drop_factor` after each of the epochs in `drops`; "cosine": falling to 0 along half a cosine;
    "warmup-cosine": rising for a tenth of the run, then "cosine"; "trapezoid": rising for a
    twentieth, constant, and falling to 0 over the last three tenths."""
    drops: EpochNumbers = ()
    """Epochs after which "drops" lowers the learning rate."""
    drop_factor: Positive = 0.1
    """By which it does."""
    weight_decay: NotNegative = 1e-5
    """L2 penalty: this times the parameters is added to the gradient, before the optimizer scales
    it. Decoupled, it is added to the scaled one."""
    input_noise: NotNegative = 0.0
    """Standard deviation of normal noise that is added to the inputs in training, another every
    time, against overfitting. In the units of the inputs: pixels are from 0 to 1, a user's data in
    standard deviations."""
    averaging: Decay = 0.0
    """If above 0, validate, test and save an exponential average of the parameters over the steps,
    with this decay per step; training itself is unchanged. The paper does not average (0)."""
    seed: Seed = 0
    """Seed of the initial parameters and of the order of the examples."""

    def __post_init__(self):
        super().__post_init__()
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"`momentum` must not be given for the optimizer {self.optimizer}.")
        if bool(self.drops) != (self.schedule == "drops"):
            raise ValueError(
                "`drops` must be given for the schedule drops, and for no other, not "
                f"{self.drops} for {self.schedule}."
            )
        if self.drop_factor != type(self).drop_factor and self.schedule != "drops":
            raise ValueError(
                "`drop_factor` must only be given for the schedule drops, not "
                f"{self.drop_factor:g} for {self.schedule}."
            )

    @property
    def figure(self) -> str:
        """The metric that says how good a model is."""
        return "accuracy"

    @property
    def chosen_by_loss(self) -> bool:
        """Whether the epoch is chosen by the validation loss, not first by the accuracy."""
        return False


@dataclass(frozen=True)
class _Images(Settings):
    """Images that train."""

    shift: Annotated[int, Needs(">= 0", lambda value: value >= 0)] = 0
    """Move each image that trains by up to so many pixels, up or down and to a side, another way
    every time, against overfitting. Not in the paper."""


@dataclass(frozen=True)
class _StaticNetwork(Settings):
    """A network for images, and its data set."""

    dataset: DatasetName = "mnist"
    """Data set to train on."""
    model: ModelName = "organics"
    """"organics"; "mlp": the same network with dense ReLU layers in place of the circuits; or
    "ssn": with one stabilized supralinear network in place of them."""
    layers: Sizes = (50,)
    """Size of each layer between the encoder and the readout; for "ssn", its two numbers of
    excitatory and inhibitory units."""
    recurrent: StaticRecurrence = "identity"
    """Recurrent weights of the circuits: "identity", always stable, or "bounded", learned with
    spectral norm at most 1 (a few times slower, as steady states must be searched for)."""
    encoder: Sizes = (360, 120, 40)
    """Widths of the encoder; the decoder mirrors them."""


@dataclass(frozen=True)
class TrainConfig(Optimization, _Images, _StaticNetwork):  # the fields of the last come first
    """Settings of a training run. The defaults are the paper's for one layer of 50 on MNIST, except
    `recurrent` (the paper learns `W_r`) and the number of epochs (up to 200 in the paper).

    Raises `ValueError`, naming the field, for a value outside of its range.
    """

    kind: ClassVar[str] = "images"

    def __post_init__(self):
        super().__post_init__()
        if self.model == "ssn" and len(self.layers) != 2:
            raise ValueError(
                "`layers` of the model ssn must be two numbers, those of its excitatory and "
                f"inhibitory units, not {self.layers}."
            )
        if self.model != "organics" and self.recurrent != "identity":
            raise ValueError(
                f"`recurrent` must not be {self.recurrent} for the model {self.model}, which has "
                "no circuits."
            )

    @property
    def clipped_at(self) -> float | None:
        """The norm at which gradients are clipped; None without clipping."""
        return None

    @property
    def has_circuits_at_rest(self) -> bool:
        """Whether the model has circuits that come to rest for every input."""
        return self.model != "mlp"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of neurons in each layer between input and readout."""
        return self.layers

    @property
    def other_remedy(self) -> str:
        """Further advice about divergence, besides lowering the learning rate; may be empty."""
        if self.model != "organics" or self.recurrent == "identity":
            return ""
        return (
            " It may also be that a circuit's steady state was not found; that does not happen "
            "with `recurrent='identity'`."
        )

    @property
    def name(self) -> str:
        """A short name of the run."""
        sizes = "-".join(map(str, self.layers))
        return f"{self.dataset}-{self.model}-{sizes}-seed{self.seed}"


_PAPER_STEPS = 784
_PAPER_DT_TAU_MAX = {"dt_tau_max_y": 0.02, "dt_tau_max_a": 0.005, "dt_tau_max_gates": 0.1}
_CIRCUITS_ONLY = (
    "rectified",
    "recurrent",
    "time_constants",
    "initial_time_constants",
    "rectification",
    "drive",
    "sigma",
    "initial_normalization",
    "layers",
    *_PAPER_DT_TAU_MAX,
)
_OF_ALL = ("backend", "memory", "products")


HYPERPARAMETERS: dict[str, tuple[str, ...]] = {
    "lstm": ("forget_bias",),
    "antisymmetric": ("epsilon", "gamma", "spread"),
    "antisymmetric-gated": ("epsilon", "gamma", "spread"),
    "cornn": ("dt", "gamma", "epsilon"),
    "lipschitz": ("epsilon", "beta", "gamma", "spread"),
    "lem": ("dt",),
    "rnn": (),
}
"""The hyperparameters of each comparison model, by name."""


@dataclass(frozen=True)
class _Pixels(Settings):
    """A task that reads images as sequences."""

    task: TaskName = "smnist"
    """Sequences to classify."""
    resize: Count | None = None
    """First shrink the images to so many pixels a side, by the mean over square blocks: 14 gives
    196 steps for MNIST (and another permutation for the permuted task)."""
    rows: bool = False
    """A row of the image at each step, instead of a pixel."""
    raw_pixels: bool = False
    """Pixels as they are stored, MNIST's from 0 to 255, instead of from 0 to 1."""
    pad_to: Size | None = None
    """Follow each image by noise, N(0, 1), up to so many steps: the class must be remembered."""
    noise: Noise = "fresh"
    """That noise: "fresh" every time, or drawn "once" for all images, as in the code of coRNN."""


@dataclass(frozen=True)
class _RecurrentNetwork(Settings):
    """A network for sequences."""

    model: SequenceModelName = "organics"
    """Recurrent layer: "organics", or one of the models for comparison."""
    units: Size = 64
    """Units of the layer; for ORGaNICs, its principal neurons."""
    rectified: bool = True
    """`relu(y)` in the recurrent terms of ORGaNICs; with --no-rectified, `y` itself."""
    recurrent: Recurrence = "free"
    """Recurrent weights of ORGaNICs: "free"; "identity"; "bounded", with a spectral norm of at
    most 1; "semidefinite", symmetric with eigenvalues from 0 to 1; or "orthogonal"."""
    time_constants: TimeConstants = "learned"
    """Time constants of ORGaNICs, one for each neuron: "learned"; "fixed"; "modulated", learned and
    moved by the input and the potentials; "modulated-together", all of a neuron by one sum of
    these; or "modulated-y", only those of y."""
    initial_time_constants: tuple[Positive, Positive] | None = None
    """Least and largest initial time constant of y in ORGaNICs, in steps, spread over the neurons;
    --dt-tau-max-y must be above 1 over the least, the other two above 0.25. By default as the
    paper's code draws them."""
    rectification: Rectification = "inside"
    """Recurrent input of ORGaNICs: "inside", `W_r relu(y)`, as in the paper's equation; "outside",
    `relu(W_r y)`, as in its code."""
    drive: Drive = "signed"
    """Input drive of ORGaNICs: "signed", `W_zx x`, as in the paper's equation; "rectified",
    `relu(W_zx x)`, as in its code; "unit", `W_zx x` scaled to a norm of at most 1."""
    sigma: Positive = 1.0
    """Semi-saturation constant of ORGaNICs. Recurrent input is scaled by `1 - sqrt(a)`, and at rest
    `a` is at least `(b0 sigma)^2`: with a small one activity lasts."""
    initial_normalization: AtMostOne = 1.0
    """Largest normalization weight of ORGaNICs before training."""
    layers: Layers = 1
    """Number of stacked ORGaNICs circuits."""
    dt_tau_max_y: AtMostOne | None = None
    """Largest ratio of step size to time constant for y in ORGaNICs; its inverse is about the reach
    of memory in steps. Default: the paper's 0.02; for fewer than 784 steps, 0.02 times 784 over the
    number of steps, at most 1, and four times that with identity recurrent weights. For faster
    training with the identity see docs/how-to/steps.md."""
    dt_tau_max_a: AtMostOne | None = None
    """The same for a; the paper has 0.005."""
    dt_tau_max_gates: AtMostOne | None = None
    """The same for the gains b0 and b; the paper has 0.1."""
    hyperparameters: Annotated[
        tuple[tuple[str, Real], ...], Needs("pairs of a name and a number that float32 holds")
    ] = ()
    """Names and values of the hyperparameters of a model other than ORGaNICs; the others keep their
    defaults."""
    backend: Backend = "auto"
    """Implementation of the recurrence."""
    memory: Memory = "more"
    """"less" trains more slowly, in memory that grows with the square root of the number of
    steps."""
    products: ProductType = "full"
    """Numbers that matrix products are of: "full", float32; "bfloat16", of 8 bits, quicker on
    processors that have them, see docs/speed.md."""
    clip_norm: Positive | None = None
    """Clip gradients at this norm. Not for ORGaNICs, which do not need it."""

    @property
    def has_circuits_at_rest(self) -> bool:
        """False: the circuits are read out while they move."""
        return False

    @property
    def clipped_at(self) -> float | None:
        """The norm at which gradients are clipped; None without clipping."""
        return self.clip_norm

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of neurons in each layer between input and readout."""
        return (self.units,) * self.layers

    @property
    def other_remedy(self) -> str:
        """Further advice about divergence, besides lowering the learning rate; may be empty."""
        if self.model != "organics" or self.recurrent == "identity":
            return ""
        return " With `recurrent='identity'`, which makes circuits stable, runs diverge less often."

    def layer_options(self, steps: int) -> dict[str, Any]:
        """The options of the recurrent layer for sequences of `steps` steps."""
        if self.model != "organics":
            return dict(self.hyperparameters) | {name: getattr(self, name) for name in _OF_ALL}
        options = {name: getattr(self, name) for name in (*_CIRCUITS_ONLY, *_OF_ALL)}
        factor = max(1.0, _PAPER_STEPS / steps)
        if self.recurrent == "identity" and factor > 1:
            # test accuracy of 64 units: smnist of 196 steps, 2 epochs, 0.856 instead of 0.795;
            # sdigits, 30 epochs, above 0.89 instead of 0.72
            factor *= 4
        for name, rate in _PAPER_DT_TAU_MAX.items():
            if options[name] is None:
                options[name] = min(1.0, rate * factor)
        return options

    def _check_model(self) -> None:
        """Refuse settings that the model does not use."""
        if self.model == "organics":
            for name in ("clip_norm", "hyperparameters"):
                if getattr(self, name):
                    raise ValueError(f"`{name}` must not be given for the model organics.")
            return
        for field in dataclasses.fields(self):
            if field.name in _CIRCUITS_ONLY and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"`{field.name}` must not be given for the model {self.model}: it is of "
                    "organics."
                )
        self._check_hyperparameters()

    def _check_hyperparameters(self) -> None:
        """Refuse, before the layer is built, an unknown name of a hyperparameter."""
        known = HYPERPARAMETERS[self.model]
        names = [name for name, _ in self.hyperparameters]
        if names and not known:
            raise ValueError(
                f"`hyperparameters` must not be given for the model {self.model}, which has none: "
                f"{names[0]!r}."
            )
        for i, name in enumerate(names):
            if name not in known or name in names[:i]:
                raise ValueError(
                    f"`hyperparameters` of the model {self.model} must have names among "
                    f"{', '.join(known)}, each at most once, not {name!r}."
                )


@dataclass(frozen=True)
class SequenceConfig(Optimization, _Images, _RecurrentNetwork, _Pixels):  # the last's come first
    """Settings of a training run on sequences; the defaults are the paper's, for 64 neurons.

    Raises `ValueError`, naming the field, for a value out of its range or one that the model does
    not use.
    """

    kind: ClassVar[str] = "sequences"

    epochs: Epochs = 500
    learning_rate: Positive = 1e-2
    schedule: Schedule = "step"

    def __post_init__(self):
        super().__post_init__()
        self._check_model()
        if self.pad_to is None and self.noise != "fresh":
            raise ValueError("`noise` must only be given with `pad_to`.")

    @property
    def name(self) -> str:
        """A short name of the run."""
        size = "" if self.resize is None else f"-resize{self.resize}"
        rows = "-rows" if self.rows else ""
        rows += "" if self.pad_to is None else f"-pad{self.pad_to}"
        return f"{self.task}{size}{rows}-{self.model}-{self.units}-seed{self.seed}"


@dataclass(frozen=True)
class _MadeTrials(Settings):
    """A task whose trials are made on the fly."""

    task: MadeTaskName = "adding"
    """The task."""
    steps: Size | None = None
    """Length of adding and of the flip-flop, in steps; of copying, the steps from the symbols to
    their recall. Default: 200, 64 and 100."""
    delay: NotNegative | None = None
    """Delay in ms, of a task of the laboratory that has one, cut to whole steps of 100 ms; by
    default that of NeuroGym."""
    probability: Positive | None = None
    """Probability of a pulse of the flip-flop in a step; by default 0.5."""
    constant_input: bool = False
    """Give a further input that is always 1: the gates of circuits have no bias."""
    epoch_steps: Annotated[Count, Needs("up to 1,000,000", lambda value: value <= 1_000_000)] = 100
    """Training steps in an epoch, after which the network is validated and saved."""


@dataclass(frozen=True)
class TaskConfig(Optimization, _RecurrentNetwork, _MadeTrials):
    """Settings of a training run on trials made on the fly, all different. They are functions of
    the seed; those that validate and those that test are always the same 1,000 each.

    Raises `ValueError`, naming the field, for a value out of its range or one that the model or the
    task does not use.
    """

    kind: ClassVar[str] = "made"

    recurrent: Recurrence = "identity"
    epochs: Epochs = 50
    batch_size: Count = 50
    learning_rate: Positive = 1e-2
    schedule: Schedule = "warmup-cosine"
    weight_decay: NotNegative = 0.0

    def __post_init__(self):
        super().__post_init__()
        self._check_model()
        if self.epochs * self.epoch_steps * self.batch_size >= 2**31:
            raise ValueError(
                "`epochs` must give less than 2^31 trials: "
                f"{self.epochs} epochs of {self.epoch_steps} batches of {self.batch_size}."
            )

    @property
    def figure(self) -> str:
        """The metric that says how good a model is."""
        return "squared_error" if self.task in get_args(NumbersTaskName) else "accuracy"

    @property
    def chosen_by_loss(self) -> bool:
        """True: the loss says more."""
        return True

    @property
    def name(self) -> str:
        """A short name of the run."""
        length = "" if self.steps is None else f"-{self.steps}"
        delay = "" if self.delay is None else f"-{self.delay:g}ms"
        return f"{self.task}{length}{delay}-{self.model}-{self.units}-seed{self.seed}"


@dataclass(frozen=True)
class _OwnExamples(Settings):
    """Examples of the user, and what is learned from them."""

    data: str = ""
    """File; empty if the examples were given as arrays."""
    test_data: str = ""
    """File with the test set; empty if there is none."""
    data_sha256: Annotated[
        str, Needs("a SHA-256", lambda x: bool(re.fullmatch("[0-9a-f]{64}", x)))
    ] = "0" * 64
    """Of the files' content, or of the arrays."""
    target: TargetKind = "classes"
    """What is learned."""
    at: ReadAt = "last"
    """At which steps of a sequence."""
    steps: Annotated[int, Needs("from 0 to 2^31 - 1", lambda value: 0 <= value < 2**31)] = 0
    """Number of steps of the longest sequence; 0 for vectors."""
    features: Size = 1
    """Number of inputs, at each step."""
    outputs: Size = 2
    """Number of classes, or of numbers."""
    standardize: bool = True
    """Whether the inputs are standardised by the mean and the deviation of each feature."""
    test_share: Share = 0.2
    """Share of the examples that test, if there is no test set."""
    validation_share: Share = 0.15
    """Share of the others that validate."""

    @property
    def figure(self) -> str:
        """The metric that says how good a model is."""
        return "accuracy" if self.target == "classes" else "squared_error"

    @property
    def chosen_by_loss(self) -> bool:
        """True: a few validation examples can all be right by chance before much is learned."""
        return True

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return (self.steps, self.features) if self.steps else (self.features,)

    def differing(self, other: Settings) -> dict[str, tuple[object, object]]:
        """As that of all settings; it does not matter where the files are."""
        found = super().differing(other)
        return {name: pair for name, pair in found.items() if name not in ("data", "test_data")}


@dataclass(frozen=True)
class FileConfig(_OwnExamples, Optimization, _RecurrentNetwork):
    """Settings of a training run on a user's file; `organics.training.file_config` makes them.

    Raises `ValueError`, naming the field, for a value out of its range or one that the model does
    not use.
    """

    kind: ClassVar[str] = "file"

    model: OwnModelName = "organics"  # pyright: ignore[reportIncompatibleVariableOverride]
    """"organics"; "mlp", for inputs that are not sequences; or, for sequences, one of the models
    for comparison."""
    recurrent: Recurrence = "identity"
    schedule: Schedule = "warmup-cosine"
    encoder: Annotated[
        tuple[Size, ...],
        Needs("sizes from 1 to 1,000,000"),
        Needs("at most 100 sizes", lambda value: len(value) <= 100),
    ] = ()
    """Widths of the encoder, for inputs that are not sequences."""

    def __post_init__(self):
        super().__post_init__()
        if self.steps:
            if self.model == "mlp" or self.encoder:
                name = "encoder" if self.encoder else "model"
                given = getattr(self, name)
                raise ValueError(f"`{name}` must not be {given} for sequences.")
            self._check_model()
            return
        if self.model not in get_args(ModelName):
            raise ValueError(
                f"`model` must be organics or mlp for inputs that are not sequences, not "
                f"{self.model}."
            )
        if not self.encoder:
            raise ValueError("`encoder` must have at least one width, that of the code.")
        if self.recurrent not in get_args(StaticRecurrence):
            raise ValueError(
                "`recurrent` must be identity or bounded for circuits at rest, not "
                f"{self.recurrent}."
            )
        for field in dataclasses.fields(_RecurrentNetwork):
            used = ("model", "units", "layers", "recurrent")
            if field.name not in used and getattr(self, field.name) != field.default:
                raise ValueError(f"`{field.name}` must only be given for sequences.")

    @property
    def has_circuits_at_rest(self) -> bool:
        """Whether the model has circuits that come to rest for every input."""
        return not self.steps and self.model == "organics"

    @property
    def name(self) -> str:
        """A short name of the run."""
        return f"{Path(self.data).stem}-{self.model}-{self.units}-seed{self.seed}"


@dataclass(frozen=True)
class GivenConfig(_OwnExamples, Optimization):
    """Settings of a training run of a model that was given in Python.

    Raises `ValueError`, naming the field, for a value out of its range.
    """

    kind: ClassVar[str] = "given"

    model: str = ""
    """Name of the model's class."""
    constants: tuple[tuple[str, str], ...] = ()
    """Paths and values of what the model computes with besides its arrays."""
    clip_norm: Positive | None = None
    """Clip gradients at this norm."""
    schedule: Schedule = "warmup-cosine"

    @property
    def has_circuits_at_rest(self) -> bool:
        """False: only the model knows."""
        return False

    @property
    def clipped_at(self) -> float | None:
        """The norm at which gradients are clipped; None without clipping."""
        return self.clip_norm

    @property
    def sizes(self) -> tuple[int, ...]:
        """Empty: only the model knows."""
        return ()

    @property
    def recurrent(self) -> str:
        """Empty, likewise."""
        return ""

    @property
    def other_remedy(self) -> str:
        """No further advice."""
        return ""

    @property
    def name(self) -> str:
        """A short name of the run."""
        return f"{self.model}-seed{self.seed}"


OwnConfig = FileConfig | GivenConfig
AnyConfig = TrainConfig | SequenceConfig | TaskConfig | OwnConfig


_LATER = (
    "optimizer", "momentum", "drops", "drop_factor", "raw_pixels", "patience",
    "initial_time_constants", "pad_to", "noise", "products", "input_noise", "shift", "sigma",
    "initial_normalization", "constants",
)  # fmt: skip
"""What settings of earlier versions lack: they were trained with the defaults."""


def read_config(text: str | bytes) -> AnyConfig:
    """The settings, of any kind, written by `to_json`.

    Raises `ValueError` for invalid settings.
    """
    document = unsealed(parse_object(text))
    marks = {
        "epoch_steps": TaskConfig,
        "task": SequenceConfig,
        "units": FileConfig,
        "data_sha256": GivenConfig,
    }
    kind = next((kind for mark, kind in marks.items() if mark in document), TrainConfig)
    defaults = {
        field.name: field.default for field in dataclasses.fields(kind) if field.name in _LATER
    }
    return kind(**fields_of(kind, defaults | document))
