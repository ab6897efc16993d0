"""Verdicts on the spectral abscissa are those of the eigenvalues, or none."""

import numpy as np
import pytest
from circuits import seeds
from hypothesis import given
from hypothesis import strategies as st

from organics.linear.abscissa import (
    abscissae,
    balanced,
    compare,
    decaying,
    log_norm_is_below,
    rounds,
    stable_abscissae,
)


def circuit_like(rng, count, n, norm):
    """Jacobians with the signs and sizes of those of circuits: `y` and `a` decay, `W >= 0`."""
    gate, y, gain = (rng.uniform(-1, 1, (count, n, 1)) for _ in range(3))
    W_r = rng.normal(size=(count, n, n)) / np.sqrt(n) * norm / 2
    W = rng.uniform(size=(count, n, n)) / n
    eye = np.eye(n)
    tau = rng.uniform(1, 3, (count, 2 * n, 1))
    top = np.concatenate([gate * W_r - eye, gain * eye], axis=2)
    bottom = np.concatenate([W * y.swapaxes(1, 2), W * y.swapaxes(1, 2) ** 2 - eye], axis=2)
    return np.concatenate([top, bottom], axis=1) / tau


def with_spectrum(rng, values, frequencies, spread):
    """Matrices with pairs of eigenvalues `values +- i frequencies`, hardly to badly conditioned."""
    count, pairs = values.shape
    J = np.zeros((count, 2 * pairs, 2 * pairs))
    for i in range(pairs):
        J[:, 2 * i, 2 * i] = J[:, 2 * i + 1, 2 * i + 1] = values[:, i]
        J[:, 2 * i, 2 * i + 1], J[:, 2 * i + 1, 2 * i] = frequencies[:, i], -frequencies[:, i]
    mixing = np.linalg.qr(rng.normal(size=J.shape))[0] * np.exp(
        spread * rng.normal(size=(count, 1, 2 * pairs))
    )
    return mixing @ J @ np.linalg.inv(mixing)


@pytest.mark.rounding
@given(seed=seeds, n=st.sampled_from([1, 3, 10]), norm=st.sampled_from([1.0, 3.0, 8.0]))
def test_verdicts_are_those_of_the_eigenvalues(seed, n, norm):
    J = circuit_like(np.random.default_rng(seed), 60, n, norm)
    want = np.linalg.eigvals(J).real.max(axis=1)
    for rate in (0.0, float(np.median(want)), 0.3):
        side = compare(J, rate)
        clear = np.abs(want - rate) > 1e-9
        assert np.all((side == np.sign(want - rate))[clear & (side != 0)])
        far = np.abs(want - rate) > 0.05
        assert np.mean(side[far] != 0) > 0.9 or far.sum() < 20
    np.testing.assert_array_equal(decaying(J)[np.abs(want) > 1e-9], want[np.abs(want) > 1e-9] < 0)


@pytest.mark.rounding
@given(seed=seeds, gap=st.sampled_from([1e-1, 1e-3, 1e-6, 1e-9, 0.0]), spread=st.floats(0, 3))
def test_no_verdict_is_wrong_however_close(seed, gap, spread):
    """The leading pair is `gap` from the rate; other eigenvalues are left of it."""
    rng = np.random.default_rng(seed)
    values = -rng.uniform(0.2, 2, (40, 4))
    side = rng.choice([-1, 1], 40)
    values[:, 0] = gap * side
    J = with_spectrum(rng, values, rng.uniform(0, 2, (40, 4)), spread)
    for rate in (0.0, -0.1):
        found = compare(J + rate * np.eye(8), rate)
        assert not np.any((found != 0) & (found != side)) or (gap == 0 and not found.any())
    if gap == 0:
        assert not found.any()
    if gap == 0.1 and spread < 1:
        assert found.all()


def test_the_logarithmic_norm_is_that_of_the_symmetric_part():
    J = circuit_like(np.random.default_rng(0), 200, 4, 2.0)
    norms = np.linalg.eigvalsh((J + J.swapaxes(1, 2)) / 2)[:, -1]
    for rate in (-0.3, 0.0, 0.2):
        np.testing.assert_array_equal(log_norm_is_below(J, rate), norms < rate)
        assert 0 < np.sum(norms < rate) < 200  # some of each
        np.testing.assert_array_equal(
            log_norm_is_below(J[norms < rate], rate), np.ones(np.sum(norms < rate))
        )


def test_coordinates_change_the_symmetric_part_alone():
    J = circuit_like(np.random.default_rng(1), 50, 6, 1.0)
    J[:, 6:, :6] *= 30  # and what `a` gets from `y` is out of proportion
    other = balanced(J)
    for matrices in (J, other):
        largest = np.linalg.eigvals(matrices).real.max(axis=1)
        np.testing.assert_allclose(largest, np.linalg.eigvals(J).real.max(axis=1), rtol=1e-9)
    assert np.mean(log_norm_is_below(other, 0.0)) > np.mean(log_norm_is_below(J, 0.0))


def test_what_no_verdict_is_possible_on():
    rng = np.random.default_rng(2)
    skew = rng.normal(size=(3, 6, 6))
    skew -= skew.swapaxes(1, 2)
    for open_ in (skew, np.zeros((2, 4, 4)), np.full((1, 4, 4), 1e300), 1e-320 * skew):
        assert not np.any(compare(open_))
    # `c - A` has a singular block, though the matrix is stable
    singular = np.array([[[0.1, -1.0], [1.0, -0.3]]])
    assert compare(singular)[0] == 0 and decaying(singular)[0]
    assert compare(np.zeros((0, 4, 4))).shape == decaying(np.zeros((0, 4, 4))).shape == (0,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_abscissae_are_exact_above_a_bound(dtype):
    J = circuit_like(np.random.default_rng(3), 300, 3, 2.0).astype(dtype)
    J[7, 0, 0], J[8, 1, 2] = np.nan, np.inf
    lost = np.isin(np.arange(300), (7, 8))
    known = abscissae(J)
    assert known.dtype == dtype
    np.testing.assert_array_equal(np.isnan(known), lost)
    np.testing.assert_array_equal(decaying(J), known < 0)
    bound = float(np.nanmedian(known))
    found = abscissae(J, bound)
    assert found.dtype == dtype
    above = known > bound
    np.testing.assert_allclose(found[above], known[above], rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(found), lost)
    assert np.mean(found[~above & ~lost] == dtype(bound)) > 0.9
    assert np.all(found[~lost] > known[~lost] - 1e-6)


def test_the_largest_stable_abscissa_is_exact():
    J = circuit_like(np.random.default_rng(4), 400, 3, 3.0)
    known = np.linalg.eigvals(J).real.max(axis=1)
    counted = np.random.default_rng(5).uniform(size=400) < 0.5
    counted[np.argmax(np.where(known < 0, known, -np.inf))] = False
    largest = known[counted & (known < 0)].max()
    for so_far in (-np.inf, 1.1 * largest, 0.5 * largest):
        found = stable_abscissae(J, counted, so_far)
        np.testing.assert_array_equal(found < 0, known < 0)
        assert np.all(found > known - 1e-9)
        np.testing.assert_allclose(found[known > 0], known[known > 0], rtol=1e-9)
        stable = found[counted & (found < 0)].max()
        np.testing.assert_allclose(stable, max(largest, so_far), rtol=1e-9)
        assert np.mean(np.abs(found - known) < 1e-9) < 0.5  # the others are bounded


@given(count=st.integers(0, 5000))
def test_rounds_make_up_all(count):
    found = list(rounds(count))
    assert [i for some in found for i in range(count)[some]] == list(range(count))
    assert len(found) <= 2 + np.log(max(count, 1)) / np.log(8)
