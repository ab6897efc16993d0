"""The comparison models by name."""

from functools import partial
from typing import Literal, get_args

from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

from organics.baselines.antisymmetric import AntisymmetricRNN
from organics.baselines.cornn import CoRNN
from organics.baselines.layer import RecurrentLayer
from organics.baselines.lipschitz import LipschitzRNN
from organics.baselines.lstm import LSTM
from organics.baselines.tanh import Tanh

Name = Literal["lstm", "antisymmetric", "antisymmetric-gated", "cornn", "lipschitz", "rnn"]

_MODELS = {
    "lstm": LSTM,
    "antisymmetric": AntisymmetricRNN,
    "antisymmetric-gated": partial(AntisymmetricRNN, gated=True),
    "cornn": CoRNN,
    "lipschitz": LipschitzRNN,
    "rnn": Tanh,
}


def build(
    name: str,
    input_size: int,
    hidden_size: int,
    *,
    key: PRNGKeyArray,
    dtype: DTypeLike | None = None,
    **options: float,
) -> RecurrentLayer:
    """The layer called `name`, with random parameters; `options` are its own, such as a step size.

    Raises `ValueError` for another name, and as the layer does.
    """
    if name not in _MODELS:
        known = ", ".join(map(repr, get_args(Name)))
        raise ValueError(f"`name` must be one of {known}, not {name!r}.")
    return _MODELS[name](input_size, hidden_size, key=key, dtype=dtype, **options)
