import jax
import numpy as np
import pytest
from programs import solve

from organics.circuit.circuit import Circuit
from organics.linear_stability.certificate import certify
from organics.linear_stability.verification import verify
from organics.plots import save_figure
from organics.studies.harness.pieces import joined, kept
from organics.studies.harness.target import Job
from organics.studies.paper import theorem1

N, COUNT = 3, 20

differentiated = jax.jit(jax.jacfwd(Circuit.velocity, argnums=1))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theorem1, "QUICK_SIZES", (N,))
        patch.setattr(theorem1, "QUICK_CIRCUITS", 2 * COUNT)
        patch.setattr(theorem1, "QUICK_PROOFS", 8)
        yield theorem1.compute(Job(tmp_path_factory.mktemp("pieces"), quick=True))


def piece(**changes):
    """Results of circuits for which the theorem holds, except for the changes."""
    ones = np.ones(4)
    arrays = {
        "residual": 1e-16 * ones,
        "margin": 0.5 * ones,
        "certified": ones.astype(bool),
        "abscissa": -ones,
        "fastest": 1e3 * ones,
        "proof": np.array([1, -1, -1, -1], np.int8),
        "bits": np.array([53, 0, 0, 0], np.int16),
    }
    for name, value in changes.items():
        arrays[name][-1] = value
    return arrays


def verdicts(**changes):
    return [check.holds for check in theorem1.conclude([(N, False, piece(**changes))]).checks]


def test_every_circuit_is_stable(outcome):
    assert outcome.verdict == "holds"
    total = outcome.numbers["total"]
    assert total["count_circuits"] == total["count_stable"] == 2 * COUNT
    assert total["count_proved"] == total["count_proofs"] >= 8


@pytest.mark.parametrize("rectified", [False, True])
def test_the_numbers_are_those_of_circuits_one_by_one(outcome, rectified):
    rng = np.random.default_rng([0, N, int(rectified), 0])
    parameters, drives = theorem1.random_circuits(rng, N, COUNT)
    margins, relative = [], []
    for i in range(COUNT):
        circuit = Circuit(**{k: v[i] for k, v in parameters.items()}, rectified=rectified)
        z = jax.numpy.asarray(drives[i])
        steady = solve(circuit, z)
        certificate = certify(steady)
        assert certificate.T is not None and certificate.margin is not None
        if certificate.holds:
            found = verify(steady, certificate.T)
            # that of a principal submatrix, of the neurons that respond, is no smaller
            assert found.margin >= certificate.margin * (1 - 1e-6)
            if not rectified or np.all(steady.state.y > 0):
                np.testing.assert_allclose(found.margin, certificate.margin, rtol=1e-6)
        margins.append(float(certificate.margin))
        J = differentiated(circuit, steady.state, z)
        J = np.block([[np.asarray(block) for block in row] for row in J])
        rates = np.linalg.eigvals(J)
        relative.append(rates.real.max() / np.abs(rates).max())
    (row,) = (row for row in outcome.numbers["groups"] if row["rectified"] == rectified)
    np.testing.assert_allclose(row["margin"][0], min(margins), rtol=6e-3)
    np.testing.assert_allclose(row["relative_abscissa"][0], max(relative), rtol=6e-3)


def test_the_law():
    parameters, drives = theorem1.random_circuits(np.random.default_rng(1), 4, 2_000)
    for values in (parameters["sigma"], parameters["tau_a"], np.abs(drives)):
        np.testing.assert_allclose(np.quantile(np.log10(values), [0, 0.5, 1]), [-3, 0, 3], atol=0.1)
    np.testing.assert_allclose(np.mean(parameters["W"] == 0), 0.25, atol=0.02)
    np.testing.assert_allclose(np.mean(drives < 0), 0.5, atol=0.03)


def test_each_check_can_fail():
    assert verdicts() == [True, True, True, True]
    assert verdicts(residual=1e-9) == [False, True, True, True]
    assert verdicts(certified=False) == [True, False, True, True]
    assert verdicts(abscissa=1e-3) == [True, True, False, True]
    assert verdicts(abscissa=np.nan)[2] is False
    assert verdicts(proof=2) == [True, True, True, False]


def test_what_floating_point_leaves_open_a_proof_decides():
    assert verdicts(certified=False, proof=1) == [True, True, True, True]
    unresolved = theorem1.conclude([(N, False, piece(abscissa=1e-13))])
    assert unresolved.verdict == "holds"
    assert unresolved.numbers["total"]["count_abscissa_unresolved"] == 1
    assert unresolved.numbers["total"]["count_stable"] == 3


def test_it_is_drawn(outcome, tmp_path):
    save_figure(theorem1.draw(outcome), tmp_path / "theorem1.png")
    assert (tmp_path / "theorem1.png").stat().st_size > 10_000


def test_a_piece_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"x": np.arange(3), "y": np.ones((3, 2), bool)}

    folder = tmp_path / "of" / "a-job"
    first, again = (kept(folder, "one", make) for _ in range(2))
    assert len(made) == 1
    for name in ("x", "y"):
        np.testing.assert_array_equal(first[name], again[name])
    both = joined([first, again])
    np.testing.assert_array_equal(both["x"], [0, 1, 2, 0, 1, 2])
    assert both["y"].shape == (6, 2)
