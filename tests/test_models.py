import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from organics.linear_stability.spectrum import stability
from organics.models import StaticClassifier, build, count_parameters
from organics.models.target import Target
from organics.nn import Normalization
from organics.rest.search import steady_state

SMALL = {"encoder": (12, 6), "layers": (5, 4)}

# each compiled once for a kind of model and a shape
make = eqx.filter_jit(lambda name: build(name, 8, key=jr.key(1), **SMALL))
forward = eqx.filter_jit(eqx.filter_vmap(lambda model, x: model(x), in_axes=(None, 0)))
loss_and_gradient = eqx.filter_jit(
    eqx.filter_value_and_grad(lambda model, *given: model.loss(*given), has_aux=True)
)
INPUTS = np.random.default_rng(2).uniform(size=(6, 8))
LABELS = np.array([0, 3, 9, 1, 1, 2], np.int32)


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
    model = make("mlp")
    assert count_parameters(model) == count(model)


@pytest.mark.rounding
def test_forward_pass_by_hand():
    model = make("organics")
    x = INPUTS[0]

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    def affine(layer, v):
        return np.asarray(layer.weight) @ v + np.asarray(layer.bias)

    code = sigmoid(affine(model.encoder[1], np.maximum(affine(model.encoder[0], x), 0)))
    back = sigmoid(affine(model.decoder[1], np.maximum(affine(model.decoder[0], code), 0)))
    rates = code
    for layer in model.layers:
        z = np.asarray(layer.W_zx) @ rates
        d = z / np.linalg.norm(z) * sigmoid(np.asarray(layer.W_bx) @ rates)
        c = sigmoid(np.asarray(layer.beta)) ** 2
        rates = np.maximum(d, 0) ** 2 / (c + np.exp(np.asarray(layer.log_W)) @ d**2)
    found = forward(model, INPUTS)
    np.testing.assert_allclose(found.logits[0], affine(model.readout, rates), rtol=1e-10)
    np.testing.assert_allclose(found.reconstruction[0], back, rtol=1e-10)


@pytest.mark.parametrize("name", ["organics", "mlp"])
def test_loss_is_cross_entropy_plus_reconstruction_error(name):
    model, labels = make(name), LABELS
    (loss, metrics), _ = loss_and_gradient(model, INPUTS, labels)
    logits, back, _ = forward(model, INPUTS)
    p = np.exp(np.asarray(logits))
    p = p / p.sum(axis=1, keepdims=True)
    cross_entropy = -np.mean(np.log(p[np.arange(6), labels]))
    np.testing.assert_allclose(metrics["cross_entropy"], cross_entropy, rtol=1e-10)
    np.testing.assert_allclose(
        metrics["reconstruction_error"], np.mean((np.asarray(back) - INPUTS) ** 2)
    )
    total = cross_entropy + float(metrics["reconstruction_error"])
    np.testing.assert_allclose(loss, total, rtol=1e-12)
    predicted = np.argmax(np.asarray(logits), axis=1)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(predicted == labels))


def test_circuits_are_those_that_the_layers_settle_in():
    model = make("organics")

    @eqx.filter_jit
    def look(model, x):
        return model.circuits(x), model.encode(x)

    found, rates = look(model, INPUTS[0])
    assert [circuit.n for circuit, _ in found] == [5, 4]
    apply = eqx.filter_jit(lambda layer, rates: layer(rates))
    for layer, (circuit, z) in zip(model.layers, found, strict=True):
        settled = stability(steady_state(circuit, z))
        assert settled.stable
        rates = apply(layer, rates)
        y_plus = circuit.firing_rates(settled.point.state).y_plus
        np.testing.assert_allclose(rates, y_plus, rtol=1e-12)
    assert make("mlp").circuits(jax.device_put(INPUTS[0])) == []


def test_every_parameter_gets_a_gradient():
    labels = np.arange(6, dtype=np.int32)
    _, gradient = loss_and_gradient(make("organics"), INPUTS, labels)
    for leaf in jax.tree.leaves(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf))


@pytest.mark.rounding
def test_without_layers_the_readout_sees_the_code():
    @eqx.filter_jit
    def look(x):
        model = build("organics", 8, layers=(), encoder=(6,), key=jr.key(0), dtype=np.float32)
        assert model.readout.in_features == 6
        bare = StaticClassifier(8, [], (), key=jr.key(1), dtype=np.float32)  # a code is given
        assert bare(x).reconstruction is None
        return (model(x).logits, bare(x).logits), (
            model.readout(model.encode(x)), bare.readout(x)
        )  # fmt: skip

    (logits, of_code), (readout, of_input) = look(np.ones(8, np.float32))
    np.testing.assert_allclose(logits, readout, 1e-5, 1e-6)
    np.testing.assert_allclose(of_code, of_input, 1e-5, 1e-6)
    assert logits.dtype == np.float32


def test_layers_can_be_mixed():
    @eqx.filter_jit
    def logits(x):
        layer = Normalization(6, 5, key=jr.key(0), gain=0.5, rectified=True)
        return StaticClassifier(8, [layer], (6,), size=5, key=jr.key(1))(x).logits

    assert logits(np.ones(8)).shape == (10,)


@pytest.mark.parametrize("wrong", [{"layers": (0,)}, {"encoder": (4, -1)}, {"encoder": ()}])
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="`width` must be at least 1|`encoder` must have"):
        build("mlp", 8, key=jr.key(0), **wrong)


def test_what_is_lost_is_not_right():
    """An input at which the layer did not come to rest counts as wrong in any class."""
    logits = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]])
    labels, valid = np.array([0, 1, 0, 1]), np.array([True, False, False, True])
    loss, metrics = jax.jit(Target(size=2).loss)(logits, labels, valid=valid)
    assert metrics["accuracy"] == 1 / 4
    right, wrong = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    np.testing.assert_allclose(loss, (3 * right + wrong) / 4, rtol=1e-12)
    for bad in (np.nan, np.inf):
        logits[0, 0] = bad
        assert jax.jit(Target(size=2).loss)(logits, labels)[1]["accuracy"] == 2 / 4


def test_classes_that_there_are_not_are_refused():
    target, outputs = Target(size=3), jnp.zeros((2, 3))
    for wanted in ([0, -1], [3, 0]):
        with pytest.raises(ValueError, match="`wanted` must be from 0 to 2 for 3 classes, not"):
            target.loss(outputs, jnp.array(wanted))
        assert np.isnan(jax.jit(target.loss)(outputs, jnp.array(wanted))[0])
    with pytest.raises(ValueError, match="`wanted` must be whole numbers for classes"):
        target.loss(outputs, jnp.array([0.0, 2.0]))


@pytest.mark.parametrize(
    ("target", "outputs", "wanted"),
    [
        (Target("numbers", 1), (4, 1), (4,)),
        (Target("numbers", 3), (3, 3), (3,)),
        (Target("classes", 3), (4, 3), (4, 1)),
        (Target("classes", 3, "every"), (4, 2, 3), (4,)),
    ],
)
def test_what_is_wanted_has_the_shape_of_what_is_said(target, outputs, wanted):
    with pytest.raises(ValueError, match=r"`wanted` must have shape .*, not \("):
        target.loss(jnp.zeros(outputs), jnp.zeros(wanted, int))
