"""What holds a value in a recurrent layer while nothing is told to it."""

from itertools import combinations
from typing import NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.arguments import require_sizes
from organics.circuit.constraints import cap_spectral_norm
from organics.kernels.equations import products, project, velocity
from organics.names import Mechanism
from organics.nn.arguments import as_input, require_finite, require_type
from organics.nn.recurrent import ORGaNICs

MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)
_ALL = tuple(
    frozenset(chosen)
    for count in range(len(MECHANISMS) + 1)
    for chosen in combinations(MECHANISMS, count)
)


class Holding(NamedTuple):
    """How long a layer holds what it was told, and by what.

    Attributes
        steps: after so many steps the states are less than half as far apart as when the cues
            ended; as many as were computed if that does not happen.
        by: the fewest mechanisms with which it holds at least half as long as with all; the best
            of several such sets. None if time constants that are always long are enough.
        alone: the same as `steps`, with these mechanisms only.
        apart: how far apart the states are at every step, relative to the end of the cues, by the
            mechanisms left on; (steps,). The standard deviation over the cues, of all neurons.
    """

    steps: int
    by: frozenset[Mechanism]
    alone: dict[frozenset[Mechanism], int]
    apart: dict[frozenset[Mechanism], Float[np.ndarray, " steps"]]


def holding(
    layer: ORGaNICs,
    cues: Float[Array, "cues time m"],
    rest: Float[Array, " m"],
    steps: int = 1000,
) -> Holding:
    """How long, and by what, the layer tells apart which of the `cues` it was given, under the
    constant input `rest` afterwards.

    Each of three mechanisms is switched off after the cues in all combinations:

    * "freeze", y slowing down: its rates are the mean of those during the cues;
    * "integrate", gains closing: `b0` and `b` are the mean of those during the cues;
    * "attract", recurrence above 1: `W_r` is scaled down to a spectral norm of 1.

    Raises `ValueError` for fewer than two cues, other shapes or types, cues that leave the layer in
    the same state, or states that overflow.
    """
    require_sizes(steps=steps)
    m = layer.input_size
    cues, rest = as_input(cues, ("cues", "time", m)), as_input(rest, (m,))
    for name, value in (("cues", cues), ("rest", rest)):
        require_type(name, value, layer.cells[0].log_W.dtype)
        require_finite(name, value)
    if len(cues) < 2:
        raise ValueError(f"`cues` must be at least 2, to be told apart, not {len(cues)}.")
    switches = np.array([[name in on for name in MECHANISMS] for on in _ALL])
    found = np.asarray(_apart(layer, cues, rest, jax.device_put(switches), steps))
    if not np.all(np.isfinite(found)):
        raise ValueError("`layer` must have finite states; they overflow while it holds `cues`.")
    if not np.all(found[:, 0] > 0):
        raise ValueError("`cues` must leave the layer in different states; they do not.")
    apart = {on: row[1:] / row[0] for on, row in zip(_ALL, found, strict=True)}
    alone = {on: _held(row) for on, row in apart.items()}
    whole = alone[_ALL[-1]]
    enough = [on for on in _ALL if 2 * alone[on] >= whole]
    fewest = min(map(len, enough))
    by = max((on for on in enough if len(on) == fewest), key=lambda on: (alone[on], apart[on][-1]))
    return Holding(whole, by, alone, apart)


def _held(apart: Float[np.ndarray, " steps"]) -> int:
    below = np.flatnonzero(apart < 0.5)
    return int(below[0]) if len(below) else len(apart)


class _Circuit(NamedTuple):
    """A circuit's state, and the sums of its rates of y and of its gains."""

    state: Float[Array, "cues four_n"]
    rates: Float[Array, "cues n"]
    gains: Float[Array, "cues two_n"]


@eqx.filter_jit
def _apart(
    layer: ORGaNICs,
    cues: Float[Array, "cues time m"],
    rest: Float[Array, " m"],
    switches: Bool[Array, "combinations three"],
    steps: int,
) -> Float[Array, "combinations steps_1"]:
    """How far apart the states are when the cues end and after every step of `rest`."""
    count, time, _ = cues.shape
    n = layer.hidden_size
    every = [cell.weights() for cell in layer.cells]
    capped = [
        w if w.recurrent is None else w._replace(recurrent=cap_spectral_norm(w.recurrent))
        for w in every
    ]

    def told(circuits, x):
        after = []
        for cell, weights, (state, rates, gains) in zip(layer.cells, every, circuits, strict=True):
            found = products(layer.options, weights, project(weights, cell.inputs(x)), state)
            moved = state + found.rates * velocity(weights, state, found)
            after.append(_Circuit(moved, rates + found.rates[:, :n], gains + moved[:, 2 * n :]))
            x = moved[:, :n]
        return tuple(after), None

    none = jnp.zeros((count, n), cues.dtype)
    begin = tuple(
        _Circuit(jnp.tile(jnp.concatenate(part)[None], (count, 1)), none, jnp.tile(none, (1, 2)))
        for part in layer.initial_state()
    )
    circuits, _ = jax.lax.scan(told, begin, jnp.moveaxis(cues, 1, 0))
    told_states = tuple(one.state for one in circuits)
    x_rest = jnp.tile(rest[None], (count, 1))

    def hold(switch):
        freeze, integrate, attract = switch

        def one(states, _):
            after, x = [], x_rest
            for i, (cell, state) in enumerate(zip(layer.cells, states, strict=True)):
                weights = jax.tree.map(
                    lambda on, off: jnp.where(attract, on, off), every[i], capped[i]
                )
                found = products(layer.options, weights, project(weights, cell.inputs(x)), state)
                rates = jnp.broadcast_to(found.rates, state.shape)
                rate_y = jnp.where(freeze, rates[:, :n], circuits[i].rates / time)
                rates = jnp.concatenate([rate_y, rates[:, n:]], axis=1)
                moved = state + rates * velocity(weights, state, found)
                gains = jnp.where(integrate, moved[:, 2 * n :], circuits[i].gains / time)
                after.append(jnp.concatenate([moved[:, : 2 * n], gains], axis=1))
                x = moved[:, :n]
            return tuple(after), _spread(after, n)

        return jax.lax.scan(one, told_states, length=steps)[1]

    begin_apart = jnp.broadcast_to(_spread(told_states, n), (len(switches), 1))
    return jnp.concatenate([begin_apart, jax.vmap(hold)(switches)], axis=1)


def _spread(states, n: int) -> Float[Array, ""]:
    y = jnp.concatenate([state[:, :n] for state in states], axis=1)
    return jnp.sqrt(jnp.mean(jnp.square(y - jnp.mean(y, axis=0, keepdims=True))))
