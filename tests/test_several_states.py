"""Whether other steady states exist, and which of them a quick search finds."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from circuits import seeds, wide_circuit
from hypothesis import given, settings

from organics import cli, given_state, stability, steady_state, steady_states
from organics.circuit.circuit import Circuit, State
from organics.enumeration.others import other_states
from organics.studies.harness.target import Job
from organics.studies.ours import several_states

ROOT = Path(__file__).parents[1]
THREE = {
    "W": [[1, 0.5, 0.3], [0.5, 1, 0.5], [0.3, 0.5, 1]],
    "W_r": [[1.2, -0.4, 0.1], [0.6, 0.9, -0.5], [0.1, 0.7, 1.0]],
    "b": 0.5, "b0": [0.3, 0.3, 0.4], "sigma": 0.1, "tau_y": 15, "tau_a": 5,
}  # fmt: skip


def with_others(circuit, z):
    """The found state and all others, each with its stability."""
    steady = steady_state(circuit, z)
    found = other_states(steady)
    points = [steady, *found.points]
    return found, [(point.state, bool(stability(point).stable)) for point in points]


def test_two_stable_states_and_a_saddle_of_one_neuron():
    circuit, z = Circuit([[1.0]], [[3.0]], sigma=0.1, tau_y=20.0, tau_a=2.0), np.array([0.1])
    found, states = with_others(circuit, z)
    assert found.unique is False and len(states) == 3
    stable = sorted(float(state.y[0]) for state, holds in states if holds)
    assert len(stable) == 2 and stable[0] < 0 < stable[1]


def test_two_stable_states_of_three_neurons():
    circuit = Circuit(**THREE)
    found, states = with_others(circuit, np.array([0.02, 0.01, 0.004]))
    assert found.unique is False
    stable = np.array(sorted([np.asarray(s.y).tolist() for s, holds in states if holds]))
    np.testing.assert_allclose(stable, [[-0.826, -0.174, -0.878], [0.824, 0.196, 0.881]], atol=2e-3)


def test_two_stable_states_where_the_norms_are_below_1():
    """Symmetric positive definite `W_r`; the values of `a` are those of a resultant."""
    circuit = Circuit(
        W=[[0.67, 0.03], [0.0001, 0.0024]], W_r=[[0.18, 0.16], [0.16, 0.94]], b=1.0, b0=1.0,
        sigma=[0.3872983346207417, 0.161245154965971],
    )  # fmt: skip
    _, states = with_others(circuit, np.array([-0.2, -0.84]))
    by_size = sorted(states, key=lambda pair: float(pair[0].a[0]))
    a = [np.asarray(state.a) for state, _ in by_size]
    np.testing.assert_allclose(a, [[0.2227, 0.0272], [44.36, 0.0333], [832.0, 0.1512]], rtol=2e-3)
    assert [holds for _, holds in by_size] == [True, False, True]


@settings(max_examples=8)
@given(seed=seeds)
def test_what_is_found_rests(seed):
    circuit, z = wide_circuit(seed, 2, recurrence=2.0)
    nowhere = given_state(circuit, z, State(jnp.zeros(2), jnp.full(2, 1e-30)))
    for point in other_states(nowhere).points:
        state = point.state
        assert point.converged
        left = np.concatenate(circuit.imbalance(state, z))
        size = np.concatenate([np.abs(state.y) * (2 + np.sqrt(state.a)), 2 * state.a]) + 1e-3
        assert np.all(np.abs(left) <= 1e-7 * size.max())


def test_what_is_proved_to_be_the_only_state():
    z = np.array([0.3, -0.2])
    for circuit in (
        Circuit(np.ones((2, 2)), np.eye(2)),
        Circuit(np.ones((2, 2)), [[0.5, 0.3], [-0.3, 0.5]]),
    ):
        found, states = with_others(circuit, z)
        assert found.unique is True and len(states) == 1
    # of pools that differ it is not known
    other = Circuit([[1.0, 0.5], [0.5, 1.0]], [[0.5, 0.3], [-0.3, 0.5]])
    assert with_others(other, z)[0].unique is None
    rectified = Circuit([[1.0, 0.5], [0.5, 1.0]], [[0.5, 0.3], [-0.3, 0.5]], rectified=True)
    assert with_others(rectified, z)[0].unique is None


@pytest.mark.parametrize("command", ["analyze", "certify"])
def test_the_commands_say_that_there_are_others(tmp_path, capsys, command):
    file = tmp_path / "three.json"
    file.write_text(
        json.dumps({**THREE, "rectified": False, "z": [0.02, 0.01, 0.004]}), encoding="utf-8"
    )
    assert cli.run([command, str(file), "--json"]) == 0
    (drive,) = json.loads(capsys.readouterr().out)["circuits"][0]["drives"]
    assert drive["others"]["unique"] is False
    assert any(state["stable"] for state in drive["others"]["states"])
    assert cli.run([command, str(file)]) == 0
    assert "come in pairs of opposite signs" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("z", [[0.3, 0.31, 0.29], [1.0, 0.5, 0.2]])
def test_nothing_is_found_far_away_where_the_recurrence_cancels(z):
    """The columns of `W_r` add up to 0, and so does `(y - b z) / (1 - sqrt(a))`."""
    W_r = np.array([[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, -1.0, 2.0]])
    circuit = Circuit(0.9 * np.eye(3) + 0.1, W_r)
    found, states = with_others(circuit, np.array(z))
    assert len(found.points) > 3
    for state, _ in states:
        terms = (np.asarray(state.y) - 0.5 * np.array(z)) / (1 - np.sqrt(np.asarray(state.a)))
        assert abs(terms.sum()) <= 1e-6 * np.abs(terms).sum()


def test_the_study_counts_and_hunts(tmp_path):
    """Every random circuit is counted once, and the hunt ends at a smaller norm, with a proof."""
    sample = several_states.Sample((2,), norms=(1.0,), trials=4, hunts=1, steps=40)
    found = several_states.measure(sample, Job(tmp_path))
    (row,) = found["count"]
    assert row["complete"] == sum(row["states"].values()) == sum(row["stable"].values()) == 4
    assert all(int(number) % 2 for number in row["states"])
    hunt = found["hunt"]
    assert hunt["smallest"]["norm"] < hunt["norm_at_the_start"] < 1
    assert hunt["outcome"] == "all, proved"
    assert sum(state["spectral_abscissa"] < 0 for state in hunt["states"]) >= 2
    assert several_states.measure(sample, Job(tmp_path)) == found
    assert several_states.conclude(found).verdict == "holds"
    hunt["states"] += [hunt["states"][-1] | {"spectral_abscissa": 1.0}] * 2
    assert several_states.conclude(found).verdict == "does not hold"
    del hunt["states"][-2:]
    hunt["states"][0]["proved"] = False
    assert several_states.conclude(found).verdict == "does not hold"


def test_two_stable_states_at_every_norm():
    """The far states of `W_r = e R` have `a` as `1 / e^2`, and do not lose their stability."""
    stored = json.loads((ROOT / "results/ours/several_states.json").read_text())
    found = stored["numbers"]["hunt"]["smallest"]
    for factor in (1e-2, 1e-6):
        W_r = factor * np.array(found["W_r"])
        circuit = Circuit(found["W"], W_r, found["b"], found["b0"], found["sigma"])
        states = steady_states(circuit, np.array(found["z"]), prove=True)
        assert states.outcome == "all, proved" and all(state.proved for state in states.states)
        assert [state.stable for state in states.states] == [True, False, True]


def test_the_state_itself_is_not_another_one_in_float32():
    """It is known to 1e-5 there, and the states that are found to much more."""
    rng = np.random.default_rng(0)
    drawn = [(float(rng.choice([1, 2.0])), rng.normal(size=4)) for _ in range(189)]
    for i in (62, 68, 107, 188):  # where it once was
        norm, z = drawn[i]
        with jax.enable_x64(False):
            circuit = Circuit.random(jr.key(i), 4, norm)
            z = z.astype("float32")
            point = steady_state(circuit, z / np.linalg.norm(z))
            found = other_states(point)
        assert point.converged and found.unique is not False and not found.points
