r"""Noise in the circuit, and its stochastic differential equation integrated by a scan.

With the state `x = (y, a)`, the circuit's velocity `f` and independent Wiener processes `dB`,

    dx = f(x) dt + L(x) S dB,    S = sqrt(D(1/tau)),    L = D(level of each neuron),

so the covariance of the noise grows at the rate `Q = L D(1/tau) L^T`. A level has the unit of its
potential: an isolated leaky neuron, `f = -x/tau`, fluctuates with variance `level^2 / 2`, whatever
its time constant.

Correlated noise has Ornstein-Uhlenbeck processes `u dt` in the place of `dB`, with

    tau_f du = -u dt + dB

for each neuron. The state is then `(x, u)`.
"""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, Int, PRNGKeyArray, Real

from organics.arguments import require_among, require_whole
from organics.circuit.areas import Areas, joined, modulators
from organics.circuit.circuit import Circuit, State, root
from organics.circuit.values import as_real
from organics.machine.memory import require_memory
from organics.machine.mesh import advising, alike, concretely
from organics.simulation.discretization import (
    Scheme,
    in_words,
    largest_step,
    modes,
    unstable,
    variance_error,
)
from organics.simulation.ode import (
    DIVERGENCE,
    DRIVE,
    DRIVE_NOT_FINITE,
    MODULATOR,
    NONE,
    STABILITY,
    Constant,
    Drive,
    Function,
    Trajectory,
    as_time_course,
    initial_state,
    require_ok,
    with_honest_end,
)
from organics.simulation.stepping import APART

_BIAS = 0.1  # relative error of a variance due to the step size that gives no warning
_MOST_JUDGED = 1000  # neurons: the eigenvalues of more take many seconds

# Steps whose noise is drawn at once. On a CPU a draw per step takes several times as long as the
# step itself; from a few hundred steps on the time no longer falls, while the memory grows.
_CHUNK = 512


class Noise(eqx.Module):
    """Noise levels of the neurons, each a scalar or of shape (n,), >= 0.

    The level of neuron i at the potential `x_i` is `sqrt(additive_i^2 + (multiplicative_i x_i)^2)`:
    two independent sources, one constant and one proportional to the potential. `x` is `y` for the
    principal and `a` for the modulator neurons.

    Arguments
        additive_y, additive_a: constant part, in the unit of the potential.
        multiplicative_y, multiplicative_a: part proportional to the potential, dimensionless; none
            by default.
        tau_f: correlation time in ms, one finite number > 0; `None` is white noise.

    Raises `ValueError`, naming the argument, if a level is negative or not finite, or `tau_f` is
    not as above.
    """

    additive_y: Float[Array, "*n"]
    additive_a: Float[Array, "*n"]
    multiplicative_y: Float[Array, "*n"] | None
    multiplicative_a: Float[Array, "*n"] | None
    tau_f: Float[Array, ""] | None

    def __init__(
        self,
        additive_y: 'Real[ArrayLike, "*n_y"]' = 0.0,
        additive_a: 'Real[ArrayLike, "*n_a"]' = 0.0,
        multiplicative_y: 'Real[ArrayLike, "*n_my"] | None' = None,
        multiplicative_a: 'Real[ArrayLike, "*n_ma"] | None' = None,
        tau_f: 'Real[ArrayLike, ""] | None' = None,
    ):
        self.additive_y = _level("additive_y", additive_y)
        self.additive_a = _level("additive_a", additive_a)
        self.multiplicative_y, self.multiplicative_a = None, None
        if multiplicative_y is not None:
            self.multiplicative_y = _level("multiplicative_y", multiplicative_y)
        if multiplicative_a is not None:
            self.multiplicative_a = _level("multiplicative_a", multiplicative_a)
        self.tau_f = None
        if tau_f is not None:
            self.tau_f = as_real("tau_f", tau_f, None)
            known = not isinstance(self.tau_f, Tracer)
            if self.tau_f.ndim or (known and not 0 < self.tau_f < jnp.inf):
                raise ValueError(f"`tau_f` must be one finite number > 0, or None, not {tau_f}.")

    def levels(self, circuit: Circuit, state: State) -> State:
        """The diagonal of `L` at `state`: the noise level of each neuron, shape (n,) each.

        Raises `ValueError` if a level has neither shape () nor (n,).
        """

        def level(additive, multiplicative, x, name):
            size = _per_neuron(f"additive_{name}", additive, circuit)
            if multiplicative is None:
                return size
            share = _per_neuron(f"multiplicative_{name}", multiplicative, circuit)
            return root(jnp.square(size) + jnp.square(share * x))

        return State(
            level(self.additive_y, self.multiplicative_y, state.y, "y"),
            level(self.additive_a, self.multiplicative_a, state.a, "a"),
        )

    def amplitudes(self, circuit: Circuit, state: State) -> State:
        """The diagonal of `L S` at `state`: `level / sqrt(tau)`, `y` and `a` of shape (n,)."""
        y, a = self.levels(circuit, state)
        return State(y / jnp.sqrt(circuit.tau_y), a / jnp.sqrt(circuit.tau_a))


def amplitudes(noise: Noise | Sequence[Noise], system: Areas, state: Any) -> Float[Array, " m"]:
    """`Noise.amplitudes` of all neurons in the order of the Jacobian's rows.

    The noise of a hierarchy is one `Noise` for all areas, or one for each.
    """
    each = zip(*by_area(noise, system, state), system.by_area(state), strict=True)
    return joined(tuple(_within(whole, one.amplitudes(area, at)) for one, area, at, whole in each))


def _within(whole: Any, found: State) -> Any:
    """The amplitudes of an area, 0 where its state holds more than `y` and `a`."""
    return jax.tree.map(jnp.zeros_like, whole)._replace(**found._asdict())


def by_area(noise: Any, system: Areas, state: Any) -> tuple:
    """The noise, the circuits and their `y` and `a`, one for each area.

    Raises `ValueError` if the noise is not of the kinds that `amplitudes` takes.
    """
    areas = len(system.areas)
    if isinstance(system, Circuit) and not isinstance(noise, Noise):
        raise ValueError(f"`noise` must be an `organics.Noise`, not {noise!r}.")
    each = (noise,) * areas if isinstance(noise, Noise) else noise
    if not (
        isinstance(each, list | tuple)
        and len(each) == areas
        and all(isinstance(one, Noise) for one in each)
    ):
        raise ValueError(
            f"`noise` must be an `organics.Noise`, or {areas} of them, one for each area, not "
            f"{noise!r}."
        )
    if len({one.tau_f is None for one in each}) > 1:
        raise ValueError("`noise` must be white in all areas, or correlated in all of them.")
    return tuple(each), system.areas, tuple(State(at.y, at.a) for at in system.by_area(state))


def correlation_times(noise: Any, system: Areas, state: Any) -> Float[Array, " m"] | None:
    """`tau_f` of the noise of each neuron in the order of the Jacobian's rows; `None` if white."""
    each, _, _ = by_area(noise, system, state)
    if each[0].tau_f is None:
        return None
    states = zip(each, system.by_area(state), strict=True)
    pairs = [(one.tau_f, joined(at)) for one, at in states]
    return jnp.concatenate([jnp.full_like(x, tau.astype(x.dtype)) for tau, x in pairs])


def simulate_noisy(
    circuit: Areas,
    z: "Drive",
    noise: Noise | Sequence[Noise],
    dt: 'Real[ArrayLike, ""]',
    steps: int,
    initial: State | tuple | None = None,
    *,
    key: "PRNGKeyArray",
    scheme: Scheme = "euler-maruyama",
    save_every: int = 1,
    throw: bool = True,
) -> Trajectory:
    """Integrate a circuit or hierarchy with noise, in `steps` steps of `dt` ms.

    "euler-maruyama" converges to the Itô solution, with strong order 1 for additive and 1/2 for
    multiplicative noise. "heun" converges to the Stratonovich solution with strong order 1 for
    both; it evaluates the velocity twice per step. With additive
    noise the two solutions are the same, and the linear theory of `organics.spectra` describes it.

    With noise `a` can reach 0 or below: if a step is too large, or the noise large compared with
    `(b0 sigma)^2`. `a` is not clipped. The trajectory is then not `ok`, and `end_time` is the last
    saved time before; every step is checked, not only the saved ones. Multiplicative noise alone
    does not do this if the steps are small enough.

    The step size changes the variances of the fluctuations, and too long steps are unstable. Both
    are judged from the linearized circuit at the steady state for `z`; if `z` varies, for its
    weakest and strongest values at the save times. Unstable steps raise an error under a constant
    `z`, and give a warning under a varying one or with `throw=False`. There is also a warning if
    the variance of a mode changes by more than 10 %. Each names a step that is short enough. If
    `circuit`, `z` or `dt` is being traced, there is no warning, and the trajectory of unstable
    steps is not `ok`. Nothing is checked if no stable steady state is found; nor, with a warning,
    for more than 1,000 neurons.

    Can be jitted, mapped (over keys for repeated trials) and, in reverse mode, differentiated. The
    noise is a function of `key` and the step, whatever `save_every`. Correlated noise begins at 0.

    Arguments
        z: input drive: constant, shape (n,); or sampled at the save times, shape
            (steps / save_every + 1, n), and linear between them; or a function of the time in ms,
            traced and mapped over times by JAX. Each step uses its value at the beginning of the
            step; a step of more than 0.45 ms uses its mean over times at most 0.45 ms apart.
        noise: that of a hierarchy is the same in all areas, or a sequence with one for each.
        initial: state at time 0, with `a > 0`; by default `y = 0` and `a = (b0 sigma)^2`. Of a
            hierarchy, a tuple with the state of each area.
        save_every: number of steps between saved rows; must divide `steps`. The first saved row is
            `initial`. The noise of at least this many steps is held in memory.
        throw: raise if the trajectory is not `ok`.

    Raises
        ValueError: naming the argument, if one is not as above; traced values are not checked.
        RuntimeError: if `throw` and the trajectory is not `ok`; or if `z` is a function and `dt` is
            traced and more than 0.45 ms.
    """
    dt = _step(circuit, dt)
    shape = jax.eval_shape(joined, circuit.time_constants).shape
    return _simulate(
        circuit, z, noise, dt, steps, initial, _Drawn(key, dt, shape), scheme, save_every, throw
    )


def simulate_increments(
    circuit: Circuit,
    z: "Drive",
    noise: Noise,
    dt: 'Real[ArrayLike, ""]',
    increments: Float[Array, "steps 2 m"],
    initial: State | None = None,
    *,
    scheme: Scheme = "euler-maruyama",
    save_every: int = 1,
    throw: bool = True,
) -> Trajectory:
    """`simulate_noisy` along a given path of the Wiener processes.

    `increments[k]` holds the increments during step k, one row for `y` and one for `a`, each of
    variance `dt`. Sums of successive increments give the same path with a longer step.
    """
    if increments.shape[1:] != (2, circuit.n):
        raise ValueError(
            f"`increments` must have shape (steps, 2, {circuit.n}), not {increments.shape}."
        )
    dt = _step(circuit, dt)
    steps = len(increments)
    given = _Given(increments.astype(circuit.dtype).reshape(steps, -1))
    return _simulate(circuit, z, noise, dt, steps, initial, given, scheme, save_every, throw)


class _Drawn(eqx.Module):
    """Increments of step k as a function of the key and k alone."""

    key: PRNGKeyArray
    dt: Float[Array, ""]
    shape: tuple

    def __call__(self, step: Int[Array, ""]) -> Float[Array, "..."]:
        return jnp.sqrt(self.dt) * jr.normal(jr.fold_in(self.key, step), self.shape, self.dt.dtype)


class _Given(eqx.Module):
    increments: Float[Array, "steps m"]

    def __call__(self, step: Int[Array, ""]) -> Float[Array, " m"]:
        return self.increments[step]


def _simulate(
    circuit, z, noise, dt, steps, initial, increments, scheme, save_every, throw
) -> Trajectory:
    require_among("scheme", scheme, Scheme)
    require_whole("steps", steps)
    require_whole("save_every", save_every)
    if steps % save_every:
        raise ValueError(
            f"`steps` must be a multiple of `save_every`, not {steps} and {save_every}."
        )
    rows = steps // save_every
    neuron_bytes = 2 * sum(circuit.sizes) * dt.dtype.itemsize
    require_memory(rows * neuron_bytes, "steps", f"a trajectory of {rows:,} rows")
    require_memory(save_every * neuron_bytes, "save_every", f"the noise of {save_every:,} steps")
    with concretely():  # concrete values stay concrete inside a traced function
        times = _times(dt, save_every, rows)
        drive = as_time_course(circuit, z, times)
        start = initial_state(circuit, initial)
        a = modulators(start)
        if not (isinstance(a, Tracer) or np.all(np.asarray(a) > 0)):
            raise ValueError("`initial.a` must be > 0 in a simulation with noise.")
        for one in zip(*by_area(noise, circuit, start), strict=True):
            jax.eval_shape(Noise.levels, *one)  # refuses shapes before any work starts
        eigenvalues = _modes(circuit, drive, times)
        if (tau_f := correlation_times(noise, circuit, start)) is not None:
            rates = jnp.broadcast_to(-1 / tau_f, (len(eigenvalues), len(tau_f)))
            eigenvalues = jnp.concatenate([eigenvalues, rates.astype(eigenvalues.dtype)], axis=1)
    constant = isinstance(drive, Constant)
    if not isinstance(dt, Tracer) and not isinstance(eigenvalues, Tracer):
        _judge(np.asarray(eigenvalues), float(dt), scheme, noise, constant, throw)
    looks, dt = _looks(drive, dt)
    trajectory = _integrate(
        circuit, drive, noise, dt, times, start, increments, scheme, rows, save_every, looks
    )
    if constant:
        trajectory = _nothing_if(unstable(eigenvalues, dt, scheme)[0], trajectory)
    trajectory = with_honest_end(trajectory)
    if not throw:
        return trajectory
    shorter = "Take shorter steps `dt`, or less noise."
    return require_ok(
        trajectory,
        {
            DIVERGENCE: ("the state diverged", shorter),
            DRIVE: DRIVE_NOT_FINITE,
            MODULATOR: ("some `a` is not positive", shorter),
            STABILITY: ("steps of `dt` are unstable", "Take shorter ones."),
        },
    )


@partial(jax.jit, static_argnums=(1, 2))
def _times(dt: Float[Array, ""], save_every: int, rows: int) -> Float[Array, " rows"]:
    return dt * save_every * np.arange(rows + 1, dtype=dt.dtype)


def _modes(circuit: Areas, drive, times) -> Complex[Array, "drives m"]:
    """Eigenvalues under a constant drive, or under the weakest and the strongest value of a varying
    one; NaN, with a warning, of a circuit so large that they take longer than the simulation."""
    neurons = sum(circuit.sizes)
    if neurons > _MOST_JUDGED:
        warnings.warn(
            f"whether `dt` is short enough is judged up to n = {_MOST_JUDGED:,}, not for "
            f"{neurons:,} neurons: compare with shorter steps.",
            stacklevel=5,
        )
        kind = np.result_type(circuit.dtype, np.complex64)
        return jnp.full((1, 2 * neurons), jnp.nan, kind)
    if isinstance(drive, Constant):
        return modes(circuit, drive.value[None])
    return modes(circuit, _weakest_and_strongest(circuit.areas[0].b, drive, times))


@eqx.filter_jit
def _weakest_and_strongest(gain: Float[Array, " n"], drive, times) -> Float[Array, "2 n"]:
    values = jax.vmap(drive)(times)
    size = jnp.linalg.norm(gain[None] * values, axis=1)
    return values[jnp.stack([jnp.argmin(size), jnp.argmax(size)])]


def _judge(eigenvalues, dt: float, scheme: Scheme, noise: Any, constant: bool, throw: bool) -> None:
    """Refuse unstable steps, and warn of steps that change a variance too much."""
    error = variance_error(eigenvalues, dt, scheme)
    if error <= _BIAS:
        return
    fair = largest_step(eigenvalues, dt, scheme, _BIAS)
    would_do = f"Steps of up to {in_words(fair)} change no variance by more than {_BIAS:.0%}."
    if np.isfinite(error):
        if not _silent(noise):
            warnings.warn(
                f"steps of `dt` = {dt:g} ms change the variance of a mode of the linearized "
                f"circuit by {error:.0%}. {would_do}",
                stacklevel=4,
            )
        return
    largest = largest_step(eigenvalues, dt, scheme, np.inf)
    bound = f"{in_words(largest)}, as longer steps of the linearized circuit are unstable"
    if not constant:
        warnings.warn(
            f"`dt` should be at most {bound} under some of `z`, not {dt:g}. {would_do}",
            stacklevel=4,
        )
    elif throw:
        raise ValueError(f"`dt` must be at most {bound}, not {dt:g}. {would_do}")
    else:
        warnings.warn(f"`dt` should be at most {bound}, not {dt:g}. {would_do}", stacklevel=4)


def _silent(noise: Any) -> bool:
    """Whether all levels are known to be 0."""
    levels = [
        level
        for one in jax.tree.leaves(noise, is_leaf=lambda leaf: isinstance(leaf, Noise))
        for level in jax.tree.leaves(eqx.tree_at(lambda n: n.tau_f, one, None, is_leaf=_is_none))
    ]
    return not any(isinstance(level, Tracer) or np.any(np.asarray(level)) for level in levels)


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _looks(drive, dt: Float[Array, ""]) -> tuple[int, Float[Array, ""]]:
    """How often a step must evaluate the drive so as to miss nothing; and `dt`.

    A traced `dt` that is too long for one evaluation raises an error at run time.
    """
    if not isinstance(drive, Function):
        return 1, dt
    if not isinstance(dt, Tracer):
        return max(1, math.ceil(float(dt) / APART)), dt
    message = f"`dt` must be at most {APART} ms, or not traced, where `z` is a function."
    return 1, eqx.error_if(dt, dt > APART, message)


def _nothing_if(unstable: Bool[Array, ""], trajectory: Trajectory) -> Trajectory:
    """The trajectory, marked as failed from the start if its steps are unstable."""
    return eqx.tree_at(
        lambda path: (path.failure, path.end_time),
        trajectory,
        (
            jnp.where(unstable, STABILITY, trajectory.failure),
            jnp.where(unstable, trajectory.t[0], trajectory.end_time),
        ),
    )


# The state is one array: a scan pays for every array it carries.


def _step_function(circuit: Areas, noise: Any, start: Any, dt, scheme: Scheme):
    """One step from `x` at time `t`, where the drive is `z`, to `t + dt`, where it is `z_next`.

    With correlated noise `x` holds `u` besides, and `dB` moves that alone.
    """
    tau_f = correlation_times(noise, circuit, start)

    def drift(x, z):
        if tau_f is None:
            return joined(circuit.velocity(circuit.split(x), z))
        x, u = jnp.split(x, 2)
        state = circuit.split(x)
        pushed = joined(circuit.velocity(state, z)) + amplitudes(noise, circuit, state) * u
        return jnp.concatenate([pushed, -u / tau_f])

    def diffusion(x):
        if tau_f is None:
            return amplitudes(noise, circuit, circuit.split(x))
        return jnp.concatenate([jnp.zeros_like(tau_f), 1 / tau_f])

    def euler_maruyama(x, z, z_next, dB):
        del z_next
        return x + dt * drift(x, z) + diffusion(x) * dB

    def heun(x, z, z_next, dB):
        f, g = drift(x, z), diffusion(x)
        guess = x + dt * f + g * dB
        return x + dt * (f + drift(guess, z_next)) / 2 + (g + diffusion(guess)) * dB / 2

    return heun if scheme == "heun" else euler_maruyama


@advising
@eqx.filter_jit
def _integrate(
    circuit, drive, noise, dt, times, start, increments, scheme, rows, save_every, looks
) -> Trajectory:
    step = _step_function(circuit, noise, start, dt, scheme)
    first_x = joined(start)
    m, correlated = len(first_x), correlation_times(noise, circuit, start) is not None
    chunks = -(-rows // max(1, _CHUNK // save_every))
    rows_per_chunk = -(-rows // chunks)
    steps_per_chunk = rows_per_chunk * save_every

    def advance(x, inputs):
        x = step(x, *inputs)
        return x, x

    def mean(z):  # over the evaluations in each step
        return z if looks == 1 else jnp.mean(z.reshape(steps_per_chunk, looks, -1), axis=1)

    def chunk(x, index):
        first = index * steps_per_chunk
        look = first * looks + jnp.arange(steps_per_chunk * looks + 1)
        # the last chunk may be longer than what is left, where the drive need not be known
        at = jnp.minimum(times[0] + dt / looks * look.astype(dt.dtype), times[-1])
        z = jax.vmap(drive)(at)
        dB = jax.vmap(increments)(first + jnp.arange(steps_per_chunk))
        if correlated:
            dB = jnp.concatenate([jnp.zeros_like(dB), dB], axis=1)
        x, path = jax.lax.scan(advance, x, (mean(z[:-1]), mean(z[1:]), dB))
        path = path.reshape(rows_per_chunk, save_every, *x.shape)
        driven = jnp.all(jnp.isfinite(z[1:] + z[:-1]).reshape(rows_per_chunk, -1), axis=1)
        lowest = jnp.min(modulators(circuit.split(path[..., :m])), axis=(1, 2))
        return x, (path[:, -1, :m], lowest, driven)

    # what the loop carries must vary over a mesh of devices as its inputs do
    given = circuit, noise, dt, drive(times[0]), increments(jnp.int32(0))
    begin = jnp.concatenate([first_x, jnp.zeros_like(first_x)]) if correlated else first_x
    begin, _ = alike((begin, given))
    _, outcome = jax.lax.scan(chunk, begin, jnp.arange(chunks))
    # the last chunk may have gone past the end
    saved, lowest, driven = (x.reshape(-1, *x.shape[2:])[:rows] for x in outcome)
    good = (lowest > 0) & jnp.all(jnp.isfinite(saved.reshape(rows, -1)), axis=1)
    saved = jnp.concatenate([first_x[None], saved])
    saved = jnp.where(jnp.isfinite(saved), saved, jnp.nan)
    ok, bad = jnp.all(good), jnp.argmin(good)
    failure = jnp.where(lowest[bad] <= 0, MODULATOR, DIVERGENCE)
    failure = jnp.where(driven[bad], failure, DRIVE)
    return Trajectory(
        t=times,
        state=circuit.split(saved),
        failure=jnp.where(ok, NONE, failure),
        end_time=jnp.where(ok, times[-1], times[bad]),
        rested=jnp.zeros_like(ok),
    )


def _step(circuit: Areas, dt) -> Float[Array, ""]:
    with concretely():  # a concrete `dt` stays concrete inside a traced function
        dt = as_real("dt", dt, circuit.dtype)
        if dt.ndim:
            raise ValueError(f"`dt` must be one number, not of shape {dt.shape}.")
    if not isinstance(dt, Tracer) and not 0 < float(dt) < np.inf:
        raise ValueError(f"`dt` must be finite and > 0 ms, not {float(dt)}.")
    return dt


def _level(name: str, value) -> Float[Array, "*n"]:
    value = as_real(name, value, None)
    if not (isinstance(value, Tracer) or np.all(np.isfinite(value) & (np.asarray(value) >= 0))):
        raise ValueError(f"`{name}` must be finite and >= 0, not {value}.")
    return value


def _per_neuron(name: str, value: Array, circuit: Circuit) -> Float[Array, " n"]:
    if value.shape not in ((), (circuit.n,)):
        raise ValueError(
            f"`{name}` must be a scalar or have shape ({circuit.n},), not {value.shape}."
        )
    return jnp.broadcast_to(value.astype(circuit.dtype), (circuit.n,))
