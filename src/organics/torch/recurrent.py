"""The gated circuit as a recurrent layer of PyTorch."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import organics.torch.authors as authors
import organics.torch.equations as equations
import organics.torch.kernel as kernel
from organics.arguments import (
    require_among,
    require_flag,
    require_positive,
    require_rounded,
    require_share,
    require_sizes,
)
from organics.kernels import library
from organics.names import (
    LARGEST_ANGLE,
    MODULATED,
    Backend,
    Drive,
    Memory,
    ProductType,
    Rectification,
    Recurrence,
    TimeConstants,
)
from organics.torch.arguments import as_type, require_held_squares, require_tensor
from organics.torch.constraints import (
    at_least_single,
    at_most_one,
    cap_spectral_norm,
    in_full,
    orthogonal,
    semidefinite,
)
from organics.torch.equations import State
from organics.torch.exchange import Exchanged, made
from organics.torch.initial import uniform_fan_in


class _Start(nn.Module):
    """The initial state of a circuit, (n,) each: drawn once and not trained."""

    y: Tensor
    a: Tensor
    b0: Tensor
    b: Tensor

    def __init__(self, size: int, factory: dict[str, Any]):
        super().__init__()
        for name in State._fields:
            self.register_buffer(name, torch.empty(size, **factory))

    def packed(self) -> Tensor:
        return torch.cat([self.y, self.a, self.b0, self.b])


class _Modulation(nn.Module):
    """What moves `count` rates; names and shapes as in `organics.nn.recurrent.Modulation`."""

    def __init__(self, count: int, sums: int, input_size: int, size: int, factory: dict[str, Any]):
        super().__init__()
        self.count = count
        for name, columns in (("T_x", input_size), ("T_y", size), ("T_a", size)):
            self.register_parameter(name, nn.Parameter(torch.zeros(sums, size, columns, **factory)))


_CONSTRAINTS: dict[Recurrence, Callable[[Tensor], Tensor]] = {
    "bounded": cap_spectral_norm,
    "semidefinite": semidefinite,
    "orthogonal": orthogonal,
}


class _Cell(nn.Module):
    """The weights of one circuit: names and shapes as in `organics.nn.recurrent.Cell`."""

    def __init__(self, input_size: int, size: int, options: dict[str, Any], factory):
        super().__init__()
        m, n = input_size, size

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, **factory))

        self.W_zx, self.W_b0x, self.W_bx = (parameter(n, m) for _ in range(3))
        self.W_b0y, self.W_b0a, self.W_by, self.W_ba = (parameter(n, n) for _ in range(4))
        identity, fixed = options["recurrent"] == "identity", options["time_constants"] == "fixed"
        self.register_parameter("W_r", None if identity else parameter(n, n))
        self.log_W = parameter(n, n)
        self.register_parameter("raw_rates", None if fixed else parameter(4, n))
        moved = MODULATED.get(options["time_constants"])
        self.modulation = None if moved is None else _Modulation(*moved, m, n, factory)
        self.start = _Start(n, factory)
        self.constraint: Recurrence = options["recurrent"]
        self.unit_drive = options["drive"] == "unit"
        self.sigma = options["sigma"]
        self.initial_normalization = options["initial_normalization"]
        gates = options["dt_tau_max_gates"]
        self.largest_rates = (options["dt_tau_max_y"], options["dt_tau_max_a"], gates, gates)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        n, m = self.W_zx.shape
        for weight in (self.W_zx, self.W_b0x, self.W_bx):
            uniform_fan_in(weight, m)
        for weight in (self.W_b0y, self.W_b0a, self.W_by, self.W_ba):
            uniform_fan_in(weight, n)
        self.W_zx /= torch.linalg.matrix_norm(self.W_zx.to(at_least_single(self.W_zx.dtype)), 2)
        if self.constraint == "orthogonal":
            self._draw_rotations()
        elif self.W_r is not None:
            drawn = torch.empty_like(self.W_r, dtype=at_least_single(self.W_r.dtype))
            self.W_r.copy_(nn.init.orthogonal_(drawn))
        self.log_W.uniform_().clamp_(min=1e-8).log_().fill_diagonal_(0)
        self.log_W += math.log(self.initial_normalization)
        if self.raw_rates is not None:
            self.raw_rates.normal_()
        if self.modulation is not None:
            for weight in self.modulation.parameters():
                weight.zero_()
        start = self.start
        for part in (start.y, start.a, start.b):
            part.uniform_()
        start.y /= torch.linalg.vector_norm(start.y)
        start.b0.fill_(1)

    def _draw_rotations(self) -> None:
        """Parameters of rotations in `n // 2` planes, as in `organics.nn.recurrent`."""
        assert self.W_r is not None
        first = 2 * torch.arange(len(self.W_r) // 2)
        angles = self.W_r.new_empty(len(first)).uniform_(0, LARGEST_ANGLE)
        self.W_r.zero_()[first, first + 1] = torch.tan(angles / 2)

    def recurrent(self) -> Tensor | None:
        """The recurrent weights as the circuit has them; None is the identity."""
        if self.W_r is None or self.constraint == "free":
            return self.W_r
        return _CONSTRAINTS[self.constraint](self.W_r)

    def rates(self) -> Tensor:
        """Step size over the time constants of y, a, b0, b, (4, n); without modulation."""
        return self._largest() * torch.sigmoid(self._raw())

    def _largest(self) -> Tensor:
        return self.log_W.new_tensor(self.largest_rates)[:, None]

    def _raw(self) -> Tensor:
        n = self.log_W.shape[0]
        return self.log_W.new_ones(4, n) if self.raw_rates is None else self.raw_rates

    def inputs(self, x: Tensor) -> Tensor:
        """The inputs of the equations: `x`, and with a unit drive also the drive's own, which is
        `x` scaled to `|W_zx x| <= 1`."""
        if not self.unit_drive:
            return x
        # scaled by the largest entry first, so that the square does not overflow
        scale = x.detach().abs().amax(-1, keepdim=True).clamp(min=1)
        scaled = x / scale
        # not by W_zx^T W_zx, though it is small: of nearly equal columns it has lost the rest
        square = torch.square(scaled @ self.W_zx.T).sum(-1, keepdim=True)
        least = torch.square(1 / scale).clamp(min=torch.finfo(x.dtype).tiny)
        return torch.cat([x, scaled * torch.rsqrt(torch.maximum(square, least))], dim=-1)

    def weights(self) -> equations.Weights:
        gates = [
            torch.cat([self.W_b0y, self.W_b0a], dim=1),
            torch.cat([self.W_by, self.W_ba], dim=1),
        ]
        of_x, rates = [self.W_b0x, self.W_bx], self.rates()
        vectors = [rates, torch.full_like(rates[:1], self.sigma**2)]
        if self.modulation is not None:
            T_x, T_y, T_a = self.modulation.T_x, self.modulation.T_y, self.modulation.T_a
            k, raw = self.modulation.count, self._raw()
            gates.append(torch.cat([T_y, T_a], dim=2).flatten(0, 1))
            of_x.append(T_x.flatten(0, 1))
            largest = self._largest()[:k].expand_as(raw[:k])
            vectors[0] = rates[k:]
            vectors = [torch.sigmoid(raw[:k]).detach(), *vectors, raw[:k], largest]
        gates_input = torch.cat(of_x)
        input_ = torch.cat([self.W_zx, gates_input])
        if self.unit_drive:
            drive, absent = torch.zeros_like(self.W_zx), torch.zeros_like(gates_input)
            input_ = torch.cat(
                [torch.cat([drive, self.W_zx], dim=1), torch.cat([gates_input, absent], dim=1)]
            )
        return equations.Weights(
            recurrent=self.recurrent(),
            normalization=at_most_one(self.log_W),
            gates=torch.cat(gates),
            input=input_,
            vectors=torch.cat(vectors),
        )


class ORGaNICs(Exchanged, nn.Module):
    """A recurrent layer of circuits whose input gains are gated, called as `torch.nn.LSTM` is.

    The equations, their options and the names of all weights are those of `organics.nn.ORGaNICs`.

    Arguments
        input_size, hidden_size: m and n.
        num_layers: circuits on top of each other, each fed by the `y` of the one below.
        batch_first: inputs and outputs are (batch, time, ...), not (time, batch, ...).
        rectified, recurrent, time_constants, rectification, drive, sigma, initial_normalization,
        dt, dt_tau_max_y, dt_tau_max_a, dt_tau_max_gates: as in `organics.nn.ORGaNICs`.
        backend: "native", the C++ kernel, on a CPU in float32 or float64; "scan", the equations in
            PyTorch, on any device; "auto", the quickest that works.
        memory: "more", or "less": training then takes longer, but memory grows only with the square
            root of the number of steps.
        products: "full", or "bfloat16", for float32 only, as in `organics.nn.ORGaNICs`.
        device, dtype: of the parameters.

    Derivatives of the gradients (`create_graph=True`) work with either backend; with "native" they
    are computed by the equations in PyTorch. Under `torch.autocast`, "native" computes in the type
    of the parameters. Within `torch.func.vmap`, `grad` and the like, and in programs exported by
    `torch.export` or `torch.onnx`, "auto" takes the equations, and values are not checked.

    The initial state is a buffer, not a parameter. Raises `ValueError`, naming the argument, for a
    value other than these.

    Source: Rawat et al. 2024, the discretised ORGaNICs with learned gains; their initialisation.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        *,
        rectified: bool = True,
        recurrent: Recurrence = "free",
        time_constants: TimeConstants = "learned",
        rectification: Rectification = "inside",
        drive: Drive = "signed",
        sigma: float = 1.0,
        initial_normalization: float = 1.0,
        dt: float = 1.0,
        dt_tau_max_y: float = 0.01,
        dt_tau_max_a: float = 0.01,
        dt_tau_max_gates: float = 0.1,
        backend: Backend = "auto",
        memory: Memory = "more",
        products: ProductType = "full",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        require_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        require_flag("batch_first", batch_first)
        require_flag("rectified", rectified)
        require_among("recurrent", recurrent, Recurrence)
        require_among("time_constants", time_constants, TimeConstants)
        require_among("rectification", rectification, Rectification)
        require_among("drive", drive, Drive)
        require_among("backend", backend, Backend)
        require_among("memory", memory, Memory)
        require_among("products", products, ProductType)
        require_positive(sigma=sigma, dt=dt)
        kind = as_type(dtype)
        require_rounded(products, kind)
        require_held_squares(kind, sigma=sigma)
        largest = {
            "dt_tau_max_y": dt_tau_max_y,
            "dt_tau_max_a": dt_tau_max_a,
            "dt_tau_max_gates": dt_tau_max_gates,
        }
        require_share(initial_normalization=initial_normalization, **largest)
        if backend == "native" and (reason := library.load().reason) is not None:
            raise ValueError(f"`backend` must not be 'native' here: {reason}.")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_layers, self.batch_first = num_layers, batch_first
        self.backend: Backend = backend
        self.memory: Memory = memory
        self.products: ProductType = products
        self._options = {
            "rectified": bool(rectified),
            "recurrent": recurrent,
            "time_constants": time_constants,
            "rectification": rectification,
            "drive": drive,
            "sigma": float(sigma),
            "initial_normalization": float(initial_normalization),
            "dt": float(dt),
            **{name: float(value) for name, value in largest.items()},
        }
        modulated, sums = MODULATED.get(time_constants, (0, 0))
        self._variant = equations.Variant(
            identity=recurrent == "identity",
            rectified=bool(rectified),
            rectified_after=rectification == "outside" and recurrent != "identity",
            rectified_drive=drive == "rectified",
            modulated=modulated,
            sums=sums,
            rounded=products == "bfloat16",
        )
        factory = {"device": device, "dtype": dtype}
        sizes = (input_size, *[hidden_size] * num_layers)
        self.cells = nn.ModuleList(
            _Cell(m, n, self._options, factory) for m, n in zip(sizes, sizes[1:], strict=False)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters, and the initial states, anew."""
        for cell in self.cells:
            cell.reset_parameters()

    @classmethod
    def from_authors(cls, checkpoint: Mapping[str, Any], **options: Any) -> "ORGaNICs":
        """The layer of a network for sequences that the paper's authors have trained.

        Arguments
            checkpoint: what `torch.load` gives for a checkpoint of their network `rnn`; or its
                `state_dict()` alone, then with `dt_tau_max_y`, `dt_tau_max_a` and
                `dt_tau_max_gates` among the options.
            options: such as `batch_first` and `backend`; `rectified=False` for their
                `rnnCell_unrectified`, which has the same names of weights.

        The equations are those of the published code: recurrence rectified from outside, the drive
        rectified, entries of `W` at most 1. The readout is a `torch.nn.Linear` of their names
        `fc.weight` and `fc.bias`. Raises `ValueError` for other names or shapes of weights.
        """
        stored = authors.recurrent(checkpoint, options)
        return made(cls, stored.options | options, stored.state)

    def options(self) -> dict[str, Any]:
        """The arguments that make this layer anew, besides `device` and `dtype`."""
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "batch_first": self.batch_first,
            **self._options,
            "backend": self.backend,
            "memory": self.memory,
            "products": self.products,
        }

    def extra_repr(self) -> str:
        first = f"{self.input_size}, {self.hidden_size}"
        others = list(self.options().items())[2:]
        return ", ".join([first, *(f"{name}={value!r}" for name, value in others)])

    def forward(
        self,
        input: Tensor | PackedSequence,
        h0: State | None = None,
        *,
        lengths: Any = None,
        sequence: bool = True,
    ) -> tuple[Tensor | PackedSequence, State]:
        """The `y` of the topmost circuit at every step, and the final state of all.

        Arguments
            input: (time, batch, m), with `batch_first` (batch, time, m); (time, m) for one
                sequence; or a `PackedSequence`, which gives a packed output.
            h0: the state to begin with, as an earlier call returned it; by default the layer's own.
            lengths: the number of steps of each sequence, (batch,), or one for (time, m). The final
                state is that after the last of them; later outputs are 0. Later entries of `input`,
                even NaN, change neither values nor gradients.
            sequence: with False only the last output is stored and returned, (batch, n) or (n,).

        Raises `ValueError` for a wrong shape, type or length, and, on a CPU, for numbers that are
        not finite.
        """
        require_flag("sequence", sequence)
        if isinstance(input, PackedSequence):
            return self._packed(input, h0, lengths, sequence)
        require_tensor("input", input)
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size or 0 in input.shape:
            axes = "batch, time" if self.batch_first else "time, batch"
            m = self.input_size
            raise ValueError(
                f"`input` must have shape ({axes}, {m}) or (time, {m}), not {tuple(input.shape)}."
            )
        batched = input.ndim == 3
        steps = input if batched else input[:, None]
        if batched and self.batch_first:
            steps = input.transpose(0, 1)
        y, state = self._run(steps, h0, _as_lengths(lengths, steps, batched), batched, sequence)
        if sequence and batched and self.batch_first:
            y = y.transpose(0, 1)
        if not batched:
            y, state = y[:, 0] if sequence else y[0], State(*(part[:, 0] for part in state))
        return y, state

    def _packed(self, input, h0, lengths, sequence) -> tuple[Tensor | PackedSequence, State]:
        """In the order in which the sequences are packed, the longest first."""
        if lengths is not None:
            raise ValueError("`lengths` must not be given with a `PackedSequence`, which has them.")
        data, sizes, order, back = input
        if data.shape[-1] != self.input_size:
            raise ValueError(
                f"`input` must have {self.input_size} numbers a step, not {data.shape[-1]}."
            )
        x, ends = pad_packed_sequence(PackedSequence(data, sizes))
        if h0 is not None and order is not None:
            self._states(h0, self._as_typed(x), True)  # of another shape it is refused as it is
            h0 = State(*(part.index_select(1, order) for part in h0))
        y, state = self._run(x, h0, ends.to(x.device), True, sequence)
        if back is not None:
            state = State(*(part.index_select(1, back) for part in state))
        if not sequence:
            return y if back is None else y.index_select(0, back), state
        return PackedSequence(pack_padded_sequence(y, ends).data, sizes, order, back), state

    def _run(
        self, x: Tensor, h0: State | None, lengths: Tensor | None, batched: bool, sequence: bool
    ) -> tuple[Tensor, State]:
        """The outputs (time, batch, n), or without `sequence` the last (batch, n), and the final
        state with an axis of the batch."""
        x = self._as_typed(x)
        goes = equations.going(lengths, x)
        outputs = x if goes is None else torch.where(goes, x, 0)
        _require_finite("input", outputs)
        final = []
        for i, packed in enumerate(self._states(h0, x, batched)):
            wanted = sequence or i + 1 < self.num_layers
            last, outputs = self._advance(self.cells[i], outputs, packed, lengths, wanted)
            if goes is not None and wanted:
                outputs = torch.where(goes, outputs, 0)
            final.append(last)
        state = State(*map(_stacked, zip(*final, strict=True)))
        return outputs if sequence else final[-1].y, state

    def _advance(self, cell, x: Tensor, state: Tensor, lengths: Tensor | None, sequence: bool):
        less = self.memory == "less"
        if self._native(x, state, *cell.parameters()):
            segment = math.isqrt(len(x) - 1) + 1 if less else None
            with in_full(x.device):
                return kernel.run(self._variant, cell.weights(), cell.inputs(x), state, lengths,
                                  sequence=sequence, segment=segment)  # fmt: skip
        return equations.run(self._variant, cell.weights(), cell.inputs(x), state, lengths,
                             sequence=sequence, less_memory=less)  # fmt: skip

    def _native(self, *tensors: Tensor) -> bool:
        if self.backend == "scan" or torch.compiler.is_exporting():
            return False
        works = kernel.available(*tensors)
        if self.backend == "native" and not works:
            raise ValueError(
                "`backend` must not be 'native' for tensors of "
                f"{tensors[0].device} and {tensors[0].dtype}: the kernel is for float32 or "
                "float64 on a CPU, and not within the transformations of `torch.func` or with "
                "derivatives forward."
            )
        return works

    def _as_typed(self, x: Tensor) -> Tensor:
        """`x` in the type of the layer, which it must have, except under autocast."""
        dtype = self.cells[0].log_W.dtype
        require_rounded(self.products, dtype)
        if x.dtype == dtype:
            return x
        if torch.is_autocast_enabled(x.device.type) and x.is_floating_point():
            return x.to(dtype)
        raise ValueError(f"`input` must be of the layer's type {dtype}, not {x.dtype}.")

    def _states(self, h0: State | None, x: Tensor, batched: bool) -> list[Tensor]:
        """The state before the first step of each circuit, (batch, 4 n)."""
        batch, n, count = x.shape[1], self.hidden_size, self.num_layers
        if h0 is None:
            return [cell.start.packed().expand(batch, -1) for cell in self.cells]
        shape = (count, batch, n) if batched else (count, n)
        if not isinstance(h0, tuple) or len(h0) != 4:
            raise ValueError(
                f"`h0` must be a `State`, four tensors {shape}, not of type {type(h0).__name__}."
            )
        for name, part in zip(State._fields, h0, strict=True):
            require_tensor(f"h0.{name}", part)
            if part.shape != shape or part.dtype != x.dtype:
                raise ValueError(
                    f"`h0.{name}` must have shape {shape} and type {x.dtype}, not "
                    f"{tuple(part.shape)} and {part.dtype}."
                )
            _require_finite(f"h0.{name}", part)
        packed = torch.cat(list(h0), dim=-1)
        return list((packed if batched else packed[:, None]).unbind())


def _stacked(parts: tuple[Tensor, ...]) -> Tensor:
    """With an axis of the layers; no copy of one alone."""
    return torch.stack(parts) if len(parts) > 1 else parts[0][None]


def _as_lengths(lengths: Any, x: Tensor, batched: bool) -> Tensor | None:
    """The lengths as a tensor (batch,) where `x`, (time, batch, m), is."""
    if lengths is None:
        return None
    steps, batch, _ = x.shape
    try:
        found = torch.as_tensor(lengths, device=x.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`lengths` must be whole numbers, not {lengths!r:.100}.") from error
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"`lengths` must be whole numbers, not of type {found.dtype}.")
    found = found.to(torch.int64)  # a narrow type cannot be compared with every number of steps
    shape = (batch,) if batched else ()
    if found.shape != shape:
        raise ValueError(f"`lengths` must have shape {shape}, not {tuple(found.shape)}.")
    if _looked_at(found) and not bool(((found >= 1) & (found <= steps)).all()):
        raise ValueError(f"`lengths` must be from 1 to {steps}, as `input` has, not {lengths}.")
    return found.reshape(-1)


def _require_finite(name: str, value: Tensor) -> None:
    if _looked_at(value) and not _is_finite(value):
        raise ValueError(f"`{name}` must be finite; it has NaN or infinite entries.")


def _is_finite(value: Tensor) -> bool:
    if value.dtype not in (torch.float32, torch.float64):
        return bool(torch.isfinite(value).all())
    # by NumPy, for the reason in `organics.torch.kernel`
    return bool(np.isfinite(value.detach().resolve_neg().numpy()).all())


def _looked_at(value: Tensor) -> bool:
    """Whether values are checked: not where that would wait for a device, or end a traced or
    transformed program."""
    on_cpu = value.device.type == "cpu" and not torch.compiler.is_compiling()
    return on_cpu and kernel.has_values(value)
