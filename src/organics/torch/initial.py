"""Initial values of weights."""

from torch import Tensor


def uniform_fan_in(weight: Tensor, fan_in: int) -> None:
    """Draw uniformly on +-1/sqrt(fan_in), in place."""
    weight.uniform_(-(fan_in**-0.5), fan_in**-0.5)
