"""Neurons at `y_i = 0`, where the rectified model has two slopes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from organics.circuit.areas import joined
from organics.circuit.circuit import Circuit, State, gate
from organics.circuit.gated import GatedHierarchy
from organics.circuit.hierarchy import Hierarchy
from organics.linear.jacobian import jacobian, rest_jacobian, spectrum
from organics.machine.mesh import alike

_Several = Hierarchy | GatedHierarchy

_MOST_OPEN = 6  # neurons of open sign: more would mean too many combinations


@jax.jit
def slopes_at_zero(
    circuit: Circuit, z: Float[Array, " n"], state: State
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """The derivative of `rectify` at each neuron, and whether activity at `y_i = 0` decays.

    The sign of `y_i` is open if `y_i` is 0 to within the tolerance of its equation's terms. The
    open neurons that receive neither drive nor input from active neurons form a threshold-linear
    network, `tau y' = -y + M relu(y)`. Setting the negative off-diagonal entries of `M` to 0 can
    only raise `relu(y)`, and that network decays if `I - M` is then an M-matrix; if so, the
    derivative of these neurons is 0. For the other open neurons it is that combination of 0 and 1
    which has the largest spectral abscissa. Activity always decays in the main model and, by the
    theorem, for identity recurrence.
    """
    active = circuit.active(state.y)
    if not circuit.rectified or circuit.has_identity_recurrence:
        return active, jnp.bool_(True)
    W_r = jax.lax.stop_gradient(circuit.recurrent.as_matrix())
    circuit, z, (y, a) = jax.lax.stop_gradient((circuit, z, state))
    open_sign = of_open_sign(circuit, z, state)
    q = jnp.where(open_sign, 0, circuit.rectify(y))
    unreached = open_sign & (circuit.b * z == 0) & (jnp.abs(W_r) @ q == 0)
    others = open_sign & ~unreached
    reached = jnp.abs(W_r) @ others.astype(y.dtype) > 0
    others = jnp.where(jnp.any(unreached & reached), open_sign, others)
    alone = (open_sign & ~others).astype(y.dtype)
    M = gate(a)[:, None] * W_r * alone[:, None] * alone[None, :]
    decays = _decays(M)
    seen = jnp.where(decays | (jnp.sum(open_sign) > _MOST_OPEN), others, open_sign)
    few = jnp.sum(seen) <= _MOST_OPEN
    return _least_stable(circuit, z, State(y, a), seen & few), decays & few


@jax.jit
def of_open_sign(circuit: Circuit, z: Float[Array, " n"], state: State) -> Bool[Array, " n"]:
    """Where `y_i` is 0 to within the tolerance of its equation's terms."""
    return _is_open(circuit, state, circuit.terms(state, z).y)


def _is_open(circuit: Circuit, state: State, terms: Float[Array, " n"]) -> Bool[Array, " n"]:
    y, a = state
    rounding = float(jnp.finfo(y.dtype).eps) ** 0.75
    slope = jnp.maximum(jnp.abs(circuit.own_gain(a)), 1)
    return jnp.abs(y) * slope <= rounding * terms


def _decays(M: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether `tau y' = -y + M relu(y)` decays even without the inhibition in it."""
    identity = jnp.eye(len(M), dtype=M.dtype)
    M = jnp.where(identity > 0, M, jax.nn.relu(M))
    # positive if and only if `I - M` is a nonsingular M-matrix
    grown = jnp.linalg.solve(identity - M, jnp.ones(len(M), M.dtype))
    return jnp.all(jnp.isfinite(grown) & (grown > 0))


def _least_stable(
    circuit: Circuit, z: Float[Array, " n"], state: State, which: Bool[Array, " n"]
) -> Float[Array, " n"]:
    """The slopes, 0 or 1 at the chosen neurons, with the largest spectral abscissa."""
    active = circuit.active(state.y)
    rank = jnp.cumsum(which, dtype=jnp.int32) - 1
    combinations = 2 ** jnp.sum(which, dtype=jnp.int32)

    def slopes(i):
        return jnp.where(which, ((i >> rank) & 1).astype(active.dtype), active)

    def compare(carry):
        i, worst, largest = carry
        abscissa = spectrum(rest_jacobian(circuit, z, state, slopes(i)))[0].real
        above = (abscissa > largest) | (i == 0)
        return i + 1, jnp.where(above, i, worst), jnp.where(above, abscissa, largest)

    # nearly always there is only one combination, and nothing to compare
    begin = jnp.where(combinations > 1, 0, 1).astype(jnp.int32)
    begin = alike((begin, jnp.int32(0), jnp.zeros((), active.dtype)))
    *_, worst, _ = jax.lax.while_loop(lambda carry: carry[0] < combinations, compare, begin)
    return slopes(worst)


@jax.jit
def decays_at_zero(hierarchy: _Several, z: Float[Array, " n"], states: tuple) -> Bool[Array, ""]:
    """Whether a hierarchy with acting feedback is stable whatever the slopes at `y_i = 0`.

    As for `slopes_at_zero`: open neurons that nothing else reaches decay if they would without the
    inhibition among them. Otherwise, all combinations of slopes must have decaying spectra.
    """
    hierarchy, z, states = jax.lax.stop_gradient((hierarchy, z, states))
    open_sign = open_signs(hierarchy, z, states)
    return jax.lax.cond(
        jnp.any(open_sign),
        lambda: _decay_on_all_sides(hierarchy, states, open_sign),
        lambda: alike(jnp.bool_(True)),
    )


def _decay_on_all_sides(
    hierarchy: _Several, states: tuple, open_sign: Bool[Array, " m"]
) -> Bool[Array, ""]:
    left, right = (_from_sides(hierarchy, states, open_sign, side) for side in (-1.0, 1.0))
    reached = jnp.any(_linked(left, right) & open_sign[:, None] & ~open_sign[None, :])
    identity = jnp.eye(len(left), dtype=left.dtype)
    M = identity + joined(hierarchy.time_constants)[:, None] * right
    M = jnp.where(open_sign[:, None] & open_sign[None, :], M, 0)
    alone = ~reached & _decays(M) & (spectrum(left)[0].real < 0)
    count = jnp.sum(open_sign, dtype=jnp.int32)
    rank = jnp.cumsum(open_sign, dtype=jnp.int32) - 1

    def compare(carry):
        i, _ = carry
        sides = 2 * ((i >> rank) & 1).astype(left.dtype) - 1
        J = _from_sides(hierarchy, states, open_sign, sides)
        return i + 1, spectrum(J)[0].real < 0

    needed = (count <= _MOST_OPEN) & ~alone
    combinations = jnp.where(needed, 2**count, 0).astype(jnp.int32)
    begin = alike((jnp.int32(0), jnp.bool_(True)))
    _, each = jax.lax.while_loop(lambda c: (c[0] < combinations) & c[1], compare, begin)
    return alone | (needed & each)


def open_signs(
    system: Circuit | _Several, z: Float[Array, " n"], states: tuple
) -> Bool[Array, " m"]:
    """Which numbers of a joined state are a `y_i` of open sign, at which the equations have a
    kink."""
    found = []
    if isinstance(system, Circuit):
        (state,) = states
        kinks = of_open_sign(system, z, state) & system.rectified
        return jnp.concatenate([kinks, jnp.zeros_like(kinks)])
    terms = system.terms(states, z)
    for k, (area, state, size) in enumerate(zip(system.areas, states, terms, strict=True)):
        kinks = _is_open(area, State(state.y, state.a), size.y) & system.hears_signs(k)
        found += [kinks, *[jnp.zeros_like(kinks)] * (len(state) - 1)]
    return jnp.concatenate(found)


@jax.jit
def without_slope(
    system: Circuit | _Several, z: Float[Array, " n"], states: tuple
) -> Bool[Array, " m"]:
    """Which numbers of a joined state have no derivative by what came before: those of open sign,
    and all that these reach."""
    open_sign = open_signs(system, z, states)
    if isinstance(system, Circuit) and not system.rectified:
        return open_sign
    left, right = (_from_sides(system, states, open_sign, side) for side in (-1.0, 1.0))
    linked = _linked(left, right).astype(left.dtype)

    def further(carry):
        now, _ = carry
        return now | (linked @ now.astype(linked.dtype) > 0), now

    begin = alike((open_sign, jnp.zeros_like(open_sign)))
    return jax.lax.while_loop(lambda c: jnp.any(c[0] != c[1]), further, begin)[0]


def _from_sides(
    system: Circuit | _Several, states: tuple, open_sign: Bool[Array, " m"], sides: Any
) -> Float[Array, "m m"]:
    """The Jacobian where each number of open sign is a little below or above 0."""
    x = joined(states)
    least = float(jnp.finfo(x.dtype).tiny)
    return jacobian(system, system.split(jnp.where(open_sign, sides * least, x)))


def _linked(left: Float[Array, "m m"], right: Float[Array, "m m"]) -> Bool[Array, "m m"]:
    """Which numbers act on which ones, on either side; those a little above 0 hardly do."""
    return jnp.maximum(jnp.abs(left), jnp.abs(right)) > float(jnp.finfo(left.dtype).tiny) ** 0.5
