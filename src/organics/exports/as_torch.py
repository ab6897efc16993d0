"""A network as a program of PyTorch, as `torch.export` writes it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from organics.exports.packages import require
from organics.models import SequenceClassifier, StaticClassifier
from organics.models.static import Dense
from organics.nn import Normalization, ORGaNICs


def require_packages() -> None:
    """Raises `ValueError` if PyTorch is missing."""
    require("torch", "torch")


def make(model: Any, shape: tuple[int, ...]) -> bytes:
    """The program that `torch.export.save` writes, for any number of inputs at once.

    Raises `ValueError` for a network that has no layer in `organics.torch`.
    """
    import torch

    stream = io.BytesIO()
    torch.export.save(program_of(model, shape), stream)
    return stream.getvalue()


def runner(file: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """A function that runs the program in `file`, and who runs it."""
    import torch

    module = torch.export.load(io.BytesIO(file.read_bytes())).module()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    return run, f"torch {torch.__version__}"


def program_of(model: Any, shape: tuple[int, ...]) -> Any:
    """The network as `torch.export` records it. Raises `ValueError` as `make` does."""
    import torch

    network = _network(model)
    free = {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        return torch.export.export(network, (torch.zeros(3, *shape),), dynamic_shapes=(free,))


def _network(model: Any) -> Any:
    """The same network of PyTorch's modules, from inputs to class scores."""
    import torch

    from organics.torch import ORGaNICs as TorchORGaNICs

    if isinstance(model, StaticClassifier):
        last = len(model.encoder) - 1
        encoder = [
            part
            for i, layer in enumerate(model.encoder)
            for part in (_linear(layer), torch.nn.Sigmoid() if i == last else torch.nn.ReLU())
        ]
        return torch.nn.Sequential(*encoder, *map(_at_rest, model.layers), _linear(model.readout))
    if not isinstance(model, SequenceClassifier) or not isinstance(model.layer, ORGaNICs):
        raise _refusal(type(getattr(model, "layer", model)).__name__)

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = TorchORGaNICs.from_jax(model.layer, batch_first=True)
            self.readout = _linear(model.readout)

        def forward(self, x):
            return self.readout(self.layer(x, sequence=False)[0])

    return Classifier()


def _at_rest(layer: Any) -> Any:
    """A layer between encoder and readout."""
    import torch

    from organics.torch import Normalization as TorchNormalization

    if isinstance(layer, Dense):
        return torch.nn.Sequential(_linear(layer.linear), torch.nn.ReLU())
    if isinstance(layer, Normalization) and layer.W_r is None:
        return TorchNormalization.from_jax(layer)
    raise _refusal(f"{type(layer).__name__} whose steady state is searched for")


def _linear(layer: Any) -> Any:
    import torch

    made = torch.nn.utils.skip_init(torch.nn.Linear, *layer.weight.shape[::-1])
    state = {"weight": layer.weight, "bias": layer.bias}
    made.load_state_dict({name: torch.tensor(np.asarray(leaf)) for name, leaf in state.items()})
    return made


def _refusal(what: str) -> ValueError:
    return ValueError(
        f"`format` must be stablehlo for this network: torch and onnx have no layer {what}."
    )
