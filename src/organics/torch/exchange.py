"""Layers from JAX and to JAX, and in files. Both have the same names of weights."""

import json
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from organics.files.atomic import write_atomically
from organics.names import MODULATED

_ENTRY = "organics"  # as in the files of `organics.training`
_WORDS = ("layer", "options")  # in it
_Layer = TypeVar("_Layer", bound=nn.Module)


class Exchanged(nn.Module, ABC):
    """What every layer has."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The arguments that make this layer anew, besides `device` and `dtype`."""

    @classmethod
    def from_jax(cls: type[_Layer], layer: Any, **options: Any) -> _Layer:
        """The same layer as this one of `organics.nn`, with `options` such as `batch_first` and
        `backend` in place of its own.

        Raises `ValueError` for another kind of layer.
        """
        jax = import_module("jax")
        if type(layer) is not getattr(import_module("organics.nn"), cls.__name__):
            raise ValueError(f"`layer` must be an `organics.nn.{cls.__name__}`, not {layer!r}.")
        leaves = jax.tree_util.tree_leaves_with_path(layer)
        state = {
            jax.tree_util.keystr(where, simple=True, separator="."): torch.tensor(np.asarray(leaf))
            for where, leaf in leaves
        }
        return made(cls, _options_of(layer) | options, state)

    def to_jax(self) -> Any:
        """The same layer of `organics.nn`, which has JAX's `backend` of the same name.

        Raises `ValueError` for a type that JAX is not set to, or has no such layer of.
        """
        jax, eqx = import_module("jax"), import_module("equinox")
        layer = getattr(import_module("organics.nn"), type(self).__name__)
        options = {name: value for name, value in self.options().items() if name != "batch_first"}
        if "num_layers" in options:
            options["layers"] = options.pop("num_layers")
        state = self.state_dict()
        dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
        like = eqx.filter_eval_shape(layer, **options, key=jax.random.key(0), dtype=dtype)

        def leaf(where, _):
            name = jax.tree_util.keystr(where, simple=True, separator=".")
            return jax.numpy.asarray(state[name].detach().cpu().numpy())

        return jax.tree_util.tree_map_with_path(leaf, like)

    def save(self, path: str | Path) -> None:
        """Write the layer, its weights and options, as a safetensors file.

        The names of the weights are those of `state_dict`, and of the files of `organics train`.
        Raises `OSError`, naming the file, if it cannot be written.
        """
        arrays = {name: value.contiguous() for name, value in self.state_dict().items()}
        entry = dict(zip(_WORDS, (type(self).__name__, self.options()), strict=True))
        data = safetensors.torch.save(arrays, {_ENTRY: json.dumps(entry)})
        write_atomically(path, data)

    @classmethod
    def load(cls: type[_Layer], path: str | Path, **options: Any) -> _Layer:
        """The layer that `save` wrote, with `options` such as `batch_first`, `backend` and `dtype`
        in place of its own.

        Raises `ValueError`, naming the file, if it does not hold one, or for other options.
        """
        try:
            with safetensors.safe_open(path, "pt") as file:
                entry = json.loads((file.metadata() or {})[_ENTRY])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            name, stored = (entry[word] for word in _WORDS)
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold a layer with its options: {error}") from None
        if name != cls.__name__:
            raise ValueError(f"{path} holds an `{name}`, not an `{cls.__name__}`.")
        try:
            return made(cls, stored | options, state)
        except (TypeError, ValueError) as error:
            if options and _fits(cls, stored, state):
                raise ValueError(str(error)) from None
            raise ValueError(f"{path} holds no such layer: {error}") from None


def made(cls: type[_Layer], options: dict[str, Any], state: dict[str, torch.Tensor]) -> _Layer:
    """A layer with these options and weights; by default in the type of the weights.

    Raises `ValueError` if they do not fit each other.
    """
    layer = cls(**{"dtype": next(iter(state.values())).dtype} | options)
    try:
        layer.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit the layer's options: {error}") from None
    return layer


def _fits(cls: type[_Layer], options: dict[str, Any], state: dict[str, torch.Tensor]) -> bool:
    try:
        made(cls, options, state)
    except (TypeError, ValueError):
        return False
    return True


def _time_constants(cell: Any) -> str:
    if cell.modulation is not None:
        moved = cell.modulation.count, len(cell.modulation.T_x)
        return next(name for name, these in MODULATED.items() if these == moved)
    return "fixed" if cell.raw_rates is None else "learned"


def _options_of(layer: Any) -> dict[str, Any]:
    """The arguments of PyTorch's layer for one of JAX."""
    if type(layer).__name__ == "Normalization":
        return {
            "input_size": layer.W_zx.shape[1],
            "size": layer.size,
            "recurrent": "identity" if layer.W_r is None else "bounded",
            "gain": layer.gain if layer.W_bx is None else "input",
            "pool": layer.pool,
            "rectified": layer.rectified,
            "sigma": layer.sigma,
            "tau": layer.tau,
        }
    cell, options = layer.cells[0], layer.options
    drive = "rectified" if options.rectified_drive else "signed"
    dt_tau_max_y, dt_tau_max_a, dt_tau_max_gates, _ = cell.largest_rates
    return {
        "input_size": layer.input_size,
        "hidden_size": layer.hidden_size,
        "num_layers": len(layer.cells),
        "rectified": options.rectified,
        "recurrent": cell.constraint,
        "time_constants": _time_constants(cell),
        "rectification": "outside" if options.rectified_after else "inside",
        "drive": "unit" if cell.unit_drive else drive,
        "sigma": cell.sigma,
        "dt": layer.dt,
        "dt_tau_max_y": dt_tau_max_y,
        "dt_tau_max_a": dt_tau_max_a,
        "dt_tau_max_gates": dt_tau_max_gates,
        "backend": layer.backend,
        "memory": layer.memory,
        "products": layer.products,
    }
