"""What a training run is: everything that decides its numbers. Imports nothing heavy."""

import dataclasses
import math
import struct
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from organics.files.documents import parse_object, unsealed
from organics.names import (
    Backend,
    DatasetName,
    Drive,
    Memory,
    ModelName,
    OptimizerName,
    Rectification,
    Recurrence,
    Schedule,
    SequenceModelName,
    StaticRecurrence,
    TaskName,
    TimeConstants,
)
from organics.settings import Needs, Settings, fields_of


def _single(value: float) -> float:
    """What is left of a number in float32, in which training is; too large a one is infinite."""
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
"""Of a layer."""
Sizes = Annotated[
    tuple[Size, ...],
    Needs("sizes from 1 to 1,000,000"),
    Needs("1 to 100 sizes", lambda x: 1 <= len(x) <= 100),
]
Layers = Annotated[Count, Needs("up to 100", lambda value: value <= 100)]
"""On top of each other: each is compiled."""
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
StepSize = Annotated[float, Needs("in (0, 1]", lambda value: 0 < value <= 1), _IN_SINGLE]


@dataclass(frozen=True)
class Optimization(Settings):
    """How a model is trained, whatever it is and learns."""

    epochs: Epochs = 60
    """How often the training images are all seen."""
    batch_size: Count = 256
    """Images per step."""
    optimizer: OptimizerName = "adam"
    """"adam", "sgd" (stochastic gradient descent) or "adagrad"."""
    momentum: Decay = 0.0
    """Of "sgd"."""
    learning_rate: Positive = 1e-3
    """Of the optimizer; the largest, if it is scheduled."""
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
    """Added to the gradient as this times the parameters (L2), before the optimizer scales it."""
    averaging: Decay = 0.0
    """If above 0, an exponential average of the parameters over the steps, with this decay per
    step, is what is validated, tested and saved; the training itself is the same. The paper has
    none, 0."""
    seed: Seed = 0
    """Decides the initial parameters and the order of the images."""

    def __post_init__(self):
        super().__post_init__()
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"`momentum` must not be given for the optimizer {self.optimizer}.")
        if bool(self.drops) != (self.schedule == "drops"):
            raise ValueError(
                "`drops` must be given for the schedule drops, and for no other, not "
                f"{self.drops} for {self.schedule}."
            )

    @property
    def clipped_at(self) -> float | None:
        """The norm to which larger gradients are scaled down; None if they are not."""
        return None


@dataclass(frozen=True)
class _StaticNetwork(Settings):
    """What learns images, and which."""

    dataset: DatasetName = "mnist"
    """Data set to train on."""
    model: ModelName = "organics"
    """"organics"; "mlp": the same network with dense ReLU layers in place of the circuits; or
    "ssn": with one stabilized supralinear network in place of them."""
    layers: Sizes = (50,)
    """Size of each layer between the encoder and the readout; of "ssn", the two numbers of its
    excitatory and inhibitory units."""
    recurrent: StaticRecurrence = "identity"
    """Recurrent weights of the circuits: "identity", always stable, or "bounded", learned with
    spectral norm at most 1 (a few times slower: the steady states are then searched for)."""
    encoder: Sizes = (360, 120, 40)
    """Widths of the encoder; the decoder mirrors them."""


@dataclass(frozen=True)
class TrainConfig(Optimization, _StaticNetwork):  # the fields of the last come first
    """Settings of a training run; the defaults are the paper's for one layer of 50 on MNIST, but
    for `recurrent` (the paper learns `W_r`) and the number of epochs (up to 200 there).

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

    @property
    def has_circuits_at_rest(self) -> bool:
        """Whether there are circuits, of which each comes to rest for every input."""
        return self.model != "mlp"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of neurons in each layer between input and readout."""
        return self.layers

    @property
    def other_remedy(self) -> str:
        """What to do about divergence besides lowering the learning rate, if there is something."""
        if self.model != "organics" or self.recurrent == "identity":
            return ""
        return (
            " It may also be that a circuit's steady state was not found; that does not happen "
            "with `recurrent='identity'`."
        )

    @property
    def name(self) -> str:
        """What tells the run from others at a glance."""
        sizes = "-".join(map(str, self.layers))
        return f"{self.dataset}-{self.model}-{sizes}-seed{self.seed}"


_PAPER_STEPS = 784
_PAPER_DT_TAU_MAX = {"dt_tau_max_y": 0.02, "dt_tau_max_a": 0.005, "dt_tau_max_gates": 0.1}
_CIRCUITS_ONLY = (
    "rectified",
    "recurrent",
    "time_constants",
    "rectification",
    "drive",
    "layers",
    *_PAPER_DT_TAU_MAX,
)
_OF_ALL = ("backend", "memory")


HYPERPARAMETERS: dict[str, tuple[str, ...]] = {
    "lstm": ("forget_bias",),
    "antisymmetric": ("epsilon", "gamma", "spread"),
    "antisymmetric-gated": ("epsilon", "gamma", "spread"),
    "cornn": ("dt", "gamma", "epsilon"),
    "lipschitz": ("epsilon", "beta", "gamma", "spread"),
    "lem": ("dt",),
    "rnn": (),
}
"""The numbers that each of the comparison models' layers takes, by name."""


@dataclass(frozen=True)
class _SequenceNetwork(Settings):
    """What learns sequences, and which."""

    task: TaskName = "smnist"
    """Sequences to classify."""
    model: SequenceModelName = "organics"
    """Recurrent layer: "organics", or one of those it is compared with."""
    units: Size = 64
    """Neurons of the layer: principal neurons, of ORGaNICs."""
    resize: Count | None = None
    """Make the images smaller first, to so many pixels a side, by the mean over square blocks: 14
    gives MNIST 196 steps (and the permuted task another permutation, of 196)."""
    rows: bool = False
    """A row of the image at each step, instead of a pixel."""
    raw_pixels: bool = False
    """Pixels as they are stored, MNIST's from 0 to 255, instead of from 0 to 1."""
    rectified: bool = True
    """`relu(y)` in the recurrent terms of ORGaNICs; with --no-rectified, `y` itself."""
    recurrent: Recurrence = "free"
    """Recurrent weights of ORGaNICs: "free"; "identity"; "bounded", with a spectral norm of at
    most 1; or "semidefinite", symmetric with eigenvalues from 0 to 1."""
    time_constants: TimeConstants = "learned"
    """Of ORGaNICs, for each neuron."""
    rectification: Rectification = "inside"
    """Recurrent input: "inside", `W_r relu(y)`, is the paper's equation, "outside", `relu(W_r y)`,
    its code."""
    drive: Drive = "signed"
    """Input drive: "signed", `W_zx x`, is the paper's equation, "rectified", `relu(W_zx x)`, its
    code; "unit" is `W_zx x` with a norm of at most 1."""
    layers: Layers = 1
    """ORGaNICs circuits on top of each other."""
    dt_tau_max_y: StepSize | None = None
    """Largest step size of ORGaNICs' y over its time constant. By default the paper's 0.02, times
    784 over the number of steps if these are fewer, and at most 1: the reach of memory, about the
    inverse of it in steps, then remains the same part of the sequence. With the identity as
    recurrent weights and fewer steps than 784, four times that, at which it learned faster (and
    with free weights diverged). With the identity and 784 steps, 0.4, and 1 for a and the gains,
    came to 98.8 % of sequential MNIST in 50 epochs."""
    dt_tau_max_a: StepSize | None = None
    """The same of a; the paper has 0.005."""
    dt_tau_max_gates: StepSize | None = None
    """The same of the gains b0 and b; the paper has 0.1."""
    hyperparameters: Annotated[
        tuple[tuple[str, Real], ...], Needs("pairs of a name and a number that float32 holds")
    ] = ()
    """Of another model than ORGaNICs: names and values, those of the layer's numbers; what is not
    named has its default."""
    backend: Backend = "auto"
    """Implementation of the recurrence."""
    memory: Memory = "more"
    """"less" trains in memory that grows with the root of the number of steps; slower."""
    clip_norm: Positive | None = None
    """Scale larger gradients down to this norm. Not for ORGaNICs, which need no such thing."""


@dataclass(frozen=True)
class SequenceConfig(Optimization, _SequenceNetwork):  # the fields of the last come first
    """Settings of a training run on sequences; the defaults are the paper's, for 64 neurons.

    Raises `ValueError`, naming the field, for a value outside of its range or one that the model
    has no use for.
    """

    kind: ClassVar[str] = "sequences"

    epochs: Epochs = 500
    learning_rate: Positive = 1e-2
    schedule: Schedule = "step"

    def __post_init__(self):
        super().__post_init__()
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
        """Refuse, before there is a layer, a name that is not that of a number it takes."""
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

    @property
    def has_circuits_at_rest(self) -> bool:
        """Never: the circuits are read while they move."""
        return False

    @property
    def clipped_at(self) -> float | None:
        """The norm to which larger gradients are scaled down; None if they are not."""
        return self.clip_norm

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of neurons in each layer between input and readout."""
        return (self.units,) * self.layers

    @property
    def other_remedy(self) -> str:
        """What to do about divergence besides lowering the learning rate, if there is something."""
        if self.model != "organics" or self.recurrent == "identity":
            return ""
        return " With `recurrent='identity'`, which makes circuits stable, runs diverge less often."

    @property
    def name(self) -> str:
        """What tells the run from others at a glance."""
        size = "" if self.resize is None else f"-resize{self.resize}"
        rows = "-rows" if self.rows else ""
        return f"{self.task}{size}{rows}-{self.model}-{self.units}-seed{self.seed}"

    def layer_options(self, steps: int) -> dict[str, Any]:
        """The options of the recurrent layer, for sequences of so many steps."""
        if self.model != "organics":
            return dict(self.hyperparameters) | {name: getattr(self, name) for name in _OF_ALL}
        options = {name: getattr(self, name) for name in (*_CIRCUITS_ONLY, *_OF_ALL)}
        factor = max(1.0, _PAPER_STEPS / steps)
        if self.recurrent == "identity" and factor > 1:
            # of 64 units, test accuracy: smnist of 196 steps, 2 epochs, 0.856 instead of 0.795;
            # sdigits, 30 epochs, above 0.89 instead of 0.72
            factor *= 4
        for name, rate in _PAPER_DT_TAU_MAX.items():
            if options[name] is None:
                options[name] = min(1.0, rate * factor)
        return options


AnyConfig = TrainConfig | SequenceConfig


def read_config(text: str | bytes) -> AnyConfig:
    """The settings, of either kind, that `to_json` wrote.

    Raises `ValueError` if anything is wrong with them.
    """
    document = unsealed(parse_object(text))
    kind = SequenceConfig if "task" in document else TrainConfig
    return kind(**fields_of(kind, document))
