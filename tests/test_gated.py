"""The published circuit of areas, with gates and trackers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from organics.circuit.areas import joined
from organics.circuit.circuit import Circuit, State
from organics.circuit.gated import GatedHierarchy, GatedState
from organics.circuit.hierarchy import Hierarchy
from organics.linear.jacobian import jacobian
from organics.linear_stability.spectrum import stability
from organics.rest.search import given_state, steady_state
from organics.simulation.noise import Noise
from organics.simulation.ode import simulate
from organics.spectra import power_spectrum, stationary_covariance

Z = np.array([0.3, 0.5])


def balanced(gamma=0.7):
    """Two areas of 2 and 1 neurons with general recurrence."""
    rng = np.random.default_rng(3)
    W_r = 0.5 * np.eye(2) + 0.2 * rng.uniform(size=(2, 2))
    areas = [Circuit(np.ones((2, 2)), W_r, sigma=0.3), Circuit(np.ones((1, 1)), sigma=0.3)]
    return Hierarchy(areas, [rng.uniform(size=(1, 2))], [rng.uniform(size=(2, 1))], gamma)


@pytest.fixture(scope="module")
def points():
    """The balanced hierarchy at rest, and the published circuit without a floor."""
    h = balanced()
    return steady_state(h, Z), steady_state(GatedHierarchy(h, floor=0.0), Z)


def test_the_steady_states_are_those_of_the_balanced_form(points):
    reduced, full = points
    assert reduced.converged and full.converged
    for one, other in zip(reduced.state, full.state, strict=True):
        np.testing.assert_allclose(one.y, other.y, rtol=1e-9)
        np.testing.assert_allclose(one.a, other.a, rtol=1e-9)
    # the published equations, written out
    (y, a, p, t), above = full.state
    h = full.system.hierarchy
    f, s = h.g[0] * h.feedback[0] @ above.y, np.sqrt(a)
    dy = -y + 0.5 * Z + (h.areas[0].W_r @ y + h.gamma[0] * f) / (1 + p)
    dp = -p + f / t + s + p * s
    np.testing.assert_allclose(np.stack([dy, dp, y - t]), np.zeros((3, 2)), rtol=0, atol=1e-9)


def test_gates_lag_so_that_the_spectra_are_others(points):
    reduced, full = points
    x, system = np.asarray(joined(full.state)), full.system
    speed = jax.jit(lambda x: joined(system.velocity(system.split(x), jnp.asarray(Z))))
    steps = 1e-6 * np.eye(12)
    J = np.stack([(np.asarray(speed(x + h)) - speed(x - h)) / 2e-6 for h in steps], axis=1)
    np.testing.assert_allclose(jacobian(system, full.state), J, rtol=0, atol=1e-6)
    f, levels = 0.05, 0.1 / np.sqrt(2.0)  # of all principal neurons

    def power(J, noisy):
        X = np.linalg.inv(2j * np.pi * f * np.eye(len(J)) - J)[:, noisy] * levels
        return np.sum(np.abs(X) ** 2, axis=1)

    found = np.asarray(power_spectrum(full, np.array([f]), Noise(0.1)))[0]
    np.testing.assert_allclose(found, power(J, [0, 1, 8]), rtol=1e-5)
    other = power(np.asarray(jacobian(reduced.system, reduced.state)), [0, 1, 4])
    assert np.all(np.abs(found[:2] / other[:2] - 1) > 1e-3)


def test_a_simulation_ends_there(points):
    reduced, full = points
    near = jax.tree.map(lambda x: 0.8 * x, reduced.state)  # gates and trackers at rest for these
    path = simulate(
        full.system, Z, 400.0, near, until_steady=True, steady_tolerance=1e-7, rtol=1e-8
    )
    assert path.ok and path.rested and isinstance(path.state[0], GatedState)
    end = jax.tree.map(lambda x: x[-1], path.state)
    np.testing.assert_allclose(joined(end), joined(full.state), rtol=0, atol=1e-5)


def test_bad_arguments_are_refused_by_name(without_type_checks):
    del without_type_checks
    with pytest.raises(ValueError, match="`floor` must be >= 0"):
        GatedHierarchy(balanced(), floor=-1.0)
    with pytest.raises(ValueError, match="`hierarchy` must be a balanced"):
        GatedHierarchy(Hierarchy([Circuit(np.ones((1, 1)))], form="additive"))


def test_without_a_floor_silent_neurons_have_no_feedback():
    """Their trackers are 0, and the ratio of feedback to them is that at rest, 0."""
    areas = [Circuit(np.eye(2)), Circuit(np.eye(2))]
    gated = GatedHierarchy(Hierarchy(areas, [np.eye(2)], [0.2 * np.eye(2)]), floor=0.0)
    z = np.array([1.0, -0.5])
    point, other = steady_state(gated, z), steady_state(gated.hierarchy, z)
    assert point.converged and not point.residual > 1e-10
    np.testing.assert_allclose(point.state[0].y, other.state[0].y, rtol=1e-9)
    end = simulate(gated, z, np.array([0.0, 500.0])).state[0].y[-1]
    np.testing.assert_allclose(end, other.state[0].y, rtol=1e-4)


@pytest.mark.parametrize("areas", [1, 2])
@pytest.mark.parametrize("gain", [3.0, 0.5])
def test_a_silent_neuron_that_sustains_itself_is_not_stable(areas, gain):
    """To the left of `y = 0` it decays, to the right it grows if `W_r` is large enough."""
    area = Circuit(np.ones((1, 1)), np.array([[gain]]), sigma=0.1, rectified=True)
    between = [np.ones((1, 1))] * (areas - 1)
    gated = GatedHierarchy(Hierarchy([area] * areas, between, between))
    rest = gated.complete((State(jnp.zeros(1), jnp.array([0.0025])),) * areas)
    point = given_state(gated, np.zeros(1), rest)
    assert point.converged and stability(point).stable == (gain < 1)
    step = jax.jit(lambda x: x + 0.01 * joined(gated.velocity(gated.split(x), jnp.zeros(1))))
    x = joined(rest).at[0].set(1e-4)
    for _ in range(1000):
        x = step(x)
    assert (float(x[0]) > 1e-3) == (gain > 1)


def test_fluctuations_about_a_silent_neuron_have_no_linear_theory():
    gated = GatedHierarchy(Hierarchy([Circuit(np.ones((2, 2)), sigma=0.1, rectified=True)]))
    point = steady_state(gated, np.array([1.0, 0.0]))
    noise = Noise(additive_y=1e-3)
    power = power_spectrum(point, np.array([0.01]), noise)[0]
    variance = np.diag(stationary_covariance(point, noise))
    for found in (power, variance):
        assert np.isfinite(found[0]) and np.isnan(found[1])


def test_a_single_area_is_simulated_and_states_of_other_kinds_are_refused():
    area = Circuit(np.ones((1, 1)))
    gated = GatedHierarchy(Hierarchy([area]))
    end = simulate(gated, np.ones(1), 300.0).state[0].y[-1]
    np.testing.assert_allclose(end, steady_state(gated, np.ones(1)).state[0].y, rtol=1e-3)
    full = GatedState(*[np.full(1, 0.1)] * 4)
    for system, initial in ((area, full), (Hierarchy([area]), (full,))):
        with pytest.raises(ValueError, match="`initial` must hold `State`s"):
            simulate(system, np.ones(1), 5.0, initial)
    at_1 = GatedHierarchy(Hierarchy([Circuit(np.ones((1, 1)), b0=1.0, sigma=1.0)]))
    with pytest.raises(ValueError, match="`initial` must be given with its gates"):
        simulate(at_1, np.ones(1), 5.0)
