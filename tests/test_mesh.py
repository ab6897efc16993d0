"""Layers on two devices compute what one computes, or a refusal says what to use."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from organics.baselines import LEM, LSTM
from organics.circuit.circuit import Circuit
from organics.circuit.constraints import semidefinite
from organics.nn import SSN, Normalization, ORGaNICs
from organics.simulation.noise import Noise, simulate_noisy
from organics.simulation.ode import simulate

ROWS = jr.uniform(jr.key(1), (4, 5))
SEQUENCES = jr.uniform(jr.key(1), (4, 3, 5))
LAYERS = {
    "bounded": (Normalization(5, 3, recurrent="bounded", key=jr.key(0)), ROWS),
    "SSN": (SSN(5, 3, 2, key=jr.key(0)), ROWS),
    "LSTM": (LSTM(5, 3, key=jr.key(0)), SEQUENCES),
    "LSTM by the scan": (LSTM(5, 3, key=jr.key(0), backend="scan"), SEQUENCES),
    "LEM": (LEM(5, 3, key=jr.key(0)), SEQUENCES),
}


def mesh_of(kind):
    return jax.make_mesh((2,), ("devices",), axis_types=(kind,), devices=jax.devices()[:2])


def total(layer, x):
    """A number that depends on all outputs of the layer."""
    outputs = layer(x)[0] if x.ndim == 3 else jax.vmap(layer)(x)
    return jnp.sum(jnp.sin(outputs))


def shared_gradient(layer, x):
    """A function for `total` and its gradients on two devices, and its arguments."""
    arrays, static = eqx.partition(layer, eqx.is_array)

    def value(arrays, x):
        return jax.lax.psum(total(eqx.combine(arrays, static), x), "devices")

    function = jax.shard_map(
        jax.value_and_grad(value, argnums=(0, 1)),
        mesh=mesh_of(AxisType.Auto),
        in_specs=(P(), P("devices")),
        out_specs=(P(), (P(), P("devices"))),
    )
    return jax.jit(function), arrays, x


@pytest.mark.parametrize("name", LAYERS)
def test_all_layers_say_how_they_vary_over_devices(name):
    function, *arguments = shared_gradient(*LAYERS[name])
    gradients = jax.eval_shape(function, *arguments)[1]
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, tuple(arguments))


@pytest.mark.parametrize("name", ["SSN", "LSTM", "LSTM by the scan", "LEM"])
def test_gradients_on_two_devices_are_those_on_one(name):
    function, arrays, x = shared_gradient(*LAYERS[name])
    static = eqx.filter(LAYERS[name][0], eqx.is_array, inverse=True)
    want = jax.jit(
        jax.value_and_grad(lambda arrays, x: total(eqx.combine(arrays, static), x), (0, 1))
    )(arrays, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), function(arrays, x), want
    )


@pytest.mark.parametrize("name", ["bounded", "SSN"])
def test_searches_mapped_over_explicit_axes_say_what_to_use(name):
    layer, x = LAYERS[name]
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, P("devices")))
        with pytest.raises(
            ValueError, match=r"on the explicit axes \['devices'\].*`AxisType.Auto`"
        ):
            jax.eval_shape(jax.vmap(layer), x)


@pytest.mark.parametrize("name", ["LSTM", "LSTM by the scan", "LEM"])
def test_a_sequence_layer_on_explicit_axes_keeps_the_batch_shared(name):
    layer, x = LAYERS[name]
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, P("devices")))
        outputs, state = jax.eval_shape(layer, x)
    assert outputs.sharding.spec == P("devices", None, None)
    assert state.sharding.spec == P("devices", None)


def test_norms_are_those_of_the_whole_matrix():
    M = jr.normal(jr.key(2), (4, 4))
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        got = semidefinite(jax.device_put(M, NamedSharding(mesh, P("devices"))))
    np.testing.assert_allclose(got, semidefinite(M), rtol=1e-12)


def on_two(function, x, **options):
    """A function of rows, applied to `x` on two devices with one row each."""
    of_one = lambda rows: function(rows[0])[None]  # noqa: E731
    options = {"in_specs": P("devices"), "out_specs": P("devices"), **options}
    return jax.jit(jax.shard_map(of_one, mesh=mesh_of(AxisType.Auto), **options))(x)


CIRCUIT = Circuit(W=np.eye(3))
DRIVES = jr.uniform(jr.key(3), (2, 3))


def test_noisy_trajectories_on_two_devices_are_those_on_one():
    def last(z, **options):
        noise = Noise(0.1, 0.01)
        path = simulate_noisy(CIRCUIT, z, noise, 0.1, 20, key=jr.key(0), **options)
        return path.state.y[-1]

    gradient = jax.grad(lambda z: jnp.sum(last(z, throw=False)))
    want = jax.jit(jax.vmap(gradient))(DRIVES)
    np.testing.assert_allclose(on_two(gradient, DRIVES), want, rtol=1e-10)
    with pytest.raises(ValueError, match=r"`throw=True` on the axes \['devices'\].*check_vma"):
        on_two(last, DRIVES)


def test_trajectories_on_two_devices_are_those_on_one_or_refused():
    def last(z):
        return simulate(CIRCUIT, lambda t: z * jnp.sin(t), 20.0, throw=False).state.y[-1]

    with pytest.raises(ValueError, match=r"`simulate` on the axes \['devices'\].*check_vma"):
        on_two(last, DRIVES)
    got = on_two(last, DRIVES, check_vma=False)
    np.testing.assert_allclose(got[1], last(DRIVES[1]), atol=1e-9)


@pytest.mark.parametrize(
    "mapped",
    [
        lambda z: simulate(CIRCUIT, z, 20.0, throw=False).end_time,
        lambda z: simulate_noisy(CIRCUIT, z, Noise(), 0.1, 20, key=jr.key(0), throw=False).ok,
        lambda z: RECURRENT(z[None])[0],
    ],
)
def test_loops_mapped_over_explicit_axes_say_what_to_use(mapped):
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        z = jax.device_put(DRIVES, NamedSharding(mesh, P("devices")))
        with pytest.raises(ValueError, match=r"explicit axes \['devices'\].*`AxisType.Auto`"):
            jax.eval_shape(jax.vmap(mapped), z)


RECURRENT = ORGaNICs(3, 4, key=jr.key(0))
