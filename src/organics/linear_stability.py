"""Stability of a steady state: spectrum, coupled oscillators, certificate, energy, Euler steps.

For identity recurrence (`W_r = I`) the circuit, linearized about its steady state, is a system of
coupled damped harmonic oscillators

    x'' + B x' + K x = 0,    x = tau_y sqrt(a_s) (y - y_s) / y_s    (elementwise),

whose stiffness `K` is diagonal and positive and whose damping `B` is a nonsingular M-matrix. That
is why it is stable whatever its parameters, and the proof is constructive: `certify` returns it.

Source: Rawat, Heeger & Martiniani 2024, sections on unconditional stability and on the energy.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Complex, Float

from organics.circuit.circuit import Circuit, State, as_drive, gate, root
from organics.linear.jacobian import descending, jacobian, own_leak, rest_jacobian, spectrum
from organics.machine.mesh import alike
from organics.printing import Lines, in_html, in_words, numbers, verdict
from organics.rest.search import SteadyState, steady_state

_MOST_OPEN = 6  # neurons whose sign is open: more of them would take too many combinations


class Stability(NamedTuple):
    """Linear stability of one steady state.

    Attributes
        steady_state: the steady state, with its residual.
        eigenvalues: of the Jacobian, shape (2n,), in 1/ms, by falling real part, of equal ones
            first that with the larger imaginary part.
        spectral_abscissa: largest real part, in 1/ms.
        stable: the steady state converged and is linearly stable: for identity recurrence always,
            by the theorem; else if the spectral abscissa is negative, in float32 however the
            Jacobian is rounded, and, in the rectified model, activity at `y_i = 0` decays (see
            `stability`).
        frequencies: `|Im|/2 pi` of each eigenvalue, in kHz; 0 for a mode that does not oscillate.
        damping_ratios: `-Re/|.|` of each eigenvalue; 1 for a mode that decays and does not
            oscillate, negative for one that grows.
        leading_frequency: of the mode damped least among those that oscillate, in Hz (not kHz); 0
            if none does.
    """

    steady_state: SteadyState
    eigenvalues: Complex[Array, " two_n"]
    spectral_abscissa: Float[Array, ""]
    stable: Bool[Array, ""]
    frequencies: Float[Array, " two_n"]
    damping_ratios: Float[Array, " two_n"]
    leading_frequency: Float[Array, ""]

    def lines(self) -> Lines:
        """In words."""
        rows = (
            ("largest real part", numbers(self.spectral_abscissa, "1/ms")),
            ("leading frequency", numbers(self.leading_frequency, "Hz")),
            ("eigenvalues", numbers(self.eigenvalues, "1/ms")),
        )
        return Lines(
            verdict(self.stable, "stable", "NOT stable"), rows + self.steady_state.lines().rows
        )

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def stability(
    circuit: Circuit, z: Float[ArrayLike, " n"], steady: SteadyState | None = None
) -> Stability:
    """Spectrum of the circuit at its steady state for the input drive `z`, shape (n,).

    `steady` is the steady state if it is already known. Can be jitted and mapped. Where no steady
    state was found the spectrum is that at the best state found, and `stable` is false.

    For identity recurrence (`W_r=None`, or an explicit identity that is not being traced) no real
    part is above `oscillator_bound`, whatever rounding makes of the eigenvalues.

    In the rectified model the velocity has two slopes where some `y_i` is 0 to rounding. Neurons
    that nothing reaches, of any number, decay if they do so without any inhibition among them. Of
    the others with two slopes, and of all where these do not decay, the eigenvalues are those of
    the least stable combination of slopes. With more than 6 of the others `stable` is false.

    Raises `ValueError` if `z` has the wrong shape or is not finite.
    """
    z = as_drive(circuit, z)
    circuit = identity_recurrence(circuit) or circuit
    return _stability(circuit, z, steady_state(circuit, z) if steady is None else steady)


@jax.jit  # as what else computes here: also when called eagerly, one program for each size
def _stability(circuit: Circuit, z: Float[Array, " n"], steady: SteadyState) -> Stability:
    eigenvalues, stable = linearize(circuit, z, steady.state, steady.converged)
    size = jnp.abs(eigenvalues)
    frequencies = jnp.abs(eigenvalues.imag) / (2 * np.pi)
    # equal real eigenvalues may come out as a pair, half of their digits apart
    oscillates = jnp.abs(eigenvalues.imag) > 4 * np.sqrt(jnp.finfo(size.dtype).eps) * size
    return Stability(
        steady_state=steady,
        eigenvalues=eigenvalues,
        spectral_abscissa=eigenvalues[0].real,
        stable=stable,
        frequencies=frequencies,
        damping_ratios=-eigenvalues.real / jnp.where(size > 0, size, 1),
        leading_frequency=1000 * jnp.where(oscillates, frequencies, 0)[jnp.argmax(oscillates)],
    )


def linearize(
    circuit: Circuit, z: Float[Array, " n"], state: State, converged: Bool[Array, ""]
) -> tuple[Complex[Array, " two_n"], Bool[Array, ""]]:
    """`eigenvalues` and `stable` of `Stability` at a state, where it rests if `converged`.

    Identity recurrence is one with `W_r=None` here.
    """
    active, decays = slopes_at_zero(circuit, z, state)
    exact = rest_jacobian(circuit, z, state, active)
    J = jnp.where(converged, exact, jacobian(circuit, state, active))
    eigenvalues = spectrum(J)
    if circuit.W_r is not None:
        stable = converged & decays & (eigenvalues[0].real < 0)
        if J.dtype == jnp.float32:  # products with a large `1 - sqrt(a)` may cancel
            stable &= jnp.all(jax.vmap(spectrum)(_rounded(J))[:, 0].real < 0)
        return eigenvalues, stable
    bound = oscillator_bound(circuit, state)
    rates = jnp.where(converged, jnp.minimum(eigenvalues.real, bound), eigenvalues.real)
    return descending(jax.lax.complex(rates, eigenvalues.imag)), converged


def _rounded(J: Float[Array, "m m"]) -> Float[Array, "2 m m"]:
    """What a matrix in single precision may have been: its entries rounded otherwise, twice."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (2, *J.shape))
    return J[None] * jnp.asarray(1 + 4 * float(jnp.finfo(J.dtype).eps) * signs, J.dtype)


def oscillator_bound(circuit: Circuit, state: State) -> Float[Array, ""]:
    """A negative bound on the spectral abscissa, for identity recurrence, in 1/ms.

    Let `(l^2 + l B + K) x = 0` and `|x_i| / a_i` be largest for neuron i. As row i of `B` has its
    positive entry on the diagonal only, and `(B a)_i / a_i = r_i > 0`, that equation divided by
    `l x_i` gives `|l + K_i / l + B_ii| <= B_ii - r_i`. Hence `-Re l >= r_i |l|^2 / (|l|^2 + K_i)`,
    and `|l|^2 + 2 B_ii |l| >= K_i`. It is built of positive terms, so rounding leaves its sign.
    """
    leak, _ = _leak_and_rate(circuit, *state)
    rate = leak / circuit.tau_y
    r = rate + circuit.c / state.a / circuit.tau_a
    ratio = (rate + own_leak(circuit, state) / circuit.tau_a) / jnp.sqrt(rate / circuit.tau_a)
    least = jnp.square(1 / (ratio + jnp.hypot(ratio, 1.0)))  # |l|^2 / K_i
    return -jnp.min(r * least / (1 + least))


@jax.jit
def slopes_at_zero(
    circuit: Circuit, z: Float[Array, " n"], state: State
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """The derivative of `rectify` at each neuron, and whether activity at `y_i = 0` decays.

    The sign of `y_i` is open if it is 0 to within the tolerance of its equation's terms. Neurons
    that nothing reaches are a threshold-linear network of their own, `tau y' = -y + M relu(y)`,
    which drives the others. With `M` without its negative entries off the diagonal it decays if
    `I - M` is an M-matrix, and `relu(y)` is nowhere above what it is then: their derivative is 0.
    Of other neurons with open signs it is that of all combinations which has the largest spectral
    abscissa. True in the main model and, by the theorem, for identity recurrence.
    """
    active = circuit.active(state.y)
    if not circuit.rectified or circuit.W_r is None:
        return active, jnp.bool_(True)
    W_r = jax.lax.stop_gradient(circuit.W_r)
    circuit, z, (y, a) = jax.lax.stop_gradient((circuit, z, state))
    rounding = float(jnp.finfo(y.dtype).eps) ** 0.75
    slope = jnp.maximum(jnp.abs(circuit.own_gain(a)), 1)
    open_sign = jnp.abs(y) * slope <= rounding * circuit.terms(state, z).y
    q = jnp.where(open_sign, 0, circuit.rectify(y))
    unreached = open_sign & (circuit.b * z == 0) & (jnp.abs(W_r) @ q == 0)
    others = open_sign & ~unreached
    reached = jnp.abs(W_r) @ others.astype(y.dtype) > 0
    others = jnp.where(jnp.any(unreached & reached), open_sign, others)
    alone = (open_sign & ~others).astype(y.dtype)
    M = gate(a)[:, None] * W_r * alone[:, None] * alone[None, :]
    M = jnp.where(jnp.eye(circuit.n, dtype=bool), M, jax.nn.relu(M))
    # positive if and only if `I - M` is a nonsingular M-matrix
    grown = jnp.linalg.solve(jnp.eye(circuit.n, dtype=y.dtype) - M, jnp.ones_like(y))
    decays = jnp.all(jnp.isfinite(grown) & (grown > 0))
    seen = jnp.where(decays | (jnp.sum(open_sign) > _MOST_OPEN), others, open_sign)
    few = jnp.sum(seen) <= _MOST_OPEN
    return _least_stable(circuit, z, State(y, a), seen & few), decays & few


def _least_stable(
    circuit: Circuit, z: Float[Array, " n"], state: State, which: Bool[Array, " n"]
) -> Float[Array, " n"]:
    """The slopes, 0 or 1 at the neurons that are meant, with the largest spectral abscissa."""
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

    # nearly always there is only one combination, which need not be looked at
    begin = jnp.where(combinations > 1, 0, 1).astype(jnp.int32)
    begin = alike((begin, jnp.int32(0), jnp.zeros((), active.dtype)))
    *_, worst, _ = jax.lax.while_loop(lambda carry: carry[0] < combinations, compare, begin)
    return slopes(worst)


def largest_euler_step(eigenvalues: Complex[Array | np.ndarray, "*m"]) -> Float[Array, ""]:
    """Largest step, in ms, below which explicit Euler steps of the circuit are stable.

    `min(-2 Re / |.|^2)` over the eigenvalues (1/ms) of the Jacobian at a steady state: for a
    smaller step each `|1 + dt lambda| < 1`. Not positive unless the steady state is stable.

    Raises `ValueError` if there are none, or they are not one list of them.
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


class Oscillator(NamedTuple):
    """Coupled damped oscillators `x'' + B x' + K x = 0` with the circuit's own spectrum.

    Attributes
        B: damping, shape (n, n), in 1/ms; off-diagonal entries <= 0.
        K: stiffness, shape (n, n), diagonal, positive, in 1/ms^2.
        coupled: which neurons respond (`y_s != 0`, or `y_s > 0` in the rectified model), shape
            (n,). A neuron i that does not is listened to by nobody (column i of `B` is zero off
            the diagonal) and contributes two real eigenvalues of its own, `-1/tau_a` and
            `-sqrt(a_s)/tau_y` (`-1/tau_y` where it is silenced by rectification); the
            coordinate `x_i` does not exist for it, but `B` and `K` still carry its eigenvalues.
    """

    B: Float[Array, "n n"]
    K: Float[Array, "n n"]
    coupled: Bool[Array, " n"]

    @property
    def companion(self) -> Float[Array, "two_n two_n"]:
        """First-order form `[[0, I], [-K, -B]]`; its eigenvalues are those of the Jacobian."""
        identity = jnp.eye(self.B.shape[0], dtype=self.B.dtype)
        return jnp.block([[jnp.zeros_like(identity), identity], [-self.K, -self.B]])


def oscillator(
    circuit: Circuit, z: Float[ArrayLike, " n"], steady: SteadyState | None = None
) -> Oscillator:
    """The circuit with identity recurrence as coupled damped oscillators, at its steady state.

    Raises `ValueError` if the recurrence is not the identity.
    """
    circuit = _with_identity_recurrence("oscillator", circuit)
    z = as_drive(circuit, z)
    return _oscillator(circuit, (steady_state(circuit, z) if steady is None else steady).state)


@jax.jit
def _oscillator(circuit: Circuit, state: State) -> Oscillator:
    leak, q = _leak_and_rate(circuit, *state)
    own = leak / circuit.tau_y + own_leak(circuit, state) / circuit.tau_a
    others = -circuit.W * jnp.square(q)[None, :] / circuit.tau_a[:, None]
    B = jnp.where(jnp.eye(circuit.n, dtype=bool), own[:, None], others)
    return Oscillator(B, jnp.diag(leak / (circuit.tau_y * circuit.tau_a)), q != 0)


class Certificate(NamedTuple):
    """Why a steady state is stable.

    Attributes
        kind: "diagonal Lyapunov" is a proof (up to rounding) that follows from the structure of the
            circuit with identity recurrence, "spectral" only the eigenvalues as computed: for a
            general `W_r` no other certificate is known.
        holds: whether every check below passed.
        spectral_abscissa: largest real part of the Jacobian's eigenvalues, in 1/ms.
        residual: of the steady state, see `SteadyState`.
        T: positive diagonal such that `T B + B^T T` is positive definite, shape (n,); it gives the
            quadratic form `x'^T T x' + x^T T K x`, which never increases. `None` if spectral.
        margin: smallest eigenvalue of `T B + B^T T` after scaling its diagonal to 1, so that it
            lies in (0, 1]. `None` if spectral.
        checks: each inequality of the proof by name, and whether it was found to hold.
    """

    kind: str
    holds: Bool[Array, ""]
    spectral_abscissa: Float[Array, ""]
    residual: Float[Array, ""]
    T: Float[Array, " n"] | None
    margin: Float[Array, ""] | None
    checks: dict[str, Bool[Array, ""]]

    def lines(self) -> Lines:
        """In words."""
        rows = [(name, verdict(passed, "holds", "FAILS")) for name, passed in self.checks.items()]
        if self.margin is not None:
            rows.insert(0, ("margin", numbers(self.margin)))
        rows.append(("largest real part", numbers(self.spectral_abscissa, "1/ms")))
        kind = f"certificate ({self.kind})"
        return Lines(f"{kind}: {verdict(self.holds, 'holds', 'does NOT hold')}", tuple(rows))

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def certify(
    circuit: Circuit, z: Float[ArrayLike, " n"], steady: SteadyState | None = None
) -> Certificate:
    """Certificate of stability of the circuit's steady state for the input drive `z`.

    For identity recurrence it is constructed, not searched for: `B a_s > 0` makes `B` an M-matrix,
    so `u = B^-T 1` is positive, and `T = u / a_s` makes `T B + B^T T` positive definite. Each
    step of the argument is checked on the numbers; `verify` checks the result without the argument.
    For general `W_r` the certificate is of kind "spectral".

    A `W_r` that is an explicit identity matrix counts as identity recurrence, unless it is being
    traced. The kinds and checks are Python values, so under `jax.jit` return the arrays you need.
    """
    circuit = identity_recurrence(circuit) or circuit
    z = as_drive(circuit, z)
    linear = stability(circuit, z, steady)
    T, margin, checks, holds = _certificate(circuit, z, linear)
    return Certificate(
        kind="spectral" if T is None else "diagonal Lyapunov",
        holds=holds,
        spectral_abscissa=linear.spectral_abscissa,
        residual=linear.steady_state.residual,
        T=T,
        margin=margin,
        checks=checks,
    )


@jax.jit
def _certificate(circuit: Circuit, z: Float[Array, " n"], linear: Stability):
    """`T`, `margin`, `checks` and `holds` of a `Certificate`."""
    steady, T, margin = linear.steady_state, None, None
    checks = {
        "steady state converged": steady.converged,
        "spectral abscissa < 0": linear.spectral_abscissa < 0,
    }
    if circuit.W_r is None:
        T, margin, structural = _diagonal_certificate(circuit, steady.state)
        checks |= structural
    elif circuit.rectified:
        _, checks["activity at y = 0 decays"] = slopes_at_zero(circuit, z, steady.state)
    return T, margin, checks, jnp.all(jnp.stack(list(checks.values())))


def diagonal_certificate(
    circuit: Circuit, z: Float[Array, " n"], steady: SteadyState
) -> tuple[Float[Array, " n"], Float[Array, ""], dict[str, Bool[Array, ""]]]:
    """`T`, `margin` and the structural `checks` of a `Certificate`, without any eigenvalue.

    For many inputs at once; `organics.linear.jacobian.eigenvalues` is faster for their spectra.
    """
    circuit = _with_identity_recurrence("diagonal_certificate", circuit)
    as_drive(circuit, z)
    return _diagonal_certificate(circuit, steady.state)


@jax.jit
def _diagonal_certificate(circuit: Circuit, state: State):
    B, K, _ = _oscillator(circuit, state)
    y, a = state
    leak, _ = _leak_and_rate(circuit, y, a)
    explicit = leak * a / circuit.tau_y + circuit.c / circuit.tau_a
    # B a is a difference of terms as large as these, which diag(B) a may not be: rounding is
    # relative to them
    terms = leak * a / circuit.tau_y + a / circuit.tau_a
    rounding = 100 * circuit.n * float(jnp.finfo(a.dtype).eps) * terms
    u = jnp.linalg.solve(B.T, jnp.ones_like(a))
    T = u / a
    off_diagonal = B - jnp.diag(jnp.diag(B))
    margin = _scaled_definiteness(T[:, None] * B)
    return (
        T,
        margin,
        {
            "off-diagonals of B <= 0": jnp.all(off_diagonal <= 0),
            "B a_s > 0": jnp.all(explicit > 0) & jnp.all(jnp.abs(B @ a - explicit) <= rounding),
            "B^-T 1 > 0": jnp.all(u > 0),
            "T B + B^T T > 0": margin > 0,
            "K > 0": jnp.all(jnp.diag(K) > 0),
        },
    )


def _scaled_definiteness(M: Float[Array, "n n"]) -> Float[Array, ""]:
    """Smallest eigenvalue of `M + M^T` after scaling its diagonal to 1; NaN-free, -inf if hopeless.

    Without the scaling, parameters over several decades make the test ill-conditioned.
    """
    S = M + M.T
    diagonal = jnp.diag(S)
    possible = jnp.all(diagonal > 0) & jnp.all(jnp.isfinite(S))
    scale = jnp.where(possible, 1 / jnp.sqrt(jnp.where(possible, diagonal, 1)), 0)
    S = jnp.where(possible, scale[:, None] * S * scale[None, :], 0)
    return jnp.where(possible, jnp.linalg.eigvalsh(S)[0], -jnp.inf)


class Verification(NamedTuple):
    """Outcome of `verify`: `valid`, the margin found, and what failed (empty if nothing did)."""

    valid: bool
    margin: float
    failures: tuple[str, ...]


def verify(
    circuit: Circuit, z: Float[ArrayLike, " n"], steady: SteadyState, T: Float[ArrayLike, "..."]
) -> Verification:
    """Check a diagonal certificate `T` without trusting how `T`, `B` and `K` were derived.

    The Jacobian is taken by automatic differentiation of the velocity; eliminating the modulators
    from it gives the damping and the stiffness of the responding neurons numerically; then
    `T B + B^T T` must be positive definite and `K` diagonal and positive. Neurons at rest must
    decay, and no other may listen to them. A `T` of another shape than (n,) is refused like any
    other that is wrong. A plain NumPy computation in float64 on concrete values.
    """
    n = circuit.n
    failures = []
    y, a = (np.asarray(x, np.float64) for x in steady.state)
    z = as_drive(circuit, z)
    if not (np.all(np.isfinite(y)) and np.all(np.isfinite(a)) and np.all(a > 0)):
        return Verification(False, -np.inf, ("the steady state is not finite with a > 0",))
    J, imbalance = _differentiated(circuit, steady.state, z)
    A11, A12, A21, A22 = (np.asarray(m, np.float64) for row in J for m in row)
    tolerance = 1e4 * n * float(jnp.finfo(circuit.dtype).eps)
    imbalance = np.abs(np.concatenate(imbalance))
    scale = np.concatenate([np.abs(y) + np.asarray(circuit.b) * np.abs(z), 2 * a])
    if not np.all(imbalance <= tolerance * np.maximum(scale, 1e-300)):
        failures.append("the velocity at the steady state is not zero")
    on = (y > 0) if circuit.rectified else (y != 0)
    off = ~on
    # the columns of a neuron at rest may hold its own decay, nothing else: the spectrum is then
    # that of the responding neurons and those decay rates
    to_others = (A11 - np.diag(np.diag(A11)), A12, A21, A22 - np.diag(np.diag(A22)))
    if any(np.any(block[:, off]) for block in to_others):
        failures.append("a neuron at rest is not decoupled")
    if not (np.all(np.diag(A11)[off] < 0) and np.all(np.diag(A22)[off] < 0)):
        failures.append("a neuron at rest does not decay")
    T = np.asarray(T, np.float64)
    if T.shape != (n,) or not np.all(np.isfinite(T)) or not np.all(T > 0):
        return Verification(False, -np.inf, (*failures, "`T` is not a positive vector"))
    if not np.any(on):
        return Verification(not failures, 1.0, tuple(failures))
    A11, A12, A21, A22 = (m[np.ix_(on, on)] for m in (A11, A12, A21, A22))
    gain = np.diag(A12)
    if not np.all(gain):
        return Verification(
            False, -np.inf, (*failures, "a responding neuron has no gain from its modulator")
        )
    passed = A22 * gain[:, None] / gain[None, :]  # A12 A22 A12^-1, as A12 is diagonal
    to_x = np.asarray(circuit.tau_y)[on] * np.sqrt(a[on]) / y[on]
    B = -(A11 + passed) * to_x[:, None] / to_x[None, :]
    K_terms = passed @ A11, gain[:, None] * A21
    K = (K_terms[0] - K_terms[1]) * to_x[:, None] / to_x[None, :]
    K_size = (np.abs(K_terms[0]) + np.abs(K_terms[1])) * np.abs(to_x[:, None] / to_x[None, :])
    if np.any(np.abs(K - np.diag(np.diag(K))) > tolerance * K_size):
        failures.append("the stiffness is not diagonal")
    if not np.all(np.diag(K) > 0):
        failures.append("the stiffness is not positive")
    S = T[on][:, None] * B
    S = S + S.T
    if not (np.all(np.isfinite(S)) and np.all(np.diag(S) > 0)):
        return Verification(False, -np.inf, (*failures, "the damping is not positive"))
    scaling = 1 / np.sqrt(np.diag(S))
    margin = float(np.linalg.eigvalsh(scaling[:, None] * S * scaling[None, :])[0])
    if margin <= 0:
        failures.append("T B + B^T T is not positive definite")
    return Verification(not failures, margin, tuple(failures))


@jax.jit
def _differentiated(circuit: Circuit, state: State, z: Float[Array, " n"]):
    """The Jacobian of the velocity, in blocks; and the imbalance itself."""
    return jax.jacfwd(lambda s: circuit.velocity(s, z))(state), circuit.imbalance(state, z)


def energy(
    circuit: Circuit,
    z: Float[ArrayLike, " n"],
    state: State,
    steady: SteadyState | None = None,
) -> Float[Array, ""]:
    """Energy of a circuit with identity recurrence: 0 at the steady state, positive elsewhere.

    A weighted sum over the responding neurons of the squared distance of `y` from the normalized
    response, and of the squared mismatch between the input `b z` and its reconstruction
    `sqrt(a) y`; the potentials of neurons at rest do not count. It never increases along the
    linearized flow; along the nonlinear flow that holds up to terms of third order in the distance
    from the steady state. `y` and `a` have shape (n,); use `jax.vmap` for several states.

    Raises `ValueError` if the recurrence is not the identity or the state has another shape.
    Source: Rawat et al. 2024, energy function; weights `T` from `certify`.
    """
    circuit = _with_identity_recurrence("energy", circuit)
    z = as_drive(circuit, z)
    for name, value in zip(state._fields, state, strict=True):
        if value.shape != (circuit.n,):
            raise ValueError(
                f"`state.{name}` must have shape ({circuit.n},), not {value.shape}. "
                "For several states use `jax.vmap`."
            )
    steady = steady_state(circuit, z) if steady is None else steady
    return _energy(circuit, z, state, steady.state)


@jax.jit
def _energy(circuit: Circuit, z: Float[Array, " n"], state: State, steady: State):
    T, _, _ = _diagonal_certificate(circuit, steady)
    y_s, a_s = steady
    leak, q = _leak_and_rate(circuit, y_s, a_s)
    response = jnp.where(q != 0, q, 1)  # divided by before squaring: its square may underflow
    distance = jnp.square((state.y - y_s) / response) * leak * circuit.tau_y / circuit.tau_a
    mismatch = jnp.square((root(state.a) * state.y - circuit.b * z) / response)
    return jnp.sum(jnp.where(q != 0, T * a_s * (distance + mismatch), 0))


def _leak_and_rate(circuit: Circuit, y, a):
    """Effective leak of `y` (`sqrt(a)`, or 1 for a silent rectified neuron) and what others see."""
    q = circuit.rectify(y)
    leak = jnp.where(y > 0, jnp.sqrt(a), 1) if circuit.rectified else jnp.sqrt(a)
    return leak, q


def identity_recurrence(circuit: Circuit) -> Circuit | None:
    """The circuit with `W_r=None` if its recurrence is known to be the identity, else `None`."""
    if circuit.W_r is None:
        return circuit
    if isinstance(circuit.W_r, Tracer):
        return None
    if np.array_equal(np.asarray(circuit.W_r), np.eye(circuit.n)):
        return eqx.tree_at(lambda c: c.W_r, circuit, None)
    return None


def _with_identity_recurrence(name: str, circuit: Circuit) -> Circuit:
    identity = identity_recurrence(circuit)
    if identity is None:
        raise ValueError(
            f"`{name}` exists only for identity recurrence (`W_r=None`): the oscillator form and "
            "its energy are not known for a general `W_r`. Use `stability` for the spectrum."
        )
    return identity
