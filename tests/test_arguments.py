"""What all layers refuse, by name: arrays that were replaced by others, types, inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from organics.baselines import build
from organics.nn import Normalization, NormalizationConv2d, ORGaNICs

M, N = 2, 3  # inputs and neurons

BUILDERS = {
    "free": lambda key: ORGaNICs(M, N, key=key, layers=2),
    "identity": lambda key: ORGaNICs(M, N, key=key, recurrent="identity", time_constants="fixed"),
    "bounded": lambda key: ORGaNICs(M, N, key=key, recurrent="bounded", drive="unit"),
    "normalization": lambda key: Normalization(M, N, key=key),
    "normalization, bounded": lambda key: Normalization(
        M, N, key=key, recurrent="bounded", gain=0.5
    ),
    "convolution": lambda key: NormalizationConv2d(M, N, 3, key=key),
    "convolution, within": lambda key: NormalizationConv2d(M, N, 3, key=key, pool="within"),
    **{
        name: lambda key, name=name: build(name, M, N, key=key)
        for name in ("lstm", "antisymmetric", "antisymmetric-gated", "cornn", "lipschitz", "rnn")
    },
}
every_layer = pytest.mark.parametrize("name", BUILDERS)


def built(name):
    return BUILDERS[name](jr.key(0))


def input_of(layer):
    if isinstance(layer, NormalizationConv2d):
        return jnp.ones((M, 4, 5))
    return jnp.ones(M) if isinstance(layer, Normalization) else jnp.ones((4, M))


def arrays_of(layer):
    """Name of each array and of each that there might be, and how to get at it."""
    leaves = jax.tree_util.tree_leaves_with_path(layer, is_leaf=lambda leaf: leaf is None)
    for i, (where, leaf) in enumerate(leaves):
        name = jax.tree_util.keystr(where).removeprefix(".")
        yield name, leaf, lambda tree, i=i: jax.tree.leaves(tree, is_leaf=lambda x: x is None)[i]


def replaced(layer, where, value):
    return eqx.tree_at(where, layer, value, is_leaf=lambda leaf: leaf is None)


@every_layer
@pytest.mark.usefixtures("without_type_checks")
def test_an_array_replaced_by_what_the_options_do_not_say_is_refused(name):
    layer = built(name)
    x = input_of(layer)
    for array, leaf, where in arrays_of(layer):
        if leaf is None:
            wrong = {"must be None, as the layer was built": jnp.eye(N)}
        else:
            wrong = {
                "must be an array of shape": None,
                "must have shape": jnp.ones(leaf.shape[1:]),
                r"must have shape .* Map several layers with `equinox.filter_vmap`": leaf[None],
                "must be of the layer's type|must be float32 or float64": leaf.astype(jnp.float16),
            }
        for words, value in wrong.items():
            other = replaced(layer, where, value)
            with pytest.raises(ValueError, match=words) as refused:
                other(x)
            named = {f"`{array}`", "`W_zx`", "`cells[0].W_zx`", "`k_in`", "`V`"}
            assert any(one in str(refused.value) for one in named)
            if hasattr(layer, "step"):
                with pytest.raises(ValueError, match=words):
                    other.step(x[0], layer.initial_state())


@every_layer
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
@pytest.mark.usefixtures("without_type_checks")
def test_a_layer_converted_to_a_type_in_which_it_does_not_compute_is_refused(name, dtype):
    layer = jax.tree.map(lambda leaf: leaf.astype(dtype), built(name))
    with pytest.raises(ValueError, match=rf"must be float32 or float64, not {np.dtype(dtype)}"):
        layer(input_of(layer).astype(dtype))


@pytest.mark.parametrize("name", ["free", "normalization", "convolution", "lstm"])
@pytest.mark.usefixtures("without_type_checks")
def test_a_stack_of_layers_is_to_be_mapped(name):
    stack = eqx.filter_vmap(BUILDERS[name])(jr.split(jr.key(0), 3))
    with pytest.raises(ValueError, match=r"Map several layers with `equinox.filter_vmap`"):
        stack(input_of(built(name)))
    if name == "normalization":
        x = input_of(built(name))
        mapped = eqx.filter_vmap(lambda layer: layer(x))(stack)
        keys = jr.split(jr.key(0), 3)
        np.testing.assert_allclose(mapped[1], BUILDERS[name](keys[1])(x), rtol=1e-10)


def test_an_array_of_the_same_shape_is_used():
    layer, W = built("free"), jnp.asarray(np.random.default_rng(0).normal(size=(N, N)))
    layer = eqx.tree_at(lambda layer: layer.cells[1].W_r, layer, W)
    np.testing.assert_array_equal(layer.cells[1].weights().recurrent, W)
    assert np.all(np.isfinite(layer(input_of(layer))[0]))
