"""The study of recovered parameters: what it concludes."""

import numpy as np
import pytest

from organics.studies.ours import recovery


def row(truth, error, width, converged=True):
    values = truth * (1 + error)
    return {
        "names": [f"p[{i}]" for i in range(len(truth))],
        "truth": truth.tolist(),
        "values": values.tolist(),
        "low": (values * np.exp(-1.645 * width)).tolist(),
        "high": (values * np.exp(1.645 * width)).tolist(),
        "chi2": 90.0,
        "degrees_of_freedom": 100,
        "converged": converged,
        "agreeing": 4,
    }


@pytest.mark.parametrize(
    ("scale", "width", "converged", "verdict", "held"),
    [
        (0.02, 0.02, True, "holds", [True, True, True]),
        (0.06, 0.06, True, "partly", [False, True, True]),
        (0.02, 0.05, True, "partly", [True, False, True]),
        (0.02, 0.02, False, "partly", [True, True, False]),
        (0.20, 0.02, False, "does not hold", [False, False, False]),
    ],
)
def test_verdicts_count_errors_and_intervals(scale, width, converged, verdict, held):
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 2, (20, 14))
    rows = [row(one, scale * rng.normal(size=14), width, converged) for one in truth]
    outcome = recovery.conclude({"rows": rows})
    assert outcome.verdict == verdict
    assert [check.holds for check in outcome.checks if check.decides] == held
    assert outcome.table is not None and len(outcome.table.rows) == 14
    (axes,) = recovery.draw(outcome).axes
    assert len(axes.get_xticks()) == 14


def test_circuits_are_those_of_the_seed():
    one, same, other = (recovery.truth_of(*seed) for seed in ((0, 1), (0, 1), (0, 2)))
    for name in recovery.NAMES:
        np.testing.assert_array_equal(one[name], same[name])
        assert not np.any(one[name] == other[name])
    assert np.all(one["noise_a"] < 0.2 * one["sigma"] ** 2)
