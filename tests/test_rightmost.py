"""The rightmost eigenvalues by products alone are those of the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import organics
from organics import Circuit, Convolution, State, dispersion, stability, steady_state
from organics.linear.rightmost import eigenvalue_bound, rightmost
from organics.rest.search import given_state

N = 200


def ring(kernel):
    return Convolution(np.asarray(kernel)[None, None, None], 1, N, "periodic")


def circuit_on_a_ring(seed, *, identity=False, norm=1.0, rectified=False):
    rng = np.random.default_rng(seed)
    bump = np.exp(-0.5 * (np.arange(-20, 21) / 6.0) ** 2)
    W = ring(0.5 * bump / bump.sum())
    W_r = ring(rng.normal(size=7)).capped(1.0).scaled(norm)
    circuit = Circuit(W, None if identity else W_r, sigma=0.3, tau_a=4.0, rectified=rectified)
    z = rng.uniform(0.2, 1, N)
    return circuit, z


@pytest.mark.parametrize("identity", [True, False])
def test_abscissa_is_that_of_the_matrix(identity):
    for seed in range(2):
        circuit, z = circuit_on_a_ring(seed, identity=identity)
        point = steady_state(circuit, z, matrix_free=True)
        assert point.converged
        found = stability(point, matrix_free=True)
        values = np.linalg.eigvals(np.asarray(organics.jacobian(circuit, point.state)))
        assert found.matrix_free and found.residual < 1e-6 and found.stable
        assert found.spectral_abscissa == pytest.approx(values.real.max(), abs=1e-7)
        assert found.eigenvalues.size < 20 and "matrix-free" in str(found)
        assert eigenvalue_bound(circuit, point.state) >= np.abs(values).max()


def test_an_unstable_state_is_found_to_be_so():
    """Where a wave of a uniform ring grows, and oscillates."""
    waves = 25 * 2 * np.pi * np.arange(N) / N
    W = ring(np.roll(1 + 0.95 * np.cos(waves), N // 2) / N)
    factors = np.ones(N)
    factors[[25, -25]] += 1.9  # the onset is at 1.83
    circuit = Circuit(W, Convolution.from_transfer(factors[None]), 1.0, 1.0, 0.1, 2.0, 10.0)
    z = np.full(N, 0.6)
    known = dispersion(circuit, z)
    state = State(*(jnp.full(N, part[0]) for part in known.point.state))
    found = stability(given_state(circuit, z, state), matrix_free=True)
    assert not found.stable and found.spectral_abscissa > 0
    assert found.spectral_abscissa == pytest.approx(known.spectral_abscissa, abs=1e-7)
    assert found.leading_frequency == pytest.approx(1000 * known.leading.frequency, rel=1e-5)


def test_a_state_of_silence_is_unstable_where_its_waves_grow():
    """By hand: `Re = (0.9 * 1.6 - 1) / 2`. The kernel of 81 weights is applied by frequencies."""
    kernel = np.full((1, 1, 9, 9), 1 / 81)
    W, W_r = (Convolution(s * kernel, 12, 12, "periodic") for s in (0.5, 1.6))
    circuit = Circuit(W, W_r, sigma=1.0, b0=0.1, tau_y=2.0, tau_a=2.0)
    silent = State(jnp.zeros(144), jnp.full(144, 0.01))
    found = stability(given_state(circuit, np.zeros(144), silent), matrix_free=True)
    assert found.spectral_abscissa == pytest.approx(0.22, abs=1e-6) and not found.stable


def test_single_precision_is_computed_in_double():
    wide, z = circuit_on_a_ring(0)
    state = steady_state(wide, z, matrix_free=True).state
    narrow, z, at = jax.tree.map(lambda x: x.astype(np.float32), (wide, z, state))
    found = stability(given_state(narrow, z, at), matrix_free=True)
    assert found.eigenvalues.dtype == np.complex64 and found.residual.dtype == np.float32
    values = np.linalg.eigvals(np.asarray(organics.jacobian(wide, state)))
    assert found.spectral_abscissa == pytest.approx(values.real.max(), abs=1e-4)


def test_few_eigenvalues_of_a_small_circuit():
    circuit, z = Circuit([[0.5, 0.2], [0.1, 0.4]], [[0.9, 0.1], [0.0, 0.8]]), np.array([0.5, 0.3])
    point = steady_state(circuit, z)
    found = rightmost(circuit, jnp.asarray(z), point.state)
    assert found.values[0].real == pytest.approx(float(stability(point).spectral_abscissa), 1e-9)
    assert found.products > 0 and np.all(found.residuals < 1e-9)


def test_a_neuron_at_the_kink_makes_the_answer_unknown():
    """Of the rectified model, without a drive; the main model is stable there."""
    for rectified in (True, False):
        circuit, z = circuit_on_a_ring(0, rectified=rectified)
        point = given_state(circuit, 0 * z, State(jnp.zeros(N), circuit.c))
        assert point.converged
        assert bool(stability(point, matrix_free=True).stable) != rectified


def test_where_it_cannot_be_done_is_refused():
    circuit, z = circuit_on_a_ring(0, identity=True)
    point = steady_state(circuit, z)
    with pytest.raises(ValueError, match="`matrix_free` must be left out"):
        jax.jit(lambda point: stability(point, matrix_free=True).stable)(point)


def test_few_different_eigenvalues_are_found_without_others():
    """Where products with `J` lead nowhere else, no eigenvalue 0 is made up."""
    circuit, z = circuit_on_a_ring(0, rectified=True)
    silent = given_state(circuit, -z, State(-circuit.b * z, circuit.c))
    assert silent.converged
    shared = Circuit(organics.LowRank(np.full((N, 1), 0.5), np.full((N, 1), 1.0 / N)), tau_a=4.0)
    for point in (silent, steady_state(shared, np.full(N, 0.6))):
        found = stability(point, matrix_free=True)
        values = np.linalg.eigvals(np.asarray(organics.jacobian(point.system, point.state)))
        assert found.stable and found.residual < 1e-9
        assert found.spectral_abscissa == pytest.approx(values.real.max(), abs=1e-9)
        for value in np.asarray(found.eigenvalues):
            assert np.abs(values - value).min() < 1e-6
