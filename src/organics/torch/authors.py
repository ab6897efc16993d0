"""The networks of the paper's authors, as their programs store them.

Source: github.com/martiniani-lab/dynamic-divisive-norm, version 85194c3: the networks `rnn`, with
an `rnnCell`, and `feedforward`, with layers `ff`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

_WHERE = "the layout of the authors' published networks"
_DEFAULT_RATES = {"dt_tau_max_y": 0.01, "dt_tau_max_a": 0.01, "dt_tau_max_b": 0.1}  # theirs
_RATES = ("tauy", "taua", "taub0", "taub1")
_CELL = {
    "W_zx": "Wzx.weight",
    "W_b0x": "Wbx0",
    "W_bx": "Wbx1",
    "W_b0y": "Wby0",
    "W_b0a": "Wba0",
    "W_by": "Wby1",
    "W_ba": "Wba1",
    "W_r": "Wr.weight",
    "log_W": "log_Way",
}
_START = {"start.y": "y0", "start.a": "a0", "start.b0": "b00", "start.b": "b10"}
_AT_REST = {"W_zx": "Wzx", "W_bx": "Wbx", "log_W": "log_Way", "beta": "b0"}


class Stored(NamedTuple):
    """A layer as `organics.torch` makes it: its options, and its weights by their names."""

    options: dict[str, Any]
    state: dict[str, Tensor]


def recurrent(checkpoint: Mapping[str, Any], given: Mapping[str, Any]) -> Stored:
    """The layer in a network `rnn`. `given` options count, where the checkpoint does not tell
    them."""
    state = _state(checkpoint)
    rates = [f"param_dt_{name}" for name in _RATES]
    found = _under("org.", state, [*_CELL.values(), *rates, "sigma"])
    starts = _named(state, _START.values())
    weights = {ours: found[theirs] for ours, theirs in _CELL.items()}
    raw_rates = torch.stack([found[name] for name in rates])
    options = {
        "input_size": weights["W_zx"].shape[1],
        "hidden_size": weights["W_zx"].shape[0],
        "recurrent": "free",
        "time_constants": "learned",
        "rectification": "outside",
        "drive": "rectified",
        "sigma": _one(found["sigma"]),
        **_largest_rates(checkpoint, given),
    }
    if _is_identity(weights["W_r"]):
        options["recurrent"] = "identity"
        del weights["W_r"]
    if bool((raw_rates == 1).all()):
        options["time_constants"] = "fixed"
    else:
        weights["raw_rates"] = raw_rates
    weights |= {ours: starts[theirs] for ours, theirs in _START.items()}
    return Stored(options, {f"cells.0.{name}": weight for name, weight in weights.items()})


def at_rest(checkpoint: Mapping[str, Any], prefix: str) -> Stored:
    """The layer in a network `feedforward` whose names begin with `prefix`."""
    state = _state(checkpoint)
    if f"{prefix}Wr.parametrizations.weight.original" in state:
        raise ValueError(
            f"`checkpoint` has learned recurrent weights in {prefix}Wr: for these, the published "
            "program solves other equations than the circuit's, so that no layer here gives its "
            "values."
        )
    names = [*_AT_REST.values(), "Wr.weight", "identity_matrix", "sigma"]
    found = _under(prefix, state, names)
    size, input_size = found["Wzx"].shape
    options = {"input_size": input_size, "size": size, "sigma": _one(found["sigma"])}
    return Stored(options, {ours: found[theirs] for ours, theirs in _AT_REST.items()})


def _state(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """All weights by their names, of a whole checkpoint or of `state_dict()`."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(one, Tensor) for one in state.values()):
        raise ValueError(
            "`checkpoint` must be what `torch.load` gives for a checkpoint of the authors, or a "
            f"network's `state_dict()`, not {type(checkpoint).__name__}."
        )
    return state


def _named(state: Mapping[str, Tensor], names: Any) -> dict[str, Tensor]:
    lacking = sorted(set(names) - set(state))
    if lacking:
        raise ValueError(f"`checkpoint` must have {', '.join(lacking)}, as {_WHERE}.")
    return {name: state[name] for name in names}


def _under(prefix: str, state: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """The weights with these names after `prefix`, if there are no others."""
    found = _named(state, [prefix + name for name in names])
    others = sorted(name for name in set(state) - set(found) if name.startswith(prefix))
    if others:
        raise ValueError(f"`checkpoint` must not have {', '.join(others)}: not {_WHERE}.")
    return {name.removeprefix(prefix): value.detach() for name, value in found.items()}


def _largest_rates(checkpoint: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, float]:
    """The largest step sizes over time constants, which are no weights."""
    ours = {name: name.replace("max_b", "max_gates") for name in _DEFAULT_RATES}
    if (hyper := checkpoint.get("hyper_parameters")) is not None:
        stored = _DEFAULT_RATES | dict(hyper.get("kwargs_dict", {}))
        return {name: stored[theirs] for theirs, name in ours.items()}
    lacking = [name for name in ours.values() if name not in given]
    if lacking:
        raise ValueError(
            f"`{lacking[0]}` must be given for a `checkpoint` without `hyper_parameters`: it is no "
            "weight. In the authors' names of runs, 0.02_0.005_0.1 are dt_tau_max_y, dt_tau_max_a "
            "and dt_tau_max_gates."
        )
    return {}


def _one(sigma: Tensor) -> float:
    """The one value of all entries."""
    values = sigma.unique().tolist()
    if len(values) != 1:
        raise ValueError(f"`checkpoint` must have one sigma for all neurons, not {values}.")
    return values[0]


def _is_identity(W: Tensor) -> bool:
    return torch.equal(W, torch.eye(len(W), dtype=W.dtype, device=W.device))
