"""What a training run is: everything that decides its numbers. Imports nothing heavy."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

DatasetName = Literal["digits", "mnist", "fashion-mnist"]
ModelName = Literal["organics", "mlp"]
Recurrence = Literal["identity", "bounded"]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the defaults are the paper's, for one layer of 50 on MNIST.

    Raises `ValueError`, naming the field, for a value outside of its range.
    """

    dataset: DatasetName = "mnist"
    """Data set to train on."""
    model: ModelName = "organics"
    """"organics", or "mlp": the same network with dense ReLU layers in place of the circuits."""
    layers: tuple[int, ...] = (50,)
    """Size of each layer between the encoder and the readout."""
    recurrent: Recurrence = "identity"
    """Recurrent weights of the circuits: "identity", always stable, or "bounded", learned with
    spectral norm at most 1 (much slower: the steady states are then searched for)."""
    encoder: tuple[int, ...] = (360, 120, 40)
    """Widths of the encoder; the decoder mirrors them."""
    epochs: int = 60
    """How often the training images are all seen."""
    batch_size: int = 256
    """Images per step."""
    learning_rate: float = 1e-3
    """Of Adam; at the start, if it is scheduled."""
    schedule: Schedule = "constant"
    """Learning rate over the run: "constant", or "cosine": falling to 0 along half a cosine."""
    weight_decay: float = 1e-5
    """Added to the gradient as this times the parameters (L2), before Adam scales it."""
    averaging: float = 0.0
    """If above 0, an exponential average of the parameters over the steps, with this decay per
    step, is what is validated, tested and saved; the training itself is the same. The paper has
    none, 0."""
    seed: int = 0
    """Decides the initial parameters and the order of the images."""

    def __post_init__(self):
        _check(dataclasses.asdict(self))

    def to_json(self) -> str:
        """The settings as a JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The settings that `to_json` wrote. Raises `ValueError` if anything is wrong with them."""
        values = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError(
                f"the settings of a run must have exactly the keys {', '.join(sorted(names))}."
            )
        for name in ("layers", "encoder"):
            if isinstance(values[name], list):
                values[name] = tuple(values[name])
        _check(values)
        return cls(**values)

    def differing(self, other: "TrainConfig") -> dict[str, tuple[object, object]]:
        """The fields in which two runs differ, each with its value here and there."""
        names = [field.name for field in dataclasses.fields(self)]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _check(values: dict) -> None:
    hints = get_type_hints(TrainConfig)
    for name in ("dataset", "model", "recurrent", "schedule"):
        if values[name] not in get_args(hints[name]):
            words = ", ".join(get_args(hints[name]))
            raise ValueError(f"`{name}` must be one of {words}, not {values[name]!r}.")
    for name in ("layers", "encoder"):
        sizes = values[name]
        if not isinstance(sizes, tuple) or not all(_whole(n) and n >= 1 for n in sizes):
            raise ValueError(f"`{name}` must be sizes >= 1, not {sizes!r}.")
    if not values["encoder"]:
        raise ValueError("`encoder` must have at least one width, that of the code.")
    for name in ("epochs", "batch_size"):
        if not _whole(values[name]) or values[name] < 1:
            raise ValueError(f"`{name}` must be a whole number >= 1, not {values[name]!r}.")
    seed, rate, decay = values["seed"], values["learning_rate"], values["weight_decay"]
    if not _whole(seed) or not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be a whole number from 0 to 2^32 - 1, not {seed!r}.")
    if not _real(rate) or not 0 < rate < float("inf"):
        raise ValueError(f"`learning_rate` must be a number > 0, not {rate!r}.")
    averaging = values["averaging"]
    if not _real(averaging) or not 0 <= averaging < 1:
        raise ValueError(f"`averaging` must be a number from 0 to below 1, not {averaging!r}.")
    if not _real(decay) or not 0 <= decay < float("inf"):
        raise ValueError(f"`weight_decay` must be a number >= 0, not {decay!r}.")


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
