"""How long the steps of a simulation may be, so that no change of the drive is missed.

An adaptive solver evaluates the drive only at its stages, so the long steps of a circuit at rest
could miss a pulse. Here the drive is surveyed over the whole simulation before the first step, and
no step extends beyond the stretch in which the drive is smooth.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8

from organics.circuit.areas import Areas, joined
from organics.circuit.circuit import Circuit, State, gate, root
from organics.linear.jacobian import jacobian

LOOK = 0.9  # ms that a step may always take: anything of 1 ms contains the end of such a step

APART = LOOK / 2  # ms between two evaluations of the drive, at most
_CELLS = 16  # intervals between evaluations in the shortest stretch that is judged
_STEP_CELLS = 8  # the same, in a single step
_PART = 5  # doublings of a stretch that are evaluated at once
_ROOM = 15  # doublings allowed for an unknown duration: 236 s
_MOST_ROOM = 24  # and for a known one: 33 hours
_SHORTER = 0.2  # factor for repeating a step that may have missed something
_IDLE = 1e-4  # fraction of the allowed error below which the error says nothing about the step
_AT_REST = 2  # largest rate times length of such a step: below it, small deviations decay
_EXPLOSION = 1e4  # growth per time constant beyond which a finite state counts as diverging


@cache
def _pulses(cells: int) -> Float[np.ndarray, "looks looks"]:
    """The matrix that maps values at evenly spaced times to their part that is not smooth.

    Smooth means a polynomial of degree 5/8 of the number of cells. The matrix is scaled so that a
    pulse of height 1 anywhere leaves at least 1 at some time.
    """
    x = np.linspace(-1, 1, cells + 1)
    basis, _ = np.linalg.qr(np.polynomial.chebyshev.chebvander(x, 5 * cells // 8))
    rest = np.eye(len(x)) - basis @ basis.T
    sums = np.cumsum(np.pad(rest, ((0, 0), (1, 0))), axis=1)
    on = [(i, j) for j in range(len(x) + 1) for i in range(j) if j - i < len(x)]
    return rest / min(np.max(np.abs(sums[:, j] - sums[:, i])) for i, j in on)


class Survey(eqx.Module):
    """Where a drive is smooth.

    Attributes
        start: of the simulation, in ms.
        length: of the shortest stretches, in ms.
        doublings: for each of these, shape (stretches,), how often its length can be doubled
            (aligned to a multiple of that length) with the drive smooth on all of it; -1 if it is
            not smooth itself.
    """

    start: Float[Array, ""]
    length: Float[Array, ""]
    doublings: Int8[Array, " stretches"]

    def reach(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """Where the smooth stretch that holds `t` ends; `t` itself if there is none."""
        k = ((t - self.start) / self.length).astype(jnp.int32)
        doublings = self.doublings.at[k].get(mode="fill", fill_value=-1).astype(jnp.int32)
        size = 1 << jnp.maximum(doublings, 0)
        end = self.start + self.length * ((k // size + 1) * size).astype(t.dtype)
        return jnp.where(doublings < 0, t, end)


def room_for(duration: float | None) -> int:
    """Doublings of the shortest stretch in `duration` ms; `None` (traced) counts as 236 s.

    Anything beyond counts as not smooth.
    """
    if duration is None:
        return _ROOM
    return min(_MOST_ROOM, math.ceil(math.log2(max(1, duration / (APART * _CELLS)))))


def survey(
    pull: Callable[[Float[Array, ""]], Float[Array, " n"]],
    start: Float[Array, ""],
    end: Float[Array, ""],
    room: int,
    *,
    rtol: Float[Array, ""],
    atol: Float[Array, ""],
) -> Survey:
    """Evaluate `pull` from `start` to `end`; `room` is `room_for` the duration.

    It is smooth where, for each neuron, it is a polynomial to within `atol`, `rtol` of its largest
    value nearby, and the rounding of the time. The survey has no derivatives.
    """
    dtype, part = start.dtype, min(room, _PART)
    stretches, looks = 1 << part, _CELLS << part
    needed = jnp.ceil((end - start) / (APART * _CELLS))
    apart = (end - start) / (needed * _CELLS)

    def look(state):
        index, doublings = state
        t = start + apart * (index * looks + jnp.arange(looks + 1, dtype=jnp.int32)).astype(dtype)
        values = jax.lax.stop_gradient(jax.vmap(pull)(jnp.minimum(t, end)))
        found = _smooth_doublings(values, apart, resolution(jnp.minimum(t[-1], end)), rtol, atol)
        return index + 1, jax.lax.dynamic_update_slice(doublings, found, (index * stretches,))

    def unfinished(state):
        index, _ = state
        return index * stretches < jnp.minimum(needed, 1 << room).astype(jnp.int32)

    begin = jnp.int32(0), jnp.full(1 << room, -1, jnp.int8)
    _, doublings = jax.lax.while_loop(unfinished, look, begin)
    return Survey(start, apart * _CELLS, doublings)


def _smooth_doublings(
    values: Float[Array, "looks n"], apart, blur, rtol, atol
) -> Int8[Array, " stretches"]:
    """The `doublings` of a `Survey` for evaluations spaced by `apart`, at times uncertain by
    `blur`."""
    stretches = len(values) // _CELLS
    levels = [stretches >> k for k in range(stretches.bit_length())]  # stretches on each
    looks = [
        (_CELLS * i + np.arange(_CELLS + 1)) << k for k, m in enumerate(levels) for i in range(m)
    ]
    each = values[np.stack(looks, axis=1)]  # (looks, stretches, n)
    allowed = atol + rtol * jnp.max(jnp.abs(each), axis=0)
    # longer stretches are evaluated at wider spacing, but contain nothing that is as short
    smooth = jnp.all(_hidden_pulse(each, apart, blur) <= allowed, axis=1)
    good, found = jnp.ones(2 * stretches, bool), jnp.full(stretches, -1, jnp.int8)
    for k, also in enumerate(jnp.split(smooth, np.cumsum(levels)[:-1])):
        good = also & jnp.all(good.reshape(-1, 2), axis=1)
        found = jnp.where(jnp.repeat(good, 1 << k), jnp.int8(k), found)
    return found


def _hidden_pulse(values: Float[Array, "looks *some n"], apart, blur) -> Float[Array, "*some n"]:
    """An upper bound on the height of a pulse on top of a polynomial through the values.

    Rounding of the values, and of times uncertain by `blur`, does not count. What the latter does
    is judged by the slopes in most places, as the edges of a pulse are steeper and would hide it.
    """
    pulses = _pulses(len(values) - 1)
    off = jnp.max(jnp.abs(jnp.tensordot(jnp.asarray(pulses, values.dtype), values, 1)), axis=0)
    steps = jnp.abs(jnp.diff(values, axis=0))
    slope = jnp.minimum(jnp.max(steps, axis=0), 4 * jnp.median(steps, axis=0)) / apart
    size = jnp.max(jnp.abs(values), axis=0)
    rounding = 8 * jnp.finfo(values.dtype).eps * size + slope * blur
    return jnp.maximum(off - float(np.max(pulses)) * rounding, 0)


class _Course(NamedTuple):
    """The state of the controller: `inner` is that of the controller that it limits; and the time
    until which the survey need not be consulted."""

    inner: Any
    reach: Float[Array, ""]


@jax.custom_jvp
def _is_differentiated(x):
    return jnp.zeros_like(x)


@_is_differentiated.defjvp
def _(primals, tangents):
    del tangents
    return jnp.ones_like(primals[0]), jnp.zeros_like(primals[0])


def is_differentiated(tree: Any) -> Bool[Array, ""]:
    """Whether JAX takes derivatives with respect to anything in a tree of arrays."""
    numbers = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return _is_differentiated(sum(jnp.sum(leaf) for leaf in numbers)) > 0


class Watchful(dfx.AbstractAdaptiveStepSizeController):
    """Limits the steps of another controller by the survey and by the resolution of time.

    A step ends no later than the smooth stretch in which it begins, or `LOOK` after its start:
    anything that lasts longer is seen at the end of such a step. No step is shorter than the
    resolution of time. A step of that length crosses a jump of the drive, with some error; any
    other reason for it ends the simulation with `dt_min_reached`, `nonfinite` (state) or
    `nonfinite_input` (drive).

    At rest the errors are tiny for steps of any length. If the trajectory is `differentiated`,
    steps at rest are kept short enough for small deviations, such as derivatives, to decay.

    The solver's `args` must begin with a circuit and a drive. Without a survey the drive counts as
    smooth.
    """

    controller: dfx.AbstractAdaptiveStepSizeController
    survey: Survey | None
    differentiated: Bool[Array, ""] | None

    @property
    def rtol(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.controller.rtol

    @property
    def atol(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.controller.atol

    @property
    def norm(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.controller.norm

    def wrap(self, direction):
        return Watchful(self.controller.wrap(direction), self.survey, self.differentiated)  # pyright: ignore[reportCallIssue]

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        end, inner = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        end, reach = self._limited(t0, _no_shorter(t0, end))
        return end, _Course(inner, reach)

    @eqx.filter_jit  # traced once: the solver calls it several times in a program
    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, state):  # pyright: ignore[reportIncompatibleMethodOverride]
        kept, begin, end, jumped, inner, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, state.inner
        )
        if (wanted := self.differentiated) is not None:
            end = self._bounded_at_rest(wanted, begin, end, y0, y1_candidate, args, y_error)
        shortest = t1 - t0 <= 2 * resolution(t0)
        stuck, unknown = shortest & ~kept, t1 > state.reach
        end = _no_shorter(begin, end)

        def careful():
            crossed, outcome = self._cross(t0, t1, y0, y1_candidate, args, y_error)
            hiding = kept & ~shortest & unknown & self._hides(t0, t1, y0, y1_candidate, args)
            keep = (kept & ~hiding) | (stuck & crossed)
            start = jnp.where(keep, t1, t0)
            stop = jnp.where(stuck & crossed, t1 + (t1 - t0), end)
            stop = jnp.where(hiding, t0 + (t1 - t0) * _SHORTER, stop)
            why = dfx.RESULTS.where(stuck, outcome, dfx.RESULTS.successful)
            return keep, start, *self._limited(start, stop), why

        # all at once, and only where needed, as this runs at every step
        kept, begin, end, reach, outcome = jax.lax.cond(
            stuck | unknown | (end > state.reach),
            careful,
            lambda: (kept, begin, end, state.reach, dfx.RESULTS.successful),
        )
        result = dfx.RESULTS.where(result == dfx.RESULTS.successful, outcome, result)
        return kept, begin, end, jumped, _Course(inner, reach), result

    def _bounded_at_rest(self, wanted, begin, end, y0, y1, args, error):
        """The end of a step, bounded by the rates if the last step had almost no error."""
        allowed = self.atol + self.rtol * jnp.maximum(jnp.abs(y0), jnp.abs(y1))
        idle = wanted & jnp.all(jnp.abs(error) <= _IDLE * allowed)

        def bounded():
            return jnp.minimum(end, begin + _AT_REST / _fastest(args[0], args[0].split(y1)))

        return jax.lax.cond(idle, bounded, lambda: end)

    def _limited(self, begin, end):
        """The end of a step as limited by the survey, and the time until which the survey sets no
        limit."""
        if self.survey is None:
            return end, jnp.full_like(end, jnp.inf)
        reach = self.survey.reach(begin)
        return jnp.minimum(end, jnp.maximum(reach, begin + LOOK)), reach

    def _hides(self, t0, t1, y0, y1, args):
        """Whether the drive may have done something in a step that the error does not show."""
        if self.survey is None:
            return jnp.bool_(False)
        circuit, drive, *_ = args
        length = t1 - t0
        looks = t0 + length * jnp.linspace(0, 1, _STEP_CELLS + 1, dtype=length.dtype)
        pulse = _hidden_pulse(jax.vmap(drive)(looks), length / _STEP_CELLS, resolution(t1))
        first = circuit.areas[0]
        size = jnp.maximum(jnp.abs(y0), jnp.abs(y1))[: first.n]  # what is driven is in front
        allowed = self.atol + self.rtol * size
        return jnp.any(length * first.b * pulse / first.tau_y > allowed)

    def _cross(self, t0, t1, y0, y1, args, error):
        """Whether to keep a rejected step of the shortest length; if not, why."""
        circuit, drive, *_ = args
        before, after = drive(t0), drive(t1)
        allowed = self.atol + self.rtol * jnp.maximum(jnp.abs(y0), jnp.abs(y1))
        first = circuit.areas[0]
        jump = (t1 - t0) * first.b * jnp.abs(after - before) / first.tau_y
        # what the drive changes is in front
        jump = jnp.concatenate([jump, jnp.zeros(error.size - jump.size, jump.dtype)])
        crossed = jnp.all(error <= allowed + jump)
        # a circuit that comes to rest has no rates that much faster than its time constants
        growth = jnp.min(joined(circuit.time_constants)) / (t1 - t0)
        bounded = growth * jnp.max(jnp.abs(y1 - y0)) <= _EXPLOSION * jnp.max(jnp.abs(y0))
        why = dfx.RESULTS.where(bounded, dfx.RESULTS.dt_min_reached, dfx.RESULTS.nonfinite)  # pyright: ignore[reportArgumentType]
        known = jnp.all(jnp.isfinite(before) & jnp.isfinite(after))
        why = dfx.RESULTS.where(known, why, dfx.RESULTS.nonfinite_input)  # pyright: ignore[reportArgumentType]
        return crossed, dfx.RESULTS.where(crossed, dfx.RESULTS.successful, why)


def _fastest(circuit: Areas, state: Any) -> Float[Array, ""]:
    """A bound on the rates, in 1/ms, of the linearized circuit: the largest sum of absolute values
    in a row of its Jacobian, with `y` in units of the largest of its area and each `a` in units of
    itself."""
    states = circuit.by_area(state)
    first = states[0]
    if len(states) == 1 and isinstance(first, State):  # where no matrix need be formed
        return _fastest_of_one(circuit.areas[0], first)
    units = []
    for area, (y, a, *more) in zip(circuit.areas, states, strict=True):
        largest = jnp.max(jnp.abs(y))
        units.append(jnp.full_like(y, jnp.where(largest > 0, largest, 1)))
        units.append(jnp.maximum(a, area.c))
        units += map(jnp.ones_like, more)
    unit = jnp.concatenate(units)
    J = jnp.abs(jacobian(circuit, state))
    return jax.lax.stop_gradient(jnp.max(J @ unit / unit))


def _fastest_of_one(circuit: Circuit, state: State) -> Float[Array, ""]:
    y, a = state
    q, s = jnp.abs(circuit.rectify(y)), root(a)
    unit_y, unit_a = jnp.max(q), jnp.maximum(a, circuit.c)
    unit_y = jnp.where(unit_y > 0, unit_y, 1)
    own, others = jnp.abs(circuit.own_recurrence), circuit.from_others(jnp.ones_like(y), sizes=True)
    of_y = 1 + jnp.abs(gate(a)) * (own + others) + jnp.abs(circuit.recur(q)) / unit_y * s / 2
    of_a = 1 + circuit.pool.apply((2 * q * unit_y + jnp.square(q)) * unit_a) / unit_a
    rates = jnp.concatenate([of_y / circuit.tau_y, of_a / circuit.tau_a])
    return jax.lax.stop_gradient(jnp.max(rates))


def resolution(t: Float[Array, ""]) -> Float[Array, ""]:
    """A few times the smallest change of a time in floating point."""
    return 4 * jnp.finfo(t.dtype).eps * jnp.abs(t)


def _no_shorter(begin, end):
    """The end of a step, at least that of the shortest step, also if it is NaN."""
    least = begin + resolution(begin)
    return jnp.where(end > least, end, least)
