import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from organics.linear_stability import stability
from organics.models import ModelName, StaticClassifier, build, count_parameters
from organics.nn import Normalization
from organics.nn.normalization import Recurrence
from organics.training import config

SMALL = {"encoder": (12, 6), "layers": (5, 4)}


def shapes(name, input_size=784, **options):
    return eqx.filter_eval_shape(lambda: build(name, input_size, key=jr.key(0), **options))


@pytest.mark.parametrize(
    ("layers", "total"), [((50,), 671_824), ((80,), 682_354), ((120, 60), 723_054)]
)
def test_parameter_counts_of_the_paper(layers, total):
    bounded = shapes("organics", layers=layers, recurrent="bounded")
    identity = shapes("organics", layers=layers, recurrent="identity")
    assert count(bounded) == total
    assert count(identity) == total - sum(n * n for n in layers)  # W_r is not a parameter there
    assert count(bounded.encoder) + count(bounded.decoder) == 662_264
    assert count(bounded.readout) == 10 * layers[-1] + 10


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(module) if hasattr(leaf, "dtype"))


def test_parameter_counts_of_the_layers_and_of_the_control():
    layers = shapes("organics", layers=(120, 60), recurrent="bounded").layers
    assert [count(layer) for layer in layers] == [38_520, 21_660]
    control = shapes("mlp", layers=(120, 60)).layers
    assert [count(layer) for layer in control] == [120 * 40 + 120, 60 * 120 + 60]
    model = build("mlp", 8, key=jr.key(0), **SMALL)
    assert count_parameters(model) == count(model)


@pytest.mark.rounding
def test_forward_pass_by_hand():
    model = build("organics", 8, key=jr.key(1), **SMALL)
    x = jr.uniform(jr.key(2), (8,))

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    def affine(layer, v):
        return np.asarray(layer.weight) @ v + np.asarray(layer.bias)

    code = sigmoid(affine(model.encoder[1], np.maximum(affine(model.encoder[0], np.asarray(x)), 0)))
    back = sigmoid(affine(model.decoder[1], np.maximum(affine(model.decoder[0], code), 0)))
    rates = code
    for layer in model.layers:
        z = np.asarray(layer.W_zx) @ rates
        d = z / np.linalg.norm(z) * sigmoid(np.asarray(layer.W_bx) @ rates)
        c = sigmoid(np.asarray(layer.beta)) ** 2
        rates = np.maximum(d, 0) ** 2 / (c + np.exp(np.asarray(layer.log_W)) @ d**2)
    found = model(x)
    np.testing.assert_allclose(found.logits, affine(model.readout, rates), rtol=1e-10)
    np.testing.assert_allclose(found.reconstruction, back, rtol=1e-10)


@pytest.mark.parametrize("name", ["organics", "mlp"])
def test_loss_is_cross_entropy_plus_reconstruction_error(name):
    model = build(name, 8, key=jr.key(1), **SMALL)
    inputs = jr.uniform(jr.key(2), (6, 8))
    labels = jnp.array([0, 3, 9, 1, 1, 2], jnp.int32)
    loss, metrics = model.loss(inputs, labels)
    logits, back, _ = jax.vmap(model)(inputs)
    p = np.exp(np.asarray(logits))
    p = p / p.sum(axis=1, keepdims=True)
    cross_entropy = -np.mean(np.log(p[np.arange(6), np.asarray(labels)]))
    np.testing.assert_allclose(metrics["cross_entropy"], cross_entropy, rtol=1e-10)
    np.testing.assert_allclose(metrics["reconstruction_error"], np.mean((back - inputs) ** 2))
    np.testing.assert_allclose(loss, cross_entropy + metrics["reconstruction_error"], rtol=1e-12)
    predicted = np.argmax(np.asarray(logits), axis=1)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(predicted == np.asarray(labels)))


def test_circuits_are_those_that_the_layers_settle_in():
    model = build("organics", 8, key=jr.key(1), **SMALL)
    x = jr.uniform(jr.key(2), (8,))
    found = model.circuits(x)
    assert [circuit.n for circuit, _ in found] == [5, 4]
    rates = model.encode(x)
    for layer, (circuit, z) in zip(model.layers, found, strict=True):
        settled = stability(circuit, z)
        assert settled.stable
        rates = layer(rates)
        y_plus = circuit.firing_rates(settled.steady_state.state).y_plus
        np.testing.assert_allclose(rates, y_plus, rtol=1e-12)
    assert build("mlp", 8, key=jr.key(1), **SMALL).circuits(x) == []


def test_every_parameter_gets_a_gradient():
    model = build("organics", 8, key=jr.key(1), **SMALL)
    inputs = jr.uniform(jr.key(2), (6, 8))
    labels = jnp.arange(6, dtype=jnp.int32)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda model: model.loss(inputs, labels)[0]))(model)
    for leaf in jax.tree.leaves(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


@pytest.mark.rounding
def test_without_layers_the_readout_sees_the_code():
    model = build("organics", 8, layers=(), encoder=(6,), key=jr.key(0), dtype=np.float32)
    x = jnp.ones(8, np.float32)
    np.testing.assert_allclose(model(x).logits, model.readout(model.encode(x)), 1e-5, 1e-6)
    assert model.readout.in_features == 6 and model(x).logits.dtype == np.float32


def test_layers_can_be_mixed():
    layer = Normalization(6, 5, key=jr.key(0), gain=0.5, rectified=True)
    model = StaticClassifier(8, [layer], (6,), size=5, key=jr.key(1))
    assert model(jnp.ones(8)).logits.shape == (10,)


@pytest.mark.parametrize("wrong", [{"layers": (0,)}, {"encoder": (4, -1)}, {"encoder": ()}])
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="`width` must be > 0|`encoder` must have"):
        build("mlp", 8, key=jr.key(0), **wrong)


def test_the_settings_offer_what_there_is():
    # `config` repeats these, so as to import nothing heavy
    assert config.ModelName == ModelName and config.Recurrence == Recurrence
