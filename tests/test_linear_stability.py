import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from circuits import seeds, wide_circuit
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from organics.circuit.circuit import Circuit, State, random_drive
from organics.circuit.weights import Diagonal, LowRank
from organics.linear.jacobian import imbalance_jacobian, jacobian
from organics.linear_stability.certificate import certify
from organics.linear_stability.energy import energy
from organics.linear_stability.oscillator import oscillator
from organics.linear_stability.spectrum import largest_euler_step, stability
from organics.linear_stability.verification import verify
from organics.planar import fixed_points_2d
from organics.rest.closed_form import closed_form
from organics.rest.point import OperatingPoint, SteadyState
from organics.rest.search import given_state, steady_state
from organics.simulation.ode import simulate

sizes = st.sampled_from([1, 2, 12])  # a new size costs seconds, whatever is computed
few_sizes = st.sampled_from([2, 5])
rest = st.sampled_from([False, False, False, True])  # whether some neurons get no input


@eqx.filter_jit
def analyze(circuit, z):
    steady = steady_state(circuit, z)
    return (
        stability(steady),
        oscillator(steady),
        certify(steady),
        jacobian(circuit, steady.state),
    )


def drawn_circuit(seed, n, rectified, rest):
    circuit, z = wide_circuit(seed, n, rectified=rectified)
    if rest:
        keep = np.random.default_rng(seed).uniform(size=n) > 0.3
        z = jnp.where(keep, z, 0).at[seed % n].set(0.0)
    return circuit, z


def moderate_circuit(seed, n, *, rectified=False):
    """A circuit whose time scales all lie within about a decade, and a drive without zeros."""
    rng = np.random.default_rng(seed)
    circuit = Circuit(
        W=rng.uniform(size=(n, n)),
        b=rng.uniform(0.3, 1, n),
        b0=rng.uniform(0.3, 1, n),
        sigma=rng.uniform(0.3, 1, n),
        tau_y=rng.uniform(1, 4, n),
        tau_a=rng.uniform(1, 4, n),
        rectified=rectified,
    )
    return circuit, jnp.asarray(rng.choice([-1, 1], n) * rng.uniform(0.3, 1, n))


@jax.jit
def left(circuit, z, state):
    """What Newton's method needs of a state."""
    return jnp.concatenate(circuit.imbalance(state, z)), imbalance_jacobian(circuit, state)


def at(circuit, z, y, a):
    """The steady state next to `(y, a)`, by plain Newton: stable or not."""
    x, n, z = np.concatenate([y, a]).astype(float), circuit.n, np.asarray(z, float)
    for _ in range(20):
        imbalance, J = left(circuit, z, State(x[:n], x[n:]))
        x = x - np.linalg.solve(J, imbalance)
    residual = np.linalg.norm(imbalance)
    state = State(*jax.device_put((x[:n], x[n:])))
    found = SteadyState(
        state, *jax.device_put((residual, residual < 1e-12, np.int32(20), np.int32(2)))
    )
    return OperatingPoint(circuit, jnp.asarray(z), found)


def claimed(circuit, z, state):
    """A claimed steady state, true or not."""
    found = SteadyState(state, jnp.zeros(()), jnp.array(True), jnp.int32(0), jnp.int32(0))
    return OperatingPoint(circuit, jnp.asarray(z), found)


def mismatch(got, want):
    """Largest distance between two spectra in their best matching."""
    distances = np.abs(np.asarray(got)[:, None] - np.asarray(want)[None, :])
    return distances[linear_sum_assignment(distances)].max()


# certificate


@pytest.mark.rounding
@settings(max_examples=40)
@given(seed=seeds, n=sizes, rectified=st.booleans(), rest=rest)
def test_every_step_of_the_proof_holds(seed, n, rectified, rest):
    circuit, z = drawn_circuit(seed, n, rectified, rest)
    linear, oscillators, certificate, _ = analyze(circuit, z)
    y, a = np.asarray(linear.point.state.y), np.asarray(linear.point.state.a)
    B, T = np.asarray(oscillators.B), np.asarray(certificate.T)
    diagonal = np.diag(B)
    assert np.all(B - np.diag(diagonal) <= 0)
    leak = np.where(y > 0, np.sqrt(a), 1) if rectified else np.sqrt(a)
    explicit = leak * a / np.asarray(circuit.tau_y) + np.asarray(circuit.c / circuit.tau_a)
    np.testing.assert_array_less(np.abs(B @ a - explicit), 1e-13 * n * diagonal * a)
    assert np.all(explicit > 0)
    assert np.all(np.linalg.inv(B) > -1e-12 * np.abs(np.linalg.inv(B)).max())
    assert np.all(T > 0)
    np.testing.assert_allclose(B.T @ (T * a), 1, atol=1e-13 * n * (np.abs(B).T @ (T * a)).max())
    S = T[:, None] * B + (T[:, None] * B).T
    scale = 1 / np.sqrt(np.diag(S))
    np.linalg.cholesky(scale[:, None] * S * scale[None, :])  # raises unless positive definite
    assert 0 < certificate.margin <= 1 + 1e-12
    assert certificate.kind == "diagonal Lyapunov"
    assert certificate.holds and all(certificate.checks.values())
    assert certificate.spectral_abscissa < 0 and linear.stable
    difference = np.abs(certificate.spectral_abscissa - linear.spectral_abscissa)
    assert difference <= 1e-9 * np.abs(linear.eigenvalues).max()


@given(seed=seeds, n=few_sizes, rectified=st.booleans(), rest=rest)
def test_verification_agrees_with_the_construction(seed, n, rectified, rest):
    circuit, z = drawn_circuit(seed, n, rectified, rest)
    linear, oscillators, certificate, _ = analyze(circuit, z)
    steady = linear.point
    outcome = verify(steady, certificate.T)
    assert outcome.valid and outcome.failures == ()
    # it looks at the responding neurons alone: a principal submatrix has no smaller eigenvalue
    assert float(certificate.margin) * (1 - 1e-6) <= outcome.margin <= 1 + 1e-12
    if np.all(oscillators.coupled):
        np.testing.assert_allclose(outcome.margin, certificate.margin, rtol=1e-6)
    # any positive right-hand side makes a certificate
    rng = np.random.default_rng(seed)
    u = np.linalg.solve(np.asarray(oscillators.B).T, 10 ** rng.uniform(-2, 2, n))
    assert verify(steady, u / np.asarray(steady.state.a)).valid


def chain():
    """Neuron 2 strongly normalizes neuron 1, whose damping needs a large weight on 2."""
    circuit = Circuit([[0.0, 1.0], [0.0, 0.0]], b=1.0, b0=1.0, sigma=0.1)
    z = jnp.ones(2)
    return circuit, z, steady_state(circuit, z)


def test_verification_refuses_a_wrong_certificate():
    circuit, z, steady = chain()
    T = certify(steady).T
    assert verify(steady, T).valid
    assert verify(steady, 1e-6 * T).valid  # a factor is free
    for wrong in (-T, T.at[0].set(-1e-9), T.at[1].set(0.0), T.at[0].set(jnp.nan), T[:1], T[None]):
        outcome = verify(steady, wrong)
        assert not outcome.valid and "`T` is not a positive vector" in outcome.failures
    # weights that would suit the chain the other way round
    mirrored = Circuit(circuit.W.T, b=1.0, b0=1.0, sigma=0.1)
    of_another = certify(steady_state(mirrored, z)).T
    for wrong in (of_another, jnp.ones(2)):
        outcome = verify(steady, wrong)
        assert not outcome.valid and outcome.margin < 0
        assert outcome.failures == ("T B + B^T T is not positive definite",)


def test_verification_refuses_a_wrong_steady_state():
    circuit, z = moderate_circuit(0, 5)
    steady, T = steady_state(circuit, z), certify(steady_state(circuit, z)).T
    y, a = steady.state
    assert verify(steady, T).valid
    for state in (State(1.001 * y, a), State(y, 1.001 * a), steady_state(circuit, 2 * z).state):
        outcome = verify(claimed(circuit, z, state), T)
        assert "the velocity at the steady state is not zero" in outcome.failures
        assert not outcome.valid
    for state in (State(y, -a), State(jnp.nan * y, a), State(y, jnp.inf * a)):
        assert not verify(claimed(circuit, z, state), T).valid


def test_verification_refuses_a_general_recurrence():
    circuit, z = wide_circuit(1, 2, recurrence=1.0)
    outcome = verify(steady_state(circuit, z), np.ones(2))
    assert not outcome.valid and "the stiffness is not diagonal" in outcome.failures
    # a neuron that receives no recurrent input is not governed by its modulator
    circuit = Circuit(np.full((2, 2), 0.3), [[0.0, 0.0], [0.0, 1.0]])
    z = jnp.ones(2)
    assert not verify(steady_state(circuit, z), np.ones(2)).valid


def test_verification_sees_a_resting_neuron_that_others_listen_to():
    # neurons 0 and 1 cancel at neuron 2, which rests; together the three are unstable
    W_r = np.eye(5)
    W_r[:2, 2] = W_r[2, :2] = 4
    z = jnp.array([1.0, -1.0, 0.0, 0.5, 0.5])
    circuit = Circuit(0.5 * np.eye(5), W_r)
    steady = claimed(circuit, z, closed_form(Circuit(0.5 * np.eye(5)), z))
    assert np.abs(np.concatenate(circuit.imbalance(steady.state, z))).max() < 1e-13
    assert stability(steady).spectral_abscissa > 1
    outcome = verify(steady, np.ones(5))
    assert not outcome.valid and "a neuron at rest is not decoupled" in outcome.failures


def test_verification_where_no_neuron_responds():
    for circuit in (Circuit(np.ones((2, 2))), Circuit(np.ones((2, 2)), rectified=True)):
        z = jnp.zeros(2)
        certificate = certify(steady_state(circuit, z))
        assert certificate.holds
        assert verify(steady_state(circuit, z), certificate.T).valid


# spectrum of the oscillators


@pytest.mark.rounding
@settings(max_examples=40)
@given(seed=seeds, n=sizes, rectified=st.booleans(), rest=rest)
def test_oscillators_have_the_spectrum_of_the_jacobian(seed, n, rectified, rest):
    circuit, z = drawn_circuit(seed, n, rectified, rest)
    linear, oscillators, _, J = analyze(circuit, z)
    J, B, K = np.asarray(J), np.asarray(oscillators.B), np.asarray(oscillators.K)
    companion = np.linalg.eigvals(np.asarray(oscillators.companion))
    fastest = np.abs(companion).max()
    assert mismatch(linear.eigenvalues, companion) <= 1e-9 * fastest

    rng = np.random.default_rng(seed)
    for _ in range(4):
        point = 10 ** rng.uniform(-3, 1) * np.exp(2j * np.pi * rng.uniform())
        sign, log = np.linalg.slogdet(point * np.eye(2 * n) - J)
        sign_2, log_2 = np.linalg.slogdet(point**2 * np.eye(n) + point * B + K)
        np.testing.assert_allclose(sign / sign_2 * np.exp(log - log_2), 1, rtol=1e-10)

    # neurons at rest: nobody listens to them, and they have two real eigenvalues each
    y, a = np.asarray(linear.point.state.y), np.asarray(linear.point.state.a)
    coupled = np.asarray(oscillators.coupled)
    np.testing.assert_array_equal(coupled, np.asarray(z) > 0 if rectified else np.asarray(z) != 0)
    assert not np.any((B - np.diag(np.diag(B)))[:, ~coupled])
    leak = np.ones(n) if rectified else np.sqrt(a)
    own = [-leak / np.asarray(circuit.tau_y), -1 / np.asarray(circuit.tau_a)]
    kept = np.tile(coupled, 2)
    of_the_rest = np.linalg.eigvals(J[np.ix_(kept, kept)])
    want = np.concatenate([rates[~coupled] for rates in own] + [of_the_rest])
    assert mismatch(linear.eigenvalues, want) <= 1e-9 * fastest
    assert np.all(y[~coupled] <= 0)


@pytest.mark.rounding
@settings(max_examples=30)
@given(seed=seeds, n=sizes, rectified=st.booleans(), rest=rest)
def test_spectrum_of_one_common_pool(seed, n, rectified, rest):
    """Closed form for `W` constant, common time constants and a common `b0 sigma`."""
    rng = np.random.default_rng(seed)
    alpha, k = 10 ** rng.uniform(-2, 1), 10 ** rng.uniform(-1, 0.5)
    tau_y, tau_a = rng.uniform(0.5, 20, 2)
    b, z = rng.uniform(0.1, 1, n), rng.normal(size=n)
    if rest and not rectified:  # a rectified neuron without input has the left slope
        z[0] = 0
    circuit = Circuit(
        np.full((n, n), alpha), b=b, b0=2.0, sigma=k / 2, tau_y=tau_y, tau_a=tau_a,
        rectified=rectified,
    )  # fmt: skip
    drive = np.maximum(b * z, 0) if rectified else b * z
    S = k**2 + alpha * np.sum(drive**2)
    damping = np.sqrt(S) / tau_y + k**2 / (S * tau_a)
    stiffness = np.sqrt(S) / (tau_y * tau_a)
    pair = -damping / 2 + np.array([1, -1]) * np.sqrt(damping**2 / 4 - stiffness + 0j)
    responding = int(np.sum(z > 0)) if rectified else n
    if responding == 0:
        want = np.repeat([-1 / tau_y, -1 / tau_a], n)
    else:
        alone = np.repeat(
            [-np.sqrt(S) / tau_y, -1 / tau_a, -1 / tau_y], [responding - 1, n - 1, n - responding]
        )
        want = np.concatenate([pair, alone])
    linear = analyze(circuit, jnp.asarray(z))[0]
    # half of the digits where two eigenvalues are about to meet
    assert mismatch(linear.eigenvalues, want) <= 1e-6 * np.abs(want).max()
    np.testing.assert_allclose(linear.spectral_abscissa, want.real.max(), rtol=1e-6)


# two dimensions: the paper's Figures 1 and 3

FIGURE_1A = ({"w_r": 0.5}, (0.897971, 0.012910), (-0.187615, 0.056652))
FIGURE_1B = ({"w_r": 2.0}, (0.997779, 0.563335), (-0.126388, 0.598494))
FIGURE_1C = ({"w_r": 2.0, "b0": 1.0, "sigma": 1.0}, (0.416648, 1.210061), (-0.506615, 0.294540))
FIGURE_3A = ({}, (0.995037, 0.2525), (-0.128099, 0.330476))
FIGURE_3B = ({"tau_a": 10.0}, (0.995037, 0.2525), (-0.126118, 0.096015))
FIGURE_3C = ({"tau_y": 10.0}, (0.995037, 0.2525), (-0.027600, 0.156086))


def planar(w_r=None, rectified=False, **parameters):
    return Circuit([[1.0]], None if w_r is None else [[w_r]], rectified=rectified, **parameters)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("case", [FIGURE_1A, FIGURE_1B, FIGURE_1C, FIGURE_3A, FIGURE_3B, FIGURE_3C])
def test_reference_values_in_two_dimensions(case, rectified):
    parameters, (y, a), (real, imaginary) = case
    circuit, z = planar(rectified=rectified, **parameters), jnp.ones(1)
    linear = stability(at(circuit, z, [y], [a]))
    assert linear.stable
    np.testing.assert_allclose(linear.point.state.y, y, atol=6e-7)
    np.testing.assert_allclose(linear.point.state.a, a, atol=6e-7)
    pair = [real + 1j * imaginary, real - 1j * imaginary]
    assert mismatch(linear.eigenvalues, pair) < 1e-6
    np.testing.assert_allclose(linear.spectral_abscissa, real, atol=6e-7)
    np.testing.assert_allclose(linear.frequencies, imaginary / (2 * np.pi), atol=2e-7)
    np.testing.assert_allclose(linear.damping_ratios, -real / np.hypot(real, imaginary), atol=1e-5)


def test_unstable_steady_states_are_reported_as_such():
    circuit, z = planar(2.0), jnp.ones(1)
    focus = stability(at(circuit, z, [-0.978886], [0.059833]))
    assert focus.point.converged and not focus.stable
    assert mismatch(focus.eigenvalues, [0.117250 + 0.313226j, 0.117250 - 0.313226j]) < 1e-6
    assert np.all(focus.damping_ratios < 0) and largest_euler_step(focus.eigenvalues) < 0
    saddle = stability(at(circuit, z, [-0.569235], [0.003698]))
    assert saddle.point.converged and not saddle.stable
    assert mismatch(saddle.eigenvalues, [0.426294, -0.325094]) < 1e-6
    np.testing.assert_array_equal(saddle.frequencies, 0)
    np.testing.assert_allclose(sorted(saddle.damping_ratios), [-1, 1])
    certificate = certify(focus.point)
    assert not certificate.holds and not certificate.checks["spectral abscissa < 0"]
    assert certificate.residual == focus.point.residual  # handed on as it is


def test_nothing_is_stable_where_there_is_no_steady_state():
    # the pool gain of neuron 2 is 5 * 0.8^2 > 1 and nothing reduces it: its a grows
    circuit = Circuit(5 * np.eye(2), np.diag([1.0, 0.0]), b=1.0, b0=1.0, sigma=0.5)
    linear = stability(steady_state(circuit, np.array([0.6, 0.8])))
    assert not linear.point.converged and not linear.stable
    certificate = certify(linear.point)
    assert not certificate.holds and not certificate.checks["steady state converged"]


# general recurrence


def test_general_recurrence_has_the_spectral_certificate_only():
    circuit, z = wide_circuit(3, 2, recurrence=0.9)
    certificate = certify(steady_state(circuit, z))
    assert certificate.kind == "spectral" and certificate.holds
    assert certificate.T is None and certificate.margin is None
    assert set(certificate.checks) == {
        "steady state converged", "spectral abscissa < 0", "stable beyond rounding"
    }  # fmt: skip
    # as where other roundings of the Jacobian are not stable
    doubtful = stability(steady_state(circuit, z))._replace(stable=jnp.bool_(False))
    assert doubtful.spectral_abscissa < 0 and not certify(doubtful.point, doubtful).holds
    state = steady_state(circuit, z).state
    with pytest.raises(ValueError, match=r"`oscillator` exists only for identity recurrence"):
        oscillator(steady_state(circuit, z))
    with pytest.raises(ValueError, match=r"`energy` exists only for identity recurrence"):
        energy(steady_state(circuit, z), state)


@pytest.mark.parametrize("W_r", [jnp.eye(2), Diagonal(np.ones(2))], ids=["matrix", "diagonal"])
def test_an_explicit_identity_counts_as_identity_recurrence(W_r):
    circuit, z = moderate_circuit(5, 2)
    explicit = eqx.tree_at(lambda c: c.W_r, circuit, W_r, is_leaf=lambda leaf: leaf is None)
    want, got = certify(steady_state(circuit, z)), certify(steady_state(explicit, z))
    assert got.kind == "diagonal Lyapunov" and got.holds and set(got.checks) == set(want.checks)
    np.testing.assert_allclose(got.T, want.T, rtol=1e-9)
    np.testing.assert_allclose(
        oscillator(steady_state(explicit, z)).B, oscillator(steady_state(circuit, z)).B, atol=1e-9
    )
    state = State(z, jnp.ones(2))
    np.testing.assert_allclose(
        energy(steady_state(explicit, z), state), energy(steady_state(circuit, z), state), rtol=1e-9
    )
    # under a trace nobody can know that it is the identity
    traced = eqx.filter_jit(lambda circuit, z: certify(steady_state(circuit, z)))
    assert traced(explicit, z).kind == "spectral"


# energy


@eqx.filter_jit
def energy_and_form(circuit, z):
    """Energy, gradient and Hessian at the steady state; the Hessian that the theory predicts."""
    steady = steady_state(circuit, z)
    B, K, coupled = oscillator(steady)
    T, J = certify(steady).T, jacobian(circuit, steady.state)
    y, a = steady.state
    n = circuit.n

    def of_vector(x):
        return energy(steady, State(x[:n], x[n:]))

    at_rest = jnp.concatenate([y, a])
    # E = x'^T T x' + x^T T K x in terms of (y - y_s, a - a_s): x = C (y - y_s), x' from J
    C = jnp.diag(jnp.where(coupled, circuit.tau_y * jnp.sqrt(a) / jnp.where(coupled, y, 1), 0))
    x, x_dot = jnp.hstack([C, jnp.zeros_like(C)]), C @ J[:n]
    form = x_dot.T @ jnp.diag(T) @ x_dot + x.T @ jnp.diag(T) @ K @ x
    power = -x_dot.T @ (jnp.diag(T) @ B + B.T @ jnp.diag(T)) @ x_dot
    values = of_vector(at_rest), jax.grad(of_vector)(at_rest)
    return *values, jax.hessian(of_vector)(at_rest), 2 * form, 2 * power, J


def scaled(M, like):
    """`M` in coordinates that scale the nonzero diagonal entries of `like` to 1."""
    diagonal = np.diag(like)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    return scale[:, None] * np.asarray(M) * scale[None, :]


@settings(max_examples=30)
@given(seed=seeds, n=few_sizes, rectified=st.booleans(), rest=rest)
def test_energy_is_the_quadratic_form_of_the_oscillators(seed, n, rectified, rest):
    circuit, z = drawn_circuit(seed, n, rectified, rest)
    lowest, gradient, H, want, power, J = map(np.asarray, energy_and_form(circuit, z))
    size = np.where(np.diag(want) > 0, np.diag(want), 1)
    assert 0 <= lowest <= 1e-20 * size.max()
    np.testing.assert_allclose(gradient / np.sqrt(size), 0, atol=1e-10)
    np.testing.assert_allclose(scaled(H, want), scaled(want, want), atol=1e-8)
    # along the linearized flow dE/dt is a quadratic form too, and nowhere positive
    change = J.T @ H + H @ J
    rate = np.abs(np.diag(scaled(power, want))).max() + 1e-300
    np.testing.assert_allclose(scaled(change, want) / rate, scaled(power, want) / rate, atol=1e-7)
    assert np.linalg.eigvalsh(scaled(change, want) / rate).max() <= 1e-7


@given(seed=seeds, n=few_sizes)
def test_energy_is_zero_at_rest_and_positive_elsewhere(seed, n):
    circuit, z = moderate_circuit(seed, n)
    state = steady_state(circuit, z).state
    assert 0 <= energy(steady_state(circuit, z), state) < 1e-25
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1.0, 100.0):
        move = size * rng.normal(size=(2, n))
        moved = State(state.y + move[0], state.a * jnp.exp(jnp.asarray(move[1] / 100)))
        assert energy(steady_state(circuit, z), moved) > 1e-10 * size**2
    assert energy(steady_state(circuit, z), State(state.y, 1.01 * state.a)) > 0


@eqx.filter_jit
def energies_nearby(circuit, z, directions, distance, steps=400):
    """Energies along nonlinear trajectories that start at a relative `distance` from rest."""
    steady = steady_state(circuit, z)
    size = jnp.linalg.norm(jnp.concatenate(steady.state))
    dt = 0.05

    def step(state, _):
        def moved(k, h):
            return State(*(s + h * v for s, v in zip(state, k, strict=True)))

        k1 = circuit.velocity(state, z)
        k2 = circuit.velocity(moved(k1, dt / 2), z)
        k3 = circuit.velocity(moved(k2, dt / 2), z)
        k4 = circuit.velocity(moved(k3, dt), z)
        mean = State(
            *((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
        )
        return moved(mean, dt), energy(steady, state)

    def from_direction(direction):
        move = distance * size * direction
        start = State(steady.state.y + move[: circuit.n], steady.state.a + move[circuit.n :])
        return jax.lax.scan(step, start, length=steps)[1]

    return jax.vmap(from_direction)(directions)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3])
def test_energy_along_nonlinear_trajectories(distance, rectified):
    circuit, z = moderate_circuit(7, 5, rectified=rectified)
    directions = np.random.default_rng(0).normal(size=(30, 10))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    along = energies_nearby(circuit, z, jnp.asarray(directions), jnp.asarray(distance))
    along = np.asarray(along)
    rises = np.diff(along, axis=1).max(axis=1) / along[:, 0]
    assert np.all(rises <= distance)  # the energy is of second order, what may rise of third
    assert np.all(along[:, -1] < 0.2 * along[:, 0])


@pytest.mark.parametrize("distance", [3e-2, 1e-2, 3e-3])
def test_energy_may_rise_at_third_order_only(distance):
    # y off by `distance`, the mismatch of input and reconstruction far smaller and of y's sign
    circuit, z = planar(), jnp.ones(1)
    y, a = steady_state(circuit, z).state
    y = y * (1 + distance)
    state = State(y, jnp.square((circuit.b * z + distance**3) / y))
    _, rise = jax.jvp(
        lambda s: energy(steady_state(circuit, z), s), (state,), (circuit.velocity(state, z),)
    )
    T = certify(steady_state(circuit, z)).T
    y_s, a_s, tau_a = circuit.b * z / jnp.sqrt(a), a, circuit.tau_a
    leading = T * a_s / y_s * jnp.sqrt(a_s) * distance**5 / tau_a
    np.testing.assert_allclose(jnp.sum(leading), rise, rtol=10 * distance)
    assert 0 < rise < distance**3


@pytest.mark.rounding
def test_energy_at_the_edges_of_floating_point_and_of_the_state_space():
    circuit = planar()
    for z in (jnp.array([1e-170]), jnp.array([1e90])):  # the square of the first underflows
        y, a = steady_state(circuit, z).state
        elsewhere = energy(steady_state(circuit, z), State(y * 1.1, a))
        assert 0 < elsewhere < 1e100
        assert energy(steady_state(circuit, z), State(y, a)) <= 1e-25 * elsewhere
    z = jnp.ones(1)
    assert np.isfinite(
        energy(steady_state(circuit, z), State(z, -jnp.ones(1)))
    )  # `sqrt(a)` counts as 0 there


def test_energy_refuses_stacked_states():
    circuit, z = moderate_circuit(0, 2)
    states = State(jnp.ones((5, 2)), jnp.ones((5, 2)))
    with pytest.raises(ValueError, match=r"`state.y` must have shape \(2,\), not \(5, 2\).*vmap"):
        energy(steady_state(circuit, z), states)
    mapped = jax.jit(jax.vmap(lambda state: energy(steady_state(circuit, z), state)))
    np.testing.assert_allclose(
        mapped(states), energy(steady_state(circuit, z), State(jnp.ones(2), jnp.ones(2)))
    )


# explicit Euler


@pytest.mark.rounding
@given(seed=seeds, n=sizes, rectified=st.booleans())
def test_largest_euler_step_bounds_the_stable_steps(seed, n, rectified):
    circuit, z = drawn_circuit(seed, n, rectified, False)
    linear, _, _, J = analyze(circuit, z)
    step = float(largest_euler_step(linear.eigenvalues))
    assert step > 0
    for factor, stable in ((1 - 1e-6, True), (1 + 1e-6, False)):
        radius = np.abs(np.linalg.eigvals(np.eye(2 * n) + factor * step * np.asarray(J))).max()
        assert (radius < 1) == stable


@pytest.mark.parametrize(("n", "w_r"), [(1, None), (2, None), (2, 2.0)])
def test_euler_iteration_converges_below_and_leaves_above(n, w_r):
    circuit, z = moderate_circuit(n, n)
    if w_r is not None:
        circuit = eqx.tree_at(
            lambda c: c.W_r, circuit, w_r * jnp.eye(n), is_leaf=lambda leaf: leaf is None
        )
    linear = stability(steady_state(circuit, z))
    assert linear.stable
    at_rest = linear.point.state
    limit = largest_euler_step(linear.eigenvalues)

    @jax.jit
    def distance_after(steps, dt):
        def euler(_, state):
            velocity = circuit.velocity(state, z)
            return State(state.y + dt * velocity.y, state.a + dt * velocity.a)

        start = State(at_rest.y + 1e-7, at_rest.a + 1e-7)
        y, a = jax.lax.fori_loop(0, steps, euler, start)
        return jnp.linalg.norm(jnp.concatenate([y - at_rest.y, a - at_rest.a]))

    assert distance_after(20_000, 0.99 * limit) < 1e-10
    assert not distance_after(20_000, 1.01 * limit) < 1e-5  # NaN has left, too


def test_largest_euler_step_of_given_eigenvalues():
    np.testing.assert_allclose(largest_euler_step(jnp.array([-0.5 + 0j, -2 + 0j])), 1)
    np.testing.assert_allclose(largest_euler_step(jnp.array([-1 + 3j, -1 - 3j])), 0.2)
    assert largest_euler_step(jnp.array([-1 + 0j, 2 + 0j])) < 0
    assert largest_euler_step(jnp.array([-1 + 0j, 0j])) == 0


# transformations, precision, refusals


@pytest.mark.parametrize("norm", [None, pytest.param(0.9, marks=pytest.mark.rounding)])
def test_compiled_and_mapped_equal_the_plain_call(norm):
    keys = jr.split(jr.key(0), 4)
    circuits = jax.vmap(lambda k: Circuit.random(k, 2, norm))(keys)
    drives = jax.vmap(lambda k: random_drive(k, 2))(keys)

    def everything(circuit, z):
        linear = stability(steady_state(circuit, z))
        found = certify(linear.point)
        return linear, found.holds, found.T, found.margin

    mapped = jax.jit(jax.vmap(everything))(circuits, drives)
    for i in range(4):
        circuit, z = jax.tree.map(lambda x, i=i: x[i], (circuits, drives))
        other, holds, T, margin = jax.tree.map(lambda x, i=i: x[i], mapped)
        plain, *certified = everything(circuit, z)
        assert other.stable == plain.stable
        assert mismatch(other.eigenvalues, plain.eigenvalues) < 1e-8
        for name in ("spectral_abscissa", "frequencies", "damping_ratios"):
            got, want = (np.sort(getattr(one, name), axis=None) for one in (other, plain))
            np.testing.assert_allclose(got, want, atol=1e-7)
        assert holds and certified[0]
        if norm is None:
            np.testing.assert_allclose(T, certified[1], rtol=1e-9)
            np.testing.assert_allclose(margin, certified[2], rtol=1e-9)
            assert mismatch(analyze(circuit, z)[0].eigenvalues, plain.eigenvalues) < 1e-8
        else:
            assert T is margin is certified[1] is certified[2] is None


@pytest.mark.parametrize("rectified", [False, True])
def test_single_precision(rectified):
    for seed in range(5):
        double, z = moderate_circuit(seed, 2, rectified=rectified)
        single = jax.tree.map(lambda x: x.astype(jnp.float32), double)
        linear, oscillators, certificate, _ = analyze(single, z.astype(jnp.float32))
        want = analyze(double, z)
        assert linear.eigenvalues.dtype == jnp.complex64
        dtypes = {x.dtype for x in (certificate.T, oscillators.B, linear.damping_ratios)}
        assert dtypes == {jnp.dtype(jnp.float32)}
        assert linear.stable and certificate.holds
        assert mismatch(linear.eigenvalues, want[0].eigenvalues) < 1e-3
        np.testing.assert_allclose(certificate.T, want[2].T, rtol=1e-3)
        steady = linear.point
        outcome = verify(steady, certificate.T)
        assert outcome.valid
        np.testing.assert_allclose(certificate.margin, want[2].margin, rtol=1e-3)
        state = State(2 * steady.state.y, steady.state.a)
        value = energy(steady_state(single, z.astype(jnp.float32)), state)
        assert value.dtype == jnp.float32 and (value > 0) == np.any(oscillators.coupled)


@pytest.mark.usefixtures("without_type_checks")
def test_refusals():
    circuit = Circuit(np.ones((2, 2)))
    points = jax.vmap(steady_state, (None, 0))(circuit, np.ones((3, 2)))
    for function in (stability, oscillator, certify):
        with pytest.raises(ValueError, match="`point` must be an `OperatingPoint`"):
            function(circuit)
        with pytest.raises(ValueError, match="`point` must be one operating point"):
            function(points)
    with pytest.raises(ValueError, match="or 'spectral' has none"):
        verify(steady_state(circuit, np.ones(2)), None)


def test_eigenvalues_fall_so_that_the_leading_frequency_can_be_followed():
    rng = np.random.default_rng(0)
    circuit = Circuit(W=rng.uniform(size=(3, 3)), sigma=0.1, tau_y=10.0, tau_a=2.0)
    z = rng.normal(size=3)
    contrasts = np.geomspace(0.02, 2, 400)
    found = jax.jit(jax.vmap(lambda c: stability(steady_state(circuit, c * z))))(contrasts)
    values = np.asarray(found.eigenvalues)
    np.testing.assert_allclose(values[:, 0].real, found.spectral_abscissa)
    assert np.all(np.diff(values.real, axis=1) <= 0)
    pairs = np.diff(values.real, axis=1) == 0
    assert np.all(values.imag[:, :-1][pairs] > 0) and np.any(pairs)
    steps = np.abs(np.diff(values.real, axis=0)) / np.abs(values.real[1:])
    assert steps.max() < 0.2  # by rank they follow the contrast without jumps
    # the mode damped least of those that oscillate, also where one that does not is damped less
    oscillating = np.abs(values.imag) > 1e-6 * np.abs(values)
    first = np.argmax(oscillating, axis=1)
    frequencies = 1000 * np.abs(values.imag) / (2 * np.pi)
    expected = np.where(oscillating.any(axis=1), frequencies[np.arange(400), first], 0)
    np.testing.assert_allclose(found.leading_frequency, expected, rtol=1e-9)
    assert np.any(first > 0)


def test_a_state_that_is_stable_on_one_side_of_zero_only_is_not_stable():
    circuit = Circuit([[1.0]], [[-0.5]], b=1.0, b0=1.0, sigma=10.0, rectified=True)
    linear = stability(steady_state(circuit, np.zeros(1)))
    # the right slope: (1 - sqrt(a)) W_r - 1, with sqrt(a) = 10
    np.testing.assert_allclose(linear.spectral_abscissa, (-9 * -0.5 - 1) / 2, rtol=1e-12)
    assert linear.point.converged and not linear.stable
    assert not certify(steady_state(circuit, np.zeros(1))).holds
    start = State(jnp.full(1, 1e-6), circuit.c)
    assert simulate(circuit, np.zeros(1), 5.0, start).state.y[-1, 0] > 1e-3


@given(seed=seeds)
def test_of_neurons_at_zero_all_combinations_of_slopes_are_looked_at(seed):
    rng = np.random.default_rng(seed)
    silent = rng.uniform(size=5) < 0.4
    circuit = Circuit(
        rng.uniform(size=(5, 5)), 0.4 * rng.normal(size=(5, 5)), b0=1.0, sigma=3.0, rectified=True
    )
    state = State(-np.where(silent, 1.0, 0.0), np.asarray(circuit.c))
    z = state.y / np.asarray(circuit.b)
    found = slopes_at(circuit, z, state)
    active = [np.where(silent, 0.0, bits) for bits in itertools.product([0.0, 1.0], repeat=5)]
    s = np.sqrt(np.asarray(circuit.c))
    W_r = np.asarray(circuit.W_r)
    blocks = [((1 - s)[:, None] * W_r * one[None, :] - np.eye(5)) / 2 for one in active]
    largest = max(np.linalg.eigvals(block).real.max() for block in blocks)
    expected = -0.5 if found.stable else max(largest, -0.5)  # the first where nothing grows
    np.testing.assert_allclose(found.spectral_abscissa, expected, rtol=1e-9)
    assert found.stable or largest > -0.5


@jax.jit
def slopes_at(circuit, z, state):
    return stability(claimed(circuit, z, state))


def zero_drive_circuits(count):
    """Two neurons; many of these `W_r` and `b0 sigma` make them excite themselves or each other."""
    rng = np.random.default_rng(3)
    ones = np.ones((count, 2))
    return {
        "W": np.tile(np.eye(2), (count, 1, 1)),
        "W_r": rng.normal(size=(count, 2, 2)) * rng.choice([0.2, 1.0], (count, 1, 1)),
        "b": ones,
        "b0": ones,
        "sigma": 10 ** rng.uniform(-1, 1, (count, 2)),
        "tau_y": 2 * ones,
        "tau_a": 2 * ones,
    }


@eqx.filter_jit
def at_zero(parameters, drives, states):
    def one(values, z, state):
        circuit = Circuit(**values, rectified=True)
        converged = steady_state(circuit, z).converged
        return slopes_at(circuit, z, state).stable, converged

    return jax.vmap(one)(parameters, drives, states)


def test_a_silent_circuit_is_stable_only_if_no_small_activity_grows():
    """Against a simulation of `tau y' = -y + M relu(y)` from many directions, by hand."""
    parameters = zero_drive_circuits(60)
    k = parameters["sigma"]
    stable, _ = at_zero(parameters, np.zeros((60, 2)), State(np.zeros((60, 2)), k**2))
    M = (1 - k)[:, :, None] * parameters["W_r"]
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    y = np.tile(np.stack([np.cos(angles), np.sin(angles)]), (60, 1, 1))
    sizes = []
    for _ in range(3000):
        y = np.clip(y + 0.02 * (-y + M @ np.maximum(y, 0)), -1e6, 1e6)
        sizes.append(np.abs(y).max(axis=(1, 2)))
    fades = sizes[-1] < 0.99 * sizes[-500]
    assert 20 < fades.sum() < 50
    np.testing.assert_array_equal(stable, fades)


def test_stable_on_both_sides_as_in_two_dimensions():
    """Two separate neurons: stable if `fixed_points_2d` says so of each."""
    w_r = np.array([0.5, 2.0, 3.0, 0.9])
    sigma = np.array([0.1, 0.1, 0.9, 5.0])
    verdicts = []
    for weight, width in zip(w_r, sigma, strict=True):
        circuit = Circuit([[1.0]], [[weight]], b=1.0, b0=1.0, sigma=width, rectified=True)
        (at_0,) = [point for point in fixed_points_2d(circuit, 0.0) if point.y == 0]
        verdicts.append(at_0.stable)
    assert True in verdicts and False in verdicts
    pairs = np.tile([(i, j) for i in range(4) for j in range(4)], (4, 1))[:60]
    parameters = zero_drive_circuits(60)
    parameters["W_r"] = w_r[pairs][:, :, None] * np.eye(2)
    parameters["sigma"] = sigma[pairs]
    rest = State(np.zeros((60, 2)), sigma[pairs] ** 2)
    got, _ = at_zero(parameters, np.zeros((60, 2)), rest)
    np.testing.assert_array_equal(got, np.array(verdicts)[pairs].all(axis=1))


def test_a_neuron_whose_inputs_cancel_must_be_stable_on_both_sides():
    """Neuron 0 hears 1 and its own opposite drive; once active it excites itself, or not."""
    parameters = zero_drive_circuits(60)
    parameters["sigma"] = np.full((60, 2), 0.5)
    # y_1 rests at 1/2 with a_1 = 1/3; what neuron 0 hears of it is taken away by z_0
    itself = np.where(np.arange(60) % 2 == 0, 4.0, 0.5)
    parameters["W_r"] = np.array([[[w, 1.0], [0.0, 0.0]] for w in itself])
    drive = np.tile([-0.5 * 0.5, 0.5 / np.sqrt(3)], (60, 1))
    rest = State(np.tile([0.0, 0.5], (60, 1)), np.tile([0.25, 1 / 3], (60, 1)))
    np.testing.assert_array_equal(at_zero(parameters, drive, rest)[0], itself < 1)


def test_with_more_neurons_at_zero_than_are_looked_at_nothing_is_called_stable():
    """As above, for all but the last of twelve neurons: each alone would be stable."""
    W_r = np.zeros((12, 12))
    W_r[:-1, -1] = 1.0
    circuit = Circuit(np.eye(12), W_r, b=1.0, b0=1.0, sigma=0.5, rectified=True)
    a = np.r_[np.full(11, 0.25), 1 / 3]
    z = np.r_[np.full(11, -0.25), 0.5 / np.sqrt(3)]
    state = State(jnp.asarray(np.r_[np.zeros(11), 0.5]), jnp.asarray(a))
    steady = claimed(circuit, z, state)
    linear = stability(steady)
    assert linear.spectral_abscissa < 0 and not linear.stable
    certificate = certify(steady)
    assert not certificate.holds and not certificate.checks["activity at y = 0 decays"]


def test_identity_recurrence_is_stable_by_structure_whatever_rounding_does():
    rng = np.random.default_rng(0)
    decades = lambda *shape: 10 ** rng.uniform(-4, 4, shape).astype(np.float32)  # noqa: E731
    W, z = decades(100, 12, 12), decades(100, 12)
    sigma, tau_y, tau_a = decades(100, 12), decades(100, 12), decades(100, 12)

    @jax.jit
    @jax.vmap
    def linear(W, z, sigma, tau_y, tau_a):
        return stability(steady_state(Circuit(W, sigma=sigma, tau_y=tau_y, tau_a=tau_a), z))

    found = linear(W, z, sigma, tau_y, tau_a)
    assert np.all(found.point.converged) and np.all(found.stable)
    assert np.all(found.spectral_abscissa < 0)  # as eigenvalues are computed in double precision
    explicit = Circuit(W[0], np.eye(12), sigma=sigma[0], tau_y=tau_y[0], tau_a=tau_a[0])
    assert stability(steady_state(explicit, z[0])).stable


def test_a_stack_of_circuits_that_is_not_mapped_is_refused():
    stack = jax.vmap(lambda W: Circuit(W, np.eye(4)))(np.ones((4, 4, 4)))
    for call in (
        lambda: steady_state(stack, np.ones(4)),
        lambda: stability(steady_state(stack, np.ones(4))),
        lambda: certify(steady_state(stack, np.ones(4))),
        lambda: simulate(stack, np.ones(4), 1.0),
    ):
        with pytest.raises(ValueError, match=r"`circuit` must be one .*\(4, 4\).*`jax.vmap"):
            call()


@pytest.mark.usefixtures("without_type_checks")
def test_a_step_needs_the_eigenvalues_of_one_jacobian():
    for wrong in (np.zeros(0, complex), np.zeros((2, 4), complex)):
        with pytest.raises(ValueError, match="`eigenvalues` must be those of one Jacobian"):
            largest_euler_step(wrong)


def test_in_float32_a_gain_that_cancels_does_not_decide():
    """`(1 - sqrt(a)) w_r - 1` is 4e-9 by the decimals of these numbers, and -2e-8 by float32."""
    with jax.enable_x64(False):
        b0, sigma, w_r = (np.float32(v) for v in (0.8076925, 0.653471, 2.117763))
        circuit = Circuit(np.eye(1, dtype="float32"), np.full((1, 1), w_r), 1.0, b0, sigma)
        silent = np.zeros(1, "float32")
        point = given_state(circuit, silent, State(silent, circuit.c))
        assert (1 - float(b0) * float(sigma)) * float(w_r) > 1
        assert point.converged and not stability(point).stable
        assert not stability(point, matrix_free=True).stable
        less = eqx.tree_at(lambda c: c.W_r, circuit, circuit.W_r * (1 - 1e-5))
        point = given_state(less, silent, State(silent, less.c))
        assert stability(point).stable and stability(point, matrix_free=True).stable


def test_a_drive_too_small_for_float32_is_at_rest():
    with jax.enable_x64(False):
        circuit = Circuit(np.eye(2, dtype="float32"), b=np.array([1e-34, 1.0]), sigma=1.0)
        point = steady_state(circuit, np.ones(2, "float32"))
        assert point.converged and stability(point).stable


def test_a_few_eigenvalues_do_not_say_that_nothing_oscillates():
    """The slowest modes do not; further to the left others ring."""
    n = 60
    pool = LowRank(np.ones((n, 1)), np.ones((n, 1)) / n)
    circuit = Circuit(pool, sigma=np.geomspace(0.01, 0.3, n), b0=1.0, tau_y=20.0, tau_a=20.0)
    point = steady_state(circuit, np.linspace(1.5, 3, n))
    every, few = stability(point), stability(point, matrix_free=True)
    assert every.leading_frequency > 5
    assert np.isnan(few.leading_frequency) or np.isclose(
        few.leading_frequency, every.leading_frequency, rtol=1e-3
    )
    assert "nan" not in str(few)


def test_a_check_in_single_precision_refuses_what_is_wrong():
    """Two of 40 neurons excite each other at a saddle; and a state that is not at rest."""
    n = 40
    single = lambda x: np.asarray(x, np.float32)  # noqa: E731
    W_r = single(np.eye(n))
    W_r[:2, :2] = [[0, 3], [3, 0]]
    W, y, a = single(0.5 * np.eye(n)), np.full(n, 0.5), np.full(n, 0.04)
    sigma = single(np.sqrt(a - W @ (y**2 * a)))
    z = single(y - (1 - np.sqrt(a)) * (W_r @ y))
    circuit = Circuit(W, W_r, 1.0, 1.0, sigma, 2.0, 0.2)
    saddle = given_state(circuit, z, State(single(y), single(a)))
    assert saddle.converged
    J = np.asarray(jacobian(circuit, saddle.state), float)
    assert np.linalg.eigvals(J).real.max() > 0.5
    assert "the stiffness is not diagonal" in verify(saddle, np.ones(n)).failures
    rng = np.random.default_rng(0)
    circuit = Circuit(single(rng.uniform(size=(n, n)) / n), sigma=np.float32(0.1))
    point = steady_state(circuit, single(rng.normal(size=n)))
    T = certify(point).T
    assert verify(point, T).valid
    moved = given_state(circuit, point.z, State(point.state.y * np.float32(1.1), point.state.a))
    assert "the steady state has not converged" in verify(moved, T).failures


def test_a_nearly_defective_jacobian_is_not_certified_beyond_rounding():
    """Of `W_r` with one Jordan block an eigenvalue moves by the sixth root of the rounding; the
    computed one may be on the wrong side. Moved away from there, the circuit is certified."""
    n, rng = 6, np.random.default_rng(7)
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    for eigenvalue, stable in ((1.998404622298949, False), (1.9, True)):
        W_r = Q @ (eigenvalue * np.eye(n) + np.diag(np.ones(n - 1), 1)) @ Q.T
        circuit = Circuit(np.full((n, n), 0.1), W_r, 1.0, 1.0, 0.5, 2.0, 2.0)
        point = given_state(circuit, np.zeros(n), State(jnp.zeros(n), circuit.c))
        found = certify(point)
        assert found.holds == found.checks["stable beyond rounding"] == stable
