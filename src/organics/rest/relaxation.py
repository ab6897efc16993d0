"""Integration of a system towards rest by third-order Runge-Kutta with adaptive steps.

Source: Bogacki & Shampine 1989, with its embedded estimate of the error.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from organics.machine.mesh import alike

Judge = Callable[[Float[Array, " n"]], tuple[Any, Float[Array, " n"]]]
"""A judgement of a state, and the slope there."""


class Path(NamedTuple):
    """The current state, slope and judgement, the time, the length of the next step, and the number
    of steps tried."""

    x: Float[Array, " n"]
    slope: Float[Array, " n"]
    judged: Any
    time: Float[Array, ""]
    step: Float[Array, ""]
    steps: Int[Array, ""]


def relax(
    judge: Judge,
    rests: Callable[[Any], Bool[Array, ""]],
    x: Float[Array, " n"],
    *,
    step: Float[Array, ""],
    longest: ScalarLike,
    most: ScalarLike,
    accuracy: ScalarLike,
    shortest: ScalarLike = 0.0,
    wanted: bool | Bool[Array, ""] = True,
) -> Path:
    """Follow the system's own trajectory from `x` until `rests` is true of what `judge` returns.

    Arguments
        step: the length of the first step.
        longest: the time at which to stop in any case.
        most: the number of steps after which to stop.
        accuracy: of a step, relative to `0.01 + |x|`.
        shortest: the step length at which to stop: a solution that diverges in finite time makes
            the steps ever shorter.
        wanted: whether to take any step.
    """

    def unfinished(path):
        going = (path.time < longest) & (path.step > shortest) & (path.steps < most)
        return wanted & going & ~rests(path.judged)

    def advance(path):
        accept, moved, following = _try_step(judge, path, accuracy)
        x, slope, judged = select(accept, moved, (path.x, path.slope, path.judged))
        time = jnp.where(accept, path.time + path.step, path.time)
        return Path(x, slope, judged, time, following, path.steps + 1)

    judged, slope = judge(x)
    begin = Path(x, slope, judged, jnp.zeros((), x.dtype), step, jnp.int32(0))
    return jax.lax.while_loop(unfinished, advance, alike(begin))


def _try_step(
    judge: Judge, path: Path, accuracy: ScalarLike
) -> tuple[Bool[Array, ""], tuple[Float[Array, " n"], Float[Array, " n"], Any], Float[Array, ""]]:
    """Whether the next step is accurate enough; the state, slope and judgement at its end; and the
    length to try next."""
    x, k1, length = path.x, path.slope, path.step
    _, k2 = judge(x + length / 2 * k1)
    _, k3 = judge(x + 3 * length / 4 * k2)
    moved = x + length / 9 * (2 * k1 + 3 * k2 + 4 * k3)
    judged, k4 = judge(moved)
    error = length / 72 * (-5 * k1 + 6 * k2 + 8 * k3 - 9 * k4)
    size = jnp.max(jnp.abs(error) / (accuracy * (0.01 + jnp.abs(x))))
    change = jnp.clip(0.9 * jnp.maximum(size, 1e-9) ** (-1 / 3), 0.2, 5)
    following = length * jnp.where(jnp.isfinite(change), change, 0.2)
    return size <= 1, (moved, k4, judged), following  # NaN is not, and shortens the step


def select(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """`yes` or `no`, trees of arrays of the same structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
