"""Arguments of PyTorch's layers, checked."""

from typing import Any

import torch
from torch import Tensor

from organics.arguments import require_squares

_NAMES = {torch.float64: "float64", torch.float16: "float16"}  # bfloat16 has float32's range


def as_type(dtype: Any) -> torch.dtype:
    """The type of a layer's parameters: PyTorch's default if none is given.

    Raises `ValueError` for all but real floating-point types.
    """
    kind = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ValueError(f"`dtype` must be a floating-point type of torch, not {dtype!r}.")
    return kind


def require_held_squares(dtype: torch.dtype, **values: float) -> None:
    """Refuse, by name, numbers whose square would be infinite or 0 in numbers of this type."""
    require_squares(_NAMES.get(dtype, "float32"), **values)


def require_tensor(name: str, value: Any) -> None:
    """Refuse what is no tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"`{name}` must be a tensor, not {type(value).__name__}.")
