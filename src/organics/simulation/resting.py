"""Do circuits come to rest? Many at once, in long simulations with tight tolerances.

An independent check of the search for steady states, decisive where that finds none.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from organics.circuit.circuit import Circuit, State
from organics.simulation.ode import simulate

_BATCH = 50  # circuits simulated at once: the slowest one decides how long it takes
_STRETCH = 200.0  # ms simulated before circuits at rest are removed
_STEP_ERROR = 1e-10  # relative, of the simulation
# residual at which a simulation counts as settled; with weak damping, step errors sustain a
# residual of about 400 times their size
_REST = 1000 * _STEP_ERROR


def near_rest(circuits: Circuit) -> State:
    """`y = 0.01`, `a = (b0 sigma)^2`, as where relaxation begins."""
    return State(jnp.full_like(circuits.c, 0.01), circuits.c)


def settle(
    circuits: Circuit, drives: Float[Array | np.ndarray, "circuits n"], starts: State, time: float
) -> tuple[State, Bool[np.ndarray, " circuits"]]:
    """The state of each circuit after `time` ms, or when it came to rest before; and whether it
    rests.

    `circuits` and `starts` are stacked along their first axis like `drives`.
    """
    y, a = (np.array(x) for x in starts)
    circuits, drives = jax.device_get((circuits, drives))  # indexing there compiles nothing
    settled = np.zeros(len(y), bool)
    moving, elapsed = np.arange(len(y)), 0.0
    while len(moving) and elapsed < time:
        duration = min(_STRETCH, time - elapsed)
        for first in range(0, len(moving), _BATCH):
            # padded with earlier entries, so that it compiles once
            chosen = np.resize(moving[first : first + _BATCH], _BATCH)
            circuit, z = jax.tree.map(lambda leaf, i=chosen: leaf[i], (circuits, drives))
            state = State(*jax.device_put((y[chosen], a[chosen])))
            moved = _simulate(circuit, z, state, np.asarray(duration))
            y[chosen], a[chosen], settled[chosen] = (*moved.state, moved.settled)
        moving, elapsed = (
            np.flatnonzero(~settled & np.all(np.isfinite(y), axis=1)),
            elapsed + duration,
        )
    return State(jnp.asarray(y, y.dtype), jnp.asarray(a, a.dtype)), settled


def comes_to_rest(
    circuits: Circuit,
    drives: Float[Array | np.ndarray, "circuits n"],
    states: State,
    time: float,
    *,
    starts: int = 4,
    seed: int = 0,
) -> Bool[np.ndarray, " circuits"]:
    """Whether each circuit comes to rest within `time` ms from any of several states.

    These are one near rest, one next to the given `states` (NaN where there is none), and `starts`
    random ones, each farther out than the last.
    """
    # all together, as simulations run in batches of fixed size
    begin = _beginnings(circuits, states, starts, jr.key(seed))
    count = len(begin.y) // len(drives)
    circuits, drives = jax.device_get((circuits, drives))
    repeat = partial(jax.tree.map, lambda leaf: np.concatenate([leaf] * count))
    rested = settle(repeat(circuits), repeat(drives), begin, time)[1]
    return np.any(rested.reshape(count, len(drives)), axis=0)


@partial(jax.jit, static_argnums=2)
def _beginnings(circuits: Circuit, states: State, starts: int, key: PRNGKeyArray) -> State:
    """The starts of the simulations: the first of every circuit, then the second of every circuit,
    ..."""
    y = jnp.where(jnp.isfinite(states.y), states.y, 0)
    beside = State(1.001 * y + 1e-3, 1.001 * jnp.where(jnp.isfinite(states.a), states.a, 1))
    begin = [near_rest(circuits), beside]
    for k in range(starts):
        k_y, k_a = jr.split(jr.fold_in(key, k))
        a = circuits.c + (1 + k) * jr.uniform(k_a, y.shape, float)
        begin.append(State((1 + k) * jr.normal(k_y, y.shape, float), a))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *begin)


class _Stretch(NamedTuple):
    state: State
    settled: Bool[Array, " batch"]


@jax.jit
def _simulate(circuits: Circuit, drives: Array, states: State, duration) -> _Stretch:
    def one(circuit, z, state):
        path = simulate(
            circuit,
            z,
            jnp.stack([jnp.zeros_like(duration), duration]),
            state,
            rtol=_STEP_ERROR,
            atol=_STEP_ERROR / 100,
            max_steps=100_000,
            until_steady=True,
            steady_tolerance=_REST,
            throw=False,
        )
        last = State(path.state.y[-1], path.state.a[-1])
        return _Stretch(last, path.ok & path.rested)

    return jax.vmap(one)(circuits, drives, states)
