"""What holds a value in a recurrent layer while nothing is told to it."""

from itertools import combinations
from typing import NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.arguments import require_sizes, require_whole
from organics.circuit.constraints import cap_spectral_norm
from organics.kernels.equations import products, project, velocity
from organics.names import Mechanism
from organics.nn.arguments import as_input, require_finite, require_type
from organics.nn.recurrent import ORGaNICs, require_recurrent

MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)
_ALL = tuple(
    frozenset(chosen)
    for count in range(len(MECHANISMS) + 1)
    for chosen in combinations(MECHANISMS, count)
)


class Holding(NamedTuple):
    """How long a layer holds what it was told, and by what.

    Attributes
        steps: after the cues, as long as between a half and three halves of what was told is there;
            at most as many as were computed.
        by: the fewest mechanisms with which it holds a quarter as long as with all; the best
            of several such sets. Empty if it holds as long without any, by time constants that are
            always long, or nothing is held.
        alone: the same as `steps`, with these mechanisms only.
        kept: how much is there after every step, by the mechanisms left on, (steps,): the
            regression of what the cues differ by on what they differed by at the reference, over
            all neurons and cues; 1 there with all mechanisms.
    """

    steps: int
    by: frozenset[Mechanism]
    alone: dict[frozenset[Mechanism], int]
    kept: dict[frozenset[Mechanism], Float[np.ndarray, " steps"]]


def holding(
    layer: ORGaNICs,
    cues: Float[Array, "cues time m"],
    rest: Float[Array, " m"],
    steps: int = 1000,
    *,
    reference: int = 0,
) -> Holding:
    """How long, and by what, the layer keeps which of the `cues` it was given, under the constant
    input `rest` afterwards.

    Each of three mechanisms is switched off after the cues in all combinations:

    * "freeze", y slowing down: its rates are the mean of those during the cues;
    * "integrate", the gate of the semi-saturation closing: `b0` is 1;
    * "attract", recurrence above 1: `W_r` is scaled down to a spectral norm of 1.

    What is held is the difference between the states of the cues, as it is after `reference` steps
    of `rest`: a later one leaves out what fades at once.

    Raises `ValueError` for fewer than two cues, other shapes or types, cues that leave the layer in
    the same state, states that overflow, or a reference that is not from 0 to `steps`.
    """
    require_sizes(steps=steps)
    require_whole("reference", reference, 0)
    if reference > steps:
        raise ValueError(f"`reference` must be from 0 to {steps}, not {reference}.")
    require_recurrent(layer)
    m = layer.input_size
    cues = as_input(cues, ("cues", "time", m), name="cues", further="")
    rest = as_input(rest, (m,), name="rest", further="")
    for name, value in (("cues", cues), ("rest", rest)):
        require_type(name, value, layer.cells[0].log_W.dtype)
        require_finite(name, value)
    if len(cues) < 2:
        raise ValueError(f"`cues` must be at least 2, to be told apart, not {len(cues)}.")
    switches = np.array([[name in on for name in MECHANISMS] for on in _ALL])
    y = np.asarray(_held_states(layer, cues, rest, jax.device_put(switches), steps), np.float64)
    if not np.all(np.isfinite(y)):
        raise ValueError("`layer` must have finite states; they overflow while it holds `cues`.")
    differences = y - y[:, :, :1]  # exactly 0 where states are equal
    differences -= differences.mean(axis=2, keepdims=True)
    told = differences[-1, reference]
    largest = np.max(np.abs(told))
    if not largest:
        when = f" {reference} steps after they end" if reference else ""
        raise ValueError(f"`cues` must leave the layer in different states{when}; they do not.")
    told, differences = told / largest, differences / largest  # whose squares do not vanish
    found = np.einsum("csqn,qn->cs", differences, told) / np.sum(np.square(told))
    kept = {on: row[1:] for on, row in zip(_ALL, found, strict=True)}
    alone = {on: _steps(row, reference) for on, row in kept.items()}
    whole = alone[_ALL[-1]]
    enough = [on for on in _ALL if 4 * alone[on] >= whole]
    fewest = min(map(len, enough))
    some = (on for on in enough if len(on) == fewest)
    by = max(some, key=lambda on: (alone[on], -abs(kept[on][-1] - 1)))
    return Holding(whole, by, alone, kept)


def _steps(kept: Float[np.ndarray, " steps"], reference: int) -> int:
    """Steps before the first with too little or too much, after the reference if it comes there."""
    outside = np.flatnonzero((kept < 0.5) | (kept > 1.5))
    if reference and reference - 1 not in outside:
        outside = outside[outside >= reference]
    return int(outside[0]) if len(outside) else len(kept)


class _Circuit(NamedTuple):
    """A circuit's state, and the sum of its rates of y."""

    state: Float[Array, "cues four_n"]
    rates: Float[Array, "cues n"]


@eqx.filter_jit
def _held_states(
    layer: ORGaNICs,
    cues: Float[Array, "cues time m"],
    rest: Float[Array, " m"],
    switches: Bool[Array, "combinations three"],
    steps: int,
) -> Float[Array, "combinations steps_1 cues all_n"]:
    """The y of all circuits when the cues end and after every step of `rest`."""
    count, time, _ = cues.shape
    n, options = layer.hidden_size, layer.options
    every = [cell.weights() for cell in layer.cells]
    capped = [
        w if w.recurrent is None else w._replace(recurrent=cap_spectral_norm(w.recurrent))
        for w in every
    ]

    def told(circuits, x):
        after = []
        for cell, weights, (state, rates) in zip(layer.cells, every, circuits, strict=True):
            found = products(options, weights, project(options, weights, cell.inputs(x)), state)
            moved = state + found.rates * velocity(weights.offset, state, found)
            after.append(_Circuit(moved, rates + found.rates[:, :n]))
            x = moved[:, :n]
        return tuple(after), None

    none = jnp.zeros((count, n), cues.dtype)
    begin = tuple(
        _Circuit(jnp.tile(jnp.concatenate(part)[None], (count, 1)), none)
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
                b0 = jnp.where(integrate, state[:, 2 * n : 3 * n], 1)
                state = jnp.concatenate([state[:, : 2 * n], b0, state[:, 3 * n :]], axis=1)
                found = products(options, weights, project(options, weights, cell.inputs(x)), state)
                rates = jnp.broadcast_to(found.rates, state.shape)
                rate_y = jnp.where(freeze, rates[:, :n], circuits[i].rates / time)
                rates = jnp.concatenate([rate_y, rates[:, n:]], axis=1)
                after.append(state + rates * velocity(weights.offset, state, found))
                x = after[-1][:, :n]
            return tuple(after), _all_y(after, n)

        return jax.lax.scan(one, told_states, length=steps)[1]

    held = jax.vmap(hold)(switches)
    begin = jnp.broadcast_to(_all_y(told_states, n), (len(switches), 1, *held.shape[2:]))
    return jnp.concatenate([begin, held], axis=1)


def _all_y(states, n: int) -> Float[Array, "cues all_n"]:
    return jnp.concatenate([state[:, :n] for state in states], axis=1)
