"""The outcomes of runs."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from organics.files.plain import as_plain
from organics.names import Measure
from organics.settings import fields_of


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What every report says.

    All is of the epoch with the best validation accuracy (among equals, the least validation loss),
    or, for a user's data and for trials made on the fly, with the least validation loss. The test
    set is used once, after this choice. `epochs` is how many were trained. `test_loss` is NaN, null
    in the file, if the model overflows on a test input; so are errors if an input is lost in a
    layer that `may_be_lost`. `seconds_per_epoch` is the median over the
    epochs, without validation. `dataset` is the task, for sequences of pixels and for trials made
    on the fly. `devices` is the number of devices that shared the work.
    """

    dataset: str
    model: str
    layers: tuple[int, ...]
    recurrent: str
    seed: int
    parameters: int
    epochs: int
    best_epoch: int
    test_loss: float
    seconds_per_epoch: float
    device: str
    platform: str
    versions: dict[str, str]
    devices: int = 1

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values."""
        return as_plain(asdict(self))

    @staticmethod
    def from_document(document: dict[str, Any]) -> "Report | NumbersReport | TaskReport":
        """The report from the result of `to_document`. Raises `ValueError` if it is invalid."""
        marks = {"test_error": NumbersReport, "test_score": TaskReport}
        kind = next((kind for mark, kind in marks.items() if mark in document), Report)
        may_overflow = ("test_loss", "validation_error", "test_error", "test_score")
        overflowed = [name for name in may_overflow if document.get(name, 0.0) is None]
        # reports of earlier versions are of images
        given = (_OF_IMAGES if kind is Report else {}) | document
        report = kind(**fields_of(kind, given | dict.fromkeys(overflowed, 0.0)))
        return replace(report, **dict.fromkeys(overflowed, math.nan))


@dataclass(frozen=True, kw_only=True)
class Report(Outcome):
    """The outcome of a run that classifies; see `Outcome`.

    For a user's data, `test_guessing` is the test accuracy of always saying the commonest training
    class, and `classes` has the test accuracy for each class by its name; at every step, the latter
    are over all steps, and the others first over those of each sequence. For images, `classes` is
    empty and `test_guessing` None.
    """

    validation_accuracy: float
    test_accuracy: float
    test_guessing: float | None = None
    classes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NumbersReport(Outcome):
    """The outcome of a run that predicts numbers; see `Outcome`.

    Errors are root mean squared errors over all numbers, in the units of `y`; `test_guessing` is
    that of always saying the training mean.
    """

    validation_error: float
    test_error: float
    test_guessing: float


@dataclass(frozen=True, kw_only=True)
class TaskReport(Outcome):
    """The outcome of a run on trials made on the fly; see `Outcome`.

    The scores are values of `measure`, "loss", "accuracy" or "squared_error", on 1,000 trials each;
    `trivial_score` is that of the best answer that does not look at the input.
    """

    measure: Measure
    validation_score: float
    test_score: float
    trivial_score: float


_OF_IMAGES = {"test_guessing": None, "classes": {}}
