"""Simulations until circuits come to rest."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from organics.circuit.circuit import Circuit, State
from organics.rest.closed_form import closed_form
from organics.simulation import resting
from organics.simulation.ode import simulate
from organics.simulation.resting import comes_to_rest, settle

pytestmark = pytest.mark.usefixtures("standard_promotion", "small_batches")

normalization = jax.jit(jax.vmap(closed_form))


@pytest.fixture
def small_batches(monkeypatch):
    """Small batches: each is simulated until its slowest circuit is at rest."""
    monkeypatch.setattr(resting, "_BATCH", 6)


def stacked(circuits):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *circuits)


def with_identity(circuits):
    """The same, with `W_r` as a matrix: one program for all these tests."""
    matrices = np.tile(np.eye(2), (len(circuits.b), 1, 1))
    return eqx.tree_at(lambda c: c.W_r, circuits, matrices, is_leaf=lambda leaf: leaf is None)


def test_settle_ends_at_rest_or_where_the_time_is_up():
    rng = np.random.default_rng(0)
    trials = resting._BATCH + 3  # a batch that is full and one that is not
    draws = [(rng.uniform(size=(2, 2)), rng.uniform(0.2, 1, 2)) for _ in range(trials)]
    circuits = stacked([Circuit(W, b=b) for W, b in draws])
    drives = jnp.asarray(rng.normal(size=(trials, 2)))
    rest = State(np.zeros((trials, 2)), (circuits.b0 * circuits.sigma) ** 2)
    want = normalization(circuits, drives)
    circuits = with_identity(circuits)
    ends, settled = settle(circuits, drives, rest, 2000.0)
    assert settled.all()
    np.testing.assert_allclose(ends.y, want.y, atol=1e-5)
    np.testing.assert_allclose(ends.a, want.a, atol=1e-5)
    early, settled = settle(circuits, drives, rest, 3.0)
    assert not settled.any()
    circuit, z = jax.tree.map(lambda x: np.asarray(x)[-1], (circuits, drives))
    path = simulate(circuit, z, 3.0, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(early.y[-1], path.state.y[-1], rtol=1e-6)
    np.testing.assert_allclose(early.a[-1], path.state.a[-1], rtol=1e-6)


def test_a_circuit_comes_to_rest_only_if_it_can():
    """The first is two copies of the neuron that has no stable steady state at norm 1."""
    I = np.eye(2)  # noqa: E741
    pair = [Circuit(0.9 * I, w_r * I, b=0.9, b0=0.9, sigma=0.9) for w_r in (-1.0, 0.5)]
    nowhere = State(np.full((2, 2), np.nan), np.full((2, 2), np.nan))
    rests = comes_to_rest(stacked(pair), jnp.asarray(np.ones((2, 2))), nowhere, 400.0, starts=1)
    assert rests.tolist() == [False, True]


def test_what_comes_to_rest_starts_beside_the_given_state_too():
    circuit = stacked([Circuit(np.eye(2), b=0.5)])
    drives = jnp.asarray(np.array([[1.0, 0.3]]))
    known = normalization(circuit, drives)
    nowhere = jax.tree.map(lambda leaf: np.nan * np.asarray(leaf), known)
    circuit = with_identity(circuit)
    for state, rests in (nowhere, False), (known, True):  # there is less left of the way
        assert comes_to_rest(circuit, drives, state, 150.0, starts=0) == [rests]
