"""The eigenvalues of a circuit at rest, and its stability."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float

from organics.circuit.areas import Areas
from organics.circuit.circuit import Circuit, State
from organics.circuit.gated import GatedHierarchy
from organics.circuit.hierarchy import Hierarchy
from organics.linear.jacobian import (
    descending,
    jacobian,
    own_gain_size,
    own_leak,
    rest_jacobian,
    spectrum,
)
from organics.linear_stability.kinks import decays_at_zero, of_open_sign, slopes_at_zero
from organics.linear_stability.oscillator import leak_and_rate
from organics.printing import Lines, in_html, in_words, numbers, verdict
from organics.rest.point import OperatingPoint, require_any_point

_MOST_NEURONS = 1024  # of which all eigenvalues are computed unless asked for
_TRUSTED = 1e-4  # residual, relative to the time constants, up to which an eigenvalue is believed


class Stability(NamedTuple):
    """Linear stability of a circuit at rest.

    Attributes
        point: the circuit or hierarchy, its drive and its steady state.
        eigenvalues: of the Jacobian, shape (2n,) or, for a hierarchy, (m,), in 1/ms, by falling
            real part; among equal ones the larger imaginary part comes first.
        spectral_abscissa: largest real part, in 1/ms.
        stable: whether the steady state converged and is linearly stable. For identity recurrence
            it always is, by the theorem. Otherwise the spectral abscissa must be negative (in
            float32 for other roundings of the Jacobian, too) and, in the rectified model, activity
            at `y_i = 0` must decay (see `stability`).
        frequencies: `|Im|/2 pi` of each eigenvalue, in kHz; 0 for a mode that does not oscillate.
        damping_ratios: `-Re/|.|` of each eigenvalue: 1 for a mode that decays without oscillating,
            negative for one that grows.
        leading_frequency: frequency of the least damped oscillating mode, in Hz (not kHz); 0 if no
            mode oscillates, and NaN if none of those found with `matrix_free` does.
        residual: `None` if all eigenvalues were computed. Else, with `matrix_free`, there are only
            a few rightmost ones, k in place of 2n, and this is the first one's `|J v - l v|`, in
            1/ms, for the unit vector `v` found with it: `l` is an eigenvalue of a matrix that is so
            close to `J`. For `W_r = I` the abscissa is at most `oscillator_bound`, too.
    """

    point: OperatingPoint
    eigenvalues: Complex[Array, " two_n"]
    spectral_abscissa: Float[Array, ""]
    stable: Bool[Array, ""]
    frequencies: Float[Array, " two_n"]
    damping_ratios: Float[Array, " two_n"]
    leading_frequency: Float[Array, ""]
    residual: Float[Array, ""] | None = None

    @property
    def matrix_free(self) -> bool:
        """Whether only the rightmost eigenvalues were computed, by products with the weights."""
        return self.residual is not None

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        rows = (
            ("largest real part", numbers(self.spectral_abscissa, "1/ms")),
            ("leading frequency", self._frequency_in_words()),
            ("eigenvalues", numbers(self.eigenvalues, "1/ms")),
        )
        if self.matrix_free:
            rows += (("matrix-free, residual", numbers(self.residual, "1/ms")),)
        return Lines(verdict(self.stable, "stable", "NOT stable"), rows + self.point.lines().rows)

    def _frequency_in_words(self) -> str:
        frequency = np.asarray(self.leading_frequency)
        if frequency.ndim == 0 and np.isnan(frequency):
            return "not known: none of these modes oscillates"
        return numbers(frequency, "Hz")

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def stability(point: OperatingPoint, *, matrix_free: bool | None = None) -> Stability:
    """Eigenvalues and stability of a circuit or hierarchy at the steady state of `steady_state`.

    Can be jitted and mapped, unless `matrix_free`. If no steady state was found, the spectrum is
    taken at the best state found, and `stable` is false.

    For identity recurrence (`W_r=None`, or an explicit identity that is not being traced) real
    parts are capped at `oscillator_bound`, so that rounding cannot make them positive.

    In the rectified model the velocity has two slopes at each `y_i` that is 0 to rounding. Those
    neurons that receive neither drive nor input from active neurons decay if they would even
    without the inhibition among them. For the remaining ones (all, if those do not decay) the
    eigenvalues are those of the least stable combination of slopes. With more than 6 remaining ones
    `stable` is false.

    In a hierarchy where feedback has no effect (a cascade, for example), the eigenvalues are those
    of its areas, and it is stable if they are: always, for identity recurrence. Otherwise they are
    those of the whole Jacobian; `organics.jacobian` says what it is at `y_i = 0`, and it is stable
    only if such neurons decay, or if it is for each combination of slopes, as above.

    With `matrix_free`, no matrix is formed: a few rightmost eigenvalues are found by products with
    the weights, in time proportional to theirs, and `residual` tells how well. This is the default
    for a circuit of more than 1,024 neurons, outside of JAX's transformations. Without identity
    recurrence, `stable` is then also false if the residual is above 1e-4 of the largest rate
    `1/tau`, or above the distance to 0, or if a neuron of the rectified model is at `y_i = 0`.

    Raises `ValueError` if `point` is not an `OperatingPoint`, or with `matrix_free` if it is being
    traced or not that of a `Circuit`.
    """
    point = require_any_point(point)
    able = isinstance(point.system, Circuit)
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(point))
    if matrix_free is None:
        matrix_free = able and not traced and point.system.n > _MOST_NEURONS
    if not matrix_free:
        return _stability(point)
    if traced or not able:
        raise ValueError(
            "`matrix_free` must be left out for a hierarchy, and under JAX's transformations, such "
            "as `jit` and `vmap`."
        )
    return _by_products(point)


@jax.jit  # one program for each size, also when called eagerly
def _stability(point: OperatingPoint) -> Stability:
    return _of_eigenvalues(
        point, *linearize(point.system, point.z, point.state, point.converged), None
    )


def _by_products(point: OperatingPoint) -> Stability:
    from organics.linear.rightmost import rightmost  # takes time, and few circuits need it

    circuit, z, state = point.system, point.z, point.state
    found = rightmost(circuit, z, state)
    values = np.asarray(found.values, np.result_type(circuit.dtype, np.complex64))
    residual = np.asarray(found.residuals[0], circuit.dtype)
    smooth = circuit.has_identity_recurrence or not circuit.rectified
    smooth = smooth or not np.any(of_open_sign(circuit, z, state))
    return _of_products(point, values, residual, smooth)


@jax.jit
def _of_products(
    point: OperatingPoint,
    values: Complex[Array, " k"],
    residual: Float[Array, ""],
    smooth: Bool[Array, ""],
) -> Stability:
    circuit, state = point.system, point.state
    if circuit.has_identity_recurrence:
        bound = oscillator_bound(circuit, state)
        rates = jnp.where(point.converged, jnp.minimum(values.real, bound), values.real)
        values, stable = jax.lax.complex(rates, values.imag), point.converged
    else:
        fastest = 1 / jnp.minimum(jnp.min(circuit.tau_y), jnp.min(circuit.tau_a))
        doubt = residual
        if values.real.dtype == jnp.float32:
            own = own_gain_size(circuit, point.z, state) / circuit.tau_y
            doubt += 4 * float(jnp.finfo(jnp.float32).eps) * jnp.max(own)
        trusted = (residual <= _TRUSTED * fastest) & (doubt < -values[0].real)
        stable = point.converged & trusted & smooth
    return _of_eigenvalues(point, values, stable, residual)


@partial(jax.jit, inline=True)
def _of_eigenvalues(
    point: OperatingPoint,
    eigenvalues: Complex[Array, " k"],
    stable: Bool[Array, ""],
    residual: Float[Array, ""] | None,
) -> Stability:
    size = jnp.abs(eigenvalues)
    frequencies = jnp.abs(eigenvalues.imag) / (2 * np.pi)
    # equal real eigenvalues may be computed as a pair that agrees in half of the digits only
    oscillates = jnp.abs(eigenvalues.imag) > 4 * np.sqrt(jnp.finfo(size.dtype).eps) * size
    none = 0.0 if residual is None else jnp.nan  # others may, to the left
    leading = jnp.where(oscillates[first := jnp.argmax(oscillates)], frequencies[first], none)
    return Stability(
        point=point,
        eigenvalues=eigenvalues,
        spectral_abscissa=eigenvalues[0].real,
        stable=stable,
        frequencies=frequencies,
        damping_ratios=-eigenvalues.real / jnp.where(size > 0, size, 1),
        leading_frequency=1000 * leading,
        residual=residual,
    )


def linearize(
    system: Areas,
    z: Float[Array, " n"],
    state: Any,
    converged: Bool[Array, ""],
    *,
    beyond_rounding: bool = False,
) -> tuple[Complex[Array, " m"], Bool[Array, ""]]:
    """`eigenvalues` and `stable` of `Stability` at a state, which is a steady state if `converged`.

    Only `W_r=None` counts as identity recurrence here. With `beyond_rounding`, a state is stable
    only if it is for other roundings of the Jacobian, too; in float32 that is always so.
    """
    states = system.by_area(state)

    def each():
        drives = system.drives(states, z)
        areas = zip(system.areas, drives, states, strict=True)
        found = [
            _of_circuit(area, drive, State(*at), converged, beyond_rounding)
            for area, drive, at in areas
        ]
        values = jnp.concatenate([values for values, _ in found])
        return descending(values), jnp.all(jnp.stack([stable for _, stable in found]))

    def together():
        J = jacobian(system, state)
        eigenvalues = spectrum(J)
        stable = converged & _decaying(J, jnp.abs(J), eigenvalues, beyond_rounding)
        if isinstance(system, Hierarchy | GatedHierarchy):
            stable &= decays_at_zero(system, z, states)
        return eigenvalues, stable

    if not system.separable:
        return together()
    if system.is_cascade:
        return each()
    return jax.lax.cond(system.is_inert(states), each, together)


def _decaying(
    J: Float[Array, "m m"],
    sizes: Float[Array, "m m"],
    eigenvalues: Complex[Array, " m"],
    beyond_rounding: bool,
) -> Bool[Array, ""]:
    """Whether all eigenvalues are stable; in float32, or with `beyond_rounding`, for other
    roundings of `J`, too, whose entries have terms of these sizes: products with a large `1 -
    sqrt(a)` may cancel."""
    stable = eigenvalues[0].real < 0
    if beyond_rounding or J.dtype == jnp.float32:
        stable &= jnp.all(jax.vmap(spectrum)(_rounded(J, sizes))[:, 0].real < 0)
    return stable


def _of_circuit(
    circuit: Circuit,
    z: Float[Array, " n"],
    state: State,
    converged: Bool[Array, ""],
    beyond_rounding: bool,
) -> tuple[Complex[Array, " two_n"], Bool[Array, ""]]:
    active, decays = slopes_at_zero(circuit, z, state)
    exact = rest_jacobian(circuit, z, state, active)
    J = jnp.where(converged, exact, jacobian(circuit, state, active))
    eigenvalues = spectrum(J)
    if not circuit.has_identity_recurrence:
        n = circuit.n
        own = jnp.where(active > 0, own_gain_size(circuit, z, state) / circuit.tau_y, 0)
        sizes = jnp.abs(J).at[jnp.arange(n), jnp.arange(n)].max(own)
        stable = _decaying(J, sizes, eigenvalues, beyond_rounding)
        return eigenvalues, converged & decays & stable
    bound = oscillator_bound(circuit, state)
    rates = jnp.where(converged, jnp.minimum(eigenvalues.real, bound), eigenvalues.real)
    return descending(jax.lax.complex(rates, eigenvalues.imag)), converged


def _rounded(J: Float[Array, "m m"], sizes: Float[Array, "m m"]) -> Float[Array, "2 m m"]:
    """Two matrices that round to nearly the same one: each entry changed by the rounding of its
    terms, in one up and in the other down."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], J.shape)
    rounding = jnp.asarray(4 * float(jnp.finfo(J.dtype).eps) * signs, J.dtype) * sizes
    return jnp.stack([J + rounding, J - rounding])


def oscillator_bound(circuit: Circuit, state: State) -> Float[Array, ""]:
    """A negative upper bound on the spectral abscissa for identity recurrence, in 1/ms.

    Let `(l^2 + l B + K) x = 0` and `|x_i| / a_i` be largest for neuron i. As row i of `B` has its
    positive entry on the diagonal only, and `(B a)_i / a_i = r_i > 0`, that equation divided by
    `l x_i` gives `|l + K_i / l + B_ii| <= B_ii - r_i`. Hence `-Re l >= r_i |l|^2 / (|l|^2 + K_i)`,
    and `|l|^2 + 2 B_ii |l| >= K_i`. It is a sum of positive terms, so rounding cannot change its
    sign.
    """
    leak, _ = leak_and_rate(circuit, *state)
    rate = leak / circuit.tau_y
    r = rate + circuit.c / state.a / circuit.tau_a
    ratio = (rate + own_leak(circuit, state) / circuit.tau_a) / jnp.sqrt(rate / circuit.tau_a)
    least = jnp.square(1 / (ratio + jnp.hypot(ratio, 1.0)))  # |l|^2 / K_i
    return -jnp.min(r * least / (1 + least))


def largest_euler_step(eigenvalues: Complex[Array | np.ndarray, "*m"]) -> Float[Array, ""]:
    """Largest step, in ms, below which explicit Euler steps of the circuit are stable.

    `min(-2 Re / |.|^2)` over the eigenvalues (1/ms) of the Jacobian at a steady state: smaller
    steps have `|1 + dt lambda| < 1` for all. It is positive only if the steady state is stable. It
    needs all eigenvalues: with the few of a `matrix_free` stability it is too large.

    Raises `ValueError` unless `eigenvalues` has one axis and at least one entry.
    """
    if np.ndim(eigenvalues) != 1 or not len(eigenvalues):
        raise ValueError(
            "`eigenvalues` must be those of one Jacobian, shape (2n,), "
            f"not of shape {np.shape(eigenvalues)}."
        )
    return _largest_euler_step(eigenvalues)


@jax.jit
def _largest_euler_step(eigenvalues: Complex[Array, " m"]) -> Float[Array, ""]:
    size = jnp.square(jnp.abs(eigenvalues))
    steps = -2 * eigenvalues.real / jnp.where(size > 0, size, 1)  # 0 for the eigenvalue 0
    return jnp.min(steps)
