r"""Spectra of the circuit's fluctuations about a steady state: linear theory, and estimates.

With `J` the Jacobian at the steady state and `Q = L D(1/tau) L^T` the covariance rate of the noise
(`organics.simulation.noise`), the fluctuations have the cross-spectral density

    S(f) = (i w - J)^-1 Q (-i w - J)^-T,    w = 2 pi f,

and the stationary covariance `P`, the solution of `J P + P J^T + Q = 0`.

Conventions, throughout: neurons are ordered `(y_1..y_n, a_1..a_n)`; `f` is in kHz since time is in
ms; the density is two-sided in `f`, so its integral over all `f` is `P` (a one-sided density is
twice as large); `S_ij = E[X_i X_j^*]` with `X(f)` the integral of `x(t) exp(-i w t)`.
Multiplicative noise has the level that it has at the steady state. Correlated noise divides the
source of each neuron by `1 + i w tau_f`; `P` is then the first block of that of `(x, u)`.

In the rectified model, a neuron at `y_i = 0` (one without drive, for example) has two slopes, and
no noise is so small that linear theory holds: the results are NaN for it, and for the neurons that
it reaches.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, Real

from organics.arguments import require_not_negative, require_whole
from organics.circuit.areas import joined, named
from organics.circuit.values import as_real
from organics.errors import NoSteadyState
from organics.linear.jacobian import jacobian
from organics.linear_stability.kinks import without_slope
from organics.linear_stability.spectrum import linearize
from organics.machine.memory import require_memory
from organics.rest.point import OperatingPoint, require_any_point
from organics.simulation.noise import Noise, amplitudes, by_area, correlation_times
from organics.simulation.ode import Trajectory, known

Levels = Noise | Sequence[Noise]
"""Noise of a circuit, or of a hierarchy: the same in all areas, or one for each."""

_BATCH = 64  # frequencies whose linear systems are held in memory at once, at most ...
_NUMBERS = 2**26  # ... if those have no more numbers than these
_MATRICES = 3  # of all neurons, at least, for each of them
_DOUBLINGS = 60  # more than any spectrum in floating point needs


def power_spectrum(
    point: OperatingPoint,
    frequencies: 'Real[ArrayLike, " f"]',
    noise: Levels,
) -> Float[Array, "f m"]:
    """Power spectral density of each neuron at the given frequencies (kHz), shape (f, 2n).

    In squared units of the potential per kHz, two-sided; neurons in the order `(y, a)`, in a
    hierarchy area after area, where `noise` may be a sequence with one for each. Can be
    jitted, mapped (`jax.vmap(power_spectrum, (0, None, None))` for a stack of points) and
    differentiated.

    Raises `ValueError` if an argument has the wrong shape or is not finite, or for more neurons
    than there is memory for, and `RuntimeError` if the point is not a stable steady state. For
    traced values the result is NaN instead. It is NaN, too, for neurons of the rectified model at
    `y = 0`, where there is no linear theory, and for those that they reach.
    """
    return _spectra(point, frequencies, noise, _power)


def cross_spectrum(
    point: OperatingPoint,
    frequencies: 'Real[ArrayLike, " f"]',
    noise: Levels,
) -> Complex[Array, "f m m"]:
    """Cross-spectral density `S_ij` of all pairs of neurons; arguments as in `power_spectrum`.

    `scipy.signal.csd(x_i, x_j)` conjugates its first argument and so estimates `S_ji`.
    """
    return _spectra(point, frequencies, noise, _cross)


def coherence(
    point: OperatingPoint,
    frequencies: 'Real[ArrayLike, " f"]',
    noise: Levels,
) -> Float[Array, "f m m"]:
    """Coherence `|S_ij|^2 / (S_ii S_jj)`, from 0 to 1; arguments as in `power_spectrum`.

    A neuron that no noise reaches has coherence 0 with every neuron, itself included.
    """
    return _spectra(point, frequencies, noise, _cross_coherence)


def stationary_covariance(point: OperatingPoint, noise: Levels) -> Float[Array, "m m"]:
    """Covariance of the fluctuations of all neurons; arguments as in `power_spectrum`.

    The solution `P` of the Lyapunov equation `J P + P J^T + Q = 0`.
    """
    return _covariance(_linearize(point, noise))


class SpectralEstimate(NamedTuple):
    """Spectra estimated from trajectories, in the conventions of this module.

    Attributes
        frequencies: in kHz, >= 0, shape (f,).
        cross: cross-spectral density, shape (f, 2n, 2n).
    """

    frequencies: Float[np.ndarray, " f"]
    cross: Complex[np.ndarray, "f m m"]

    @property
    def power(self) -> Float[np.ndarray, "f m"]:
        """Power spectral density of each neuron, two-sided."""
        return np.einsum("fii->fi", self.cross).real

    @property
    def coherence(self) -> Float[np.ndarray, "f m m"]:
        """Coherence of all pairs of neurons, from 0 to 1."""
        return np.asarray(_coherences(self.cross))


def welch(
    trajectory: Trajectory,
    *,
    nperseg: int | None = None,
    discard: float = 0.0,
    window: str = "hann",
) -> SpectralEstimate:
    """Welch's estimate of the spectra that the other functions of this module compute.

    Averages over half-overlapping segments, after subtracting the mean of each, and over trials.

    Arguments
        trajectory: sampled at equal intervals; a batch of them counts as trials.
        nperseg: samples in a segment; by default a fifteenth of the samples kept.
        discard: how much of the beginning to leave out, in ms.
        window: name of a window known to `scipy.signal.get_window`.

    Raises `ValueError`, naming the argument, if a trajectory is not `ok` or not sampled at equal
    intervals, or if no segment fits.
    """
    if not np.all(trajectory.ok):
        raise ValueError("`trajectory` must be `ok` in every trial.")
    parts = [values for _, values in named(trajectory.state)]
    x = np.concatenate(parts, axis=-1, dtype=np.float64)
    require_not_negative(discard=discard)
    every = np.asarray(trajectory.t, np.float64).reshape(-1, x.shape[-2])
    if every.shape[1] < 2:
        raise ValueError(f"`trajectory` must have two samples or more, not {every.shape[1]}.")
    t = every[0]
    dt = (t[-1] - t[0]) / (len(t) - 1)
    # save times in float32 are rounded
    if np.max(np.abs(np.diff(every) - dt)) > 1e-3 * dt + 4 * np.spacing(np.float32(every.max())):
        raise ValueError("`trajectory` must be sampled at equal intervals, the same in all trials.")
    x = x.reshape(-1, *x.shape[-2:]).swapaxes(1, 2)[:, :, int(np.searchsorted(t, t[0] + discard)) :]
    length = x.shape[-1]
    if length < 2:
        raise ValueError(f"`discard` must leave two samples or more, not {length}.")
    size = length // 15 if nperseg is None else nperseg
    require_whole("nperseg", size, 0)
    if not 2 <= size <= length:
        raise ValueError(
            f"`nperseg` must be from 2 to {length}, the number of samples kept, not {size}."
        )
    return SpectralEstimate(*mean_periodogram(x, float(dt), size, size - size // 2, window)[:2])


def mean_periodogram(
    x: Float[np.ndarray, "trials m t"], dt: float, size: int, apart: int, window: str = "hann"
) -> tuple[Float[np.ndarray, " f"], Complex[np.ndarray, "f m m"], int]:
    """Frequencies in kHz, cross-periodograms averaged over trials and segments, and the number of
    these.

    Arguments
        x: samples at intervals of `dt` ms.
        size: samples in a segment, whose mean is subtracted.
        apart: samples from the beginning of a segment to that of the next.
        window: name of a window known to `scipy.signal.get_window`.
    """
    taper = np.asarray(scipy.signal.get_window(window, size), np.float64)
    starts = range(0, x.shape[-1] - size + 1, apart)
    cross = np.zeros((size // 2 + 1, x.shape[1], x.shape[1]), complex)
    for start in starts:
        segment = x[:, :, start : start + size]
        about = segment - segment.mean(axis=-1, keepdims=True)
        # the mean of equal numbers may be rounded
        about = np.where(np.ptp(segment, axis=-1, keepdims=True) > 0, about, 0)
        X = np.fft.rfft(about * taper)
        cross += np.einsum("tif,tjf->fij", X, X.conj(), optimize=True)
    count = len(x) * len(starts)
    return np.fft.rfftfreq(size, dt), dt / np.sum(taper**2) / count * cross, count


def lyapunov(J: Float[Array, "m m"], Q: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The solution `P` of `J P + P J^T + Q = 0` for a stable `J`; NaN or infinite for an unstable
    one.

    By doubling: with the Cayley transform `A = (p - J)^-1 (p + J)` of any `p > 0`, `P` is the sum
    of `A^k C (A^k)^T`, and j steps give its first 2^j terms. For a covariance `Q` all terms are
    positive semidefinite, so nothing cancels. Can be mapped and differentiated.

    Source: R. A. Smith, SIAM J. Appl. Math. 16, 198 (1968).
    """
    return jax.lax.custom_linear_solve(
        lambda P: -(J @ P + P @ J.T),
        Q,
        solve=lambda _, Q: _doubling(J, Q),
        transpose_solve=lambda _, Q: _doubling(J.T, Q),
    )


def _doubling(J, Q):
    identity = jnp.eye(len(J), dtype=J.dtype)
    # between the slowest and the fastest rate, so that both modes converge
    p = jnp.sqrt(jnp.linalg.norm(J) / jnp.linalg.norm(jnp.linalg.inv(J)))
    resolvent = jnp.linalg.inv(p * identity - J)
    A = resolvent @ (p * identity + J)
    P = 2 * p * (resolvent @ Q @ resolvent.T)

    def unfinished(carry):
        _, change, A, doublings = carry
        del A
        return (change > 0) & (doublings < _DOUBLINGS)

    def double(carry):
        P, _, A, doublings = carry
        new = P + A @ P @ A.T
        return new, jnp.max(jnp.abs(new - P)), A @ A, doublings + 1

    start = (P, jnp.max(jnp.abs(P)), A, jnp.int32(0))
    return jax.lax.while_loop(unfinished, double, start)[0]


class _Linearized(NamedTuple):
    """Jacobian, noise amplitudes (diagonal of `L S`), correlation times of the noise, if it is not
    white, whether linear theory applies there, and the neurons to which it does not."""

    J: Float[Array, "m m"]
    amplitude: Float[Array, " m"]
    tau_f: Float[Array, " m"] | None
    abscissa: Float[Array, ""]
    valid: Bool[Array, ""]
    lost: Bool[Array, " m"]


def _linearize(point: OperatingPoint, noise: Levels) -> _Linearized:
    by_area(noise, require_any_point(point).system, point.state)  # refuses before any work
    if known(require_any_point(point).converged) is False:
        raise NoSteadyState(
            "no steady state was found for `z`; the best state has the residual "
            f"{float(point.residual):.3g}. There is no linear theory without one."
        )
    linear = _linearized(point, noise)
    if known(linear.valid) is False:
        raise NoSteadyState(
            "the steady state is not stable: its spectral abscissa is "
            f"{float(linear.abscissa):.3g} per ms. Fluctuations about it are not stationary."
        )
    return linear


@jax.jit  # like those below: one program for each size, also when called eagerly
def _linearized(point: OperatingPoint, noise: Levels) -> _Linearized:
    circuit, state = point.system, point.state
    fixed = jax.lax.stop_gradient((circuit, point.z, state, point.converged))
    eigenvalues, stable = linearize(*fixed)
    amplitude = amplitudes(noise, circuit, state)
    tau_f = correlation_times(noise, circuit, state)
    lost = without_slope(circuit, fixed[1], circuit.by_area(fixed[2]))
    J = jacobian(circuit, state)
    return _Linearized(J, amplitude, tau_f, eigenvalues[0].real, stable, lost)


def _spectra(point: OperatingPoint, frequencies, noise: Levels, what: Callable) -> Array:
    """Check the arguments, then compute `what` at each frequency as `_at` does."""
    frequencies = as_real("frequencies", frequencies, require_any_point(point).z.dtype)
    if frequencies.ndim != 1:
        raise ValueError(f"`frequencies` must have shape (f,), not {frequencies.shape}.")
    if not isinstance(frequencies, Tracer) and not np.all(np.isfinite(frequencies)):
        raise ValueError("`frequencies` must be finite.")
    m = len(joined(point.system.time_constants))
    require_memory(_MATRICES * 16 * m**2, "point", f"the spectrum of {m:,} neurons")
    return _at(_linearize(point, noise), frequencies, what)


@partial(jax.jit, static_argnums=2)
def _at(linear: _Linearized, frequencies: Float[Array, " f"], what: Callable) -> Array:
    """`what(X)` at each frequency, where `S = X X^*` is the cross-spectral density."""
    identity = jnp.eye(len(linear.J), dtype=linear.J.dtype)

    def at_one(f):
        w = 2 * np.pi * f
        A = jax.lax.complex(-linear.J, w * identity)
        source = linear.amplitude.astype(A.dtype)
        if linear.tau_f is not None:
            source = source / jax.lax.complex(jnp.ones_like(linear.tau_f), w * linear.tau_f)
        return what(jnp.linalg.solve(A, jnp.diag(source)))

    at_once = min(_BATCH, max(1, _NUMBERS // len(linear.J) ** 2))
    values = jax.lax.map(at_one, frequencies, batch_size=at_once)
    lost = linear.lost if values.ndim == 2 else _pairs(linear.lost)
    return jnp.where(linear.valid & ~lost, values, jnp.nan)


@jax.jit
def _covariance(linear: _Linearized) -> Float[Array, "m m"]:
    J, Q, m = linear.J, jnp.square(linear.amplitude), len(linear.J)
    if linear.tau_f is not None:
        rate, nothing = 1 / linear.tau_f, jnp.zeros_like(J)
        J = jnp.block([[J, jnp.diag(linear.amplitude)], [nothing, jnp.diag(-rate)]])
        Q = jnp.concatenate([jnp.zeros_like(rate), jnp.square(rate)])
    P = lyapunov(J, jnp.diag(Q))[:m, :m]
    return jnp.where(linear.valid & ~_pairs(linear.lost), (P + P.T) / 2, jnp.nan)


def _pairs(lost: Bool[Array, " m"]) -> Bool[Array, "m m"]:
    return lost[:, None] | lost[None, :]


def _power(X: Complex[Array, "m m"]) -> Float[Array, " m"]:
    return jnp.sum(_squared(X), axis=1)


def _cross(X: Complex[Array, "m m"]) -> Complex[Array, "m m"]:
    return X @ X.conj().T


def _cross_coherence(X: Complex[Array, "m m"]) -> Float[Array, "m m"]:
    return _coherence(_cross(X))


def _squared(X: Complex[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.square(X.real) + jnp.square(X.imag)


def _coherence(S: Complex[Array, "m m"]) -> Float[Array, "m m"]:
    size = jnp.sqrt(jnp.diagonal(S).real)
    some = (size[:, None] > 0) & (size[None, :] > 0)
    size = jnp.where(size > 0, size, 1)
    # one by one, as the product of two powers may underflow
    parts = (part / size[:, None] / size[None, :] for part in (S.real, S.imag))
    return jnp.where(some, sum(map(jnp.square, parts)), 0)


_coherences = jax.jit(jax.vmap(_coherence))
