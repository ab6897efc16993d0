"""The search's claims about circuits over ten decades, judged in ball arithmetic, at toy size."""

import numpy as np
import pytest

from organics.circuit.circuit import Circuit
from organics.studies.harness.target import Job
from organics.studies.ours import extremes

pytestmark = pytest.mark.usefixtures("standard_promotion")

FALSE_FRIENDS = [
    # (W, W_r, b, sigma, z): the drives eleven decades apart, and what has no steady state
    (np.eye(2), [[-0.5, -0.2], [0.0, 0.5]], 1.0, 10.0, [1e-9, -1e4]),
    (np.eye(2), [[-0.5, -0.2], [0.0, 0.5]], 1.0, 10.0, [1e-3, -100.0]),
    (np.eye(2), [[-0.5, 0.0], [0.0, 0.5]], 1.0, 10.0, [0.0, -1.0]),  # grows from y_0 > 0 only
]
WRITTEN_OUT = (np.ones((2, 2)), np.eye(2), 0.5, 0.1, [-0.005, 1000.0])  # y = b z where z < 0


def stacked(circuits, kind):
    """Parameters and drives of several circuits with n = 2, in the form for `extremes`."""
    parameters = [
        Circuit(W, W_r, b=b, b0=1.0, sigma=sigma, rectified=True)
        for W, W_r, b, sigma, _ in circuits
    ]
    names = ("W", "W_r", "b", "b0", "sigma", "tau_y", "tau_a")
    values = {
        name: np.stack([np.asarray(getattr(one, name)) for one in parameters]).astype(kind)
        for name in names
    }
    return values, np.array([z for *_, z in circuits]).astype(kind)


@pytest.mark.parametrize(("kind", "rectified"), [("float32", True), ("float64", False)])
def test_nothing_is_claimed_that_is_not_so(tmp_path, monkeypatch, kind, rectified):
    job = Job(tmp_path)
    cleared = []  # and not what other tests have compiled
    monkeypatch.setattr(extremes.jax, "clear_caches", lambda: cleared.append(1))
    sample = extremes.Sample(300, sizes=(2,), kinds=(kind,), rectified=(rectified,))
    found = extremes.measure(sample, job)
    assert len(cleared) == 1, "a size is forgotten when it is done"
    monkeypatch.setattr(extremes, "_judged", lambda *_: pytest.fail("judged again"))
    assert extremes.measure(sample, job) == found, "complete pieces are kept"
    (row,) = found["rows"]
    assert row["converged_wrongly"] == row["stable_wrongly"] == row["stable_not_decided"] == 0
    assert row["converged"] > 200 and row["stable"] > 100
    assert row["stable_but_not_said_so"] <= 0.05 * row["stable"]
    outcome = extremes.conclude(found)
    assert outcome.verdict == "holds" and "0 of them wrongly" in outcome.here
    total = found["total"] | {"stable_wrongly": 1}
    assert extremes.conclude(found | {"total": total}).verdict == "partly"


def test_circuits_that_look_as_if_they_rested():
    values, drives = stacked([*FALSE_FRIENDS, WRITTEN_OUT], "float32")
    claim = extremes.claims(values, drives, True, 2000)
    np.testing.assert_array_equal(claim.stable, [False, False, False, True])
    np.testing.assert_array_equal(claim.converged, [False, False, True, True])
    np.testing.assert_allclose(claim.state.y[3], [-0.0025, 1.0], rtol=1e-5)


def test_the_judge_refuses_a_state_that_is_off_in_a_small_component():
    values, drives = stacked([WRITTEN_OUT], "float64")
    one = {name: value[0] for name, value in values.items()}
    a = 0.01 + 500.0**2
    y = np.array([-0.0025, 500 / a**0.5])
    right = extremes.judge(one, drives[0], y, np.full(2, a), True)
    assert right.imbalance < 1e-12 and right.distance < 1e-12 and right.stable is True
    wrong = extremes.judge(one, drives[0], y * [2e-3, 1.0], np.full(2, a), True)
    assert wrong.imbalance > 0.9 and wrong.distance > 0.4


def test_the_judge_takes_a_neuron_for_active_whose_drive_is_within_the_rounding_of_its_terms():
    """Two inputs of 1e5 cancel. A drive of 1e-4 is lost in their rounding, one of 100 is not."""
    one = {name: np.ones(3, "float32") for name in ("b", "b0", "tau_y", "tau_a")}
    one |= {
        "sigma": np.float32([1e5, 1.0, 1.0]),
        "W": np.zeros((3, 3), "float32"),
        "W_r": np.float32([[0, 1, -1], [0, 0, 0], [0, 0, 0]]),
    }
    y, a = np.float32([0, 1, 1]), np.float32([1e10, 1, 1])
    lost = extremes.judge(one, np.float32([1e-4, 1, 1]), y, a, True)
    assert lost.stable is True and lost.distance < 1e-8
    seen = extremes.judge(one, np.float32([100, 1, 1]), y, a, True)
    assert seen.imbalance > 1e-4 and seen.distance > 1e-4
    main = extremes.judge(one, np.float32([100, 1, 1]), y, a, False)
    assert main.imbalance > 1e-4 and main.distance > 1e-4
