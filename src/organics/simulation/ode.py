"""Trajectories of the circuit: its differential equation, integrated by Diffrax.

`organics.simulation.noise` does the same with noise; both return a `Trajectory`.
"""

from collections.abc import Callable
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from organics.arguments import require_among, require_whole
from organics.circuit.areas import Areas, joined, modulators, named
from organics.circuit.circuit import Circuit, State, as_drive, root
from organics.circuit.gated import GatedHierarchy, GatedState
from organics.circuit.values import as_real
from organics.errors import SimulationFailed
from organics.machine.mesh import advising, concretely, require_unchecked
from organics.names import Method
from organics.printing import Lines, in_html, in_words, numbers
from organics.simulation.stepping import Watchful, is_differentiated, resolution, room_for, survey

Drive = Real[ArrayLike, "*samples n"] | Callable[[Float[Array, ""]], Array]


class _Tsit5(dfx.Tsit5):
    """Its step is traced once, though `diffeqsolve` calls it several times in a program."""

    step = eqx.filter_jit(dfx.Tsit5.step)


class _Kvaerno5(dfx.Kvaerno5):
    """As `_Tsit5`."""

    step = eqx.filter_jit(dfx.Kvaerno5.step)


_SOLVERS = {"explicit": _Tsit5, "implicit": _Kvaerno5}
_SAMPLES = 101  # number of saved times if `t` is a duration

FAILURES = ("none", "steps", "resolution", "divergence", "drive", "modulator", "stability")
NONE, STEPS, RESOLUTION, DIVERGENCE, DRIVE, MODULATOR, STABILITY = range(len(FAILURES))


class Trajectory(eqx.Module):
    """States of a circuit, or a hierarchy, along time.

    A batch of trajectories, made by `jax.vmap`, has leading axes on every field. Differentiating
    the `end_time` of a failure, or the `steady_time` of a circuit that did not come to rest, raises
    an error.

    Attributes
        t: save times, in ms, shape (t,).
        state: `y` and `a`, each of shape (t, n), of a hierarchy a tuple of such states; NaN after a
            failure of the solver, the state of rest after `steady_time`.
        failure: index into `FAILURES`, 0 if there is none; `failure_name` is its name.
        end_time: until when the trajectory is valid, in ms: the last save time, `steady_time`, or
            the time of the failure.
        rested: whether the circuit came to rest, with `until_steady`.
        interpolation: evaluated when the trajectory is called; `None` without `dense=True`.
    """

    t: Float[Array, "*batch t"]
    state: Any
    failure: Int[Array, "*batch"]
    end_time: Float[Array, "*batch"]
    rested: Bool[Array, "*batch"]
    interpolation: dfx.DenseInterpolation | None = None

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        t = np.asarray(self.t)
        rows = [("times", f"{t.shape[-1]} from {t.min():.6g} to {t.max():.6g} ms")]
        if t.ndim == 1:
            finite = np.all(np.isfinite(modulators(self.state)), axis=1)
            last = max(int(np.sum(finite)) - 1, 0)
            rows += [(f"{name} at {t[last]:.6g} ms", numbers(x[last]))
                     for name, x in named(self.state)]  # fmt: skip
            failed = f"failed ({self.failure_name}) at {float(self.end_time):.6g} ms"
            done = f"at rest from {float(self.end_time):.6g} ms on" if self.rested else "simulated"
            return Lines(done if self.ok else failed, tuple(rows))
        return Lines(f"{np.sum(np.asarray(self.ok))} of {self.failure.size} simulated", tuple(rows))

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)

    @property
    def ok(self) -> Bool[Array, "*batch"]:
        """Whether the trajectory is valid: it is complete and finite, and no `a` that began
        positive fell to 0 or below. Only too large steps or noise can cause that; the circuit
        itself cannot. `a` is never clipped."""
        return jnp.asarray(self.failure == NONE)

    @property
    def steady_time(self) -> Float[Array, "*batch"]:
        """When the circuit came to rest, in ms; `inf` if it did not, or without `until_steady`."""
        time = jnp.where(self.rested, self.end_time, jnp.inf)
        return _determined(self.rested, time, modulators(self.state))

    @property
    def failure_name(self) -> str:
        """What went wrong: one of `FAILURES`. Needs concrete values."""
        return FAILURES[int(self.failure)]

    def __call__(self, t: 'Real[ArrayLike, ""]') -> Any:
        """State at a time `t` in ms, by the solver's own interpolation. Needs `dense=True`.

        For several times use `jax.vmap`; a time out of range then gives NaN.

        Raises `ValueError` if there is no interpolation, or `t` is outside the simulated time.
        """
        if self.interpolation is None:
            raise ValueError("This trajectory has no interpolation; simulate with `dense=True`.")
        t = jnp.asarray(t, self.t.dtype)
        last = jnp.where(self.rested, self.t[-1], self.end_time)
        inside = (t >= self.t[0]) & (t <= last)
        if known(inside) is False:
            raise ValueError(
                f"`t` must be between {float(self.t[0])} and {float(last)} ms, where the circuit "
                f"was simulated, not {float(t)}."
            )
        held = jnp.where(inside & self.rested, jnp.minimum(t, self.end_time), t)
        x = self.interpolation.evaluate(held)
        parts, form = jax.tree.flatten(self.state)
        return form.unflatten(jnp.split(x, np.cumsum([part.shape[-1] for part in parts])[:-1]))


def simulate(
    circuit: Areas,
    z: "Drive",
    t: 'Real[ArrayLike, "*times"]',
    initial: State | tuple | None = None,
    *,
    method: Method = "explicit",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_step: float | None = None,
    max_steps: int = 16_384,
    dense: bool = False,
    until_steady: bool = False,
    steady_tolerance: float = 1e-5,
    throw: bool = True,
) -> Trajectory:
    """Integrate the differential equation of a circuit or hierarchy, with adaptive steps.

    Can be jitted, mapped over circuits, drives and initial states, and differentiated in reverse
    mode, through the steps taken. When differentiated, the explicit method takes more steps at
    rest, short enough for the derivative. Inside of `jax.shard_map`, values that differ between
    devices need `check_vma=False` and have no derivatives.

    Arguments
        z: input drive: constant, shape (n,); or sampled at the save times, shape (t, n), and linear
            between them (steps end at the samples, so none is missed); or a function of the time in
            ms that returns shape (n,) and that JAX can trace and map over times. A function may
            jump, oscillate or pulse: it is evaluated every 0.45 ms and long steps are taken only
            where it is smooth, so nothing that lasts 1 ms or longer is missed (for briefer events
            see `max_step`). This covers the first 33 hours, or 236 s if `t` is traced; later, steps
            are at most 0.9 ms long. Derivatives with respect to the times of jumps are 0.
        t: increasing save times in ms, the first being the time of `initial`; or a duration in ms,
            which gives evenly spaced times from 0: as many as `z` has samples, else 101.
        initial: state at the first time. By default `y = 0` and `a = (b0 sigma)^2`, a steady state
            of the circuit without input. Any `a` is allowed, negative ones too. Of a hierarchy, a
            tuple with the state of each area.
        method: "explicit" (Tsit5) or "implicit" (Kvaerno5, for stiff circuits: time constants far
            apart, or very large `a`), both of order 5.
        rtol, atol: relative and absolute error allowed per step.
        max_step: longest step, in ms. A function `z` is then not evaluated in advance: nothing that
            lasts as long as `max_step` is missed. `inf` assumes that the function is smooth.
        max_steps: give up after this many steps, accepted or not.
        dense: keep the interpolation, so that the trajectory can be called at any time; takes
            memory for `max_steps` steps.
        until_steady: stop at the first step that ends at rest, at the moment in it when rest
            begins; later rows hold that state. Needs a constant drive.
        steady_tolerance: the circuit rests if the Euclidean norm of `circuit.imbalance` (the
            `residual` of a `SteadyState`) is at most this. Errors of the steps may keep it from
            falling below about `10 rtol`.
        throw: raise if the trajectory is not `ok`.

    Raises
        ValueError: naming the argument, if one is not as above; not for values being traced.
        RuntimeError: if `throw` and the trajectory is not `ok`. Says why, what to do, and (unless
            traced) how far it came.
    """
    _check_options(method, rtol, atol, max_step, max_steps, steady_tolerance)
    samples = _SAMPLES if callable(z) or np.ndim(z) != 2 else np.shape(z)[0]
    with concretely():  # concrete values stay concrete inside a traced function
        times = save_times(circuit, t, samples)
        drive = as_time_course(circuit, z, times)
        start = initial_state(circuit, initial)
    shape = jax.eval_shape(drive, jax.ShapeDtypeStruct((), times.dtype))
    require_unchecked("`simulate`", (circuit, times, start, shape))
    duration = None if isinstance(times, Tracer) else float(np.ptp(times))
    if until_steady and not isinstance(drive, Constant):
        raise ValueError("`until_steady` needs a constant drive: `z` must have shape (n,).")
    if isinstance(drive, Sampled) and max_steps < len(times):
        raise ValueError(
            f"`max_steps` must be at least {len(times)}, the number of samples in `z`, "
            f"not {max_steps}."
        )
    room = None
    if isinstance(drive, Function) and max_step is None:
        room = room_for(duration)
    asked = _Asked(
        rtol=_number(rtol, circuit.dtype),
        atol=_number(atol, circuit.dtype),
        max_step=None if max_step is None else _number(max_step, circuit.dtype),
        steady_tolerance=_number(steady_tolerance, circuit.dtype),
        method=method,
        max_steps=int(max_steps),
        dense=dense,
        until_steady=until_steady,
        room=room,
    )
    trajectory = _integrate(circuit, drive, times, start, asked)
    trajectory = with_honest_end(trajectory)
    if not throw or known(trajectory.ok):
        return trajectory
    return require_ok(trajectory, reasons(trajectory, method, max_steps))


class Constant(eqx.Module):
    """A drive that does not change."""

    value: Float[Array, " n"]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " n"]:
        del t
        return self.value


class Sampled(eqx.Module):
    """A drive that is linear between samples."""

    path: dfx.LinearInterpolation

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " n"]:
        return self.path.evaluate(t)


class Function(eqx.Module):
    """A drive computed by the user's function, in the circuit's type."""

    function: Callable

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " n"]:
        return jnp.asarray(self.function(t)).astype(t.dtype)


def as_time_course(
    circuit: Areas, z: Drive, times: Float[Array, " t"]
) -> Constant | Sampled | Function:
    """`z`, in any of its three forms (see `simulate`), as a function of the time in ms.

    Raises `ValueError` if its shape, or what it returns, does not fit the circuit or the times.
    """
    if callable(z):
        drive = Function(z)
        moment = jax.ShapeDtypeStruct((), times.dtype)
        given = jax.eval_shape(lambda t: jnp.asarray(z(t)), moment)
        if jnp.issubdtype(given.dtype, jnp.complexfloating):
            raise ValueError(f"`z` must return real numbers, not of type {given.dtype}.")
        shape = given.shape
        if shape != (circuit.n,):
            raise ValueError(f"`z` must return shape ({circuit.n},) at each time, not {shape}.")
        return drive
    if np.ndim(z) != 2:
        return Constant(as_drive(circuit, z))
    samples = as_real("z", z, circuit.dtype)
    if samples.shape != (len(times), circuit.n):
        raise ValueError(
            f"`z` must have shape ({circuit.n},), or ({len(times)}, {circuit.n}) with a sample for "
            f"each save time, not {samples.shape}."
        )
    if not (isinstance(samples, Tracer) or np.all(np.isfinite(samples))):
        raise ValueError("`z` must be finite.")
    return Sampled(dfx.LinearInterpolation(times, samples))


def save_times(circuit: Areas, t: Real[ArrayLike, "*times"], samples: int) -> Float[Array, " t"]:
    """`t` as save times in the circuit's type: a duration becomes `samples` times from 0.

    Raises `ValueError` if there are fewer than two, or they do not increase.
    """
    times = as_real("t", t, circuit.dtype)
    if not isinstance(times, Tracer):
        times = np.asarray(times)  # JAX would compile a program for each shape
    if times.ndim == 0:
        with np.errstate(all="ignore"):  # values that are not finite are refused below
            evenly = jnp.linspace if isinstance(times, Tracer) else np.linspace
            times = evenly(0, times, samples, dtype=times.dtype)
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(
            "`t` must be a duration, or save times of shape (t,) with at least two of them, "
            f"not of shape {times.shape}."
        )
    if isinstance(times, Tracer):
        return times
    if not (np.all(np.isfinite(times)) and np.all(times[1:] > times[:-1])):
        raise ValueError(
            f"`t` must be finite and increasing (as {times.dtype}); a duration must be > 0."
        )
    return jax.device_put(times)


def initial_state(circuit: Areas, initial: Any) -> Any:
    """`initial` in the circuit's type; `y = 0`, `a = (b0 sigma)^2` if it is not given.

    Of a hierarchy, a state for each area.

    Raises `ValueError` if a shape is not (n,) or a value is not finite, also of gates that are not
    given; without `initial`, also if `(b0 sigma)^2` is out of range: an `a` that starts at 0 would
    stay there.
    """
    given = (None,) * len(circuit.areas) if initial is None else circuit.by_area(initial)
    if len(given) != len(circuit.areas):
        raise ValueError(
            f"`initial` must hold a `State` for each of {len(circuit.areas)} areas, not "
            f"{len(given)}."
        )
    if not isinstance(circuit, GatedHierarchy):
        for one in given:
            if isinstance(one, GatedState):
                raise ValueError(
                    "`initial` must hold `State`s: gates and trackers are of a `GatedHierarchy` "
                    "only."
                )
    names = circuit.names_of_areas("initial")
    each = tuple(map(_initial_of_area, names, circuit.areas, given))
    start = circuit.complete(circuit.of_areas(each))
    if isinstance(circuit, GatedHierarchy) and known(jnp.all(jnp.isfinite(joined(start)))) is False:
        raise ValueError(
            "`initial` must be given with its gates: where `a` is 1, as it is by default with "
            "`b0 sigma = 1`, they have no finite value at rest."
        )
    return start


def _initial_of_area(name: str, circuit: Circuit, initial: Any) -> Any:
    if initial is None:
        start = _without_input(circuit)
        if not isinstance(start.a, Tracer):
            a = np.asarray(start.a)
            if not np.all((a >= np.finfo(a.dtype).tiny) & np.isfinite(a)):
                raise ValueError(
                    f"`{name}` must be given, as `b0 sigma` squared is out of the range of "
                    f"{circuit.dtype}."
                )
        return start
    if not isinstance(initial, State | GatedState):
        raise ValueError(f"`{name}` must be a `State`, not {initial!r}.")
    parts = initial._asdict().items()
    return initial._replace(
        **{part: as_drive(circuit, value, f"{name}.{part}") for part, value in parts}
    )


@jax.jit
def _without_input(circuit: Circuit) -> State:
    return State(jnp.zeros_like(circuit.b), circuit.c)


def _number(value, dtype) -> Any:
    """The number as an array, so that another value needs no new compilation."""
    return jnp.asarray(value, dtype) if isinstance(value, Tracer) else np.asarray(value, dtype)


def known(condition: Bool[Array, ""]) -> bool | None:
    """The condition as a Python bool, or `None` if it is being traced."""
    return None if isinstance(condition, Tracer) else bool(condition)


def with_honest_end(trajectory: Trajectory) -> Trajectory:
    """The trajectory; differentiating an undetermined `end_time` raises an error.

    Call it outside of compiled functions, so that the error is raised in the caller.
    """
    determined = trajectory.rested | trajectory.ok
    end = _determined(determined, trajectory.end_time, modulators(trajectory.state))
    return eqx.tree_at(lambda path: path.end_time, trajectory, end)


@jax.custom_vjp
def _determined(determined, time, y):
    """`time`. If it is not `determined`, its derivative with respect to anything that `y` depends
    on is an error instead of 0."""
    del determined, y
    return time


def _forward(determined, time, y):
    return time, (determined, jnp.zeros_like(y))


def _backward(residuals, cotangent):
    determined, zeros = residuals
    message = (
        "`steady_time` and `end_time` have no derivative where the circuit did not come to rest "
        "or the simulation failed."
    )
    # both carry the error, as the compiler removes whatever nothing depends on
    refused = jnp.any(~determined & (cotangent != 0))
    return None, *eqx.error_if((cotangent, zeros), refused, message)


_determined.defvjp(_forward, _backward)


def require_ok(trajectory: Trajectory, reasons: dict[int, tuple[str, str]]) -> Trajectory:
    """The trajectory, or a `RuntimeError` if it is not `ok`; a traced one raises at run time.

    `reasons` says, for each possible failure, what happened and what to do.
    """
    if known(trajectory.ok) is False:
        what, remedy = reasons[int(trajectory.failure)]
        _, end, last = _course(trajectory)
        far = "" if end is None else f" It is good until t = {end:.6g} of {last:.6g} ms."
        error = SimulationFailed(f"the simulation failed: {what}.{far} {remedy}")
        # for callers in Python; the command line does not show it
        error.add_note("`throw=False` returns what there is.")
        raise error
    if known(trajectory.ok) is None:
        require_unchecked("`throw=True`", trajectory.ok)
        messages = [
            "the simulation failed: {}. {}".format(*reasons.get(failure, ("", "")))
            for failure in range(len(FAILURES))
        ]
        return eqx.branched_error_if(trajectory, ~trajectory.ok, trajectory.failure, messages)
    return trajectory


def reasons(trajectory: Trajectory, method: Method, max_steps: int) -> dict[int, tuple[str, str]]:
    """For each failure of a simulation, what happened and what to do."""
    dtype = trajectory.t.dtype
    stiff = "" if method == "implicit" else ", or, for a stiff circuit, choose `method='implicit'`"
    wider = "" if dtype == jnp.float64 else ", or compute in float64"
    return {
        STEPS: (
            f"`max_steps` = {max_steps} steps were taken",
            f"Raise `max_steps`{_needed(trajectory, max_steps)}{stiff}.",
        ),
        RESOLUTION: (
            f"steps of the shortest length that a time in {dtype} can tell are not accurate enough",
            f"Raise `rtol` and `atol`{wider}.",
        ),
        DIVERGENCE: (
            "the state diverged",
            "With this drive it may have no stable steady state: see `organics.stability`.",
        ),
        DRIVE: DRIVE_NOT_FINITE,
        MODULATOR: (
            "some `a` is not positive, as the steps were too long",
            "Lower `rtol` and `atol`.",
        ),
    }


DRIVE_NOT_FINITE = "the drive `z` is not finite", "It must be, at all times."


def _needed(trajectory: Trajectory, max_steps: int) -> str:
    """How many steps the simulation would take at its pace so far, if known."""
    begin, end, last = _course(trajectory)
    if begin is None or end is None or last is None or not end > begin:
        return ""
    steps = max_steps * (last - begin) / (end - begin)
    return f" (at this pace it takes some {steps:,.0f})" if steps < 1e12 else ""


def _course(trajectory: Trajectory) -> tuple[float, float, float] | tuple[None, None, None]:
    """When the simulation began, how far it came, and when it should have ended; None if unknown.

    Known while derivatives are taken, unknown while a function is compiled or mapped.
    """
    t, end = trajectory.t, trajectory.end_time
    times = jax.lax.stop_gradient((t[..., 0], end, t[..., -1]))
    if any(isinstance(time, Tracer) for time in times):
        return None, None, None
    begin, end, last = map(float, times)
    return begin, end, last


def _check_options(method, rtol, atol, max_step, max_steps, steady_tolerance) -> None:
    require_among("method", method, Method)
    for name, value in (("rtol", rtol), ("atol", atol), ("steady_tolerance", steady_tolerance)):
        if not isinstance(value, Tracer) and not (np.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` must be finite and > 0, not {value}.")
    if max_step is not None and not isinstance(max_step, Tracer) and not max_step > 0:
        raise ValueError(f"`max_step` must be > 0 ms, or None, not {max_step}.")
    require_whole("max_steps", max_steps)


# The state is one array: the solver pays for every array it carries.


def _velocity(t, x, args):
    circuit, drive, *_ = args
    return joined(circuit.velocity(circuit.split(x), drive(t)))


def _above_rest(t, y, args, t0, **_):
    """By how much the imbalance exceeds the tolerance for rest.

    For a start at rest, which should end at once, the time until then.
    """
    *_, at_rest = args
    soon = t0 + resolution(t0) / 4 + jnp.finfo(t0.dtype).tiny
    return jnp.where(at_rest, soon - t, _excess(t, y, args))


def _excess(t, y, args):
    circuit, drive, tolerance, *_ = args
    imbalance = joined(circuit.imbalance(circuit.split(y), drive(t)))
    return root(jnp.sum(jnp.square(imbalance))) - tolerance  # has a derivative at 0


class _Bisection(optx.Bisection):
    """Bisection to the resolution of time."""

    def terminate(self, fn, y, args, options, state, tags):
        del fn, y, args, tags
        largest = jnp.maximum(jnp.abs(options["lower"]), jnp.abs(options["upper"]))
        finest = 4 * jnp.finfo(largest.dtype).eps * largest
        return state.upper - state.lower <= finest, optx.RESULTS.successful


class _Asked(eqx.Module):
    """How to integrate; see `simulate`. `room` is that of the survey of the drive, if there is
    one."""

    rtol: Any  # arrays
    atol: Any
    max_step: Any
    steady_tolerance: Any
    method: Method = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True)
    until_steady: bool = eqx.field(static=True)
    room: int | None = eqx.field(static=True)


@advising
@eqx.filter_jit
def _integrate(circuit, drive, times, initial, asked: _Asked) -> Trajectory:
    start, args = joined(initial), (circuit, drive)
    event, at_rest = None, jnp.bool_(False)
    if asked.until_steady:
        at_rest = _excess(times[0], start, (*args, asked.steady_tolerance)) <= 0
        args = (*args, asked.steady_tolerance, at_rest)
        event = dfx.Event(_above_rest, _Bisection(rtol=0.0, atol=0.0, flip=True), direction=False)
    solution = dfx.diffeqsolve(
        dfx.ODETerm(_velocity),
        _SOLVERS[asked.method](),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=start,
        args=args,
        saveat=dfx.SaveAt(
            subs=[dfx.SubSaveAt(ts=times), dfx.SubSaveAt(t1=True)], dense=asked.dense
        ),
        stepsize_controller=_controller(circuit, drive, times, initial, asked),
        event=event,
        max_steps=asked.max_steps,
        throw=False,
    )
    return _as_trajectory(circuit, solution, times, initial, at_rest)


def _controller(circuit, drive, times, initial, asked: _Asked) -> Any:
    """Controls step lengths by the errors, the samples of the drive and its survey."""
    controller = dfx.PIDController(rtol=asked.rtol, atol=asked.atol, dtmax=asked.max_step)
    if isinstance(drive, Sampled):
        controller = dfx.ClipStepSizeController(controller, step_ts=times)
    course = None
    if asked.room is not None:
        pull = lambda t: circuit.areas[0].b * drive(t)  # noqa: E731
        course = survey(pull, times[0], times[-1], asked.room, rtol=asked.rtol, atol=asked.atol)
    given = circuit, times, initial, drive(times[0])
    differentiated = is_differentiated(given) if asked.method == "explicit" else None
    return Watchful(controller, course, differentiated)  # pyright: ignore[reportCallIssue]


def _as_trajectory(
    circuit: Areas,
    solution: dfx.Solution,
    times: Array,
    initial: Any,
    at_rest: Bool[Array, ""],
) -> Trajectory:
    """The saved states, the states at rest, and the failure; `at_rest` from the start."""
    assert solution.ts is not None and solution.ys is not None
    (saved_times, (end_time,)), (saved, (last,)) = solution.ts, solution.ys
    steady = solution.result == dfx.RESULTS.event_occurred
    end_time = jnp.where(at_rest, times[0], end_time)
    last = jnp.where(at_rest, joined(initial), last)
    saved_times = jnp.where(at_rest, jnp.inf, saved_times)
    rest = jnp.where(steady, last, jnp.nan)
    reached = jnp.isfinite(saved_times)[:, None]
    rows = jnp.where(reached, saved, rest)
    state = circuit.split(rows)
    crossed = jnp.any((modulators(state) <= 0) & (modulators(initial) > 0)[None, :], axis=1)
    last_good = times[jnp.maximum(jnp.argmax(crossed) - 1, 0)]
    good = dfx.is_okay(solution.result) & jnp.all(jnp.isfinite(rows))
    failure = jnp.where(jnp.any(crossed), MODULATOR, _failure(solution.result, good))
    return Trajectory(
        t=times,
        state=state,
        failure=failure,
        end_time=jnp.where(jnp.any(crossed), last_good, end_time),
        rested=steady,
        interpolation=solution.interpolation,
    )


def _failure(result: dfx.RESULTS, good: Bool[Array, ""]) -> Int[Array, ""]:
    """The solver's result as an index into `FAILURES`."""
    failure = jnp.where(good, NONE, DIVERGENCE)
    for said, meaning in (
        (dfx.RESULTS.max_steps_reached, STEPS),
        (dfx.RESULTS.dt_min_reached, RESOLUTION),
        (dfx.RESULTS.nonfinite_input, DRIVE),
    ):
        failure = jnp.where(result == said, meaning, failure)
    return failure
