"""Layers whose output is the steady state of a circuit."""

from organics.nn.convolution import NormalizationConv2d as NormalizationConv2d
from organics.nn.normalization import Normalization as Normalization
