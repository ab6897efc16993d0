"""The layers as `torch.nn.Module`s: ORGaNICs as `torch.nn.LSTM` is used, and normalization.

Needs PyTorch (`pip install 'organics[torch]'`), and no JAX except to exchange layers with it.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "`organics.torch` needs PyTorch: pip install 'organics[torch]'", name=error.name
    ) from None

from organics.torch.equations import State
from organics.torch.normalization import Normalization
from organics.torch.recurrent import ORGaNICs

__all__ = ["Normalization", "ORGaNICs", "State"]


def __dir__() -> list[str]:
    return __all__
