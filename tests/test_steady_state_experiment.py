import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from organics.circuit.circuit import Circuit, State
from organics.simulation import resting
from organics.studies.harness.target import Job
from organics.studies.ours import steady_states as experiment

pytestmark = pytest.mark.usefixtures("standard_promotion", "small_batches")


@pytest.fixture
def small_batches(monkeypatch):
    """Small batches: each is simulated until its slowest circuit is at rest."""
    monkeypatch.setattr(resting, "_BATCH", 6)


def test_the_experiment_at_toy_size(tmp_path, monkeypatch):
    job = Job(tmp_path)
    sample = experiment.Sample(
        largest=2,
        circuits_per_size=6,
        n=2,
        norms=(1.0, 3.0),
        trials=5,
        time=200.0,
        starts=1,
        rectified=(False,),
    )
    cleared = []  # and not what other tests have compiled
    monkeypatch.setattr(experiment.jax, "clear_caches", lambda: cleared.append(1))
    found = experiment.measure(sample, job)
    assert len(cleared) == 2, "a size is forgotten when it is done"
    (search,) = found["search"]
    assert search["circuits"] == search["converged"] == search["residual_at_most_1e-10"] == 12
    assert search["stable"] == sum(search["stable_by_method"].values()) == 12
    assert search["not_stable_by_size"] == {} and len(search["largest_residual_by_size"]) == 2
    assert search["not_stable_but_rests_in_a_simulation"] == 0
    for row, norm in zip(found["stability"], sample.norms, strict=True):
        assert row["spectral_norm"] == norm
        simulated = row["stable_and_a_simulation_of_it"]
        outside = simulated["ends_at_another_state"] + simulated["never_rests"]
        assert simulated["ends_there"] + outside == row["stable"] == 5 - row["not_stable"]
        assert simulated["of_the_last_two_ends_there_from_nearby"] <= outside
        others = row["not_stable_and_a_simulation_of_it"]
        assert others["never_rests"] + others["rests"] == row["not_stable"]
    inside = found["stability"][0]
    assert inside["stable"] == inside["stable_and_a_simulation_of_it"]["ends_there"] == 5

    def computed_again(*_):
        raise AssertionError("what is complete was computed again")

    monkeypatch.setattr(experiment, "_find", computed_again)
    monkeypatch.setattr(experiment, "_solve", computed_again)
    assert experiment.measure(sample, job) == found
    outcome = experiment.conclude(found)
    assert outcome.verdict == "holds" and len(outcome.table.rows) == 3
    search["converged"] -= 1
    assert experiment.conclude(found).verdict == "partly"


def test_circuits_of_the_search_are_inside_the_bounds():
    keys = jr.split(jr.key(0), 40)
    draw = jax.jit(jax.vmap(lambda k, i: experiment.inside_bounds(k, i, 4, False)))
    circuits, drives = draw(keys, jnp.arange(40))
    norms = np.linalg.norm(circuits.W_r, 2, axis=(1, 2))
    sizes = np.linalg.norm(drives, axis=1)
    for values in (norms, sizes):
        np.testing.assert_allclose(values[::2], 1, rtol=1e-12)
        assert np.all((values[1::2] > 0) & (values[1::2] < 1)) and np.std(values[1::2]) > 0.2


def test_circuits_are_counted_that_come_to_rest_or_back():
    two = np.eye(2)
    weak = Circuit(two, 2 * two, b=0.5, b0=1.0, sigma=0.4)  # rests with each y > 0 or < 0
    growing = Circuit(2 * two, 0 * two, b=1.0)  # has no steady state
    circuits = jax.tree.map(lambda *x: np.stack(x), weak, growing)
    drives = np.array([[0.0, 0.0], [1.0, 1.0]])
    nowhere = State(np.full((2, 2), np.nan), np.ones((2, 2)))
    for which, rest in ([True, True], 1), ([False, True], 0), ([False, False], 0):
        found = experiment._resting(circuits, drives, nowhere, np.array(which), 1, 300.0, 0)
        assert found == rest
    s = 0.5  # of the stable states of `weak`, where the effective gain vanishes
    y = np.sqrt(1 - 0.4**2 / s**2)
    other = State(np.array([[y, -y], [1.0, 1.0]]), np.full((2, 2), s**2))
    saddle = State(np.array([[0.0, y], [1.0, 1.0]]), np.array([[0.16, s**2], [1.0, 1.0]]))
    everywhere = np.array([True, True])
    assert experiment._returning(circuits, drives, other, everywhere, 300.0) == 1
    assert experiment._returning(circuits, drives, saddle, everywhere, 300.0) == 0
    assert experiment._returning(circuits, drives, other, ~everywhere, 300.0) == 0
