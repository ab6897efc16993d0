"""The circuit's Jacobian, analytic in blocks, and its eigenvalues by the thousand."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial, singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from organics.circuit.areas import Areas, joined
from organics.circuit.circuit import Circuit, State, gate, root
from organics.circuit.hierarchy import Feedback, Hierarchy, PieceOfHierarchy
from organics.circuit.weights import diagonal_of
from organics.machine.lapack import single_threaded_lapack
from organics.machine.processors import available


def imbalance_jacobian(
    circuit: Circuit, state: State, active: Float[Array, " n"] | None = None
) -> Float[Array, "two_n two_n"]:
    """Derivative of `circuit.imbalance` with respect to `(y, a)`: the Jacobian without `1/tau`.

    In the rectified model, neuron i counts as silent at exactly `y_i = 0` (the left slope, as in
    automatic differentiation), unless `active`, the derivative of `rectify` at each neuron, is
    given.
    """
    active = circuit.active(state.y) if active is None else active
    n, (y, a) = circuit.n, state
    s = root(a)
    q = circuit.rectify(y)
    identity = jnp.eye(n, dtype=y.dtype)
    W, W_r = circuit.pool.as_matrix(), circuit.recurrent.as_matrix()
    # d sqrt(relu(a)) / da is 0 where a <= 0, as in `root`
    slope = jnp.where(a > 0, 1 / jnp.where(a > 0, 2 * s, 1), 0)
    own = circuit.own_gain(a) * active - (1 - active)
    y_from_y = jnp.where(identity > 0, own[:, None], gate(a)[:, None] * W_r * active[None, :])
    y_from_a = jnp.diag(-circuit.recur(q) * slope)
    a_from_y = W * (2 * q * jax.nn.relu(a))[None, :]
    a_from_a = W * jnp.where(a > 0, jnp.square(q), 0)[None, :] - identity
    return jnp.block([[y_from_y, y_from_a], [a_from_y, a_from_a]])


class Blocks(NamedTuple):
    """The derivative of `imbalance`: only neighbouring areas are coupled, and only by their
    principal neurons.

    Attributes, a tuple each
        within: of each area with respect to its own `(y, a)`, shape (2n_k, 2n_k).
        from_above: of `y_k` with respect to `y_{k+1}`, shape (n_k, n_{k+1}); `None` without
            feedback.
        from_below: of `y_{k+1}` with respect to `y_k`, shape (n_{k+1}, n_k).
    """

    within: tuple
    from_above: tuple
    from_below: tuple


def imbalance_blocks(system: Areas, states: tuple) -> Blocks:
    """The derivative of `system.imbalance`, in blocks.

    Where `y_i = 0` exactly, the slope is the left one, as in automatic differentiation; but that to
    the right for a neuron that receives balanced feedback, where it is the larger one.
    """
    if len(system.areas) == 1:
        return Blocks((imbalance_jacobian(system.areas[0], *states),), (), ())
    assert isinstance(system, Hierarchy)
    return _blocks(system, states)


def _blocks(hierarchy: Hierarchy, states: tuple) -> Blocks:
    within, from_above, from_below = [], [], []
    received = hierarchy.received(states)
    for k, (area, state, feedback) in enumerate(
        zip(hierarchy.areas, states, received, strict=True)
    ):
        if feedback is None:
            within.append(imbalance_jacobian(area, state))
            from_above.append(None)
        else:
            block, by_input = _with_feedback(hierarchy, k, area, state, feedback)
            above = states[k + 1].y
            active = (above > 0).astype(above.dtype)
            if hierarchy.form == "additive":
                active = hierarchy.areas[k + 1].active(above)
            matrix = hierarchy.g[k] * hierarchy.feedback[k] * active[None, :]
            within.append(block)
            from_above.append((gate(state.a) * by_input)[:, None] * matrix)
        if k:
            below = 2 * jax.nn.relu(states[k - 1].y)
            from_below.append(area.b[:, None] * hierarchy.feedforward[k - 1] * below[None, :])
    return Blocks(tuple(within), tuple(from_above[:-1]), tuple(from_below))


def _with_feedback(
    hierarchy: Hierarchy, k: int, area: Circuit, state: State, feedback: Feedback
) -> tuple[Float[Array, "two_n two_n"], Float[Array, " n"]]:
    """The derivative of an area's imbalance by its own `(y, a)`, and that of `R` by `f`."""
    y, a = state
    n, gamma = area.n, hierarchy.gamma[k]
    f, share, instead = feedback.input, feedback.share, feedback.instead
    slope = jnp.where(a > 0, 1 / jnp.where(a > 0, 2 * root(a), 1), 0)
    by_a = jnp.diag(-share * instead * slope)
    if hierarchy.form == "additive":
        block = imbalance_jacobian(area, state)
        return block.at[:n, n:].add(by_a), jnp.full_like(y, gamma)
    rising = ((y > 0) | ((y == 0) & (f > 0))).astype(y.dtype)
    active = rising if area.rectified else area.active(y)
    rate = jax.nn.relu(y)
    total = jnp.where(rate + f > 0, rate + f, 1)
    own, weights = area.own_recurrence, area.recurrent.as_matrix()
    own_slope = share * ((gamma - own) * rising + own * (rising - active))
    own_slope = own_slope - share * instead / total * rising
    others = -share[:, None] * weights * active[None, :]
    by_y = jnp.where(jnp.eye(n, dtype=bool), own_slope[:, None], others)
    block = imbalance_jacobian(area, state, active)
    block = block.at[:n, :n].add(gate(a)[:, None] * by_y).at[:n, n:].add(by_a)
    return block, jnp.where(rate + f > 0, rate / total / total, 0) * instead


def as_matrix(blocks: Blocks) -> Float[Array, "m m"]:
    """All blocks as one matrix, rows and columns ordered `(y_1, a_1, y_2, a_2, ...)`."""
    J = jax.scipy.linalg.block_diag(*blocks.within)
    start = 0
    for k, (above, below) in enumerate(zip(blocks.from_above, blocks.from_below, strict=True)):
        n, next_n = below.shape[1], below.shape[0]
        after = start + len(blocks.within[k])
        J = J.at[after : after + next_n, start : start + n].set(below)
        if above is not None:
            J = J.at[start : start + n, after : after + next_n].set(above)
        start = after
    return J


@singledispatch
def imbalance_matrix(system: Areas, state: Any) -> Float[Array, "m m"]:
    """The derivative of `system.imbalance`, by automatic differentiation where nothing better is
    known."""
    z = jnp.zeros(system.areas[0].n, system.areas[0].dtype)  # on which it does not depend
    return jax.jacfwd(lambda x: joined(system.imbalance(system.split(x), z)))(joined(state))


imbalance_matrix.register(PieceOfHierarchy, imbalance_matrix.dispatch(object))


@imbalance_matrix.register(Circuit)
@imbalance_matrix.register(Hierarchy)
def _(system, state) -> Float[Array, "m m"]:
    return as_matrix(imbalance_blocks(system, system.by_area(state)))


def jacobian(
    circuit: Areas, state: Any, active: Float[Array, " n"] | None = None
) -> Float[Array, "m m"]:
    """Jacobian of `circuit.velocity` at `state`, rows and columns ordered `(y, a)`, in 1/ms.

    For a hierarchy `state` is a tuple of states, and the order `(y_1, a_1, y_2, a_2, ...)`.

    Defined at any state. It is the derivative of the flow where that is differentiable: for `a > 0`
    and, in the rectified model, `y != 0`. For `y_i = 0` and `active` see `imbalance_jacobian`; for
    a hierarchy, `imbalance_blocks`.

    Source: Rawat et al. 2024; theory of the linearization for general `W_r`.
    """
    return _jacobian(circuit, state, active)


@partial(jax.jit, inline=True)  # one program instead of many small ones
def _jacobian(circuit: Areas, state: Any, active: Array | None) -> Array:
    if active is None:
        J = imbalance_matrix(circuit, state)
    else:
        J = imbalance_jacobian(circuit.areas[0], State(*state), active)
    return J / joined(circuit.time_constants)[:, None]


def rest_jacobian(
    circuit: Circuit,
    z: Float[Array, " n"],
    state: State,
    active: Float[Array, " n"] | None = None,
) -> Float[Array, "two_n two_n"]:
    """`jacobian` at the steady state for `z`. It is more accurate where `(1 - sqrt(a_i)) W_r,ii` or
    `W_ii y_i^2` is close to 1, so that a neuron nearly sustains itself.

    `active` as in `imbalance_jacobian`.
    """
    n = circuit.n
    active = circuit.active(state.y) if active is None else active
    tau = jnp.concatenate([circuit.tau_y, circuit.tau_a])
    J = imbalance_jacobian(circuit, state, active)
    own_y = jnp.where(active > 0, _own_gain(circuit, z, state), diagonal_of(J)[:n])
    own = jnp.concatenate([own_y, -own_leak(circuit, state)])
    return jnp.where(jnp.eye(2 * n, dtype=bool), own[:, None], J) / tau[:, None]


def _own_gain(circuit: Circuit, z: Float[Array, " n"], state: State) -> Float[Array, " n"]:
    """`Circuit.own_gain` at a steady state: computed directly, or, if this has smaller terms, as
    the other terms in the equation of `y_i`, divided by `-y_i`."""
    y, a = state
    q = circuit.rectify(y)
    better = _instead(circuit, z, state) < circuit.own_gain_size(a)
    heard = circuit.b * z + gate(a) * circuit.from_others(q)
    return jnp.where(better, -heard / jnp.where(better, y, 1), circuit.own_gain(a))


def own_gain_size(circuit: Circuit, z: Float[Array, " n"], state: State) -> Float[Array, " n"]:
    """The sum of the absolute values of the terms of which `rest_jacobian` computes `own_gain`."""
    return jnp.minimum(_instead(circuit, z, state), circuit.own_gain_size(state.a))


def _instead(circuit: Circuit, z: Float[Array, " n"], state: State) -> Float[Array, " n"]:
    """The terms of the other form, infinite for a silent neuron."""
    y, a = state
    q = jnp.abs(circuit.rectify(y))
    terms = jnp.abs(circuit.b * z) + jnp.abs(gate(a)) * circuit.from_others(q, sizes=True)
    return jnp.where(q > 0, terms / jnp.where(q > 0, q, 1), jnp.inf)


def own_leak(circuit: Circuit, state: State) -> Float[Array, " n"]:
    """`1 - W_ii q_i^2` at a steady state, without cancellation: `a_i` times this equals the other
    terms in the equation of `a_i`, which are all positive."""
    pooled = jnp.square(root(state.a) * circuit.rectify(state.y))
    return (circuit.c + circuit.pool.apply_others(pooled)) / state.a


def determinant_sign(factors: Float[Array, "m m"], pivots: Int[Array, " m"]) -> Float[Array, ""]:
    """Sign of the determinant, 1, -1 or 0, from what `jax.scipy.linalg.lu_factor` returns."""
    swaps = jnp.sum(pivots != jnp.arange(len(pivots), dtype=pivots.dtype))
    return jnp.prod(jnp.sign(diagonal_of(factors))) * jnp.where(swaps % 2 == 0, 1, -1)


@jax.custom_jvp
def spectrum(J: Float[Array, "m m"]) -> Complex[Array, " m"]:
    """Eigenvalues by falling real part; among equal ones the larger imaginary part comes first.

    Computed in double precision, whatever the type of `J`, because rates may span many decades. Can
    be jitted, mapped, and differentiated once.
    """
    return descending(unsorted_spectrum(J))


@spectrum.defjvp
def _(primals, tangents):
    (J,), (t_J,) = primals, tangents
    values, right, left = _decompose(J, vectors=True)
    return values, jnp.einsum("ij,jk,ki->i", left, t_J.astype(left.dtype), right)


def unsorted_spectrum(J: Float[Array, "m m"]) -> Complex[Array, " m"]:
    """The eigenvalues of `spectrum` in any order; sorting them takes an eighth of the time."""
    return _decompose(J, vectors=False)[0]


def _decompose(J: Float[Array, "m m"], *, vectors: bool) -> tuple[Array, ...]:
    """Eigenvalues; with `vectors` sorted ones, with eigenvectors as columns and, as rows, the
    inverse."""
    kind = np.result_type(J.dtype, np.complex64)
    # fast rates before slow ones: in this order the QR algorithm is most accurate for the slow ones
    order = jnp.argsort(-jnp.abs(diagonal_of(J)))
    J = J[order][:, order]
    with jax.enable_x64(True):
        double = J.astype(jnp.float64)
        if not vectors:
            return (jnp.linalg.eigvals(double).astype(kind),)
        values, right = jnp.linalg.eig(double)
        first = jnp.argsort(-values)
        right = right[jnp.argsort(order)][:, first]
        return values[first].astype(kind), right.astype(kind), jnp.linalg.inv(right).astype(kind)


def eigenvalues(jacobians: Float[np.ndarray, "*batch m m"]) -> Complex[np.ndarray, "*batch m"]:
    """Eigenvalues of stacked matrices, by falling real part, computed on all processors.

    A matrix that is not finite gets NaN and does not affect the others.

    Runs NumPy's LAPACK with one matrix per core. For thousands of circuits this is several times
    faster than eigenvalues inside a compiled function.
    """
    cores = len(available())
    stack = jacobians.reshape(-1, *jacobians.shape[-2:])
    finite = np.isfinite(stack).all(axis=(1, 2))
    known = stack[finite]
    pieces = np.array_split(known, max(1, min(len(known), 8 * cores)))
    with single_threaded_lapack(), ThreadPoolExecutor(cores) as pool:
        parts = list(pool.map(np.linalg.eigvals, pieces))
    kind = np.result_type(jacobians.dtype, np.complex64)
    found = np.full(stack.shape[:-1], complex(np.nan, np.nan), kind)
    found[finite] = descending(np.concatenate(parts))
    return found.reshape(jacobians.shape[:-1])


def descending(values: Any) -> Any:
    """Complex values by falling real part along the last axis; the upper one of a conjugate pair
    first."""
    return -(np if isinstance(values, np.ndarray) else jnp).sort(-values)
