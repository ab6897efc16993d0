"""A circuit's steady state as a feed-forward layer of PyTorch."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

import organics.torch.authors as authors
from organics.arguments import (
    fixed_gain,
    require_among,
    require_flag,
    require_positive,
    require_sizes,
)
from organics.names import PoolWeights, StaticRecurrence
from organics.torch.arguments import as_type, require_held_squares, require_tensor
from organics.torch.constraints import (
    at_least_single,
    at_most_one,
    cap_spectral_norm,
    in_full,
    unit_interval,
    unit_norm,
)
from organics.torch.exchange import Exchanged, made
from organics.torch.initial import uniform_fan_in
from organics.torch.rest import Circuits, steady_y


class Normalization(Exchanged, nn.Module):
    """Firing rates at the steady state of an ORGaNICs circuit driven by the layer's input.

    The equations, options and names of weights are those of `organics.nn.Normalization`. For an
    input (..., m) it returns (..., n).

    Arguments
        input_size, size: m and n.
        recurrent: "identity": divisive normalization in closed form; or "bounded": learned, with
            spectral norm at most 1. The steady state is then searched for, by sweeps and Newton's
            method, and differentiated implicitly; where none is found, the rates are NaN.
        gain, pool, rectified, sigma, tau: as in `organics.nn.Normalization`.
        device, dtype: of the parameters.

    Raises `ValueError`, naming the argument, for a value other than these.

    Source: Rawat et al. 2024, static classification; their parameterisation and initialisation.
    """

    def __init__(
        self,
        input_size: int,
        size: int,
        *,
        recurrent: StaticRecurrence = "identity",
        gain: Literal["input"] | float = "input",
        pool: PoolWeights = "positive",
        rectified: bool = False,
        sigma: float = 1.0,
        tau: float = 2.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        require_sizes(input_size=input_size, size=size)
        require_positive(sigma=sigma, tau=tau)
        require_held_squares(as_type(dtype), sigma=sigma)
        require_flag("rectified", rectified)
        require_among("recurrent", recurrent, StaticRecurrence)
        require_among("pool", pool, PoolWeights)
        learned = isinstance(gain, str) and gain == "input"
        self.input_size, self.size = input_size, size
        self.rectified, self.sigma, self.tau = bool(rectified), float(sigma), float(tau)
        self.recurrent: StaticRecurrence = recurrent
        self.pool: PoolWeights = pool
        self.gain = "input" if learned else fixed_gain(gain)
        factory = {"device": device, "dtype": dtype}
        square = (size, size)
        self.W_zx = nn.Parameter(torch.empty(size, input_size, **factory))
        of_gain = nn.Parameter(torch.empty(size, input_size, **factory))
        self.register_parameter("W_bx", of_gain if gain == "input" else None)
        W_r = nn.Parameter(torch.empty(square, **factory)) if recurrent == "bounded" else None
        self.register_parameter("W_r", W_r)
        self.log_W = nn.Parameter(torch.empty(square, **factory))
        self.beta = nn.Parameter(torch.empty(size, **factory))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        uniform_fan_in(self.W_zx, self.input_size)
        if self.W_bx is not None:
            uniform_fan_in(self.W_bx, self.input_size)
        if self.W_r is not None:
            nn.init.eye_(self.W_r)
        self.log_W.uniform_(-1, 0).fill_diagonal_(0)
        self.beta.zero_()

    @classmethod
    def from_authors(
        cls, checkpoint: Mapping[str, Any], prefix: str = "org1.", **options: Any
    ) -> "Normalization":
        """A layer of a network for images that the paper's authors have trained.

        Arguments
            checkpoint: what `torch.load` gives for a checkpoint of their network `feedforward`, or
                its `state_dict()`.
            prefix: of the layer's names in it: "org1." or "org2.".

        Raises `ValueError` for other names or shapes of weights, and for learned recurrent weights,
        with which the published code solves other equations.
        """
        stored = authors.at_rest(checkpoint, prefix)
        return made(cls, stored.options | options, stored.state)

    def options(self) -> dict[str, Any]:
        """The arguments that make this layer anew, besides `device` and `dtype`."""
        names = ("recurrent", "gain", "pool", "rectified", "sigma", "tau")
        sizes = {"input_size": self.input_size, "size": self.size}
        return sizes | {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        first = f"{self.input_size}, {self.size}"
        others = list(self.options().items())[2:]
        return ", ".join([first, *(f"{name}={value!r}" for name, value in others)])

    def forward(self, input: Tensor) -> Tensor:
        """Rates (..., n) of the principal neurons at the steady state for the input (..., m).

        Raises `ValueError` for another shape or type.
        """
        require_tensor("input", input)
        if not input.ndim or input.shape[-1] != self.input_size:
            m = self.input_size
            raise ValueError(f"`input` must have shape (..., {m}), not {tuple(input.shape)}.")
        dtype = self.W_zx.dtype
        if input.dtype != dtype and not torch.is_autocast_enabled(input.device.type):
            raise ValueError(f"`input` must be of the layer's type {dtype}, not {input.dtype}.")
        if self.W_r is None:
            return self._rates(input)
        with in_full(input.device):  # the search ends at an accuracy that bfloat16 has not
            return self._rates(input.to(dtype))

    def _rates(self, input: Tensor) -> Tensor:
        drive = unit_norm(input @ self.W_zx.T)
        b = self.gain if self.W_bx is None else unit_interval(input @ self.W_bx.T)
        d = b * drive
        log_W = self.log_W
        W = at_most_one(log_W) if self.pool == "bounded" else torch.exp(log_W)
        c = torch.square(unit_interval(self.beta) * self.sigma)
        if self.W_r is not None:
            kind = at_least_single(d.dtype)  # as the search solves linear systems
            values = (v.to(kind) for v in (W, cap_spectral_norm(self.W_r), c))
            y = steady_y(Circuits(*values, self.rectified), d.to(kind).reshape(-1, self.size))
            return torch.square(torch.relu(y.to(d.dtype).reshape(d.shape)))
        q = torch.relu(d) if self.rectified else d
        return torch.square(torch.relu(d)) / (c + torch.square(q) @ W.T)
