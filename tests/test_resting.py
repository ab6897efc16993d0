"""Simulations until circuits come to rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from organics import resting
from organics.circuit import Circuit, State
from organics.resting import comes_to_rest, settle
from organics.simulation import simulate
from organics.steady_states import closed_form

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_settle_ends_at_rest_or_where_the_time_is_up():
    rng = np.random.default_rng(0)
    trials = resting._BATCH + 3  # a batch that is full and one that is not
    draws = [(rng.uniform(size=(2, 2)), rng.uniform(0.2, 1, 2)) for _ in range(trials)]
    circuits = jax.tree.map(lambda *x: jnp.stack(x), *[Circuit(W, b=b) for W, b in draws])
    drives = jnp.asarray(rng.normal(size=(trials, 2)))
    rest = State(jnp.zeros_like(drives), circuits.c)
    ends, settled = settle(circuits, drives, rest, 2000.0)
    assert settled.all()
    want = jax.vmap(closed_form)(circuits, drives)
    np.testing.assert_allclose(ends.y, want.y, atol=1e-5)
    np.testing.assert_allclose(ends.a, want.a, atol=1e-5)
    early, settled = settle(circuits, drives, rest, 3.0)
    assert not settled.any()
    circuit, z = jax.tree.map(lambda x: x[-1], (circuits, drives))
    path = simulate(circuit, z, 3.0, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(early.y[-1], path.state.y[-1], rtol=1e-6)
    np.testing.assert_allclose(early.a[-1], path.state.a[-1], rtol=1e-6)


def test_a_circuit_comes_to_rest_only_if_it_can():
    """The first is the single neuron without a stable steady state at norm 1."""
    pair = [Circuit([[0.9]], [[w_r]], b=0.9, b0=0.9, sigma=0.9) for w_r in (-1.0, 0.5)]
    circuits = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
    nowhere = State(jnp.full((2, 1), jnp.nan), jnp.full((2, 1), jnp.nan))
    rests = comes_to_rest(circuits, jnp.ones((2, 1)), nowhere, 400.0)
    assert rests.tolist() == [False, True]


def test_what_comes_to_rest_starts_beside_the_given_state_too():
    circuit = jax.tree.map(lambda leaf: leaf[None], Circuit(np.eye(2), b=0.5))
    drives = jnp.asarray([[1.0, 0.3]])
    known = jax.vmap(closed_form)(circuit, drives)
    nowhere = jax.tree.map(lambda leaf: jnp.nan * leaf, known)
    for state, rests in (nowhere, False), (known, True):  # there is less left of the way
        assert comes_to_rest(circuit, drives, state, 150.0, starts=0) == [rests]
