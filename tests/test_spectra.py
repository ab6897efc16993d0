import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from circuits import seeds, wide_circuit
from hypothesis import given
from hypothesis import strategies as st

from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import jacobian
from organics.rest.search import given_state, steady_state
from organics.simulation.noise import Noise, simulate_noisy
from organics.simulation.ode import Trajectory
from organics.spectra import (
    SpectralEstimate,
    coherence,
    cross_spectrum,
    lyapunov,
    power_spectrum,
    stationary_covariance,
    welch,
)

N = 2
F = np.array([-0.3, 0.0, 0.05, 2.0])  # frequencies in kHz: each other number of them compiles again


def example():
    """A circuit with recurrence, a drive, and noise of every kind, different in every neuron."""
    circuit = Circuit(
        W=np.array([[0.4, 0.9], [0.1, 0.7]]),
        W_r=np.array([[0.5, -0.6], [0.4, 0.3]]),
        b=np.array([0.6, 0.9]),
        tau_y=np.array([2.0, 3.0]),
        tau_a=np.array([10.0, 7.0]),
    )
    noise = Noise(np.array([1e-3, 2e-3]), 5e-4, 1e-3, np.array([2e-3, 1e-3]))
    return circuit, jnp.asarray(np.array([0.8, -0.5])), noise


def unstable():
    """The upper branch of a bistable circuit whose steady state is an unstable focus."""
    circuit = Circuit(W=np.ones((1, 1)), W_r=2 * np.ones((1, 1)))
    return circuit, State(jnp.array([-0.978886]), jnp.array([0.059833]))


def resting(circuit, state):
    """The operating point at a state known to a few digits, under the drive that it needs."""
    imbalance = circuit.imbalance(state, jnp.zeros_like(state.y))
    return given_state(circuit, -imbalance.y / circuit.b, state, tolerance=1e-4)


def paper_circuit():
    """The circuit, drive and noise whose spectra were checked against theory."""
    circuit = Circuit(W=np.ones((1, 1)), b=0.5, b0=0.5, sigma=0.1, tau_y=2.0, tau_a=10.0)
    return circuit, jnp.asarray(np.ones(1)), Noise(2e-3, 2e-3)


@pytest.fixture(scope="module")
def trials():
    """Simulations of `paper_circuit` from rest, sampled so often that aliasing does not matter."""
    circuit, z, noise = paper_circuit()
    rest = steady_state(circuit, z).state
    run = lambda key: simulate_noisy(  # noqa: E731
        circuit, z, noise, 0.02, 40_000, rest, key=key, save_every=5
    )
    return jax.jit(jax.vmap(run))(jr.split(jr.key(0), 128))


@pytest.fixture(scope="module")
def estimate(trials):
    return welch(trials, nperseg=1500, discard=100.0)


def test_spectrum_agrees_with_welch_of_a_long_simulation(estimate):
    circuit, z, noise = paper_circuit()
    band = (estimate.frequencies >= 0.02) & (estimate.frequencies <= 0.4)
    assert np.sum(band) > 50
    ratio = estimate.power[band] / power_spectrum(
        steady_state(circuit, z), estimate.frequencies[band], noise
    )
    np.testing.assert_allclose(np.median(ratio, axis=0), 1, atol=0.02)
    assert np.all(np.quantile(np.abs(ratio - 1), 0.95, axis=0) < 0.08)


def test_cross_spectrum_agrees_with_welch_in_size_and_phase(estimate):
    circuit, z, noise = paper_circuit()
    band = (estimate.frequencies >= 0.02) & (estimate.frequencies <= 0.1)
    want = np.asarray(cross_spectrum(steady_state(circuit, z), estimate.frequencies[band], noise))[
        :, 0, 1
    ]
    # one sign of the phase throughout: conjugation would be seen
    assert np.all(want.imag / np.abs(want) > 0.5)
    np.testing.assert_allclose(estimate.cross[band][:, 0, 1] / want, 1, atol=0.1)


def test_coherence_agrees_with_welch(estimate):
    circuit, z, noise = paper_circuit()
    band = (estimate.frequencies >= 0.02) & (estimate.frequencies <= 0.4)
    want = coherence(steady_state(circuit, z), estimate.frequencies[band], noise)
    assert 0.2 < np.max(want[:, 0, 1]) < 0.99
    np.testing.assert_allclose(estimate.coherence[band], want, atol=0.04)


def test_covariance_agrees_with_a_long_simulation(trials):
    circuit, z, noise = paper_circuit()
    x = np.concatenate([trials.state.y, trials.state.a], axis=-1)[:, 1000:].reshape(-1, 2)
    P = np.asarray(stationary_covariance(steady_state(circuit, z), noise))
    np.testing.assert_allclose(np.cov(x.T) / P, 1, atol=0.03)


def test_the_integral_of_the_spectrum_is_the_covariance():
    circuit, z, noise = example()
    # all frequencies, as f = tan(theta) / 10
    theta = (np.arange(2000) + 0.5) * np.pi / 2000 - np.pi / 2
    weight = np.pi / 2000 / np.cos(theta) ** 2 / 10
    S = np.asarray(cross_spectrum(steady_state(circuit, z), np.tan(theta) / 10, noise))
    integral = np.einsum("f,fij->ij", weight, S)
    P = np.asarray(stationary_covariance(steady_state(circuit, z), noise))
    np.testing.assert_allclose(integral, P, rtol=1e-6, atol=1e-12)


@pytest.mark.rounding
def test_spectrum_is_that_of_the_formula():
    circuit, z, noise = example()
    state = steady_state(circuit, z).state
    x = np.concatenate(state)
    velocity = lambda x: jnp.concatenate(circuit.velocity(State(x[:N], x[N:]), z))  # noqa: E731
    J = np.asarray(jax.jit(jax.jacobian(velocity))(x))
    additive = np.array([1e-3, 2e-3, 5e-4, 5e-4])
    multiplicative = np.array([1e-3, 1e-3, 2e-3, 1e-3])
    tau = np.concatenate([circuit.tau_y, circuit.tau_a])
    Q = np.diag((additive**2 + (multiplicative * x) ** 2) / tau)
    cross = np.asarray(cross_spectrum(steady_state(circuit, z), F, noise))
    for k, w in enumerate(2 * np.pi * F):
        A = np.linalg.inv(1j * w * np.eye(2 * N) - J)
        want = A @ Q @ np.linalg.inv(-1j * w * np.eye(2 * N) - J).T
        np.testing.assert_allclose(cross[k], want, rtol=1e-9)
    diagonal = np.einsum("fii->fi", cross).real
    np.testing.assert_allclose(
        power_spectrum(steady_state(circuit, z), F, noise), diagonal, rtol=1e-12
    )
    sizes = np.abs(cross) ** 2 / (diagonal[:, :, None] * diagonal[:, None, :])
    np.testing.assert_allclose(coherence(steady_state(circuit, z), F, noise), sizes, rtol=1e-9)


def test_a_leaky_neuron_has_a_lorentzian_spectrum():
    circuit = Circuit(W=np.zeros((1, 1)), b0=1.0, sigma=1.0, tau_a=5.0)
    got = np.asarray(power_spectrum(steady_state(circuit, np.zeros(1)), F, Noise(additive_a=0.1)))
    want = 0.1**2 / 5 / ((1 / 5) ** 2 + (2 * np.pi * F) ** 2)
    np.testing.assert_allclose(got[:, 1], want, rtol=1e-12)
    np.testing.assert_array_equal(got[:, 0], 0)
    between = np.asarray(coherence(steady_state(circuit, np.zeros(1)), F, Noise(additive_a=0.1)))
    np.testing.assert_array_equal(between[:, 0], 0)


@jax.jit
def jacobian_and_covariance(circuit, z):
    state = steady_state(circuit, z).state
    return jacobian(circuit, state), stationary_covariance(resting(circuit, state), Noise(0.3, 0.2))


@pytest.mark.rounding
@given(seed=seeds, rectified=st.booleans())
def test_covariance_against_scipy(seed, rectified):
    n = 4
    circuit, z = wide_circuit(seed, n, rectified=rectified)
    J, got = (np.asarray(found) for found in jacobian_and_covariance(circuit, z))
    tau = np.concatenate([circuit.tau_y, circuit.tau_a])
    Q = np.diag(np.repeat([0.3, 0.2], n) ** 2 / tau)
    np.testing.assert_array_equal(got, got.T)
    assert np.min(np.linalg.eigvalsh(got)) > 0
    want = scipy.linalg.solve_continuous_lyapunov(J, -Q)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8 * np.max(np.abs(want)))


def test_lyapunov_of_slow_and_fast_rates_and_of_a_defective_matrix():
    solve = jax.jit(lyapunov)
    J = np.diag([-1e-6, -1e-2, -1e4]) + np.diag([1e-3, 1.0], 1)
    want = scipy.linalg.solve_continuous_lyapunov(J, -np.eye(3))
    # LAPACK's rounding is relative to the fastest rate, ten decades from the slowest
    np.testing.assert_allclose(solve(J, np.eye(3)), want, rtol=1e-4)
    block = np.array([[-1.0, 1.0], [0.0, -1.0]])
    np.testing.assert_allclose(solve(block, np.eye(2)), [[0.75, 0.25], [0.25, 0.5]], rtol=1e-12)


def test_derivatives():
    circuit, z, noise = example()

    def loss(z, level):
        noise = Noise(level, 1e-3)
        P = stationary_covariance(steady_state(circuit, z), noise)
        S = power_spectrum(steady_state(circuit, z), np.array([0.05]), noise)
        return 1e5 * (P[0, 1] + P[0, 0] + S[0, 3])

    at = (z, np.asarray(2e-3))
    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    value = lambda *at: both(*at)[0]  # noqa: E731
    _, slopes = both(*at)
    for i in range(N):
        h = 1e-5 * np.eye(N)[i]
        difference = (value(z + h, at[1]) - value(z - h, at[1])) / 2e-5
        np.testing.assert_allclose(slopes[0][i], difference, rtol=1e-5)
    difference = (value(z, at[1] + 1e-7) - value(z, at[1] - 1e-7)) / 2e-7
    np.testing.assert_allclose(slopes[1], difference, rtol=1e-5)


def test_maps_over_drives_and_has_nan_where_it_could_not_raise():
    circuit, rest = unstable()
    stable = steady_state(circuit, np.ones(1)).state
    states = jax.tree.map(lambda *x: np.stack(x), stable, rest)
    noise = Noise(1e-3)

    @jax.jit
    @jax.vmap
    def both(s):
        point = resting(circuit, s)
        return power_spectrum(point, F, noise), stationary_covariance(point, noise)

    power, covariance = (np.asarray(found) for found in both(states))
    np.testing.assert_allclose(power[0], power_spectrum(resting(circuit, stable), F, noise))
    assert np.all(np.isnan(power[1]))
    assert np.all(np.isfinite(covariance[0])) and np.all(np.isnan(covariance[1]))


def test_a_known_steady_state_is_taken():
    circuit, z, noise = example()
    point = steady_state(circuit, z)
    known = given_state(circuit, z, point.state)
    assert known.converged and known.method_name == "given"
    for function in (power_spectrum, cross_spectrum, coherence):
        np.testing.assert_allclose(function(known, F, noise), function(point, F, noise))


def test_refuses_what_is_not_stable_or_has_no_steady_state():
    circuit, rest = unstable()
    with pytest.raises(RuntimeError, match=r"not stable: its spectral abscissa is 0.117 per ms"):
        power_spectrum(resting(circuit, rest), np.ones(1), Noise(1e-3))
    nowhere = Circuit(W=5 * np.eye(2), W_r=np.diag([1.0, 0.0]), b=1.0)
    with pytest.raises(RuntimeError, match="no steady state was found"):
        stationary_covariance(steady_state(nowhere, np.array([0.6, 0.8])), Noise(1e-3))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"point": Circuit(W=np.ones((2, 2)))}, "`point` must be an `OperatingPoint`"),
        ({"frequencies": np.array([0.1, np.inf])}, "`frequencies` must be finite"),
        ({"noise": Noise(np.ones(3))}, "`additive_y` must be a scalar or have shape"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_refusals(changed, message):
    point = steady_state(Circuit(W=np.ones((2, 2))), np.ones(2))
    arguments = {"point": point, "frequencies": np.ones(1), "noise": Noise(0.1)} | changed
    with pytest.raises(ValueError, match=message):
        power_spectrum(**arguments)


@pytest.mark.parametrize(
    ("z", "state", "message"),
    [
        (np.ones(3), State(np.ones(2), np.ones(2)), r"`z` must have shape \(2,\)"),
        (np.array([1.0, np.nan]), State(np.ones(2), np.ones(2)), "`z` must be finite"),
        (np.ones(2), State(np.ones(2), np.ones(3)), r"`state.a` must have shape \(2,\)"),
        (np.ones(2), State(np.ones(2), -np.ones(2)), "`state.a` must be > 0"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_a_given_state_that_cannot_be_one_is_refused(z, state, message):
    with pytest.raises(ValueError, match=message):
        given_state(Circuit(W=np.ones((2, 2))), z, state)


def test_float32():
    circuit, z, noise = example()
    single = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float32)), circuit)
    of_double, of_single = steady_state(circuit, z), steady_state(single, z)
    for function in (power_spectrum, coherence, cross_spectrum):
        got, want = (np.asarray(function(one, F, noise)) for one in (of_single, of_double))
        assert got.dtype.itemsize == want.dtype.itemsize // 2
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3 * np.max(np.abs(want)))
    got = stationary_covariance(of_single, noise)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, stationary_covariance(of_double, noise), rtol=1e-3)


def recorded(x, dt=0.5):
    """A trajectory of one circuit of one neuron, whose `y` and `a` are the rows of `x`."""
    t, (y, a) = dt * np.arange(x.shape[1]), x[:, :, None]
    t, y, a, none, end, never = map(jnp.asarray, (t, y, a, 0, t[-1], False))
    return Trajectory(t, State(y, a), none, end, never)


@pytest.mark.parametrize("nperseg", [64, 75])
def test_welch_is_that_of_scipy_up_to_its_conventions(nperseg):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 1000)).cumsum(axis=1)
    got = welch(recorded(x), nperseg=nperseg)
    options = {"fs": 2.0, "nperseg": nperseg, "return_onesided": False}
    f, power = scipy.signal.welch(x, **options)
    half = (nperseg + 1) // 2  # the frequencies >= 0, Nyquist's apart
    assert isinstance(got, SpectralEstimate)
    np.testing.assert_allclose(got.frequencies[:half], f[:half])
    np.testing.assert_allclose(got.power[:half], power[:, :half].T)
    # scipy conjugates its first argument
    np.testing.assert_allclose(
        got.cross[:half, 0, 1], scipy.signal.csd(x[1], x[0], **options)[1][:half], rtol=1e-9
    )
    _, wanted = scipy.signal.coherence(x[0], x[1], fs=2.0, nperseg=nperseg)
    np.testing.assert_allclose(got.coherence[1:half, 0, 1], wanted[1:half], rtol=1e-9)


def test_welch_averages_over_trials_and_discards_the_beginning():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 400))
    trials = jax.tree.map(lambda *x: np.stack(x), *[recorded(one) for one in x])
    each = [welch(recorded(one), nperseg=50).cross for one in x]
    np.testing.assert_allclose(welch(trials, nperseg=50).cross, np.mean(each, axis=0), atol=1e-12)
    later = welch(recorded(x[0][:, 100:]), nperseg=50).cross
    np.testing.assert_allclose(
        welch(recorded(x[0]), nperseg=50, discard=50.0).cross, later, atol=1e-12
    )
    assert len(welch(trials).frequencies) == 400 // 15 // 2 + 1


def test_welch_refuses():
    good = recorded(np.random.default_rng(0).normal(size=(2, 100)))
    with pytest.raises(ValueError, match="`nperseg` must be from 2 to 100.*not 101"):
        welch(good, nperseg=101)
    with pytest.raises(ValueError, match="must be `ok` in every trial"):
        welch(eqx.tree_at(lambda t: t.failure, good, jnp.asarray(1)))
    with pytest.raises(ValueError, match="equal intervals"):
        welch(eqx.tree_at(lambda t: t.t, good, good.t**1.1))
    with pytest.raises(ValueError, match="`trajectory` must have two samples or more, not 1"):
        welch(recorded(np.zeros((2, 1))))
    trials = jax.tree.map(lambda x: jnp.stack([x, x]), good)
    welch(trials)
    with pytest.raises(ValueError, match="equal intervals, the same in all trials"):
        welch(eqx.tree_at(lambda t: t.t, trials, trials.t * jnp.array([[1.0], [2.0]])))
    for wrong in ({"discard": -1.0}, {"discard": np.nan}, {"nperseg": 1}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must"):
            welch(good, **wrong)


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_no_frequency_and_no_noise_is_refused():
    circuit, z = Circuit([[1.0]]), np.ones(1)
    with pytest.raises(ValueError, match="`frequencies` must be real, not of type complex"):
        power_spectrum(steady_state(circuit, z), np.array([0.1 + 1j]), Noise(0.1))
    with pytest.raises(ValueError, match="`noise` must be an `organics.Noise`, not 0.1"):
        power_spectrum(steady_state(circuit, z), np.array([0.1]), 0.1)  # pyright: ignore[reportArgumentType]


def test_correlated_noise_is_filtered_and_falls_as_the_fourth_power():
    circuit, z, white = paper_circuit()
    point, tau = steady_state(circuit, z), 3.0
    noise = Noise(2e-3, 2e-3, tau_f=tau)
    f = np.array([0.0, 0.05, 50.0, 100.0])
    S = np.asarray(power_spectrum(point, f, noise))
    filtered = 1 / (1 + (2 * np.pi * f * tau) ** 2)
    expected = filtered[:, None] * np.asarray(power_spectrum(point, f, white))
    np.testing.assert_allclose(S, expected, rtol=1e-9)
    np.testing.assert_allclose(np.log2(S[3] / S[2]), -4, rtol=0, atol=1e-3)
    # the covariance is the integral of the spectrum, and that of a simulation
    P = np.asarray(stationary_covariance(point, noise))
    J, amplitude = np.asarray(jacobian(circuit, point.state)), 2e-3 / np.sqrt([2.0, 10.0])
    grid = np.linspace(-2, 2, 20_001)
    X = np.linalg.inv(2j * np.pi * grid[:, None, None] * np.eye(2) - J) * amplitude
    power = np.sum(np.abs(X) ** 2, axis=2) / (1 + (2 * np.pi * grid * tau) ** 2)[:, None]
    np.testing.assert_allclose(np.diag(P), np.trapezoid(power, grid, axis=0), rtol=1e-4)
    path = simulate_noisy(
        circuit, z, noise, 0.1, 200_000, point.state, key=jr.key(0), save_every=10
    )
    x = np.concatenate(path.state, axis=1)
    np.testing.assert_allclose(np.var(x, axis=0), np.diag(P), rtol=0.15)


@pytest.mark.parametrize("tau_f", [0.0, -1.0, np.inf, np.ones(2)])
def test_a_correlation_time_is_one_positive_number(without_type_checks, tau_f):
    del without_type_checks
    with pytest.raises(ValueError, match="`tau_f` must be one finite number > 0"):
        Noise(1.0, tau_f=tau_f)


def test_there_is_no_linear_theory_at_a_kink():
    """Of two neurons without drive one reaches the third; the fourth is as without them."""
    W_r = np.eye(4)
    W_r[2, 0] = 0.2
    circuit = Circuit(W=0.5 * np.eye(4), W_r=W_r, sigma=0.1, rectified=True)
    point = steady_state(circuit, np.array([0.0, 0.0, 1.0, 1.0]))
    noise = Noise(1e-3, 1e-3)
    lost = np.array([1, 1, 1, 0, 0, 0, 1, 0], bool)
    power = power_spectrum(point, F, noise)
    np.testing.assert_array_equal(np.isnan(power), np.broadcast_to(lost, power.shape))
    alone = Circuit(W=0.5 * np.eye(1), W_r=np.eye(1), sigma=0.1, rectified=True)
    right = power_spectrum(steady_state(alone, np.ones(1)), F, noise)
    np.testing.assert_allclose(power[:, [3, 7]], right, rtol=1e-12)
    for pairs in (coherence(point, F, noise)[0], stationary_covariance(point, noise)):
        np.testing.assert_array_equal(np.isnan(pairs), lost[:, None] | lost[None, :])
    main = Circuit(W=0.5 * np.eye(4), W_r=W_r, sigma=0.1)
    assert np.all(np.isfinite(power_spectrum(steady_state(main, point.z), F, noise)))


def test_a_coherence_does_not_underflow():
    """Powers of which the product is less than float32 holds."""
    with jax.enable_x64(False):
        circuit = Circuit(np.array([[1, 0.5], [0.5, 1]], "float32"), sigma=0.1)
        point = steady_state(circuit, np.full(2, 1e-8, "float32"))
        found = coherence(point, np.array([0.01], "float32"), Noise(additive_y=0.01))[0]
    np.testing.assert_allclose(found[2:, 2:], [[1, 0.64], [0.64, 1]], rtol=1e-4)
    np.testing.assert_allclose(found[0, 2], 0.8, rtol=1e-4)
