"""Normalization: the ring matches the example, and its numbers match the equation."""

from pathlib import Path

import numpy as np
import pytest
from programs import solve

from organics.circuit.file import load_circuit
from organics.linear_stability.spectrum import stability
from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.paper import normalization

EXAMPLE = Path(__file__).parents[1] / "examples" / "orientation_ring.json"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return normalization.compute(Job(tmp_path_factory.mktemp("normalization"), quick=True))


def test_ring_is_that_of_the_example():
    circuit, drives = load_circuit(EXAMPLE)
    ring = normalization.ring()
    assert np.allclose(circuit.W, ring.W, rtol=0, atol=5.1e-5)  # four digits are written
    assert circuit.rectified and ring.rectified
    plaid = normalization.grating(0.5) + normalization.grating(0.5, 0.0)
    for drive, expected in ((drives[2], normalization.grating(1.0)), (drives[3], plaid)):
        assert np.allclose(drive, expected, rtol=0, atol=1e-4)


def test_responses_are_those_of_the_equation(outcome):
    """y+ = (b z)^2 / ((b0 sigma)^2 + W (b z)^2), for the grating with each mask."""
    assert outcome.verdict == "holds"
    found = outcome.numbers["ring"]
    W = np.asarray(normalization.ring().W)
    for row in found["masks"]:
        for contrast, response in zip(found["contrast"], row["response"], strict=True):
            z = normalization.grating(contrast) + normalization.grating(row["mask"], 0.0)
            expected = (0.5 * z[5]) ** 2 / (0.05**2 + W[5] @ (0.5 * z) ** 2)
            assert np.isclose(response, expected, rtol=1e-5)


def test_leading_pair_is_that_of_the_spectrum(outcome):
    found = outcome.numbers["oscillation"]
    ring, drive = normalization.ring(), normalization.grating(found["contrast"][-1])
    linear = stability(solve(ring, drive))
    values = np.asarray(linear.eigenvalues)
    oscillating = values[values.imag > 1e-9]
    leading = oscillating[oscillating.real.argmax()]
    assert np.isclose(found["eigenfrequency"][-1], 1000 * leading.imag / (2 * np.pi))
    # a weakly damped oscillator is strongest close to its frequency
    assert np.allclose(found["peak"], found["eigenfrequency"], rtol=0.15)


def test_distance_at_no_and_full_mixture(outcome):
    for row in outcome.numbers["distance"]["drives"]:
        assert row["largest"][0] <= normalization.EXACT and row["median"][-1] > 0.5
        least, median, largest = (np.array(row[name]) for name in ("least", "median", "largest"))
        assert np.all(least <= median) and np.all(median <= largest)


def failing(checks):
    return [i for i, check in enumerate(checks) if not check.holds]


def test_every_check_of_the_distance_can_fail(outcome):
    distance = outcome.numbers["distance"]
    first, *others = distance["drives"]
    same = [first | {"largest": [1e-3, 1e-3], "median": [1e-3, 1e-3]}, *others]
    checks = normalization.distance_checks(distance | {"stable": 1, "drives": same})
    assert failing(checks) == [0, 1, 2]


def test_every_check_of_the_responses_can_fail(outcome):
    ring = outcome.numbers["ring"]
    alone, *masked = ring["masks"]
    checks = normalization.response_checks(ring | {"masks": [alone, alone, *masked]})
    assert failing(checks) == [3]  # a mask without effect
    linear = alone | {"response": ring["contrast"], "asymptote": 2.0, "exponent": 1.0}
    checks = normalization.response_checks(
        ring | {"simulation_differs_by": None, "masks": [linear, *masked]}
    )
    assert failing(checks)[:3] == [0, 1, 2]


def test_every_check_of_the_oscillation_can_fail(outcome):
    oscillation = outcome.numbers["oscillation"]
    flat = {"eigenfrequency": [40.0, 40.0], "peak": [40.0, 39.0]}
    assert failing(normalization.oscillation_checks(oscillation | flat)) == [0, 1]


def test_draws(outcome, tmp_path):
    save_figure(normalization.draw(outcome), tmp_path / "normalization.png")
