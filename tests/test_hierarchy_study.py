"""The study of two areas with feedback."""

import json
from pathlib import Path

import numpy as np

from organics.studies.ours import hierarchy as study
from organics.studies.ours import hierarchy_subspaces as subspaces

OURS = Path(__file__).parents[1] / "results" / "ours"
RESULT, SUBSPACES = OURS / "hierarchy.json", OURS / "hierarchy_subspaces.json"


def test_a_finding_that_does_not_come_out_is_said_so():
    numbers = json.loads(RESULT.read_text())["numbers"]
    weaker = next(row for row in numbers["rows"] if row["gamma"] == 1 and row["contrast"] == 0.5)
    weaker |= {"rate_1": 0.0, "stable": False, "peak_hz": 1.0, "coherence_peak_hz": 60.0}
    held = [check.holds for check in study.conclude(numbers).checks]
    assert held == [False, True, False, False, True, False, False, False]
    for row in numbers["rows"]:
        row["coherence_peak_hz"] = 0.25  # none
    assert not study.conclude(numbers).checks[5].holds


def test_the_ring_is_the_reference():
    h = study.ring(1.0)
    np.testing.assert_allclose(np.sum(h.feedforward[0], axis=1), 1, rtol=1e-12)
    assert np.argmax(study.grating(1.0)) == study.N // 2
    np.testing.assert_allclose(np.linalg.norm(study.grating(0.5)), 0.35, rtol=1e-12)


def test_what_the_subspaces_do_not_show_is_said_so():
    numbers = json.loads(SUBSPACES.read_text())["numbers"]
    for row in numbers["dimensions"]:
        row["between"], row["within"] = row["within"], row["between"]
    for row in numbers["talks"]:
        row["V4"], row["V5"], row["stable"] = 0.1, 0.1 * (1 + row["gamma"]), False
    held = [check.what for check in subspaces.conclude(numbers).checks if check.holds]
    assert held == [
        "and the more of them the more patterns there are",
        "feedback of weight 0.5 has the opposite effect",
    ]


def test_the_recurrent_weights_of_the_rings_have_norm_1():
    for W_r in subspaces.RECURRENCE.values():
        np.testing.assert_allclose(np.linalg.norm(W_r, 2), 1, rtol=1e-12)
    P = subspaces.patterns(12, 2)
    np.testing.assert_allclose(P @ P, P, atol=1e-12)
    assert np.linalg.matrix_rank(P) == 5
