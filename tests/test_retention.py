"""Which of three mechanisms holds a value, by switching each off."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from organics.nn import ORGaNICs, holding
from organics.studies.ours.memory import bit, neuron

NONE, FREEZE, INTEGRATE, ATTRACT = (
    frozenset(names) for names in ((), ("freeze",), ("integrate",), ("attract",))
)
LOAD = jnp.zeros((2, 300, 2)).at[:, :, 0].set(jnp.array([[0.6], [-0.6]]))
HOLD = jnp.array([0.0, 1.0])


@pytest.mark.parametrize(
    "freeze, close, by, kept",
    [
        (0.0, 0.0, NONE, 0.00002),
        (-8.0, 0.0, FREEZE, 0.505987),
        (0.0, -8.0, INTEGRATE, 0.486826),
        (-8.0, -8.0, FREEZE, 0.507953),
    ],
)
def test_the_neurons_of_the_theory(freeze, close, by, kept):
    """Chapter 16's numbers; without its own mechanism a neuron is the one that never had it."""
    found = holding(neuron(freeze=freeze, close=close), LOAD, HOLD, 1000)
    assert found.by == by
    assert found.steps == found.alone[FREEZE | INTEGRATE | ATTRACT]
    last = found.kept[FREEZE | INTEGRATE | ATTRACT][-1]
    np.testing.assert_allclose(last, kept / 0.507960, atol=3e-5)
    plain = holding(neuron(), LOAD, HOLD, 1000)
    assert plain.steps < 100
    np.testing.assert_allclose(found.kept[NONE], plain.kept[NONE], atol=1e-9)
    if freeze and close:  # each of them alone would do
        assert found.alone[FREEZE] == found.alone[INTEGRATE] == 1000


def test_without_integrating_b0_is_1_from_the_end_of_the_cues():
    layer = ORGaNICs(2, 3, key=jr.key(1), recurrent="identity", dt_tau_max_a=1.0, dt_tau_max_y=0.5)
    layer = eqx.tree_at(lambda layer: layer.cells[0].W_b0x, layer, replace_fn=lambda W: 8 * W)
    cues = jax.device_put(np.random.default_rng(0).normal(size=(2, 6, 2)))
    rest = jnp.array([0.1, -0.2])
    found = holding(layer, cues, rest, 5).kept[FREEZE | ATTRACT]
    _, states = layer(cues)
    differences = lambda y: np.asarray(y) - np.asarray(y).mean(axis=0)  # noqa: E731
    told = differences(states[0].y)
    expected = []
    for _ in range(5):
        states = (states[0]._replace(b0=jnp.ones_like(states[0].b0)),)
        states = layer.step(jnp.tile(rest, (2, 1)), states)
        expected.append(np.sum(differences(states[0].y) * told) / np.sum(told**2))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_bit_is_held_by_an_attractor():
    cues = jnp.zeros((2, 4000, 2)).at[:, :, 0].set(jnp.array([[1.0], [-1.0]]))
    found = holding(bit(), cues, HOLD, 4000)
    assert found.by == ATTRACT and found.steps == 4000
    assert found.alone[NONE] < 2000


def test_of_a_stack_all_circuits_are_looked_at_and_the_rest_is_the_layers_own_steps():
    layer = ORGaNICs(
        2, 4, key=jr.key(0), layers=2, time_constants="modulated", drive="unit",
        dt_tau_max_y=0.3, dt_tau_max_a=0.5, dt_tau_max_gates=0.5,
    )  # fmt: skip
    cues = jax.device_put(np.random.default_rng(0).normal(size=(3, 5, 2)))
    rest = jnp.array([0.1, -0.2])
    found = holding(layer, cues, rest, 7, reference=2)
    x = jnp.concatenate([cues, jnp.broadcast_to(rest, (3, 7, 2))], axis=1)

    @jax.jit
    def stepped(x):
        step = lambda state, x: (layer.step(x, state),) * 2  # noqa: E731
        start = jax.tree.map(lambda leaf: jnp.tile(leaf, (3, 1)), layer.initial_state())
        states = jax.lax.scan(step, start, jnp.moveaxis(x, 1, 0))[1]
        return jnp.concatenate([part.y for part in states], axis=-1)

    y = np.asarray(stepped(x))[5:]
    differences = (y - y.mean(axis=1, keepdims=True)).reshape(7, -1)
    told = differences[1]  # after two steps of rest
    expected = differences @ told / (told @ told)
    np.testing.assert_allclose(found.kept[FREEZE | INTEGRATE | ATTRACT], expected, rtol=1e-10)


@pytest.mark.parametrize("reference", [1500, 2500])
def test_what_fades_is_not_held_however_late_it_is_asked(reference):
    layer = ORGaNICs(
        2, 3, key=jr.key(0), dt_tau_max_y=0.5, dt_tau_max_a=0.3, dt_tau_max_gates=0.9,
    )  # fmt: skip
    cues = jax.device_put(np.random.default_rng(0).normal(size=(3, 4, 2)))
    found = holding(layer, cues, jnp.zeros(2), 3000, reference=reference)
    assert reference <= found.steps < reference + 50
    assert all(np.all(np.isfinite(kept)) for kept in found.kept.values())


@pytest.mark.parametrize("count", [3, 5, 6, 7, 11])
def test_equal_cues_are_refused_however_many(count):
    layer = ORGaNICs(2, 3, key=jr.key(0))
    cues = jax.device_put(np.random.default_rng(0).normal(size=(1, 4, 2)).repeat(count, axis=0))
    for reference, when in ((0, ""), (5, " 5 steps after they end")):
        with pytest.raises(ValueError, match=f"leave the layer in different states{when}; they do"):
            holding(layer, cues, jnp.zeros(2), 20, reference=reference)


@pytest.mark.parametrize(
    "cues, rest, message",
    [
        (LOAD[:1], HOLD, "`cues` must be at least 2"),
        (LOAD[..., :1], HOLD, "`cues` must have shape"),
        (LOAD, HOLD[:1], "`rest` must have shape"),
        (LOAD.at[0, 0, 0].set(jnp.nan), HOLD, "`cues` must be finite"),
        (LOAD.at[1].set(LOAD[0]), HOLD, "`cues` must leave the layer in different states"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_bad_cues_are_named(cues, rest, message):
    with pytest.raises(ValueError, match=message):
        holding(neuron(), cues, rest, 1000)
    with pytest.raises(ValueError, match="`reference` must be from 0 to 5, not 6"):
        holding(neuron(), LOAD, HOLD, 5, reference=6)
