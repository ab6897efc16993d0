import numpy as np
import pytest

from organics.linear_stability.spectrum import largest_euler_step
from organics.simulation.discretization import in_words, largest_step, variance_error


def rotating(rate, turn):
    """A pair of modes, as a matrix and as its eigenvalues."""
    return np.array([[rate, -turn], [turn, rate]]), np.array([[rate + 1j * turn, rate - 1j * turn]])


@pytest.mark.parametrize("scheme", ["euler-maruyama", "heun"])
@pytest.mark.parametrize(("rate", "turn"), [(-0.5, 0.0), (-0.2, 0.7), (-3.0, 0.1)])
def test_the_variance_of_a_mode_is_that_of_the_recursion_which_the_steps_are(scheme, rate, turn):
    J, eigenvalues = rotating(rate, turn)
    for dt in (1e-3, 0.1, 0.3, 0.6):
        R, G = np.eye(2) + dt * J, np.eye(2)
        if scheme == "heun":
            R, G = R + dt**2 * J @ J / 2, G + dt * J / 2
        # P = R P R^T + dt G G^T, entry by entry
        P = np.linalg.solve(np.eye(4) - np.kron(R, R), dt * (G @ G.T).ravel())[0]
        want = P * -2 * rate - 1
        np.testing.assert_allclose(
            variance_error(eigenvalues, dt, scheme), abs(want), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("scheme", ["euler-maruyama", "heun"])
def test_the_largest_step_is_at_the_border(scheme):
    _, eigenvalues = rotating(-0.2, 0.7)
    eigenvalues = np.append(eigenvalues, [[-1.0, np.nan]], axis=1)
    for allowed in (0.1, np.inf):
        step = largest_step(eigenvalues, 50.0, scheme, allowed)
        assert variance_error(eigenvalues, 0.9999 * step, scheme) <= allowed
        assert not variance_error(eigenvalues, 1.0001 * step, scheme) < min(allowed, 1e3)
    if scheme == "euler-maruyama":  # `step` is now the largest that is stable
        np.testing.assert_allclose(step, largest_euler_step(eigenvalues[0, :3]), rtol=1e-9)
    assert variance_error(eigenvalues, 1.01 * step, scheme) == np.inf
    assert variance_error(eigenvalues, 1e200, scheme) == np.inf


def test_nothing_is_said_where_nothing_is_known():
    assert variance_error(np.full((1, 4), complex(np.nan)), 10.0, "heun") == 0


def test_a_step_in_words_is_no_longer_than_it_is():
    for step in np.geomspace(1.2345e-7, 9.9999e5, 50):
        said = float(in_words(step).removesuffix(" ms"))
        assert 0.99 * step <= said <= step * (1 + 1e-12)
