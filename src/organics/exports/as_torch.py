"""A network as a program of PyTorch, as `torch.export` writes it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from organics.exports.export import Network
from organics.exports.packages import require
from organics.models import SequenceClassifier, StaticClassifier
from organics.models.static import Dense
from organics.nn import Normalization, ORGaNICs


def require_packages() -> None:
    """Raises `ValueError` if PyTorch is missing."""
    require("torch", "torch")


def make(network: Network) -> bytes:
    """The program that `torch.export.save` writes.

    Raises `ValueError` for a network that has no layer in `organics.torch`.
    """
    import torch

    stream = io.BytesIO()
    torch.export.save(program_of(network), stream)
    return stream.getvalue()


def runner(file: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """A function that runs the program in `file`, and who runs it."""
    import torch

    module = torch.export.load(io.BytesIO(file.read_bytes())).module()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    return run, f"torch {torch.__version__}"


def program_of(network: Network) -> Any:
    """The network as `torch.export` records it. Raises `ValueError` as `make` does."""
    import torch

    example = torch.zeros(3, *network.shape)
    if "steps" in network.axes and example.shape[1] == 1:  # which would be taken for the only one
        example = torch.zeros(3, 2, network.shape[1])
    free = {axis: torch.export.Dim(name) for axis, name in enumerate(network.axes)}
    with torch.no_grad():
        return torch.export.export(_prepared(network), (example,), dynamic_shapes=(free,))


def _prepared(network: Network) -> Any:
    """The network from raw inputs to outputs, of PyTorch's modules."""
    import torch

    inner, prepared = _network(network.model), network.preparation
    if prepared is None:
        return inner
    numbers = not prepared.classes

    class Prepared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner
            for name in ("mean", "scale", "target_mean", "target_scale"):
                self.register_buffer(name, torch.tensor(getattr(prepared, name)))

        def forward(self, x):
            found = self.inner((x - self.mean) / self.scale)
            return found * self.target_scale + self.target_mean if numbers else found

    return Prepared()


def _network(model: Any) -> Any:
    """The same model of PyTorch's modules."""
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

    every = model.target.at == "every"

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = TorchORGaNICs.from_jax(model.layer, batch_first=True)
            for cell in self.layer.cells:
                # computed now: a program need not, and formats lack what it takes
                if cell.W_r is not None:
                    cell.W_r.data, cell.constraint = cell.recurrent().detach(), "free"
            self.readout = _linear(model.readout)

        def forward(self, x):
            return self.readout(self.layer(x, sequence=every)[0])

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
