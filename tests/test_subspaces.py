"""Communication subspaces."""

import numpy as np
import pytest

from organics.circuit.circuit import Circuit
from organics.rest.search import steady_state
from organics.subspaces import average_subspace, communication_subspace, rate_covariance


def covariance(seed=0, n=12):
    A = np.random.default_rng(seed).normal(size=(n, n))
    return A @ A.T


def test_the_share_is_that_of_the_best_prediction_of_each_rank():
    """Against reduced-rank regression done by hand: the projection of the best prediction."""
    C, sources, targets = covariance(), np.arange(6), np.arange(6, 12)
    found = communication_subspace(C, sources, targets)
    C_SS, C_ST, C_TT = C[:6, :6], C[:6, 6:], C[6:, 6:]
    B = np.linalg.solve(C_SS, C_ST)
    _, V = np.linalg.eigh(C_ST.T @ B)
    shares = [0.0]
    for m in range(1, 7):
        B_m = B @ V[:, -m:] @ V[:, -m:].T
        error = np.trace(C_TT - 2 * B_m.T @ C_ST + B_m.T @ C_SS @ B_m)
        shares.append(1 - error / np.trace(C_TT))
    np.testing.assert_allclose(found.performance, shares, rtol=0, atol=1e-12)
    assert found.dimension == np.sum(np.array(shares) < 0.95 * shares[-1])
    # no other prediction of that rank is better
    rng = np.random.default_rng(1)
    left = rng.normal(size=(6, 2))
    P = left @ np.linalg.solve(left.T @ C_SS @ left, left.T @ C_ST)
    error = np.trace(C_TT - 2 * P.T @ C_ST + P.T @ C_SS @ P)
    assert 1 - error / np.trace(C_TT) < shares[2]


def test_one_shared_signal_is_one_dimension():
    signal, rng = np.random.default_rng(0).normal(size=2000), np.random.default_rng(1)
    recorded = signal + 0.5 * rng.normal(size=(12, 2000))
    found = average_subspace(np.cov(recorded), np.arange(12), np.arange(12), size=6, draws=20)
    assert 0.7 < found.performance[-1] < 0.8 and found.dimension == 1


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_silent_neurons_and_sums_of_others_add_nothing(size):
    """Their covariance is singular."""
    rng = np.random.default_rng(5)
    signals = rng.normal(size=(6, 6)) * [1, size, 1, 1, 1, 1]
    C = signals.T @ signals
    targets = np.array([3, 4])
    want = communication_subspace(C, np.array([0, 1]), targets)
    mixed = np.vstack([np.eye(6), np.zeros(6), [1, -2, 0, 0, 0, 0]])
    C = mixed @ C @ mixed.T
    for sources in (np.array([0, 1, 6]), np.array([0, 1, 7])):
        found = communication_subspace(C, sources, targets)
        np.testing.assert_allclose(found.performance, want.performance, rtol=1e-7)
        assert found.dimension == want.dimension
    assert communication_subspace(C, np.array([6]), targets).dimension == 0


def test_rates_fluctuate_as_twice_the_potential_and_silent_neurons_not_at_all():
    point = steady_state(Circuit(np.eye(3)), np.array([0.3, 0.1, -0.2]))
    P = covariance(n=6)
    y = np.maximum(np.asarray(point.state.y), 0)
    C = rate_covariance(point, P, measurement=0.5)
    expected = 4 * y[:, None] * P[:3, :3] * y[None]
    expected += 0.5 * np.trace(expected) / 3 * np.eye(3)
    np.testing.assert_allclose(C, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.ones((2, 3)), [0], [1]), "`covariance` must be a square"),
        ((np.diag([1.0, np.nan, 1.0]), [0], [1]), "`covariance` must be finite"),
        ((-np.eye(3), [0], [1]), "`covariance` must be symmetric, with variances"),
        ((np.triu(np.ones((3, 3))), [0], [1]), "`covariance` must be symmetric"),
        ((np.eye(3) + 2 * (1 - np.eye(3)), [0], [1]), "`covariance` must have correlations"),
        ((np.eye(3), [0, 1], [1]), "`targets` must not be among"),
        ((np.eye(3), [], [1]), "`sources` must be a list"),
        ((np.eye(3), [0], [3]), "`targets` must be from 0 to 2"),
        ((np.eye(3), [0, 0], [1]), "`sources` must be different"),
    ],
)
def test_bad_arguments_are_refused_by_name(without_type_checks, arguments, said):
    del without_type_checks
    with pytest.raises(ValueError, match=said):
        communication_subspace(*arguments)


def test_too_few_neurons_to_draw_are_refused():
    with pytest.raises(ValueError, match="`size` must leave enough"):
        average_subspace(covariance(), np.arange(4), np.arange(4), size=3)
