"""Circuits as layers: at their steady state (static), or step by step on sequences (recurrent)."""

from organics.nn.convolution import NormalizationConv2d as NormalizationConv2d
from organics.nn.dynamics import circuit_at as circuit_at
from organics.nn.dynamics import trajectory as trajectory
from organics.nn.normalization import Normalization as Normalization
from organics.nn.recurrent import CellState as CellState
from organics.nn.recurrent import ORGaNICs as ORGaNICs
from organics.nn.recurrent import trainable as trainable
from organics.nn.supralinear import SSN as SSN
