"""Recurrent networks to compare with, under the protocol of `organics.nn.ORGaNICs`."""

from organics.baselines.antisymmetric import AntisymmetricRNN
from organics.baselines.catalog import build
from organics.baselines.cornn import CoRNN
from organics.baselines.layer import RecurrentLayer
from organics.baselines.lem import LEM
from organics.baselines.lipschitz import LipschitzRNN
from organics.baselines.lstm import LSTM
from organics.baselines.recipes import PUBLISHED, TUNED, Recipe
from organics.baselines.tanh import Tanh

__all__ = [
    "AntisymmetricRNN",
    "CoRNN",
    "LEM",
    "LSTM",
    "LipschitzRNN",
    "PUBLISHED",
    "Recipe",
    "RecurrentLayer",
    "TUNED",
    "Tanh",
    "build",
]


def __dir__() -> list[str]:
    return __all__
