"""Classifiers made of layers."""

from organics.models.catalog import build, build_sequence, count_parameters
from organics.models.model import Model, Predictor
from organics.models.plain import Plain
from organics.models.sequence import SequenceClassifier
from organics.models.static import Dense, Prediction, StaticClassifier
from organics.models.target import Target

__all__ = [
    "Dense",
    "Model",
    "Plain",
    "Prediction",
    "Predictor",
    "SequenceClassifier",
    "StaticClassifier",
    "Target",
    "build",
    "build_sequence",
    "count_parameters",
]


def __dir__() -> list[str]:
    return __all__
