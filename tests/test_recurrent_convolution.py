"""A recurrent layer on images is its circuit, step by step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.signal import correlate2d

from organics import State
from organics.nn import CellState, ORGaNICsConv2d

TIME, HEIGHT, WIDTH, CHANNELS = 3, 4, 5, 2  # not square


def layer_and_images(seed, **options):
    k_layer, k_r, k_x, k_s = jr.split(jr.key(seed), 4)
    layer = ORGaNICsConv2d(1, CHANNELS, 3, key=k_layer, pool_size=(3, 5), **options)
    if layer.k_r is not None:
        noise = jr.normal(k_r, layer.k_r.shape)
        layer = eqx.tree_at(lambda c: c.k_r, layer, layer.k_r + noise)
    images = jr.normal(k_x, (2, TIME, 1, HEIGHT, WIDTH))
    y, *others = jr.uniform(k_s, (4, CHANNELS, HEIGHT, WIDTH))
    return layer, images, CellState(y - 0.5, *others)


@eqx.filter_jit
def run(layer, x, state=None):
    return layer(x, state)


@eqx.filter_jit
def circuit_step(layer, x, state):
    """`y` and `a` after an Euler step of the layer's circuit, and the norm of `W_r`."""
    circuit, z = layer.circuit(x, state)
    before = State(state.y.reshape(-1), state.a.reshape(-1))
    moved = circuit.velocity(before, z)
    after = [(p + layer.dt * v).reshape(state.y.shape) for p, v in zip(before, moved, strict=True)]
    return after, circuit.recurrent.as_matrix()


@pytest.mark.parametrize(
    ("recurrent", "rectified"), [("identity", True), ("bounded", False), ("free", True)]
)
def test_a_step_is_that_of_the_circuit(recurrent, rectified):
    for seed in range(2):
        layer, x, state = layer_and_images(seed, recurrent=recurrent, rectified=rectified, dt=2.0)
        _, after = run(layer, x[0, :1], state)
        want, W_r = circuit_step(layer, x[0, 0], state)
        np.testing.assert_allclose(after.y, want[0], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(after.a, want[1], rtol=1e-10, atol=1e-12)
        norm = np.linalg.norm(W_r, 2)
        assert norm <= 1 + 1e-12 if recurrent == "bounded" else norm >= 1 - 1e-12


def test_gates_are_as_the_equations_say():
    layer, x, state = layer_and_images(3)
    _, after = run(layer, x[0, :1], state)
    potentials = np.concatenate([state.y, state.a])

    def convolved(kernel, image):
        pairs = zip(np.asarray(kernel), np.asarray(image), strict=True)
        return sum(correlate2d(channel, k, "same") for k, channel in pairs)

    rates = np.asarray(layer._rates(1))
    for i, (old, new) in enumerate([(state.b0, after.b0), (state.b, after.b)]):
        for c in range(CHANNELS):
            k = CHANNELS * i + c
            total = convolved(layer.k_input[CHANNELS + k], x[0, 0])
            total = total + convolved(layer.k_gates[k], potentials)
            want = old[c] + rates[2 + i, c] * (1 / (1 + np.exp(-total)) - old[c])
            np.testing.assert_allclose(new[c], want, rtol=1e-10)


def test_parts_and_batches_give_the_same_as_the_whole():
    layer, x, _ = layer_and_images(0, recurrent="bounded")
    y, final = run(layer, x)
    assert y.shape == (2, TIME, CHANNELS, HEIGHT, WIDTH) and final.a.shape == y[:, 0].shape
    one, middle = run(layer, x[0, :1])
    rest, end = run(layer, x[0, 1:], middle)
    np.testing.assert_allclose(np.concatenate([one, rest]), y[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(end.a, final.a[0], rtol=1e-10)
    last, _ = eqx.filter_jit(lambda layer, x: layer(x, sequence=False))(layer, x)
    np.testing.assert_allclose(last, y[:, -1], rtol=1e-10, atol=1e-12)


def test_gradients_are_finite_differences_also_of_the_capped_kernel():
    layer, x, _ = layer_and_images(1, recurrent="bounded")
    arrays, static = eqx.partition(layer, eqx.is_inexact_array)

    @jax.jit
    def loss(arrays):
        y, _ = eqx.combine(arrays, static)(x)
        return jnp.sum(y**2)

    leaves, tree = jax.tree.flatten(arrays)
    keys = jr.split(jr.key(5), len(leaves))
    direction = [jr.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]

    def moved(h):
        return loss(tree.unflatten([p + h * d for p, d in zip(leaves, direction, strict=True)]))

    slopes = jax.tree.leaves(jax.jit(jax.grad(loss))(arrays))
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(slopes, direction, strict=True))
    assert slope == pytest.approx(float(moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel_size": 2}, "`kernel_size` must be odd"),
        ({"pool_size": 4}, "`pool_size` must be odd"),
        ({"dt_tau_max_a": 2.0}, r"`dt_tau_max_a` must be in \(0, 1\]"),
        ({"dt_tau_max_y": "a"}, "`dt_tau_max_y` must be one number"),
        ({"sigma": 0.0}, "`sigma` must be > 0"),
        ({"out_channels": 0}, "`out_channels` must be at least 1"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_refusals_name_the_argument(wrong, message):
    arguments = {"in_channels": 1, "out_channels": 2, "kernel_size": 3, "key": jr.key(0)}
    with pytest.raises(ValueError, match=message):
        ORGaNICsConv2d(**(arguments | wrong))


def test_other_shapes_are_refused():
    layer, x, _ = layer_and_images(0)
    with pytest.raises(ValueError, match="`x` must have shape"):
        layer(jnp.concatenate([x, x], axis=2))


@pytest.mark.usefixtures("without_type_checks")
def test_other_states_are_refused():
    """None of them is stretched to the image."""
    layer, x, state = layer_and_images(0)
    whole = CellState(*(jnp.stack([part, part]) for part in state))
    wrong = [
        (
            state._replace(y=state.y[:, :1]),
            r"`state.y` must have shape \(2, 4, 5\) or \(2, 2, 4, 5",
        ),
        (state._replace(b=state.b[..., :1]), "`state.b` must have shape"),
        (CellState(*(part[:1] for part in whole)), r"`state.y` must have shape"),
        (state._replace(a=state.a.at[1, 0, 0].set(jnp.nan)), "`state.a` must be finite"),
        (state._replace(b0=state.b0.astype("f4")), "`state.b0` must be of the layer's type"),
        (state.y, "`state` must be a `CellState`"),
    ]
    for other, message in wrong:
        with pytest.raises(ValueError, match=message):
            layer(x, other)
    for image, at, message in [
        (x[0, 0], whole, "`state.y` must have shape"),
        (jnp.swapaxes(x[0, 0], 1, 2), state, r"`state.y` must have shape \(2, 5, 4\)"),
        (x[0, 0] * jnp.nan, state, "`x` must be finite"),
        (jnp.ones((1, 4, 5), int), state, "`x` must be of the layer's type"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer.circuit(image, at)
    y, _ = run(layer, x, whole)
    np.testing.assert_allclose(run(layer, x, state)[0], y, rtol=1e-12)
