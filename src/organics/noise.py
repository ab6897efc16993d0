r"""Noise in the circuit, and its stochastic differential equation integrated by a scan.

With the state `x = (y, a)`, the circuit's velocity `f` and independent Wiener processes `dB`,

    dx = f(x) dt + L(x) S dB,    S = sqrt(D(1/tau)),    L = D(level of each neuron),

so that the covariance of the noise grows at the rate `Q = L D(1/tau) L^T`. A level has the unit of
its potential: a leaky neuron by itself, `f = -x/tau`, fluctuates with variance `level^2 / 2`,
whatever its time constant.
"""

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, Real

from organics.circuit import Circuit, State, root
from organics.memory import require_memory
from organics.simulation import (
    MODULATOR,
    NONE,
    Drive,
    Trajectory,
    as_time_course,
    initial_state,
    known,
    require_ok,
    with_honest_times,
)

Scheme = Literal["euler-maruyama", "heun"]

# Steps whose noise is drawn at once. On a CPU a draw per step takes several times as long as the
# step itself; from a few hundred steps on the time no longer falls, while the memory grows.
_CHUNK = 512


class Noise(eqx.Module):
    """Noise levels of the neurons, each a scalar or of shape (n,), >= 0.

    The level of neuron i at the potential `x_i` is `sqrt(additive_i^2 + (multiplicative_i x_i)^2)`:
    two independent sources, one constant and one in proportion to the potential. `x` is `y` for the
    principal and `a` for the modulator neurons.

    Arguments
        additive_y, additive_a: constant part, in the unit of the potential.
        multiplicative_y, multiplicative_a: part proportional to the potential, dimensionless; none
            by default.

    Raises `ValueError`, naming the argument, if a level is negative or not finite.
    """

    additive_y: Float[Array, "*n"]
    additive_a: Float[Array, "*n"]
    multiplicative_y: Float[Array, "*n"] | None
    multiplicative_a: Float[Array, "*n"] | None

    def __init__(
        self,
        additive_y: Real[ArrayLike, "*n_y"] = 0.0,
        additive_a: Real[ArrayLike, "*n_a"] = 0.0,
        multiplicative_y: Real[ArrayLike, "*n_my"] | None = None,
        multiplicative_a: Real[ArrayLike, "*n_ma"] | None = None,
    ):
        self.additive_y = _level("additive_y", additive_y)
        self.additive_a = _level("additive_a", additive_a)
        self.multiplicative_y, self.multiplicative_a = None, None
        if multiplicative_y is not None:
            self.multiplicative_y = _level("multiplicative_y", multiplicative_y)
        if multiplicative_a is not None:
            self.multiplicative_a = _level("multiplicative_a", multiplicative_a)

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


def simulate_noisy(
    circuit: Circuit,
    z: Drive,
    noise: Noise,
    dt: Real[ArrayLike, ""],
    steps: int,
    initial: State | None = None,
    *,
    key: PRNGKeyArray,
    scheme: Scheme = "euler-maruyama",
    save_every: int = 1,
    throw: bool = True,
) -> Trajectory:
    """Integrate the circuit with noise, in `steps` steps of `dt` ms.

    "euler-maruyama" converges to the solution in the sense of Itô: strongly of order 1 with
    additive noise, of order 1/2 with multiplicative noise. "heun" converges to that in the sense of
    Stratonovich, strongly of order 1 in either case; it evaluates the velocity twice. With additive
    noise the two solutions are the same, and the linear theory of `organics.spectra` describes it.

    Unlike the circuit without noise, this one can reach `a <= 0`: by too large a step, or by noise
    that is large against `(b0 sigma)^2`. `a` is not clipped: the trajectory is then not `ok` from
    its last saved row before, `end_time`, on (every step is looked at, not only the saved ones).
    Multiplicative noise alone cannot do that to `a`, if the steps are small enough.

    Can be jitted, mapped (over keys for repeated trials) and differentiated. The noise is a
    function of `key` and the step, whatever `save_every`.

    Arguments
        z: input drive: constant, shape (n,); or sampled at the save times, shape
            (steps / save_every + 1, n), and linear between them; or a function of the time in ms.
        initial: state at time 0, with `a > 0`; by default `y = 0` and `a = (b0 sigma)^2`.
        save_every: steps from one saved row to the next; must divide `steps`. The first saved row
            is `initial`. The noise of at least this many steps is held in memory.
        throw: raise if the trajectory is not `ok`.

    Raises
        ValueError: naming the argument, if one is not as above; not for values being traced.
        RuntimeError: if `throw` and the trajectory is not `ok`.
    """
    dt = _step(circuit, dt)
    return _simulate(
        circuit, z, noise, dt, steps, initial, _Drawn(key, dt, circuit.n), scheme, save_every, throw
    )


def simulate_increments(
    circuit: Circuit,
    z: Drive,
    noise: Noise,
    dt: Real[ArrayLike, ""],
    increments: Float[Array, "steps 2 m"],
    initial: State | None = None,
    *,
    scheme: Scheme = "euler-maruyama",
    save_every: int = 1,
    throw: bool = True,
) -> Trajectory:
    """`simulate_noisy` along a given path of the Wiener processes.

    `increments[k]` holds the increments during step k, one row for `y` and one for `a`, each of
    variance `dt`. Sums of successive increments drive the same path with a longer step.
    """
    if increments.shape[1:] != (2, circuit.n):
        raise ValueError(
            f"`increments` must have shape (steps, 2, {circuit.n}), not {increments.shape}."
        )
    dt = _step(circuit, dt)
    given = _Given(increments.astype(circuit.dtype))
    steps = len(increments)
    return _simulate(circuit, z, noise, dt, steps, initial, given, scheme, save_every, throw)


class _Drawn(eqx.Module):
    """Increments of step k as a function of the key and k alone."""

    key: PRNGKeyArray
    dt: Float[Array, ""]
    n: int

    def __call__(self, step: Int[Array, ""]) -> Float[Array, "2 n"]:
        return jnp.sqrt(self.dt) * jr.normal(jr.fold_in(self.key, step), (2, self.n), self.dt.dtype)


class _Given(eqx.Module):
    increments: Float[Array, "steps 2 n"]

    def __call__(self, step: Int[Array, ""]) -> Float[Array, "2 n"]:
        return self.increments[step]


def _simulate(
    circuit, z, noise, dt, steps, initial, increments, scheme, save_every, throw
) -> Trajectory:
    if scheme not in get_args(Scheme):
        raise ValueError(f"`scheme` must be one of {list(get_args(Scheme))}, not {scheme!r}.")
    if save_every < 1 or steps < 1 or steps % save_every:
        raise ValueError(
            "`steps` must be a positive multiple of `save_every`, and `save_every` at least 1, not "
            f"{steps} and {save_every}."
        )
    rows = steps // save_every
    neuron_bytes = 2 * circuit.n * dt.dtype.itemsize
    require_memory(rows * neuron_bytes, "steps", f"a trajectory of {rows:,} rows")
    require_memory(save_every * neuron_bytes, "save_every", f"the noise of {save_every:,} steps")
    times = dt * save_every * jnp.arange(rows + 1, dtype=dt.dtype)
    drive = as_time_course(circuit, z, times)
    start = initial_state(circuit, initial)
    if known(jnp.all(start.a > 0)) is False:
        raise ValueError("`initial.a` must be > 0 in a simulation with noise.")
    noise.levels(circuit, start)  # refuses shapes before any work starts
    trajectory = _integrate(
        circuit, drive, noise, dt, times, start, increments, scheme, rows, save_every
    )
    trajectory = with_honest_times(trajectory)
    if not throw:
        return trajectory
    return require_ok(
        trajectory,
        {MODULATOR: ("some `a` is not positive", "Take shorter steps `dt`, or less noise.")},
    )


# The state is stacked, (2, n) with rows y and a: a scan pays for every array it carries.


def _step_function(circuit: Circuit, noise: Noise, dt, scheme: Scheme):
    """One step from `x` at time `t`, where the drive is `z`, to `t + dt`, where it is `z_next`."""

    def drift(x, z):
        return jnp.stack(circuit.velocity(State(x[0], x[1]), z))

    def diffusion(x):
        return jnp.stack(noise.amplitudes(circuit, State(x[0], x[1])))

    def euler_maruyama(x, z, z_next, dB):
        del z_next
        return x + dt * drift(x, z) + diffusion(x) * dB

    def heun(x, z, z_next, dB):
        f, g = drift(x, z), diffusion(x)
        guess = x + dt * f + g * dB
        return x + dt * (f + drift(guess, z_next)) / 2 + (g + diffusion(guess)) * dB / 2

    return heun if scheme == "heun" else euler_maruyama


@eqx.filter_jit
def _integrate(
    circuit, drive, noise, dt, times, start, increments, scheme, rows, save_every
) -> Trajectory:
    step = _step_function(circuit, noise, dt, scheme)
    chunks = -(-rows // max(1, _CHUNK // save_every))
    rows_per_chunk = -(-rows // chunks)
    steps_per_chunk = rows_per_chunk * save_every

    def advance(x, inputs):
        x = step(x, *inputs)
        return x, x

    def chunk(x, index):
        first = index * steps_per_chunk
        k = first + jnp.arange(steps_per_chunk + 1)
        z = jax.vmap(drive)(times[0] + dt * k.astype(dt.dtype))
        x, path = jax.lax.scan(advance, x, (z[:-1], z[1:], jax.vmap(increments)(k[:-1])))
        path = path.reshape(rows_per_chunk, save_every, *x.shape)
        return x, (path[:, -1], jnp.min(path[:, :, 1], axis=(1, 2)))

    _, (saved, lowest) = jax.lax.scan(chunk, jnp.stack(start), jnp.arange(chunks))
    # the last chunk may have gone past the end
    saved = saved.reshape(-1, *saved.shape[2:])[:rows]
    good = (lowest.reshape(-1)[:rows] > 0) & jnp.all(jnp.isfinite(saved), axis=(1, 2))
    saved = jnp.concatenate([jnp.stack(start)[None], saved])
    saved = jnp.where(jnp.isfinite(saved), saved, jnp.nan)
    ok = jnp.all(good)
    return Trajectory(
        t=times,
        state=State(saved[:, 0], saved[:, 1]),
        failure=jnp.where(ok, NONE, MODULATOR),
        end_time=jnp.where(ok, times[-1], times[jnp.argmin(good)]),
        steady_time=jnp.full_like(dt, jnp.inf),
    )


def _step(circuit: Circuit, dt) -> Float[Array, ""]:
    dt = jnp.asarray(dt, circuit.dtype)
    if known(jnp.isfinite(dt) & (dt > 0)) is False:
        raise ValueError(f"`dt` must be finite and > 0 ms, not {float(dt)}.")
    return dt


def _level(name: str, value) -> Float[Array, "*n"]:
    value = value if isinstance(value, Array) else np.asarray(value)
    dtype = value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else float
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    value = jnp.asarray(value.astype(dtype), dtype)
    if not (isinstance(value, Tracer) or np.all(np.isfinite(value) & (np.asarray(value) >= 0))):
        raise ValueError(f"`{name}` must be finite and >= 0, not {value}.")
    return value


def _per_neuron(name: str, value: Array, circuit: Circuit) -> Float[Array, " n"]:
    if value.shape not in ((), (circuit.n,)):
        raise ValueError(
            f"`{name}` must be a scalar or have shape ({circuit.n},), not {value.shape}."
        )
    return jnp.broadcast_to(value.astype(circuit.dtype), (circuit.n,))
