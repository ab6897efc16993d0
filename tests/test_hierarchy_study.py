"""The study of two areas with feedback."""

import json
from pathlib import Path

import numpy as np

from organics.studies.ours import hierarchy as study

RESULT = Path(__file__).parents[1] / "results" / "ours" / "hierarchy.json"


def test_the_stored_numbers_give_the_stored_verdict():
    document = json.loads(RESULT.read_text())
    outcome = study.conclude(document["numbers"])
    assert outcome.verdict == document["verdict"] and outcome.here == document["here"]
    assert [check.holds for check in outcome.checks] == [c["holds"] for c in document["checks"]]
    assert len(study.draw(outcome).axes) == 2


def test_a_finding_that_does_not_come_out_is_said_so():
    numbers = json.loads(RESULT.read_text())["numbers"]
    weaker = next(row for row in numbers["rows"] if row["gamma"] == 1 and row["contrast"] == 0.5)
    weaker |= {"rate_1": 0.0, "stable": False, "peak_hz": 1.0}
    checks = study.conclude(numbers).checks
    assert [check.holds for check in checks] == [False, True, False, False, True, False, False]


def test_the_ring_is_the_reference():
    h = study.ring(1.0)
    np.testing.assert_allclose(np.sum(h.feedforward[0], axis=1), 1, rtol=1e-12)
    assert np.argmax(study.grating(1.0)) == study.N // 2
    np.testing.assert_allclose(np.linalg.norm(study.grating(0.5)), 0.35, rtol=1e-12)
