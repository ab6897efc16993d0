import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from programs import solve

from organics.circuit.circuit import Circuit
from organics.circuit.weights import Convolution
from organics.linear_stability.certificate import certify
from organics.nn import NormalizationConv2d
from organics.rest.search import steady_state

HEIGHT, WIDTH = 4, 6  # not square


def layer_and_image(seed, **options):
    k_layer, k_beta, k_x = jr.split(jr.key(seed), 3)
    layer = NormalizationConv2d(2, 3, (3, 2), (3, 5), key=k_layer, **options)
    layer = eqx.tree_at(lambda c: c.beta, layer, jr.normal(k_beta, (3,)))
    return layer, jr.normal(k_x, (2, HEIGHT, WIDTH))


@eqx.filter_jit
def circuit_of(layer, x):
    return layer.circuit(x)


@pytest.mark.parametrize(
    ("pool", "padding", "rectified"),
    [
        ("across", "same", False),
        ("within", "valid", False),
        pytest.param("within", "same", True, marks=pytest.mark.rounding),
    ],
)
def test_equals_the_dense_circuit_values_and_gradients(pool, padding, rectified):
    def local(layer, x):
        return layer(x).reshape(-1)

    def dense(layer, x):
        circuit, z = layer.circuit(x)
        return circuit.firing_rates(steady_state(circuit, z).state).y_plus

    def value_and_gradient(f):
        def weighed(both):
            rates = f(*both)
            return jnp.sum(jnp.arange(1.0, rates.size + 1) * rates), rates

        return eqx.filter_jit(eqx.filter_value_and_grad(weighed, has_aux=True))

    compiled = value_and_gradient(local), value_and_gradient(dense)
    for seed in range(5):
        both = layer_and_image(seed, pool=pool, padding=padding, rectified=rectified)
        ((_, rates), got), ((_, expected), want) = (f(both) for f in compiled)
        np.testing.assert_allclose(rates, expected, rtol=1e-10, atol=1e-12)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
    shape = (HEIGHT, WIDTH) if padding == "same" else (HEIGHT - 2, WIDTH - 1)
    assert both[0](both[1]).shape == (3, *shape)


def test_learned_recurrence_is_that_of_the_capped_kernel():
    """Values and gradients are those of the circuit with matrices."""
    options = {"recurrent": "bounded", "recurrent_size": (3, 1), "pool": "within"}

    def dense(layer, x):
        circuit, z = layer.circuit(x)
        W, W_r = (jnp.asarray(w.as_matrix()) for w in (circuit.pool, circuit.recurrent))
        b, b0, taus = circuit.b, circuit.b0, (circuit.tau_y, circuit.tau_a)
        full = Circuit(W, W_r, b, b0, circuit.sigma, *taus)
        return full.firing_rates(steady_state(full, z).state).y_plus

    def value_and_gradient(f):
        def squared(both):
            rates = f(*both).reshape(-1)
            return jnp.sum(rates**2), rates

        return eqx.filter_jit(eqx.filter_value_and_grad(squared, has_aux=True))

    compiled = value_and_gradient(lambda layer, x: layer(x)), value_and_gradient(dense)
    for seed, size in enumerate((0.2, 3.0)):
        layer, x = layer_and_image(seed, **options)
        noise = size * jr.normal(jr.key(seed), layer.k_r.shape) / 9
        layer = eqx.tree_at(lambda c: c.k_r, layer, layer.k_r + noise)
        ((_, rates), got), ((_, expected), want) = (f((layer, x)) for f in compiled)
        np.testing.assert_allclose(rates, expected, rtol=1e-8, atol=1e-10)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
        W_r = np.asarray(circuit_of(layer, x)[0].W_r)
        assert np.linalg.norm(W_r, 2) <= 1 + 1e-12


def test_learned_recurrence_starts_as_the_identity():
    layer, x = layer_and_image(0, recurrent="bounded")
    np.testing.assert_allclose(circuit_of(layer, x)[0].W_r, np.eye(72), atol=1e-14)


@pytest.mark.parametrize("pool", ["across", "within"])
def test_pools_are_local_and_as_the_kernel_says(pool):
    layer, x = layer_and_image(0, pool=pool)
    circuit, _ = circuit_of(layer, x)
    W = np.asarray(circuit.W).reshape(3, HEIGHT, WIDTH, 3, HEIGHT, WIDTH)
    kernel = np.exp(np.asarray(layer.log_pool))
    for i, r, c, j, s, d in np.ndindex(W.shape):
        dr, dc = s - r + 1, d - c + 2  # position in the 3 x 5 window centred on (r, c)
        inside = 0 <= dr < 3 and 0 <= dc < 5 and (pool == "across" or i == j)
        expected = kernel[i, j if pool == "across" else 0, dr, dc] if inside else 0.0
        np.testing.assert_allclose(W[i, r, c, j, s, d], expected)


def test_the_drive_is_the_convolution_by_hand():
    layer, x = layer_and_image(1, padding="valid")
    _, z = circuit_of(layer, x)
    z = np.asarray(z).reshape(3, HEIGHT - 2, WIDTH - 1)
    kernel, image = np.asarray(layer.k_in), np.asarray(x)
    for o, r, c in np.ndindex(z.shape):
        np.testing.assert_allclose(
            z[o, r, c], np.sum(kernel[o] * image[:, r : r + 3, c : c + 2]), rtol=1e-12
        )


def test_every_image_gives_a_certified_circuit():
    layer, x = layer_and_image(2)
    for scale in (0.01, 1.0, 100.0):
        circuit, z = circuit_of(layer, scale * np.asarray(x))
        assert certify(solve(circuit, z)).holds


def test_start():
    layer = NormalizationConv2d(2, 3, 3, 5, key=jr.key(0))
    assert layer.k_in.shape == layer.k_gain.shape == (3, 2, 3, 3)
    assert np.all(np.abs(layer.k_in) <= 1 / np.sqrt(18))
    centre = np.asarray(layer.log_pool)[:, :, 2, 2]
    np.testing.assert_array_equal(np.diag(centre), np.zeros(3))
    assert np.all(layer.log_pool <= 0) and np.sum(np.asarray(layer.log_pool) == 0) == 3


def test_blank_image_float32_and_batches():
    layer = NormalizationConv2d(2, 3, 3, key=jr.key(0), dtype=np.float32)
    images = jnp.asarray(np.zeros((2, 2, HEIGHT, WIDTH)), np.float32)
    rates = jax.jit(jax.vmap(layer))(images)
    assert rates.dtype == np.float32
    np.testing.assert_array_equal(rates, np.zeros((2, 3, HEIGHT, WIDTH)))
    summed = eqx.filter_grad(lambda layer, image: jnp.sum(layer(image)))
    gradient = eqx.filter_jit(summed)(layer, images[0])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool_size": 4}, "`pool_size` must be odd"),
        ({"recurrent_size": 2}, "`recurrent_size` must be odd"),
        ({"kernel_size": 0}, "`kernel_size` must be at least 1"),
        ({"out_channels": 0}, "`out_channels` must be at least 1"),
        ({"sigma": -1.0}, "`sigma` must be > 0"),
        ({"dtype": jnp.bfloat16}, "`dtype` must be float32 or float64, not bfloat16"),
        ({"sigma": 1e-23, "dtype": jnp.float32}, "`sigma` must have a square that"),
    ],
)
def test_refusals_name_the_argument(wrong, message):
    arguments = {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "key": jr.key(0)}
    with pytest.raises(ValueError, match=message):
        NormalizationConv2d(**(arguments | wrong))


def test_an_image_with_other_channels_is_refused():
    layer, _ = layer_and_image(0)
    with pytest.raises(
        ValueError,
        match=r"`x` must have shape \(2, height, width\), not \(3, 4, 6",
    ):
        layer(jnp.zeros((3, HEIGHT, WIDTH)))


def test_a_sum_of_positive_products_is_not_negative():
    """By the Fourier transform, rounding is that of the largest: a dark border beside it."""
    image = np.zeros((24, 24), "float32")
    image[2:4, 2:4] = 1e6
    weights = Convolution(np.full((1, 1, 9, 9), 0.1, "float32"), 24, 24)
    found = np.asarray(weights.apply(jnp.asarray(image.reshape(-1))))
    right = np.asarray(weights.as_matrix()).astype(float) @ image.reshape(-1)
    assert np.min(found) >= 0
    np.testing.assert_allclose(found, right, atol=1e-5 * right.max())
    signed = Convolution(-np.full((1, 1, 9, 9), 0.1, "float32"), 24, 24)
    np.testing.assert_allclose(
        signed.apply(jnp.asarray(image.reshape(-1))), -right, atol=1e-5 * right.max()
    )


@pytest.mark.parametrize("border", ["periodic", "zeros"])
def test_the_derivative_of_a_product_by_frequencies_is_the_matrix(border):
    """Also where the product is 0, or negative by rounding, and is kept from that."""
    n = 15 * 20
    i, j = np.mgrid[-4:5, -4:5]
    bump = np.exp(-(i**2 + j**2) / 2.0)  # 81 weights, of which some are tiny
    weights = Convolution(bump[None, None], 15, 20, border)
    matrix = np.asarray(weights.as_matrix())
    rng = np.random.default_rng(0)
    one = np.zeros(n)
    one[50] = 1
    products = jax.jit(jax.jacfwd(weights.apply)), jax.jit(jax.jacrev(weights.apply))
    for image in (np.zeros(n), one, np.maximum(rng.normal(size=n), 0)):
        assert np.min(weights.apply(jnp.asarray(image))) >= 0
        for derivative in products:
            np.testing.assert_allclose(derivative(jnp.asarray(image)), matrix, atol=1e-5)


def test_an_image_whose_squares_overflow_has_no_rates():
    layer = NormalizationConv2d(1, 1, 3, 3, key=jr.key(0), dtype=np.float32)
    x = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    expected = layer(jnp.asarray(1e10 * x, jnp.float32))
    np.testing.assert_allclose(layer(jnp.asarray(1e15 * x, jnp.float32)), expected, rtol=1e-4)
    assert np.isnan(layer(jnp.asarray(1e21 * x, jnp.float32))).all()
