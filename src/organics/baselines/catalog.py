"""The comparison models by name."""

from collections.abc import Callable
from functools import partial

from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

from organics.arguments import require_among
from organics.baselines.antisymmetric import AntisymmetricRNN
from organics.baselines.cornn import CoRNN
from organics.baselines.layer import RecurrentLayer
from organics.baselines.lem import LEM
from organics.baselines.lipschitz import LipschitzRNN
from organics.baselines.lstm import LSTM
from organics.baselines.tanh import Tanh
from organics.names import BaselineName

_MODELS: dict[BaselineName, Callable[..., RecurrentLayer]] = {
    "lstm": LSTM,
    "antisymmetric": AntisymmetricRNN,
    "antisymmetric-gated": partial(AntisymmetricRNN, gated=True),
    "cornn": CoRNN,
    "lipschitz": LipschitzRNN,
    "lem": LEM,
    "rnn": Tanh,
}


def build(
    name: BaselineName,
    input_size: int,
    hidden_size: int,
    *,
    key: PRNGKeyArray,
    dtype: DTypeLike | None = None,
    **options: float | str,
) -> RecurrentLayer:
    """The layer called `name`, with random parameters. `options` are its own, such as a step size.

    Raises `ValueError` for an unknown name, and where the layer does.
    """
    require_among("name", name, BaselineName)
    return _MODELS[name](input_size, hidden_size, key=key, dtype=dtype, **options)
