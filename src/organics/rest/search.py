"""Steady states: where the circuit rests under a constant input drive.

For identity recurrence (`W_r = I`) the steady state is unique and has a closed form, which is
divisive normalization. Otherwise it is searched for:

1. *iteration*: the paper's Algorithm 1, which alternates the exact `y` for a given `a` with the
   update of `a`; tried first where the largest singular value of `W_r` is at most 1.
2. *newton*: a safeguarded Newton method from where the iteration stopped.
3. *relaxation*: the circuit itself, integrated from near rest until it hardly moves, then polished
   by Newton. It goes first where the largest singular value of `W_r` exceeds 1: there are several
   steady states then, and the iteration readily finds an unstable one, while the circuit does not.

With `matrix_free`, sweeps (the iteration without its factorization) and the same Newton method,
each step solved for without a factorization (`organics.linear.krylov`), go before all of these.

Whatever the route, a state counts as converged only by what its equations leave over, each judged
by the terms of its own row, and by how far Newton last went. A state that cannot be stable by
the sign of its Jacobian's determinant is returned only if the other route finds none that may; what
is found without a factorization is checked in small circuits only.
A steady state may be unstable all the same; `organics.linear_stability` answers that.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, ScalarLike

from organics.circuit.circuit import Circuit, State, as_drive, as_real, gate
from organics.linear.jacobian import determinant_sign, imbalance_jacobian
from organics.linear.krylov import linearized, minimize_residual, neuron_blocks, solve_linearized
from organics.machine.mesh import advising, alike
from organics.printing import Lines, in_html, in_words, numbers, verdict
from organics.rest.relaxation import select, try_step

METHODS = ("closed form", "iteration", "newton", "relaxation")
_CLOSED_FORM, _ITERATION, _NEWTON, _RELAXATION = range(len(METHODS))

_ITERATIONS = 6  # of Algorithm 1, before Newton takes over: it gains a factor of 2 to 4 each time
_NEWTON_STEPS = 60
_LEAST_FRACTION = 1e-9  # of a step, below which Newton is stuck
_SWEEPS = 20  # each is a fifth of the work of a Newton-Krylov step
_PATIENCE = 4  # sweeps that may bring nothing, as the first ones often do
_NEWTON_KRYLOV_STEPS = 20  # where these do not do, the other routes begin
_SMALL = 8  # neurons up to which a factorization costs no more than a Newton-Krylov step
_FORCING = 0.1  # how much of the imbalance a Newton-Krylov step may leave to the next
_RELAXATION_TIME = 2000.0  # in units of the largest time constant


class SteadyState(NamedTuple):
    """A steady state, and how far it can be trusted.

    Attributes
        state: `y` and `a`, each of shape (n,).
        residual: Euclidean norm of `circuit.imbalance`, the velocity scaled by the time constants.
        converged: whether each equation balances to within the tolerance, relative to the terms
            that it sums, and the last step of Newton was small, and what rounding does to the
            state; never where a parameter of the
            circuit, traced or replaced, is out of its domain. If not, there is none nearby, or
            too few digits to tell, and `state` is only the best state that was found.
        iterations: total number of iterations of Algorithm 1 and of Newton.
        method: index into `METHODS` of what produced the state; `method_name` has the words.
    """

    state: State
    residual: Float[Array, ""]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]
    method: Int[Array, ""]

    def lines(self) -> Lines:
        """In words."""
        rows = [("y", numbers(self.state.y)), ("a", numbers(self.state.a))]
        rows.append(("residual", numbers(self.residual)))
        if np.ndim(self.method) == 0:
            rows.append(("found by", f"{self.method_name}, {int(self.iterations)} iterations"))
        return Lines(verdict(self.converged, "at rest", "no steady state found"), tuple(rows))

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)

    @property
    def method_name(self) -> str:
        """What produced the state: one of `METHODS`. Needs concrete values."""
        return METHODS[int(self.method)]


def closed_form(circuit: Circuit, z: Float[Array, " n"]) -> State:
    """The unique steady state for `W_r = I`: divisive normalization of the drive `d = b z`.

    Main model: `a = (b0 sigma)^2 + W d^2`, `y = d / sqrt(a)`. Rectified model: `a` pools
    `relu(d)^2`, and `y = d` where `d < 0`. Source: Rawat et al. 2024.

    Raises `ValueError` if the circuit has a recurrent matrix, identity or not: pass `W_r=None`; and
    if `z` has the wrong shape or is not finite.
    """
    if circuit.W_r is not None:
        raise ValueError(
            "`closed_form` needs a circuit with `W_r=None` (identity recurrence); "
            "`steady_state` solves the general case."
        )
    d = circuit.b * as_drive(circuit, z)
    q = circuit.rectify(d)
    a = circuit.c + circuit.W @ jnp.square(q)
    return State(q / jnp.sqrt(a) + (d - q), a)


def steady_state(
    circuit: Circuit,
    z: Float[ArrayLike, " n"],
    *,
    tolerance: float | None = None,
    spectral_norm: ScalarLike | None = None,
    relaxation_steps: ScalarLike = 50_000,
    matrix_free: bool = False,
) -> SteadyState:
    """A steady state of `circuit` for the constant input drive `z`, shape (n,).

    Can be jitted, mapped over circuits and drives, and differentiated to any order in forward and
    reverse mode: derivatives are those of the implicit function theorem, `-J^-1 dF/dtheta`, at a
    cost that does not depend on how the state was found. They are meaningless where `converged` is
    false.

    `tolerance` bounds the imbalance of each equation relative to the sum of its terms, and its cube
    root the last step of Newton relative to the same; the default is `eps^(3/4)` of the circuit's
    type (1.8e-12 in float64, 6.4e-6 in float32).

    `spectral_norm` is the largest singular value of `W_r` if it is known. Computing it takes a good
    part of the time; it decides where the search begins, and not what counts as found.

    `relaxation_steps` limits the integration, if there is one. Where many circuits are mapped over,
    all take as long as the slowest: with fewer steps first, and all for those that need it, a
    thousand circuits take much less time.

    `matrix_free` is for many drives of one circuit of more than some ten neurons, mapped over, of
    which `W` and `W_r` are shared and `b`, `z` and the like may differ. The search then begins with
    sweeps and Newton's method by products with `W` and `W_r`, from the first iterate of
    Algorithm 1, and the derivative is solved for by such products. Both come to a factorization for
    each drive only where they do not get there so, and then for all drives that are mapped over
    together. With more than 8 neurons a state found so is not held against the sign of its
    Jacobian's determinant: it is what Newton reaches from nearly the normalization of the drive,
    and may be a saddle even where the circuit has a stable state; `organics.linear_stability`
    answers that. Where the largest singular value of `W_r` exceeds 1, it may not be the state to
    which the circuit goes from rest. The norm is computed once for all drives, if it is not given.

    Raises `ValueError` if `z` has the wrong shape or is not finite, if `tolerance` is not in (0, 1)
    or is traced, or if `spectral_norm` is no number >= 0. Does not raise when no steady
    state is found, as some circuits have none: see `SteadyState.converged`.
    """
    z = as_drive(circuit, z)
    tolerance = _as_tolerance(tolerance, circuit.dtype)
    if circuit.W_r is None:
        return _normalize(circuit, z, tolerance)
    norm = None if spectral_norm is None else as_real("spectral_norm", spectral_norm, z.dtype)
    if norm is not None and (norm.ndim or not (isinstance(norm, Tracer) or norm >= 0)):
        raise ValueError(f"`spectral_norm` must be one number >= 0, not {spectral_norm}.")
    circuit, z, norm = alike((circuit, z, norm))
    fixed = jax.lax.stop_gradient((circuit, z, norm))
    found, residual, method, count = _search(*fixed, tolerance, relaxation_steps, matrix_free)
    state = _implicit(circuit, z, found.state, matrix_free)
    return SteadyState(state, residual, found.converged, count, method)


def _as_tolerance(tolerance: float | None, dtype: jnp.dtype) -> float:
    if tolerance is None:
        return float(jnp.finfo(dtype).eps ** 0.75)
    if isinstance(tolerance, Tracer | str) or np.ndim(tolerance) or not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` must be a number in (0, 1), not {tolerance!r}.")
    return float(tolerance)


def algorithm_1_start(
    circuit: Circuit, z: Float[Array, " n"], norm: Float[Array, ""] | None = None
) -> State:
    """First iterate of the paper's Algorithm 1: exact if `W_r = I`.

    `y` is the exact response to `a` if `W_r` is a multiple of the identity. `norm` is the largest
    singular value of `W_r`, if it is already known.
    """
    norm = _spectral_norm(circuit) if norm is None else norm
    drive = circuit.recur(circuit.b * z)

    def response(a):
        scale = norm - norm**2 + norm**2 * jnp.sqrt(a)
        return drive / jnp.where(scale == 0, 1, scale)  # an arbitrary start where it is undefined

    a = circuit.c
    a = circuit.c + circuit.W @ (a * jnp.square(circuit.rectify(response(a))))
    return State(response(a), a)


def algorithm_1_step(circuit: Circuit, state: State, z: Float[Array, " n"]) -> State:
    """One iteration of the paper's Algorithm 1: the exact `y` for this `a`, then `a` from this `y`.

    In the rectified model `y` solves the equation of the neurons active before the step.
    """
    y, a = state
    W_r = jnp.eye(circuit.n, dtype=y.dtype) if circuit.W_r is None else circuit.W_r
    gated = gate(a)[:, None] * W_r * circuit.active(y)[None, :]
    y = jnp.linalg.solve(jnp.eye(circuit.n, dtype=y.dtype) - gated, circuit.b * z)
    return State(y, circuit.c + circuit.W @ (jnp.square(circuit.rectify(y)) * a))


def _spectral_norm(circuit: Circuit) -> Float[Array, ""]:
    if circuit.W_r is None:
        return jnp.ones((), circuit.dtype)
    return jnp.linalg.norm(circuit.W_r, 2)


class _Candidate(NamedTuple):
    """A state, what is left over there of each equation, and the size of the terms of each.

    `error` is the largest part of its terms that an equation leaves over, infinite where they are
    out of range. `converged` says that a steady state is there.
    """

    state: State
    imbalance: Float[Array, " two_n"]
    terms: Float[Array, " two_n"]
    error: Float[Array, ""]
    converged: Bool[Array, ""]

    @property
    def residual(self) -> Float[Array, ""]:
        return jnp.linalg.norm(self.imbalance)


@jax.jit  # traced once for all the places that it is used in
def _judge(circuit: Circuit, state: State, z) -> _Candidate:
    """Each equation by the terms of its own row; one without any terms balances.

    A `y` so small that products with it underflow is 0.
    """
    y, a = state
    least = float(jnp.finfo(y.dtype).tiny / jnp.finfo(y.dtype).eps)
    state = State(jnp.where(jnp.abs(y) < least, 0, y), a)
    imbalance = jnp.concatenate(circuit.imbalance(state, z))
    terms = jnp.concatenate(circuit.terms(state, z))
    in_range = jnp.all(jnp.isfinite(terms)) & jnp.all(state.a > 0)  # a sum may overflow
    terms = jnp.where(terms > 0, terms, 1)
    error = jnp.where(in_range, jnp.max(jnp.abs(imbalance) / terms), jnp.inf)
    # false, and of the same devices as the rest
    return _Candidate(state, imbalance, terms, error, jnp.isnan(error) & ~jnp.isnan(error))


@jax.jit  # as `_search`
def _normalize(circuit: Circuit, z, tolerance) -> SteadyState:
    state = closed_form(circuit, z)
    found = _judge(circuit, state, z)
    converged = (found.error <= tolerance) & circuit.valid
    return SteadyState(state, found.residual, converged, jnp.int32(0), jnp.int32(_CLOSED_FORM))


@advising
@partial(jax.jit, static_argnums=(3, 5))  # compiled once for each size, also when called eagerly
def _search(
    circuit: Circuit, z, norm, tolerance: float, relaxation_steps: ScalarLike, matrix_free: bool
) -> tuple[_Candidate, Array, Array, Array]:
    """Two attempts, each a start and then Newton; which start goes first depends on `W_r`."""
    norm = _spectral_norm(circuit) if norm is None else norm
    contractive = norm <= 1 + 100 * float(jnp.finfo(z.dtype).eps)
    first = _judge(circuit, algorithm_1_start(circuit, z, norm), z)

    def unfinished(carry):
        i, _, acceptable, _, _ = carry
        return (i < 2) & ~acceptable

    def attempt(carry):
        i, best, acceptable, method, count = carry
        relaxing = contractive == (i == 1)
        wanted = ~acceptable
        relaxed = _relax(circuit, z, wanted & relaxing, relaxation_steps)
        iterated, iterations = _iterate(circuit, z, tolerance, first, wanted & ~relaxing)
        start = select(relaxing, relaxed, iterated)
        found, may_be_stable, steps = _newton(circuit, z, tolerance, start, wanted)
        acceptable = found.converged & may_be_stable
        closer = found.converged | (found.residual < best.residual) | jnp.isnan(best.residual)
        better = acceptable | (~best.converged & closer)
        newton = jnp.where(steps > 1, _NEWTON, _ITERATION)  # one is for the judgement
        used = jnp.where(relaxing, _RELAXATION, newton).astype(jnp.int32)
        best = select(better, found, best)
        method = jnp.where(better, used, method)
        return i + 1, best, acceptable, method, count + iterations + steps

    none = jnp.int32(0)
    begin = (none, first, first.converged, jnp.int32(_ITERATION), none)
    if matrix_free:
        swept, sweeps = _sweep(circuit, z, tolerance, first)
        direct, steps = _newton_krylov(circuit, z, tolerance, swept)
        method = jnp.where(steps > 1, _NEWTON, _ITERATION).astype(jnp.int32)
        best = select(direct.converged, direct, first)
        small = circuit.n <= _SMALL
        checked = _may_be_stable(circuit, best.state) if small else jnp.bool_(True)
        begin = (none, best, best.converged & checked, method, sweeps + steps)
    _, best, _, method, count = jax.lax.while_loop(unfinished, attempt, alike(begin))
    best = best._replace(converged=best.converged & circuit.valid)
    return best, best.residual, method, count


def _may_be_stable(circuit: Circuit, state: State) -> Bool[Array, ""]:
    """Whether `det(-J) > 0`, as at every stable state, at the cost of one factorization.

    It is negative at a saddle with one unstable direction, to which Newton goes as readily.
    """
    sign, _ = jnp.linalg.slogdet(-imbalance_jacobian(circuit, state))
    return sign > 0


def _iterate(circuit: Circuit, z, tolerance, first: _Candidate, wanted) -> tuple[_Candidate, Array]:
    def unfinished(carry):
        found, count = carry
        return wanted & (count < _ITERATIONS) & ~(found.error <= tolerance)

    def step(carry):
        found, count = carry
        state = algorithm_1_step(circuit, found.state, z)
        return _judge(circuit, state, z), count + 1

    return jax.lax.while_loop(unfinished, step, alike((first, jnp.int32(0))))


def _sweep(circuit: Circuit, z, tolerance, first: _Candidate) -> tuple[_Candidate, Array]:
    """Algorithm 1 without its factorization, for as long as that brings the residual down.

    `y` is exact for this `a` but for the recurrence between neurons, which is that of the `y`
    before: of `W_r`, only what is on its diagonal, limited to [0, 1], is solved for.
    """
    own = jnp.clip(circuit.own_recurrence, 0, 1)

    def unfinished(carry):
        found, _, idle, count = carry
        return ~(found.error <= tolerance) & (idle < _PATIENCE) & (count < _SWEEPS)

    def step(carry):
        found, least, idle, count = carry
        y, a = found.state
        q = circuit.rectify(y)
        others = circuit.b * z + gate(a) * (circuit.recur(q) - own * q)
        alone = others / ((1 - own) + own * jnp.sqrt(a))
        y = jnp.where(others > 0, alone, others) if circuit.rectified else alone
        state = State(y, circuit.c + circuit.W @ (jnp.square(circuit.rectify(y)) * a))
        found = _judge(circuit, state, z)
        falling = found.residual < 0.9 * least
        least = jnp.where(falling, found.residual, least)
        return found, least, jnp.where(falling, 0, idle + 1), count + 1

    begin = (first, first.residual, jnp.int32(0), jnp.int32(0))
    found, _, _, count = jax.lax.while_loop(unfinished, step, alike(begin))
    closer = (found.error <= tolerance) | (found.residual < first.residual)
    return select(closer, found, first), count


def _newton(
    circuit: Circuit, z, tolerance, start: _Candidate, wanted
) -> tuple[_Candidate, Bool[Array, ""], Array]:
    """Newton on `imbalance = 0`, safeguarded."""

    def move(found):
        # in units of the terms: else what is rounding to one neuron is all there is of another
        t = found.terms
        scaled = imbalance_jacobian(circuit, found.state) * (t[None, :] / t[:, None])
        factors = jax.scipy.linalg.lu_factor(-scaled)
        solve = partial(jax.scipy.linalg.lu_solve, factors)
        # what rounding of the terms does to the state, for a few choices of its signs
        blur = 8 * jnp.finfo(t.dtype).eps * solve(_signs(t))
        step = t * solve(found.imbalance / t)
        return step, determinant_sign(*factors) > 0, jnp.max(jnp.abs(blur))

    return _descend(circuit, z, tolerance, start, wanted, move, _NEWTON_STEPS)


def _signs(like: Float[Array, " m"]) -> Float[Array, "m 4"]:
    """Columns of 1 and -1, in no order."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(like), 4))
    return jnp.asarray(signs, like.dtype)


def _newton_krylov(circuit: Circuit, z, tolerance, start: _Candidate) -> tuple[_Candidate, Array]:
    """The same as `_newton`, each step solved for by products with `W` and `W_r`."""

    def move(found):
        t = found.terms
        product, blocks = linearized(circuit, z, found.state), neuron_blocks(circuit, found.state)
        scaled = (lambda x: product(t * x) / t), (lambda x: blocks(t * x) / t)
        step, _ = minimize_residual(*scaled, -found.imbalance / t, _FORCING)
        return t * step, jnp.bool_(True), jnp.zeros((), t.dtype)

    wanted = jnp.bool_(True)
    found, _, count = _descend(circuit, z, tolerance, start, wanted, move, _NEWTON_KRYLOV_STEPS)
    return found, count


def _descend(
    circuit: Circuit, z, tolerance, start: _Candidate, wanted, move: Callable, most: int
) -> tuple[_Candidate, Bool[Array, ""], Array]:
    """At most so many steps by `move`, each shortened to keep `a > 0` and the imbalance falling.

    The fraction of the step taken is quartered when the imbalance rises and the step taken back.
    A steady state is found where every equation balances and the last step was small: else it may
    be far, or there may be none, as where two of them have just vanished; and where rounding moves
    it as little: not where `W_r` is singular and `a` large. `move` gives the step, whether the
    state may be stable, which is handed on, and how far rounding moves it, relative to the terms.
    """
    n = circuit.n
    small = tolerance ** (1 / 3)

    def unfinished(carry):
        found, _, fraction, count = carry
        return wanted & ~found.converged & (count < most) & (fraction > _LEAST_FRACTION)

    def step(carry):
        found, _, fraction, count = carry
        y, a = found.state
        change, may_be_stable, blur = move(found)
        dy, da = change[:n], change[n:]
        near = jnp.all(jnp.abs(change) <= small * found.terms) & (blur <= small / 16)
        # of `y` as a whole, too: where terms cancel, a step that is small to them may be none to it
        near &= jnp.max(jnp.abs(dy)) <= small * jnp.max(jnp.abs(y))
        to_boundary = jnp.min(jnp.where(da < 0, -0.9 * a / jnp.where(da < 0, da, -1), jnp.inf))
        length = jnp.minimum(fraction, to_boundary)
        tried = _judge(circuit, State(y + length * dy, a + length * da), z)
        # either, as the residual of a large neuron may hide all of a small one
        accept = (tried.error < found.error) | (~near & (tried.residual < found.residual))
        fraction = jnp.where(accept, jnp.minimum(4 * fraction, 1), fraction / 4)
        found = select(accept, tried, found)
        found = found._replace(converged=near & (found.error <= tolerance))
        return alike((found, may_be_stable, fraction, count + 1))

    begin = alike((start, jnp.bool_(False), jnp.ones((), z.dtype), jnp.int32(0)))
    found, may_be_stable, _, count = jax.lax.while_loop(unfinished, step, begin)
    return found, may_be_stable, count


def _relax(circuit: Circuit, z, wanted, steps) -> _Candidate:
    """The circuit's own trajectory from `y = 0.01, a = c`, until it hardly moves."""
    dtype = z.dtype
    accuracy = 1e-6 if dtype == jnp.float64 else 1e-4
    tau = jnp.concatenate([circuit.tau_y, circuit.tau_a])

    def slope(x):
        return jnp.concatenate(circuit.imbalance(State(*jnp.split(x, 2)), z)) / tau

    def judge(x):
        velocity = slope(x)
        return _hardly_moves(circuit, x, tau * velocity, z, 10 * accuracy), velocity

    def unfinished(carry):
        _, _, time, _, count, resting = carry
        moving = ~resting & (time < _RELAXATION_TIME * jnp.max(tau))
        return wanted & moving & (count < steps)

    def step(carry):
        x, k1, time, h, count, resting = carry
        accept, (moved, k4, rests), following = try_step(slope, judge, x, k1, h, accuracy)
        x, k1, time = select(accept, (moved, k4, time + h), (x, k1, time))
        return x, k1, time, following, count + 1, resting | (accept & rests)

    x = jnp.concatenate([jnp.full_like(z, 0.01), circuit.c])
    resting, velocity = judge(x)
    begin = (x, velocity, jnp.zeros((), dtype), 0.01 * jnp.min(tau), jnp.int32(0), resting)
    x = jax.lax.while_loop(unfinished, step, alike(begin))[0]
    return _judge(circuit, State(*jnp.split(x, 2)), z)


def _hardly_moves(circuit: Circuit, x, imbalance, z, accuracy: float) -> Bool[Array, ""]:
    """Whether the imbalance is small relative to the largest neuron, as are the errors of steps."""
    y, a = jnp.split(x, 2)
    size = jnp.max(jnp.abs(y)) + jnp.abs(circuit.b * z)
    allowed = accuracy * jnp.concatenate([(2 + jnp.sqrt(a)) * size, 2 * a + circuit.c])
    return jnp.all(jnp.abs(imbalance) <= allowed)


@eqx.filter_custom_jvp
def _implicit(circuit: Circuit, z, state: State, matrix_free: bool) -> State:
    """`state`, differentiated as the implicit function of `circuit` and `z` that it is."""
    del circuit, z, matrix_free
    return state


@_implicit.def_jvp
def _(primals, tangents):
    circuit, z, state, matrix_free = primals
    t_circuit, t_z, *_ = tangents
    # so that the rule can itself be differentiated
    state = _implicit(circuit, z, state, matrix_free)
    _, pushed = eqx.filter_jvp(
        lambda circuit, z: circuit.imbalance(state, z), (circuit, z), (t_circuit, t_z)
    )
    pushed = [jnp.zeros_like(z) if p is None else p for p in pushed]  # None is a zero tangent
    pushed = jnp.concatenate(pushed)
    if matrix_free:
        move = -solve_linearized(circuit, z, state, pushed)
    else:
        move = -jnp.linalg.solve(imbalance_jacobian(circuit, state), pushed)
    n = z.shape[0]
    return state, State(move[:n], move[n:])
