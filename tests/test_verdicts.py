"""The study of verdicts, at toy size."""

import numpy as np
import pytest

from organics.studies.harness.target import Job
from organics.studies.ours import verdicts

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.mark.rounding
def test_no_verdict_is_against_the_eigenvalues(tmp_path, monkeypatch):
    cleared = []  # and not what other tests have compiled
    monkeypatch.setattr(verdicts.jax, "clear_caches", lambda: cleared.append(1))
    sample = verdicts.Sample(1300, sizes=(2,), norms=(1.0, 3.0), rectified=(False,))
    found = verdicts.measure(sample, Job(tmp_path))
    assert verdicts.measure(sample, Job(tmp_path)) == found and len(cleared) == 4
    assert [row["circuits"] for row in found["rows"]] == [650, 650]
    # all but the first of each batch, whose largest abscissa is the other rate
    assert [row["at_another_rate"] for row in found["rows"]] == [325, 325]
    total = found["total"]
    assert total["different"] == total["different_at_another_rate"] == 0
    decided = [total[f"by_{how}"] for how in ("logarithmic_norm", "powers", "eigenvalues")]
    assert sum(decided) == total["circuits"] == 1300 and decided[0] > decided[1] > decided[2]
    assert 0 < total["unstable"] < 100
    assert verdicts.conclude(found).verdict == "holds"
    total["different"] = 1
    assert verdicts.conclude(found).verdict == "partly"
    total["at_another_rate"] = 0
    assert [check.holds for check in verdicts.conclude(found).checks] == [False, None]


def test_a_verdict_against_the_eigenvalues_counts():
    side, abscissa = np.array([-1, -1, 1, 1, 0]), np.array([-0.1, 0.2, -0.1, 0.2, 0.3])
    assert verdicts._different(side, abscissa, 0.0) == 2
    assert verdicts._different(side, abscissa, 0.25) == 2
