"""Classifiers made of layers."""

from organics.models.catalog import build, build_sequence, count_parameters
from organics.models.model import Model
from organics.models.sequence import SequenceClassifier
from organics.models.static import Dense, Prediction, StaticClassifier

__all__ = [
    "Dense",
    "Model",
    "Prediction",
    "SequenceClassifier",
    "StaticClassifier",
    "build",
    "build_sequence",
    "count_parameters",
]


def __dir__() -> list[str]:
    return __all__
