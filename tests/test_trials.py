import numpy as np
import pytest
from programs import stability_of_trial

from organics import trials
from organics.circuit.circuit import State
from organics.rest.point import METHODS, SteadyState
from organics.trials import fraction_interval, run_trials, trial


def assert_equal(outcome, index, alone):
    assert outcome.stable[index] == alone.stable
    assert outcome.converged[index] == alone.point.converged
    assert outcome.method[index] == alone.point.found.method
    assert outcome.residual[index] < 1e-11
    np.testing.assert_allclose(outcome.spectral_abscissa[index], alone.spectral_abscissa, rtol=1e-7)


@pytest.mark.rounding
def test_each_trial_is_the_circuit_of_its_index():
    outcome = run_trials(2, 5, 2.0, seed=7)
    assert len(outcome.stable) == 5
    for index in range(5):
        assert_equal(outcome, index, stability_of_trial(7, index, 2, 2.0))


def test_more_trials_begin_with_the_same():
    few, more = run_trials(2, 3, None, seed=7), run_trials(2, 5, None, seed=7)
    for one, other in zip(few, more, strict=True):
        np.testing.assert_allclose(one, other[:3], rtol=1e-9, atol=1e-14)


def test_trials_in_several_pieces():
    """More trials than are solved at once; the last piece is not full."""
    done = []
    many = run_trials(2, 2100, None, seed=3, on_progress=done.append)
    assert sum(done) == 2100 and len(done) > 1 and min(done) > 0
    assert all(len(array) == 2100 for array in many)
    for index in (0, done[0] - 1, done[0], 2099):
        assert_equal(many, index, stability_of_trial(3, index, 2, None))
    assert many.stable.all()
    # different circuits, and others for another seed
    assert len(np.unique(many.spectral_abscissa)) > 2000
    others = run_trials(2, 2100, None, seed=4)
    assert np.mean(others.spectral_abscissa == many.spectral_abscissa) < 0.05


def test_processes_share_the_trials():
    told = []
    alone = run_trials(2, 4100, None, seed=5)
    shared = run_trials(2, 4100, None, seed=5, processes=2, on_progress=told.append)
    assert told == [4100]
    for one, other in zip(alone, shared, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-14)
    with pytest.raises(ValueError, match="`processes` must be at least 1, not 0"):
        run_trials(2, 4, processes=0)


def test_identity_recurrence_is_always_stable():
    outcome = run_trials(8, 300, None, drive_norm=3.0, rectified=True)
    assert outcome.converged.all() and outcome.stable.all()
    assert np.all(outcome.method == METHODS.index("closed form"))
    assert np.all(outcome.spectral_abscissa < 0)


@pytest.mark.rounding
def test_verdicts_need_few_abscissae():
    exact, largest, none = (
        run_trials(4, 50, 1.0, seed=3, abscissae=which) for which in ("all", "largest", "none")
    )
    assert exact.stable.all() and largest.stable.all() and none.stable.all()
    known = exact.spectral_abscissa
    assert np.all(largest.spectral_abscissa > known - 1e-9)
    np.testing.assert_allclose(largest.spectral_abscissa.max(), known.max(), rtol=1e-7)
    assert np.isclose(largest.spectral_abscissa, known, rtol=1e-7).mean() < 0.5
    np.testing.assert_array_equal(none.spectral_abscissa, np.zeros(50))


WHICH = pytest.mark.parametrize("abscissae", ["all", "largest", "none"])
JACOBIANS = np.stack(
    [-np.eye(4), np.diag([-1.0, -1.0, -1.0, 1e-30]), np.eye(4), np.full((4, 4), np.nan), -np.eye(4)]
)
FOUND = SteadyState(
    State(np.ones((6, 2)), np.ones((6, 2))),
    np.zeros(6),
    np.array([True, True, True, True, False, True]),
    np.zeros(6, np.int32),
    np.zeros(6, np.int32),
)


def outcome(spectral_norm, abscissae):
    law = trials._Law(2, spectral_norm, 1.0, False, np.dtype(np.float64))
    return trials._outcome(FOUND, JACOBIANS, 5, law, abscissae, -np.inf)


@WHICH
def test_stable_means_found_and_decaying(abscissae):
    found = outcome(2.0, abscissae)
    assert found.decays.tolist() == [True, False, False, False, True]
    assert found.stable.tolist() == [True, False, False, False, False]
    largest = {"none": [0.0, np.inf, np.inf, np.nan, 0.0]}.get(
        abscissae, [-1, 1e-30, 1, np.nan, -1]
    )
    np.testing.assert_array_equal(found.spectral_abscissa, largest)


@WHICH
def test_identity_recurrence_is_stable_by_theorem(abscissae):
    """Whatever the eigenvalues, as rounding may change their signs."""
    assert outcome(None, abscissae).stable.tolist() == [True, True, True, False, False]


def test_a_trial_has_the_law_it_was_asked_for():
    circuit, z = trial(0, 4, 2, 2.5, drive_norm=0.7, rectified=True, dtype=np.float32)
    assert circuit.rectified and circuit.dtype == z.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(circuit.W_r, 2), 2.5, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(z), 0.7, rtol=1e-5)
    assert trial(0, 4, 2, None)[0].W_r is None
    outcome = run_trials(2, 4, None, dtype=np.float32)
    assert outcome.spectral_abscissa.dtype == np.float32 and outcome.stable.all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "`n` must be at least 1, not 0"),
        ({"n": 2.0}, "`n` must be a whole number, not 2.0"),
        ({"seed": 1.5}, "`seed` must be a whole number, not 1.5"),
        ({"dtype": np.float16}, "`dtype` must be float32 or float64, not float16"),
        ({"drive_norm": np.inf}, "`drive_norm` must be >= 0 and in the range of float64, not inf"),
        ({"spectral_norm": 1e39, "dtype": np.float32}, "in the range of float32, not 1e\\+39"),
        ({"abscissae": "some"}, "`abscissae` must be one of 'all', 'largest', 'none', not 'some'"),
        ({"trials": 0}, "`trials` must be at least 1, not 0"),
        ({"trials": -3}, "`trials` must be at least 1, not -3"),
        (
            {"spectral_norm": -1.0},
            "`spectral_norm` must be >= 0 .*, not -1.0",
        ),
        ({"spectral_norm": np.nan}, "`spectral_norm` must be >= 0 and in .*, not nan"),
        ({"spectral_norm": np.inf}, "`spectral_norm` must be >= 0 and in .*, not inf"),
        ({"drive_norm": -0.1}, "`drive_norm` must be >= 0 .*, not -0.1"),
        ({"drive_norm": np.nan}, "`drive_norm` must be >= 0 .*, not nan"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        run_trials(**{"n": 2, "trials": 2, **arguments})


@pytest.mark.parametrize("trials", [1, 10, 1000])
def test_interval_of_none_and_of_all(trials):
    bound = 0.025 ** (1 / trials)
    np.testing.assert_allclose(fraction_interval(trials, trials), (bound, 1), rtol=1e-9)
    np.testing.assert_allclose(fraction_interval(0, trials), (0, 1 - bound), rtol=1e-9)


def test_interval_has_its_tails():
    """The Clopper-Pearson bounds are where each tail of the binomial law holds 2.5 %."""
    from scipy.stats import binom

    low, high = fraction_interval(7, 20)
    assert low < 7 / 20 < high
    np.testing.assert_allclose(binom.sf(6, 20, low), 0.025, rtol=1e-6)
    np.testing.assert_allclose(binom.cdf(7, 20, high), 0.025, rtol=1e-6)
    np.testing.assert_allclose((low, high), (0.153909, 0.592189), atol=1e-6)
