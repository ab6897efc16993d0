"""Fixed points of the steps of a recurrent layer under a constant input."""

from itertools import product
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from organics.inspection.step_map import StepMap
from organics.linear.jacobian import eigenvalues

_NEWTON_STEPS = 60
_SETTLING_STEPS = 3000
_TOLERANCE = 1e-10  # of the residual, relative to the size of the state
_SAME = 1e-6  # relative distance below which two fixed points are one
_BESIDE = 1e-150  # how far from a kink, which leaves all else as it is
_MOST_AT_KINKS = 6  # neurons of which all sides are tried
_SHARES = 0.5 ** np.arange(0, 12, 2)  # of a Newton step that are tried


class FixedPoint(NamedTuple):
    """A fixed point of a step.

    Attributes
        state: (d,).
        output: of the layer, (n,).
        residual: largest imbalance of a number: its change in a step, in ORGaNICs over its step
            size.
        eigenvalues: of the derivative of a step, (d,), the largest magnitude first. Where neurons
            rest at `y = 0`, on the side where the first is largest: of all sides of up to six such
            neurons, of more of those that a search tries.
        attracted: share of the settling runs that ended here.
    """

    state: Float[np.ndarray, " d"]
    output: Float[np.ndarray, " n"]
    residual: float
    eigenvalues: Complex[np.ndarray, " d"]
    attracted: float

    @property
    def radius(self) -> float:
        """The largest magnitude of an eigenvalue."""
        return float(np.abs(self.eigenvalues[0]))

    @property
    def stable(self) -> bool:
        """Whether it is below 1, so that nearby states come nearer."""
        return self.radius < 1

    @property
    def unstable_directions(self) -> int:
        """How many eigenvalues have a magnitude above 1."""
        return int(np.sum(np.abs(self.eigenvalues) > 1))


def fixed_points(
    steps: StepMap, x: Float[np.ndarray, " m"], starts: Float[np.ndarray, "k d"]
) -> list[FixedPoint]:
    """Those that are found from some states, the most stable first.

    From each of the states, Newton's method with steps that reduce the residual; and once more from
    where 3,000 steps of the layer lead. There may be others. Only settled states count as those
    that a fixed point attracts.
    """
    given = jnp.asarray(x), jnp.asarray(starts)
    settled = _settle(steps, *given)
    found = np.concatenate([np.asarray(_newton(steps, given[0], s)) for s in (settled, given[1])])
    ends = np.asarray(settled)
    residuals = np.asarray(_residuals(steps, given[0], jnp.asarray(found)))
    sizes = 1 + np.max(np.abs(found), axis=1)
    good = np.isfinite(residuals) & (residuals < _TOLERANCE * sizes)
    kept: list[int] = []
    for i in np.flatnonzero(good):
        if all(_distance(found[i], found[j]) > _SAME for j in kept):
            kept.append(int(i))
    if not kept:
        return []
    chosen = found[kept]
    outputs = np.asarray(_outputs(steps, jnp.asarray(chosen)))
    points = []
    for i, state, output in zip(kept, chosen, outputs, strict=True):
        values = _least_stable(steps, given[0], state)
        near = [_distance(end, state) < 1e-3 for end in ends]
        points.append(FixedPoint(state, output, float(residuals[i]), values, float(np.mean(near))))
    return sorted(points, key=lambda point: point.radius)


def _least_stable(
    steps: StepMap, x: Array, state: Float[np.ndarray, " d"]
) -> Complex[np.ndarray, " d"]:
    """The `eigenvalues` of a fixed point."""
    rounding = np.finfo(state.dtype).eps ** 0.75 * (1 + np.max(np.abs(state)))
    at_kinks = np.flatnonzero(steps.kinks & (np.abs(state) <= rounding))

    def on_side(above: np.ndarray) -> Complex[np.ndarray, " d"]:
        beside = state.copy()
        beside[at_kinks] = np.where(above, _BESIDE, -_BESIDE)
        values = eigenvalues(np.asarray(_jacobian(steps, x, jnp.asarray(beside)))[None])[0]
        return values[np.argsort(-np.abs(values), kind="stable")]

    def radius(values: np.ndarray) -> float:
        return float(np.abs(values[0]))

    count = len(at_kinks)
    if count <= _MOST_AT_KINKS:
        sides = (np.array(above, bool) for above in product((False, True), repeat=count))
        return max(map(on_side, sides), key=radius)
    side, above = np.zeros(count, bool), np.ones(count, bool)
    worst = on_side(side)
    if radius(values := on_side(above)) > radius(worst):
        side, worst = above, values
    for i in range(count):  # the other side of one neuron after the other
        other = side.copy()
        other[i] = ~other[i]
        if radius(values := on_side(other)) > radius(worst):
            side, worst = other, values
    return worst


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    size = 1 + max(np.max(np.abs(one)), np.max(np.abs(other)))
    return float(np.max(np.abs(one - other)) / size)


@eqx.filter_jit
def _settle(steps: StepMap, x: Array, starts: Float[Array, "k d"]) -> Float[Array, "k d"]:
    return jax.vmap(lambda s: steps.settled(x, s, _SETTLING_STEPS))(starts)


@eqx.filter_jit
def _residuals(steps: StepMap, x: Array, states: Float[Array, "k d"]) -> Float[Array, " k"]:
    return jax.vmap(lambda s: jnp.max(jnp.abs(steps.imbalance(x, s))))(states)


@eqx.filter_jit
def _jacobian(steps: StepMap, x: Array, state: Float[Array, " d"]) -> Float[Array, "d d"]:
    return steps.jacobian(x, state)


@eqx.filter_jit
def _outputs(steps: StepMap, states: Float[Array, "k d"]) -> Float[Array, "k n"]:
    return jax.vmap(steps.output)(states)


@eqx.filter_jit
def _newton(steps: StepMap, x: Array, starts: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """Where damped Newton steps lead from each state."""

    def imbalance(s):
        return steps.imbalance(x, s)

    def improve(s):
        step = jnp.linalg.solve(jax.jacfwd(imbalance)(s), -imbalance(s))
        tried = s[None] + jnp.asarray(_SHARES, s.dtype)[:, None] * step[None]
        tried = jnp.concatenate([s[None], tried])
        sizes = jnp.linalg.norm(jax.vmap(imbalance)(tried), axis=1)
        return tried[jnp.nanargmin(sizes)]

    def one(s):
        return jax.lax.fori_loop(0, _NEWTON_STEPS, lambda _, s: improve(s), s)

    return jax.lax.map(one, starts)
