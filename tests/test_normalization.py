import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from circuits import seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import equations_in

from organics.linear_stability.certificate import certify
from organics.linear_stability.energy import energy
from organics.linear_stability.spectrum import stability
from organics.nn import Normalization
from organics.rest.search import steady_state
from organics.simulation.ode import simulate

m, n = 5, 4


def fresh(m, n, **options):
    return Normalization(m, n, key=jr.key(0), **options)


# each compiled once for a kind of layer and a shape
rates = eqx.filter_jit(lambda layer, x: layer(x))


@eqx.filter_jit
def rates_and_gradient(layer, xs, target):
    """Rates for a batch, their distance from the target, and the gradient of that."""

    def loss(given):
        found = jax.vmap(given[0])(given[1])
        return jnp.sum((found - target) ** 2), found

    (distance, found), gradient = eqx.filter_value_and_grad(loss, has_aux=True)((layer, xs))
    return found, distance, gradient


def layer_and_input(seed, **options):
    layer, rng = fresh(m, n, **options), np.random.default_rng(seed)
    # away from the initial values, where W_r is the identity and beta is 0
    move = lambda leaf: np.asarray(leaf) + rng.normal(size=leaf.shape)  # noqa: E731
    return jax.device_put((jax.tree.map(move, layer), rng.uniform(size=m)))


options = st.fixed_dictionaries(
    {
        "recurrent": st.sampled_from(["identity", "bounded"]),
        "gain": st.sampled_from(["input", 0.7]),
        "pool": st.sampled_from(["positive", "bounded"]),
        "rectified": st.booleans(),
    }
)


@pytest.mark.rounding
@given(seed=seeds, chosen=options)
@settings(max_examples=12)
def test_the_circuit_satisfies_its_constraints_whatever_the_parameters(seed, chosen):
    layer, x = layer_and_input(seed, **chosen)
    circuit, z = layer.circuit(x)  # not traced, so `Circuit` checks the values
    np.testing.assert_allclose(jnp.linalg.norm(z), 1, rtol=1e-12)
    np.testing.assert_allclose(z, layer.W_zx @ x / np.linalg.norm(layer.W_zx @ x), 1e-12, 1e-13)
    assert np.all(circuit.b <= 1) and np.all(circuit.b0 < 1) and np.all(circuit.sigma == 1)
    assert chosen["pool"] == "positive" or np.all(circuit.W <= 1)
    assert circuit.rectified == chosen["rectified"]
    if chosen["recurrent"] == "identity":
        assert circuit.W_r is None
    else:
        assert np.linalg.norm(circuit.W_r, 2) <= 1 + 1e-12
    if chosen["gain"] == "input":
        np.testing.assert_allclose(circuit.b, 1 / (1 + np.exp(-np.asarray(layer.W_bx @ x))))
    else:
        np.testing.assert_array_equal(circuit.b, np.full(n, 0.7))


@pytest.mark.rounding
@given(seed=seeds, gain=st.sampled_from(["input", 0.7]))
@settings(max_examples=10)
def test_identity_recurrence_is_divisive_normalization(seed, gain):
    layer, x = layer_and_input(seed, gain=gain)
    circuit, z = layer.circuit(x)
    d = np.asarray(circuit.b) * np.asarray(z)
    pool = np.asarray(circuit.b0) ** 2 + np.exp(np.asarray(layer.log_W)) @ d**2
    np.testing.assert_allclose(rates(layer, x), np.maximum(d, 0) ** 2 / pool, 1e-12, 1e-14)


@pytest.mark.parametrize("recurrent", ["identity", "bounded"])
def test_the_output_is_where_the_simulated_circuit_comes_to_rest(recurrent):
    layer, x = layer_and_input(1, recurrent=recurrent, pool="bounded")
    circuit, z = layer.circuit(x)
    y = np.asarray(simulate(circuit, z, 2000.0).state.y)[-1]
    np.testing.assert_allclose(rates(layer, x), np.maximum(y, 0) ** 2, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"recurrent": "identity"},
        {"recurrent": "identity", "rectified": True, "pool": "bounded"},
        {"recurrent": "bounded"},
    ],
)
def test_gradients_agree_with_finite_differences(options):
    layer, x = layer_and_input(2, **options)
    rng = np.random.default_rng(2)
    given = layer, np.asarray(x) + rng.uniform(size=(6, m))
    target = rng.uniform(size=(6, n))
    _, _, gradient = rates_and_gradient(*given, target)
    arrays, static = eqx.partition(given, eqx.is_array)
    for _ in range(5):
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), arrays)

        def distance(h, direction=direction):
            moved = jax.tree.map(lambda leaf, d: np.asarray(leaf) + h * d, arrays, direction)
            return rates_and_gradient(*eqx.combine(moved, static), target)[1]

        slope = (distance(1e-5) - distance(-1e-5)) / 2e-5
        products = jax.tree.map(lambda g, d: np.sum(np.asarray(g) * d), gradient, direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("recurrent", ["identity", "bounded"])
def test_gradients_at_the_start_are_finite_and_reach_every_parameter(recurrent):
    layer = fresh(m, n, recurrent=recurrent)
    rng = np.random.default_rng(1)
    _, _, (gradient, _) = rates_and_gradient(
        layer, rng.uniform(size=(6, m)), rng.uniform(size=(6, n))
    )
    for leaf in jax.tree.leaves(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf))


def test_the_two_recurrences_start_as_the_same_function():
    x = jr.uniform(jr.key(1), (m,))
    identity, bounded = (fresh(m, n, recurrent=r) for r in ("identity", "bounded"))
    np.testing.assert_allclose(rates(identity, x), rates(bounded, x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("recurrent", ["identity", "bounded"])
def test_a_zero_input_is_safe(recurrent):
    layer = fresh(m, n, recurrent=recurrent)
    found, _, (gradient, _) = rates_and_gradient(layer, np.zeros((6, m)), np.ones((6, n)))
    np.testing.assert_array_equal(found, np.zeros((6, n)))
    for leaf in jax.tree.leaves(gradient):
        assert np.all(np.isfinite(leaf))


def test_stability_certificate_and_energy_apply_to_a_layer_at_an_input():
    layer, x = layer_and_input(4)
    circuit, z = layer.circuit(x)
    np.testing.assert_array_equal(circuit.tau_y, np.full(n, 2.0))
    found = stability(steady_state(circuit, z))
    assert found.stable
    certificate = certify(steady_state(circuit, z))
    assert certificate.holds and certificate.kind == "diagonal Lyapunov"
    assert energy(steady_state(circuit, z), steady_state(circuit, z).state) < 1e-20
    slower, _ = eqx.tree_at(lambda c: (c.tau_y, c.tau_a), circuit, replace_fn=lambda t: 2 * t), z
    np.testing.assert_allclose(
        stability(steady_state(slower, z)).spectral_abscissa, found.spectral_abscissa / 2, rtol=1e-9
    )


def test_an_unfound_steady_state_gives_nan_not_a_wrong_answer():
    # row 1 of W_r vanishes, so y_1 = b z_1, and its own pool has a gain w y_1^2 > 1: a_1 diverges
    layer = fresh(2, 2, recurrent="bounded", gain=1.0)
    W_r, log_W, W_zx = np.diag([1.0, 0.0]), np.log(np.diag([5.0, 5.0]) + 1e-9), np.eye(2)
    layer = eqx.tree_at(
        lambda c: (c.W_r, c.log_W, c.W_zx), layer, jax.device_put((W_r, log_W, W_zx))
    )
    x = jax.device_put(np.array([0.6, 0.8]))
    circuit, z = layer.circuit(x)
    assert not steady_state(circuit, z).converged
    assert np.all(np.isnan(rates(layer, x)))


def test_bounded_recurrence_is_normalized_once_for_a_batch():
    layer = fresh(m, n, recurrent="bounded")

    def loss(layer, xs):
        return jnp.sum(jax.vmap(lambda x: layer.circuit(x)[0].W_r @ x[:n])(xs))

    jaxpr = jax.make_jaxpr(eqx.filter_grad(loss))(layer, jnp.ones((7, m)))
    shapes = [
        e.invars[0].aval.shape for e in equations_in(jaxpr.jaxpr) if e.primitive.name == "svd"
    ]
    assert shapes and set(shapes) == {(n, n)}


def test_initial_values_are_the_papers():
    layer = fresh(40, 120, recurrent="bounded")
    limit = 1 / np.sqrt(40)
    for W in (layer.W_zx, layer.W_bx):
        assert W.shape == (120, 40) and np.all(np.abs(W) <= limit)
        np.testing.assert_allclose(np.std(W), limit / np.sqrt(3), rtol=0.05)
    assert not np.array_equal(layer.W_zx, layer.W_bx)
    np.testing.assert_array_equal(layer.W_r, np.eye(120))
    np.testing.assert_array_equal(np.diag(layer.log_W), np.zeros(120))
    off = np.asarray(layer.log_W)[~np.eye(120, dtype=bool)]
    assert np.all((off >= -1) & (off <= 0)) and abs(np.mean(off) + 0.5) < 0.02
    np.testing.assert_array_equal(layer.beta, np.zeros(120))
    assert layer.size == 120


@pytest.mark.parametrize("recurrent", ["identity", "bounded"])
def test_float32_gives_what_float64_gives(recurrent):
    layer, x = layer_and_input(6, recurrent=recurrent, pool="bounded")
    single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), layer)
    found = rates(single, np.asarray(x, np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rates(layer, x), rtol=1e-4)
    new = fresh(m, n, recurrent=recurrent, dtype=np.float32)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(new))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"input_size": 0}, "`input_size` must be at least 1"),
        ({"size": -1}, "`size` must be at least 1"),
        ({"sigma": 0.0}, "`sigma` must be > 0"),
        ({"tau": -2.0}, "`tau` must be > 0"),
        ({"gain": 0.0}, r"`gain` must be 'input' or a number in \(0, 1\], not 0.0"),
        ({"gain": 1.5}, "`gain`"),
        ({"gain": None}, "`gain` must be 'input' or a number"),
        ({"sigma": None}, "`sigma` must be one number, not None"),
        ({"dtype": jnp.bfloat16}, "`dtype` must be float32 or float64, not bfloat16"),
        ({"dtype": jnp.int32}, "`dtype` must be float32 or float64, not int32"),
        ({"sigma": 1e-200}, "`sigma` must have a square that"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_refusals_name_the_argument(wrong, message):
    with pytest.raises(ValueError, match=message):
        Normalization(**({"input_size": m, "size": n, "key": jr.key(0)} | wrong))


def test_the_layer_fits_into_a_sequence_of_layers():
    layers = [Normalization(5, 4, key=jr.key(0)), eqx.nn.Linear(4, 2, key=jr.key(1))]
    x = jr.uniform(jr.key(2), (5,))
    got = eqx.nn.Sequential(layers)(x, key=jr.key(3))
    np.testing.assert_allclose(got, layers[1](layers[0](x)))
