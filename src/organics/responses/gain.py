"""Attention as a change of input gains, and what it does to a contrast response."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from organics.arguments import is_positive, require_positive, require_whole
from organics.circuit.areas import Areas
from organics.circuit.values import require_values
from organics.responses.contrast import NakaRushton


class GainChange(NamedTuple):
    """What changed in the contrast responses of m neurons, each of shape (m,).

    Attributes
        response_gain: `r_max` after over before.
        contrast_gain: `c50` before over after: contrasts count as if so many times higher.
    """

    response_gain: Float[np.ndarray, " m"]
    contrast_gain: Float[np.ndarray, " m"]


S = TypeVar("S", bound=Areas)


def with_gain(
    system: S,
    factor: float,
    neurons: Sequence[int] | None = None,
    *,
    area: int = 0,
) -> S:
    """The circuit, or hierarchy, with the input gain `b` of some neurons multiplied by `factor`.

    With identity recurrence, a factor on all neurons divides `c50` by it (contrast gain, the same
    as a stronger input). On neurons that are not in their own pool, it multiplies their `r_max` by
    its square (response gain). In general it does both.

    Arguments
        factor: > 0.
        neurons: indices; by default all.
        area: of a hierarchy, from 0.

    Raises `ValueError`, naming the argument, if one is not as above.
    """
    require_positive(factor=factor)
    areas = system.areas
    require_whole("area", area, 0)
    if not 0 <= area < len(areas):
        raise ValueError(f"`area` must be from 0 to {len(areas) - 1}, not {area}.")
    n = areas[area].n
    chosen = range(n) if neurons is None else neurons
    for i in chosen:
        require_whole("neurons", i, 0)
        if not i < n:
            raise ValueError(f"`neurons` must be from 0 to {n - 1}, not {i}.")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"`neurons` must be different ones, not {list(chosen)}.")
    b = areas[area].b.at[jnp.array(list(chosen), int)].multiply(factor)
    require_values("factor", b, is_positive, f"leave `b` positive and finite in {b.dtype}")
    return eqx.tree_at(lambda s: s.areas[area].b, system, b)


def gain_change(before: NakaRushton, after: NakaRushton) -> GainChange:
    """How a contrast response changed: by response gain, contrast gain or both."""
    return GainChange(after.r_max / before.r_max, before.c50 / after.c50)
