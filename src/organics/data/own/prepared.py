"""A user's examples, split and prepared for a network."""

from typing import Any, NamedTuple

import numpy as np

from organics.data.order import stratified_split
from organics.data.own.content import Part
from organics.data.own.meaning import Meaning
from organics.data.own.preparation import Preparation, standardised, standardised_targets


class Prepared(NamedTuple):
    """Examples for a network. Inputs are float32; classes are numbers, int32, and numbers are
    float32, in standard units.

    Attributes
        name: of the data set.
        preparation: how they were prepared.
        training, validation, test: the examples; 0 after the end of sequences.
    """

    name: str
    preparation: Preparation
    training: Part
    validation: Part
    test: Part


class Shares(NamedTuple):
    """How examples are split: the share of all that tests, if there is no test set, the share of
    the rest that validates, and the seed."""

    test: float
    validation: float
    seed: int


def prepared(
    name: str,
    source: str,
    meant: Meaning,
    shares: Shares,
    standardize: bool,
    features: tuple[str, ...] = (),
) -> Prepared:
    """The examples, split by class and, if wanted, standardised by those to train with.

    Raises `ValueError`, naming the source, if there are too few examples or too large numbers.
    """
    rest, test = meant.train, meant.test
    try:
        if test is None:
            kept, taken = stratified_split(_strata(meant, rest), shares.test, shares.seed)
            rest, test = _rows(rest, kept), _rows(rest, taken)
        kept, taken = stratified_split(_strata(meant, rest), shares.validation, shares.seed)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    training, validation = _rows(rest, kept), _rows(rest, taken)
    mean, scale = (0.0,) * meant.features, (1.0,) * meant.features
    if standardize:
        mean, scale = standardised(source, training)
    if meant.target == "classes":
        known: dict[str, Any] = {"classes": meant.names, "label_type": meant.label_type}
    else:
        moments = standardised_targets(source, training.y, training.lengths)
        known = dict(zip(("target_mean", "target_scale"), moments, strict=True))
    preparation = Preparation(mean, scale, features=features, **known)

    def ready(part: Part, suffix: str = "") -> Part:
        y = preparation.targets(source, f"y{suffix}", part.y, part.lengths)
        return Part(preparation.inputs(source, f"x{suffix}", part), y, part.lengths)

    return Prepared(name, preparation, ready(training), ready(validation), ready(test, "_test"))


def _strata(meant: Meaning, part: Part) -> np.ndarray:
    """What is kept balanced: the class, at every step that of the last step."""
    if meant.target == "numbers":
        return np.zeros(len(part.y), np.int32)
    if meant.at == "last":
        return part.y
    ends = np.full(len(part.y), meant.steps) if part.lengths is None else part.lengths
    return part.y[np.arange(len(part.y)), ends - 1]


def _rows(part: Part, rows: np.ndarray) -> Part:
    return Part(part.x[rows], part.y[rows], None if part.lengths is None else part.lengths[rows])
