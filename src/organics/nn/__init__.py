"""Circuits as layers: at their steady state (static), or step by step on sequences (recurrent)."""

from organics.nn.convolution import NormalizationConv2d
from organics.nn.dynamics import circuit_at, trajectory
from organics.nn.normalization import Normalization
from organics.nn.recurrent import CellState, ORGaNICs, trainable
from organics.nn.recurrent_convolution import ORGaNICsConv2d
from organics.nn.retention import Holding, holding
from organics.nn.supralinear import SSN

__all__ = [
    "CellState",
    "Holding",
    "Normalization",
    "NormalizationConv2d",
    "ORGaNICs",
    "ORGaNICsConv2d",
    "SSN",
    "circuit_at",
    "holding",
    "trainable",
    "trajectory",
]


def __dir__() -> list[str]:
    return __all__
