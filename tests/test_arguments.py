"""All layers refuse by name: arrays replaced by wrong ones, wrong types, wrong inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from organics.baselines import build
from organics.nn import SSN, Normalization, NormalizationConv2d, ORGaNICs

M, N = 2, 3  # inputs and neurons

BUILDERS = {
    "free": lambda key: ORGaNICs(M, N, key=key),
    "identity": lambda key: ORGaNICs(M, N, key=key, recurrent="identity", time_constants="fixed"),
    "bounded": lambda key: ORGaNICs(M, N, key=key, recurrent="bounded", drive="unit"),
    "normalization": lambda key: Normalization(M, N, key=key, gain=0.5),
    "normalization, bounded": lambda key: Normalization(M, N, key=key, recurrent="bounded"),
    "SSN": lambda key: SSN(M, N, 2, key=key),
    "convolution": lambda key: NormalizationConv2d(M, N, 3, key=key),
    "convolution, within": lambda key: NormalizationConv2d(M, N, 3, key=key, pool="within"),
    **{
        name: lambda key, name=name: build(name, M, N, key=key)
        for name in (
            "lstm",
            "antisymmetric",
            "antisymmetric-gated",
            "cornn",
            "lipschitz",
            "lem",
            "rnn",
        )
    },
}
every_layer = pytest.mark.parametrize("name", BUILDERS)


def built(name):
    return BUILDERS[name](jr.key(0))


def input_of(layer):
    if isinstance(layer, NormalizationConv2d):
        return jax.device_put(np.ones((M, 4, 5)))
    return jax.device_put(np.ones(M if isinstance(layer, Normalization | SSN) else (4, M)))


def shapes_of_input(layer):
    if isinstance(layer, NormalizationConv2d):
        return r"\(2, height, width\)"
    return (
        r"\(2,\)"
        if isinstance(layer, Normalization | SSN)
        else r"\(time, 2\) or \(batch, time, 2\)"
    )


def arrays_of(layer):
    """Name of each actual and possible array, and how to get it."""
    leaves = jax.tree_util.tree_leaves_with_path(layer, is_leaf=lambda leaf: leaf is None)
    for i, (where, leaf) in enumerate(leaves):
        name = jax.tree_util.keystr(where).removeprefix(".")
        yield name, leaf, lambda tree, i=i: jax.tree.leaves(tree, is_leaf=lambda x: x is None)[i]


def converted(layer, dtype):
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf).astype(dtype)), layer)


def replaced(layer, where, value):
    return eqx.tree_at(where, layer, value, is_leaf=lambda leaf: leaf is None)


@every_layer
@pytest.mark.usefixtures("without_type_checks")
def test_an_array_replaced_by_what_the_options_do_not_say_is_refused(name):
    layer = built(name)
    x = input_of(layer)
    for array, leaf, where in arrays_of(layer):
        if leaf is None:
            wrong = {"must be None, as the layer was built": np.eye(N)}
        else:
            leaf = np.asarray(leaf)
            wrong = {
                "must be an array of shape": None,
                "must have shape": np.ones(leaf.shape[1:]),
                r"must have shape .* Map several layers with `equinox.filter_vmap`": leaf[None],
                "must be of the layer's type|must be float32 or float64": leaf.astype(np.float16),
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
    layer = converted(built(name), dtype)
    with pytest.raises(ValueError, match=rf"must be float32 or float64, not {np.dtype(dtype)}"):
        layer(input_of(layer).astype(dtype))


@pytest.mark.parametrize("name", ["free", "normalization", "convolution", "lstm"])
@pytest.mark.usefixtures("without_type_checks")
def test_a_stack_of_layers_is_to_be_mapped(name):
    stack = eqx.filter_eval_shape(eqx.filter_vmap(BUILDERS[name]), jr.split(jr.key(0), 3))
    with pytest.raises(ValueError, match=r"Map several layers with `equinox.filter_vmap`"):
        stack(input_of(built(name)))
    x = input_of(built(name))
    mapped = eqx.filter_eval_shape(eqx.filter_vmap(lambda layer: layer(x)), stack)
    assert jax.tree.leaves(mapped)[0].shape[0] == 3


def test_an_array_of_the_same_shape_is_used():
    layer, W = built("free"), jnp.asarray(np.random.default_rng(0).normal(size=(N, N)))
    layer = eqx.tree_at(lambda layer: layer.cells[0].W_r, layer, W)
    np.testing.assert_array_equal(layer.cells[0].weights().recurrent, W)
    assert eqx.filter_eval_shape(layer, input_of(layer))[0].shape == (4, N)


@every_layer
@pytest.mark.usefixtures("without_type_checks")
def test_an_input_of_another_shape_is_refused_by_name(name):
    layer = built(name)
    x, shapes = input_of(layer), shapes_of_input(layer)
    several = jnp.stack([x, x])
    refused = [x[..., 0], jnp.swapaxes(x, 0, -1) if x.ndim > 1 else jnp.ones(3), x[:0]]
    for wrong in (*refused, several[None]):
        with pytest.raises(ValueError, match=f"`x` must have shape {shapes}, not "):
            layer(wrong)
    for wrong in (several[None], *([] if hasattr(layer, "step") else [several])):
        with pytest.raises(ValueError, match="use `jax.vmap`"):
            layer(wrong)
        with pytest.raises(ValueError, match="use `jax.vmap`"):
            eqx.filter_jit(layer)(wrong)
    with pytest.raises(ValueError, match=r"not \(0,.*\): no axis may be of length 0\.$"):
        layer(x[:0])
    if hasattr(layer, "step"):
        with pytest.raises(ValueError, match=r"not \(2,\)\. For one step use `layer\.step\(x, st"):
            layer(x[0])


@every_layer
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.usefixtures("without_type_checks")
def test_an_input_that_is_not_finite_is_refused_by_name(name, value):
    layer = built(name)
    x = input_of(layer)
    bad = x.at[(0,) * x.ndim].set(value)
    calls = [lambda: layer(bad), lambda: jax.jit(lambda: layer(bad))()]
    if hasattr(layer, "circuit") and not isinstance(layer, SSN):  # which is none
        calls.append(lambda: layer.circuit(bad))
    if hasattr(layer, "step"):
        calls.append(lambda: layer.step(bad[0], layer.initial_state()))
    for call in calls:
        with pytest.raises(
            ValueError, match=rf"`x` must be finite; entry \[0.*\] is {value} \(1 of"
        ):
            call()


@every_layer
@pytest.mark.usefixtures("without_type_checks")
def test_what_is_no_array_of_real_numbers_is_refused_by_name(name):
    layer = built(name)
    ragged = [[1.0], [2.0, 3.0]]
    for wrong in ("x", ragged, None, input_of(layer).astype(complex)):
        with pytest.raises(ValueError, match="`x` must be"):
            layer(wrong)


@pytest.mark.parametrize("name", ["identity", "bounded", "normalization", "convolution", "lstm"])
def test_nan_that_is_traced_comes_out_as_nan(name):
    layer = built(name)
    x = input_of(layer)
    outputs = eqx.filter_jit(layer)(x.at[(0,) * x.ndim].set(jnp.nan))
    assert np.any(np.isnan(outputs[0]))


@pytest.mark.parametrize("name", ["normalization", "convolution"])
@pytest.mark.usefixtures("without_type_checks")
def test_pixels_and_numpy_arrays_are_taken_in_the_layers_type(name):
    layer = converted(built(name), np.float32)
    x = np.random.default_rng(0).integers(1, 256, input_of(layer).shape)
    want = layer(jnp.asarray(x, np.float32))
    for given in (x.astype(np.uint8), x.astype(np.float64), x.tolist()):
        found = layer(given)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("name", ["free", "lstm"])
@pytest.mark.usefixtures("without_type_checks")
def test_a_state_that_is_not_finite_is_refused_by_name(name):
    layer = built(name)
    state = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), layer.initial_state())
    for call in (lambda: layer(jnp.ones((4, M)), state), lambda: layer.step(jnp.ones(M), state)):
        with pytest.raises(ValueError, match=r"`state.*` must be finite; entry \[1\] is nan"):
            call()


def test_an_image_smaller_than_a_receptive_field_is_refused():
    layer = NormalizationConv2d(M, N, (3, 2), key=jr.key(0), padding="valid")
    assert layer(jnp.ones((M, 3, 2))).shape == (N, 1, 1)
    with pytest.raises(ValueError, match=r"`x` must have at least the height .*\(3, 2\) of"):
        layer(jnp.ones((M, 2, 5)))


@pytest.mark.parametrize("name", ["free", "lstm"])
@pytest.mark.usefixtures("without_type_checks")
def test_lengths_that_the_sequences_cannot_have_are_refused(name):
    layer = built(name)
    one, batch = jnp.ones((4, M)), jnp.ones((3, 4, M))
    for x, lengths, words in (
        (batch, [4, 0, 1], "must be from 1 to 4, as `x` has, not 0"),
        (batch, jnp.asarray([4, 5, 1]), "must be from 1 to 4, as `x` has, not 5"),
        (batch, np.asarray([2**40, 1, 1]), "must be from 1 to 4, as `x` has, not 1099511627776"),
        (one, -1, "must be from 1 to 4, as `x` has, not -1"),
        (batch, [4.0, 2.0, 1.0], "must be whole numbers, not of type float64"),
        (one, True, "must be whole numbers, not of type bool"),
        (one, [[1], [2, 3]], "must be whole numbers: "),
        (batch, 4, r"must be one for each sequence, of shape \(3,\), not \(\)"),
        (batch, [4, 4], r"must be one for each sequence, of shape \(3,\), not \(2,\)"),
        (one, [4], r"must be one number, of shape \(\), not \(1,\)"),
    ):
        with pytest.raises(ValueError, match=f"`lengths` {words}"):
            layer(x, lengths=lengths)
    with pytest.raises(ValueError, match=r"`x` must be finite; entry \[1, 2, 0\] is nan \(1 of"):
        layer(batch.at[1, 2:, 0].set(jnp.nan), lengths=[4, 3, 1])


@pytest.mark.usefixtures("without_type_checks")
def test_sizes_and_flags_are_what_they_must_be():
    key = jr.key(0)
    layers = (Normalization, ORGaNICs, lambda m, n, **o: SSN(m, n, 2, **o), build_lstm, convolution)
    for layer in layers:
        for wrong in (2.5, True, "3", None):
            with pytest.raises(ValueError, match=f"must be a whole number, not {wrong!r}"):
                layer(M, wrong, key=key)
    for layer in (Normalization, ORGaNICs, convolution):
        with pytest.raises(ValueError, match="`rectified` must be True or False, not 'no'"):
            layer(M, N, key=key, rectified="no")
    for size in (np.int64(3), (3, np.int64(3)), [3, 3]):
        assert NormalizationConv2d(M, N, size, key=key).k_in.shape[2:] == (3, 3)
    with pytest.raises(ValueError, match="`sigma` must be one number"):
        Normalization(M, N, key=key, sigma=np.ones(3))


def build_lstm(m, n, *, key):
    return build("lstm", m, n, key=key)


def convolution(m, n, **options):
    return NormalizationConv2d(m, n, 3, **options)
