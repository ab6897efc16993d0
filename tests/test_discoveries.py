"""Studies of all states, of exceptions, of identity recurrence and of Hopf points."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from organics import load_circuit
from organics.circuit.circuit import Circuit
from organics.studies.harness.target import Job
from organics.studies.ours import degree, exceptions, hopf, identity

ROOT = Path(__file__).parents[1]


def test_the_signs_of_all_states_are_counted(tmp_path):
    sample = degree.Sample((2,), norms=(3.0,), trials=8)
    found = degree.measure(sample, Job(tmp_path))
    (row,) = found["count"]
    assert row["complete"] == row["as_expected"] == sum(row["states"].values()) == 8
    assert 0 < row["negative"]["circuits"] < 8 and row["negative"]["alone"] == 0
    assert degree.conclude(found).verdict == "holds"
    assert degree.measure(sample, Job(tmp_path)) == found
    row["as_expected"] = 7
    assert degree.conclude(found).verdict == "partly"
    row["negative"]["alone"] = 1
    assert degree.conclude(found).verdict == "does not hold"


def test_an_exception_is_found_proved_and_written(tmp_path):
    sample = exceptions.Sample(("orthogonal", "antisymmetric"), hunts=1, steps=2)
    found = exceptions.measure(sample, Job(tmp_path, out=tmp_path))
    assert exceptions.conclude(found).verdict == "holds"
    for row, size in zip(found["classes"], (1, 2), strict=True):
        circuit, (z,) = load_circuit(tmp_path / row["file"])
        assert isinstance(circuit, Circuit)
        W_r = np.asarray(circuit.W_r)
        np.testing.assert_allclose(W_r @ W_r.T, np.eye(size), atol=1e-12)
        assert np.linalg.norm(z) <= 1 + 1e-12 and float(np.max(circuit.b)) < 1
    found["classes"][0]["states"][0]["proved"] = False
    assert exceptions.conclude(found).verdict == "partly"


@pytest.mark.parametrize("name", exceptions.CLASSES)
def test_the_stored_exceptions_are_of_their_class(name):
    numbers = json.loads((ROOT / "results/ours/exceptions.json").read_text())["numbers"]
    (row,) = (row for row in numbers["classes"] if row["class"] == name)
    W_r, (n, made) = np.array(row["circuit"]["W_r"]), exceptions.CLASSES[name]
    assert W_r.shape == (n, n) and np.linalg.norm(W_r, 2) <= 1 + 1e-12
    symmetric = np.allclose(W_r, W_r.T, rtol=0, atol=1e-14)
    assert symmetric or name not in ("symmetric", "semidefinite", "nonnegative and semidefinite")
    if "semidefinite" in name:
        assert np.min(np.linalg.eigvalsh(W_r)) >= 0
    if "nonnegative" in name:
        assert np.min(W_r) >= 0
    if name in ("rotation", "orthogonal"):
        np.testing.assert_allclose(made(W_r), W_r, atol=1e-12)
    if name == "rotation":
        assert np.linalg.det(W_r) > 0
    if name == "antisymmetric":
        assert np.array_equal(W_r, -W_r.T)
    if name == "triangular":
        assert W_r[0, 1] == 0 and np.min(np.diag(W_r)) > 0
    if name == "without poles":
        assert np.linalg.norm(2 * W_r - np.eye(n), 2) <= 1 + 1e-12


@pytest.fixture(scope="module")
def far():
    """The study of identity recurrence, without its branches."""
    sample = identity.Sample(window=400, circuits=40, starts=2, energies=20)
    window = identity._window(np.random.default_rng(0), sample.window)
    return window, identity._starts(sample, 0, 40), identity._energies(sample)


def test_the_window_is_that_of_the_formula(far):
    window = far[0]
    assert np.array_equal(window.oscillates[window.decided], window.predicted[window.decided])
    assert 50 < np.sum(window.oscillates) < 350 and np.sum(window.decided) > 390


def test_starts_from_far_away_come_to_the_closed_form_below_the_bound(far):
    starts = far[1]
    assert np.all(starts["arrived"]) and len(starts["arrived"]) == 80
    assert np.max(starts["of_bound"]) < 1 + identity._TOLERANCE
    assert np.max(starts["largest_a"]) > 1e6


def test_the_bound_is_attained():
    """By one neuron in a short, high pulse, which keeps `sqrt(a) + w tau_y y^2 / (4 tau_a)`."""
    circuit = Circuit([[2.0]], None, 1.0, 1.0, 0.1, 3.0, 2.0)
    circuits = jax.tree.map(lambda leaf: leaf[None], circuit)
    x = np.array([[1e3, 1.0]])
    bound = float(identity._bounds(circuits, np.array([[0.01]]), x)[0])
    assert bound == pytest.approx(1 + 2 * 3 * 1e6 / 8, rel=0.02)


def test_the_energy_rises_from_far_away_only(far):
    energies = far[2]
    assert energies["near_rise"] == 0 < energies["far_rise"]


def test_first_events_are_counted_by_kind():
    branches = {"circuits": 10, "followed": 8, "hopf_points": 3, "confirmed": 3,
                "supercritical": 1, "subcritical": 2, "folds": 1, "none": 4}  # fmt: skip
    simulations = {"circuits": 5, "rest": 4, "moves": 0, "both": 1, "neither": 0,
                   "diverges": 0, "which": [2]}  # fmt: skip
    numbers = {"norm": 3.0, "sizes": [{"n": 4, "branches": branches, "simulations": simulations}]}
    assert hopf.conclude(numbers).verdict == "does not hold"
    branches |= {"supercritical": 2, "subcritical": 1}
    outcome = hopf.conclude(numbers)
    assert outcome.verdict == "holds" and outcome.table is not None
    counts = [row[1].split(" (")[0] for row in outcome.table.rows]
    assert counts[:4] == ["8 of 10", "3 of 8", "2 of 3", "1 of 3"]


def test_simulations_from_several_states():
    found = hopf._simulations(hopf.Sample(circuits=6, simulated=6, starts=2), 2)
    assert found["circuits"] == 6
    assert found["rest"] + found["moves"] + found["both"] + found["neither"] == 6
