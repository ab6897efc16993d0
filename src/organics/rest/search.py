"""Steady states: where the circuit rests under a constant input drive.

For identity recurrence (`W_r = I`) the steady state is unique and has a closed form, which is
divisive normalization. Otherwise it is searched for:

1. *iteration*: the paper's Algorithm 1, which alternates the exact `y` for a given `a` with the
   update of `a`; tried first where the largest singular value of `W_r` is at most 1.
2. *newton*: a safeguarded Newton method from where the iteration stopped.
3. *relaxation*: the circuit itself, integrated from near rest until it hardly moves, then polished
   by Newton. It comes first if the largest singular value of `W_r` exceeds 1: there may then be
   several steady states, and the iteration readily finds an unstable one, while the circuit does
   not.

With `matrix_free`, sweeps (the iteration without its factorization) and a Newton method without
factorizations (`organics.linear.krylov`) come before all of these.

Whatever the route, a state counts as converged only if each equation balances relative to the terms
of its own row and Newton's last step was small. If the sign of the Jacobian's determinant shows
that a state is unstable, it is returned only if the other route finds no better one. States found
without a factorization are checked in this way in small circuits only. A steady state may still be
unstable: `organics.linear_stability` answers that.
"""

from collections.abc import Sequence
from functools import partial, singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, ScalarLike

from organics.circuit.areas import Areas, joined
from organics.circuit.circuit import Circuit, State, as_drive
from organics.circuit.gated import GatedHierarchy, GatedState
from organics.circuit.values import as_real
from organics.linear.krylov import LARGE, may_factorize
from organics.machine.mesh import advising, alike
from organics.rest.algorithm1 import algorithm_1_start, iterate, sweep
from organics.rest.balance import Candidate, judge
from organics.rest.closed_form import closed_form
from organics.rest.hierarchy import search as search_hierarchy
from organics.rest.implicit import implicit
from organics.rest.newton import may_be_stable, newton, newton_krylov
from organics.rest.point import (
    CLOSED_FORM,
    GIVEN,
    ITERATION,
    NEWTON,
    RELAXATION,
    OperatingPoint,
    SteadyState,
)
from organics.rest.relaxation import relax, select
from organics.rest.system import Driven, DrivenCircuit, driven_by

_SMALL = 8  # up to this many neurons a factorization costs no more than a Newton-Krylov step
_MANY = 1024  # with more, `matrix_free` is the default unless `W` or `W_r` is a matrix
_RELAXATION_TIME = 2000.0  # in units of the largest time constant


def steady_state(
    circuit: Areas,
    z: 'Float[ArrayLike, " n"]',
    *,
    tolerance: float | None = None,
    spectral_norm: "ScalarLike | None" = None,
    relaxation_steps: "ScalarLike" = 50_000,
    matrix_free: bool | None = None,
    start: Any = None,
) -> OperatingPoint:
    """A steady state of a circuit or hierarchy for the constant input drive `z`, shape (n,).

    Can be jitted, mapped over circuits and drives, and differentiated to any order in forward and
    reverse mode. Derivatives come from the implicit function theorem, `-J^-1 dF/dtheta`, at a cost
    that does not depend on how the state was found; they are meaningless if `converged` is false.

    `tolerance` bounds the imbalance of each equation relative to the sum of its terms; its cube
    root bounds Newton's last step in the same way. The default is `eps^(3/4)` of the circuit's type
    (1.8e-12 in float64, 6.4e-6 in float32).

    `spectral_norm` is the largest singular value of `W_r`, if known; computing it takes much of the
    time. It decides where the search begins, not what counts as found.

    `relaxation_steps` limits the integration, if there is one. Circuits that are mapped over all
    take as long as the slowest: for many, try few steps first and repeat with more those that need
    it.

    An explicit identity matrix as `W_r` counts as `None`, unless it is being traced.

    `matrix_free` is for mapping over many drives of a circuit of more than about ten neurons, with
    `W` and `W_r` shared, while `b`, `z` and other vectors may differ. The search then begins with
    sweeps and Newton's method by products with `W` and `W_r`, from the first iterate of Algorithm
    1; the derivative is solved for by such products, too. Matrices are factorized only if this
    fails, and then for all drives mapped over together; never with more than 4,096 neurons, nor
    with more than 128 if neither `W` nor `W_r` is a matrix. It is the default above 4,096 neurons,
    and above 1,024 if neither is a matrix. With more than 8, the sign of the Jacobian's determinant
    is not checked: the state may be a saddle even if the circuit has a stable state, which
    `organics.linear_stability` tells. If the largest singular value of `W_r` exceeds 1, it may not
    be the state that the circuit reaches from rest. That norm, if not given, is computed once for
    all drives.

    In a `Hierarchy`, where feedback has no effect on it, the state has a closed form, area by area;
    else Newton's method follows it from there in steps of at most 0.04 of `gamma`, and if that
    fails, relaxation comes next. `spectral_norm` and `matrix_free` are for circuits alone.

    With `start`, a state with `a > 0` (of a hierarchy, one for each area), Newton's method begins
    there, by products if `matrix_free`, and nothing else is tried: the state found is usually the
    one nearby. `organics.steady_states` lists those there are.

    Raises `ValueError` if `z` or `start` has the wrong shape or is not finite, if an `a` of `start`
    is not > 0, if `tolerance` is not in (0, 1) or is traced,
    or if `spectral_norm` is not a number >= 0. Does not raise if no steady state is found, as some
    circuits have none: see `SteadyState.converged`.
    """
    z = as_drive(circuit, z)
    tolerance = _as_tolerance(tolerance, circuit.dtype)
    norm = None if spectral_norm is None else as_real("spectral_norm", spectral_norm, z.dtype)
    if norm is not None and (norm.ndim or not (isinstance(norm, Tracer) or norm >= 0)):
        raise ValueError(f"`spectral_norm` must be one number >= 0, not {spectral_norm}.")
    if matrix_free is None:
        few = isinstance(circuit, Circuit) and may_factorize(circuit)
        matrix_free = isinstance(circuit, Circuit) and circuit.n > (LARGE if few else _MANY)
    start = None if start is None else _require_state("start", circuit, start)
    circuit, z, norm, start = alike((circuit.known_identities(), z, norm, start))
    return OperatingPoint(
        circuit, z, _at_rest(circuit, z, tolerance, relaxation_steps, start, norm, matrix_free)
    )


@singledispatch
def _at_rest(circuit, z, tolerance, relaxation_steps, start, norm, matrix_free) -> SteadyState:
    """The steady state of a hierarchy."""
    if norm is not None or matrix_free:
        raise ValueError(
            "`spectral_norm` and `matrix_free` must be left out for a hierarchy of areas."
        )
    system = driven_by(circuit, z)
    fixed, start = jax.lax.stop_gradient((system, start))
    if start is None:
        return _found(system, search_hierarchy(fixed, tolerance, relaxation_steps))
    return _found(system, _search_from(fixed, start, tolerance))


@_at_rest.register(Circuit)
def _(circuit, z, tolerance, relaxation_steps, start, norm, matrix_free) -> SteadyState:
    if circuit.has_identity_recurrence:
        return _normalize(circuit, z, tolerance)
    system = DrivenCircuit(circuit, z, matrix_free)
    fixed, norm, start = jax.lax.stop_gradient((system, norm, start))
    if start is None:
        return _found(system, _search(fixed, norm, tolerance, relaxation_steps))
    return _found(system, _search_from(fixed, start, tolerance))


@_at_rest.register(GatedHierarchy)
def _(circuit, z, tolerance, relaxation_steps, start, norm, matrix_free) -> SteadyState:
    how = tolerance, relaxation_steps, None, norm, matrix_free
    if start is None:
        start = circuit.complete(_at_rest(circuit.hierarchy, z, *how).state)
    system = driven_by(circuit, z)
    fixed, start = jax.lax.stop_gradient((system, start))
    return _found(system, _search_from(fixed, start, tolerance))


def _found(system: Driven, outcome: tuple) -> SteadyState:
    """The outcome of a search, with the state's derivatives."""
    found, residual, method, count = outcome
    state = system.circuit.split(implicit(system, found.x))
    return SteadyState(state, residual, found.converged, count, method)


def given_state(
    circuit: Areas,
    z: 'Float[ArrayLike, " n"]',
    state: Any,
    *,
    tolerance: float | None = None,
) -> OperatingPoint:
    """The operating point at a known steady state, such as one from `organics.steady_states`.

    `converged` says whether the equations balance at `state`, to within the tolerance of
    `steady_state`. Nothing is searched for, and the state has no derivatives.

    Of a hierarchy, `state` holds the states of its areas.

    Raises `ValueError` if `z` or `state` has the wrong shape or is not finite, or `a` is not > 0.
    """
    z = as_drive(circuit, z)
    state = _require_state("state", circuit, state)
    circuit = circuit.known_identities()
    tolerance = _as_tolerance(tolerance, z.dtype)
    return OperatingPoint(circuit, z, _judged(circuit, z, state, tolerance, GIVEN))


def _require_state(name: str, circuit: Areas, state: Any) -> Any:
    """The state in the circuit's type, checked."""
    if not isinstance(circuit, Circuit) and not isinstance(state, Sequence):
        raise ValueError(f"`{name}` must hold a `State` for each area, not {state!r}.")
    states = circuit.by_area(state)
    if len(states) != len(circuit.areas):
        raise ValueError(
            f"`{name}` must hold one `State` for each of {len(circuit.areas)} areas, not "
            f"{len(states)}."
        )
    each = zip(circuit.names_of_areas(name), circuit.areas, states, strict=True)
    return circuit.complete(circuit.of_areas(tuple(_require_state_of_area(*one) for one in each)))


def _require_state_of_area(name: str, circuit: Circuit, state: Any) -> Any:
    if not isinstance(state, State | GatedState):
        raise ValueError(f"`{name}` must be a `State`, not {type(state).__name__}.")
    parts = {
        part: as_drive(circuit, value, f"{name}.{part}") for part, value in state._asdict().items()
    }
    state = state._replace(**parts)
    if not isinstance(state.a, Tracer) and not np.all(np.asarray(state.a) > 0):
        raise ValueError(f"`{name}.a` must be > 0, not {state.a}.")
    return state


def _as_tolerance(tolerance: float | None, dtype: jnp.dtype) -> float:
    if tolerance is None:
        return float(jnp.finfo(dtype).eps ** 0.75)
    if isinstance(tolerance, Tracer | str) or np.ndim(tolerance) or not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` must be a number in (0, 1), not {tolerance!r}.")
    return float(tolerance)


@jax.jit  # as `_search`
def _normalize(circuit: Circuit, z, tolerance) -> SteadyState:
    return _judged(circuit, z, closed_form(circuit, z), tolerance, CLOSED_FORM)


@partial(jax.jit, static_argnums=4)
def _judged(circuit: Areas, z, state: Any, tolerance, method: int) -> SteadyState:
    """A given state as it is: converged if its equations balance."""
    found = judge(driven_by(circuit, z), joined(state))
    converged = (found.error <= tolerance) & circuit.valid
    return SteadyState(state, found.residual, converged, jnp.int32(0), jnp.int32(method))


class _Attempts(NamedTuple):
    """The next attempt, the best state so far, whether it is good enough, the method that found it,
    and the number of iterations."""

    i: Int[Array, ""]
    best: Candidate
    acceptable: Bool[Array, ""]
    method: Int[Array, ""]
    iterations: Int[Array, ""]


@advising
@partial(jax.jit, static_argnums=2)  # compiled once for each size, also when called eagerly
def _search(
    driven: DrivenCircuit, norm, tolerance: float, relaxation_steps: ScalarLike
) -> tuple[Candidate, Array, Array, Array]:
    """Two attempts, each a start and then Newton; which start goes first depends on `W_r`."""
    circuit, z, matrix_free = driven.circuit, driven.z, driven.by_products
    norm = circuit.recurrent.norm() if norm is None else norm
    contractive = norm <= 1 + 100 * float(jnp.finfo(z.dtype).eps)
    first = judge(driven, jnp.concatenate(algorithm_1_start(circuit, z, norm)))

    def unfinished(so_far):
        return (so_far.i < 2) & ~so_far.acceptable

    def attempt(so_far):
        best, wanted = so_far.best, ~so_far.acceptable
        relaxing = contractive == (so_far.i == 1)
        relaxed = _relax(driven, wanted & relaxing, relaxation_steps)
        iterated, iterations = iterate(driven, tolerance, first, wanted & ~relaxing)
        start = select(relaxing, relaxed, iterated)
        found, possible, _, steps = newton(driven, tolerance, start, wanted)
        acceptable = found.converged & possible
        closer = found.converged | (found.residual < best.residual) | jnp.isnan(best.residual)
        better = acceptable | (~best.converged & closer)
        used = jnp.where(relaxing, RELAXATION, _newton_or_iteration(steps)).astype(jnp.int32)
        return _Attempts(
            so_far.i + 1,
            select(better, found, best),
            acceptable,
            jnp.where(better, used, so_far.method),
            so_far.iterations + iterations + steps,
        )

    none = jnp.int32(0)
    begin = _Attempts(none, first, first.converged, jnp.int32(ITERATION), none)
    if matrix_free:
        begin = _without_factorization(driven, tolerance, first)
    if matrix_free and not may_factorize(circuit):
        end = _relaxed_without_factorization(driven, tolerance, begin, relaxation_steps)
    else:
        end = jax.lax.while_loop(unfinished, attempt, alike(begin))
    best = end.best._replace(converged=end.best.converged & circuit.valid)
    return best, best.residual, end.method, end.iterations


@advising
@partial(jax.jit, static_argnums=2)  # as `_search`
def _search_from(
    driven: Driven, start: Any, tolerance: float
) -> tuple[Candidate, Array, Array, Array]:
    """Newton's method from the given state."""
    first = judge(driven, joined(start))
    by_products = isinstance(driven, DrivenCircuit) and driven.by_products
    search = newton_krylov if by_products else newton
    found, _, _, steps = search(driven, tolerance, first, jnp.bool_(True))
    found = found._replace(converged=found.converged & driven.circuit.valid)
    return found, found.residual, jnp.full_like(steps, NEWTON), steps


def _without_factorization(
    driven: DrivenCircuit, tolerance: ScalarLike, first: Candidate
) -> _Attempts:
    swept, sweeps = sweep(driven, tolerance, first)
    direct, _, _, steps = newton_krylov(driven, tolerance, swept, jnp.bool_(True))
    best = select(direct.converged, direct, first)
    small = driven.circuit.n <= _SMALL
    checked = may_be_stable(driven, best.x) if small else jnp.bool_(True)
    method = _newton_or_iteration(steps).astype(jnp.int32)
    return _Attempts(jnp.int32(0), best, best.converged & checked, method, sweeps + steps)


def _relaxed_without_factorization(
    driven: DrivenCircuit, tolerance: ScalarLike, before: _Attempts, relaxation_steps: ScalarLike
) -> _Attempts:
    """If that failed: Newton's method by products, from where the circuit itself goes."""
    wanted = ~before.acceptable
    relaxed = _relax(driven, wanted, relaxation_steps)
    found, _, _, steps = newton_krylov(driven, tolerance, relaxed, wanted)
    better = wanted & (found.converged | (found.residual < before.best.residual))
    return _Attempts(
        before.i + 1,
        select(better, found, before.best),
        before.acceptable | found.converged,
        jnp.where(better, RELAXATION, before.method).astype(jnp.int32),
        before.iterations + steps,
    )


def _newton_or_iteration(steps: Int[Array, ""]) -> Int[Array, ""]:
    return jnp.where(steps > 1, NEWTON, ITERATION)  # the first one only judges


def _relax(driven: DrivenCircuit, wanted, steps: ScalarLike) -> Candidate:
    """The circuit's own trajectory from `y = 0.01, a = c`, until it hardly moves."""
    circuit, z, tau = driven.circuit, driven.z, driven.time_constants()
    accuracy = 1e-6 if z.dtype == jnp.float64 else 1e-4

    def rests(x):
        imbalance = driven.imbalance(x)
        return _hardly_moves(circuit, x, imbalance, z, 10 * accuracy), imbalance / tau

    path = relax(
        rests,
        lambda rests: rests,
        jnp.concatenate([jnp.full_like(z, 0.01), circuit.c]),
        step=0.01 * jnp.min(tau),
        longest=_RELAXATION_TIME * jnp.max(tau),
        most=steps,
        accuracy=accuracy,
        wanted=wanted,
    )
    return judge(driven, path.x)


def _hardly_moves(circuit: Circuit, x, imbalance, z, accuracy: float) -> Bool[Array, ""]:
    """Whether the imbalance is small relative to the largest neuron, as the errors of steps are."""
    y, a = jnp.split(x, 2)
    size = jnp.max(jnp.abs(y)) + jnp.abs(circuit.b * z)
    allowed = accuracy * jnp.concatenate([(2 + jnp.sqrt(a)) * size, 2 * a + circuit.c])
    return jnp.all(jnp.abs(imbalance) <= allowed)
