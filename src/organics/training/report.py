"""The outcome of a run."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from organics.files.plain import as_plain
from organics.settings import fields_of


@dataclass(frozen=True)
class Report:
    """The outcome of a run.

    Accuracies are of the epoch with the best validation accuracy (among equals, the least
    validation loss). The test set is used once, after this choice. `test_loss` is NaN, null in the
    file, if the model overflows on a test input. `seconds_per_epoch` is the median over the epochs,
    without validation. `dataset` is the task, for sequences. `devices` is the number of devices
    that shared the work.
    """

    dataset: str
    model: str
    layers: tuple[int, ...]
    recurrent: str
    seed: int
    parameters: int
    epochs: int
    best_epoch: int
    validation_accuracy: float
    test_accuracy: float
    test_loss: float
    seconds_per_epoch: float
    device: str
    platform: str
    versions: dict[str, str]
    devices: int = 1

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values."""
        return as_plain(asdict(self))

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Report":
        """The report from the result of `to_document`. Raises `ValueError` if it is invalid."""
        overflowed = document.get("test_loss", 0.0) is None
        report = cls(**fields_of(cls, document | {"test_loss": 0.0} if overflowed else document))
        return replace(report, test_loss=math.nan) if overflowed else report
