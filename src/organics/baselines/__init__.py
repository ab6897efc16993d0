"""The recurrent networks that people compare with: one protocol, that of `organics.nn.ORGaNICs`."""

from organics.baselines.antisymmetric import AntisymmetricRNN as AntisymmetricRNN
from organics.baselines.catalog import build as build
from organics.baselines.cornn import CoRNN as CoRNN
from organics.baselines.layer import RecurrentLayer as RecurrentLayer
from organics.baselines.lipschitz import LipschitzRNN as LipschitzRNN
from organics.baselines.lstm import LSTM as LSTM
from organics.baselines.recipes import PUBLISHED as PUBLISHED
from organics.baselines.recipes import TUNED as TUNED
from organics.baselines.recipes import Recipe as Recipe
from organics.baselines.tanh import Tanh as Tanh
