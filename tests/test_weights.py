"""Weights that are no matrix act as the matrix they stand for."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import at_rest, equations_in, simulated

import organics
from organics import Circuit, Convolution, Diagonal, LowRank, steady_state
from organics.circuit.file import CircuitFileError
from organics.circuit.weights import Dense, Identity
from organics.nn import NormalizationConv2d

HEIGHT, WIDTH, CHANNELS = 3, 4, 2
N = CHANNELS * HEIGHT * WIDTH


def convolution(rng, heard=CHANNELS, kernel=(3, 5)):
    return Convolution(rng.uniform(0, 1, (CHANNELS, heard, *kernel)), HEIGHT, WIDTH)


def low_rank(rng, rank=2, own=False):
    own = rng.uniform(0, 1, N) if own else None
    return LowRank(*rng.uniform(0, 0.5, (2, N, rank)), own)


def torus(rng, kernel=(3, 3), heard=CHANNELS):
    kernel = rng.uniform(0, 1, (CHANNELS, heard, *kernel))
    return Convolution(kernel, HEIGHT, WIDTH, "periodic")


KINDS = {
    "all channels": lambda rng: convolution(rng),
    "own channel": lambda rng: convolution(rng, heard=1),
    "wider than the image": lambda rng: convolution(rng, kernel=(7, 9)),
    "by frequencies": lambda rng: convolution(rng, kernel=(7, 9), heard=1),
    "torus": torus,
    "torus, even kernel, own channel": lambda rng: torus(rng, (2, 4), heard=1),
    "goes round": lambda rng: torus(rng, (5, 6)),
    "low rank": low_rank,
    "low rank and own": lambda rng: low_rank(rng, own=True),
    "diagonal": lambda rng: Diagonal(rng.uniform(0, 1, N)),
    "identity": lambda _: Identity(N, np.dtype(float)),
}


def by_hand(weights):
    """The matrix, entry by entry."""
    if isinstance(weights, Identity):
        return np.eye(N)
    if isinstance(weights, Diagonal):
        return np.diag(weights.own)
    if isinstance(weights, LowRank):
        own = np.zeros(N) if weights.own is None else weights.own
        return np.einsum("ik,jk->ij", weights.left, weights.right) + np.diag(own)
    kernel = np.asarray(weights.kernel)
    _, heard, kh, kw = kernel.shape
    matrix = np.zeros((CHANNELS, HEIGHT, WIDTH) * 2)
    if weights.border == "periodic":
        for i, r, c, j, u, v in np.ndindex(CHANNELS, HEIGHT, WIDTH, heard, kh, kw):
            s, d = (r + u - kh // 2) % HEIGHT, (c + v - kw // 2) % WIDTH
            matrix[i, r, c, j if heard > 1 else i, s, d] += kernel[i, j, u, v]
        return matrix.reshape(N, N)
    for i, r, c, j, s, d in np.ndindex(matrix.shape):
        down, across = s - r + kh // 2, d - c + kw // 2
        if 0 <= down < kh and 0 <= across < kw and (heard > 1 or i == j):
            matrix[i, r, c, j, s, d] = kernel[i, j if heard > 1 else 0, down, across]
    return matrix.reshape(N, N)


EXACT = {kind for kind in KINDS if kind.startswith(("torus", "goes", "diagonal", "identity"))}
EXACT |= {"low rank"}


@eqx.filter_jit
def looked_at(weights, x):
    sizes = weights.sizes().apply_others(jnp.abs(x))
    matrix, norm, bound = weights.as_matrix(), weights.norm(), weights.norm_bound()
    capped = weights.capped(0.7).as_matrix()
    products = weights.apply(x), weights.apply_others(x), weights.diagonal(), sizes
    return *products, matrix, norm, bound, capped


@pytest.mark.rounding
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_the_matrix(kind):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        weights, x = KINDS[kind](rng), rng.normal(size=N)
        if isinstance(weights, Convolution):
            signed = rng.choice([-1.0, 1.0], weights.kernel.shape) * weights.kernel
            weights = Convolution(signed, HEIGHT, WIDTH, weights.border)
        matrix = by_hand(weights)
        others = matrix - np.diag(np.diag(matrix))
        found = map(np.asarray, looked_at(weights, x))
        product, of_others, diagonal, sizes, formed, norm, bound, capped = found
        close = {"rtol": 1e-12, "atol": 1e-13}
        np.testing.assert_allclose(formed, matrix, **close)
        np.testing.assert_allclose(np.asarray(weights), matrix, **close)
        np.testing.assert_allclose(product, matrix @ x, **close)
        np.testing.assert_allclose(of_others, others @ x, **close)
        np.testing.assert_allclose(diagonal, np.diag(matrix), **close)
        assert np.all(sizes >= (np.abs(others) @ np.abs(x)) * (1 - 1e-12))
        largest = np.linalg.norm(matrix, 2)
        assert 0.95 * largest <= norm <= largest * (1 + 1e-12)
        assert largest * (1 - 1e-12) <= bound
        if kind in EXACT:
            np.testing.assert_allclose([norm, bound], largest, rtol=1e-10)
        of_capped = np.linalg.norm(capped, 2)
        assert of_capped <= 0.7 * (1 + 1e-12)
        np.testing.assert_allclose(capped, matrix * min(1, 0.7 / bound), **close)


@eqx.filter_jit
def of_a_circuit(circuit, z):
    """The results of every lens, and a gradient, for one circuit."""
    point = steady_state(circuit, z)
    linear = organics.stability(point)
    moved = organics.simulate(circuit, z, 20.0, max_steps=2000)
    pulled = jax.grad(lambda z: jnp.sum(steady_state(circuit, z).state.y))(z)
    return point.found, linear.eigenvalues, linear.stable, moved.state.a[-1], pulled


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("recurrent", "rectified"), [("identity", False), ("convolution", True), ("low rank", False)]
)
def test_a_circuit_of_such_weights_is_that_of_their_matrices(recurrent, rectified):
    rng = np.random.default_rng(3)
    W = low_rank(rng, 3) if recurrent == "identity" else convolution(rng, kernel=(3, 3))
    W = jax.tree.map(lambda factor: factor / 4, W)
    W_r = None
    if recurrent == "convolution":
        W_r = Convolution(rng.normal(size=(CHANNELS, 1, 3, 3)) / 4, HEIGHT, WIDTH)
    elif recurrent == "low rank":
        W_r = LowRank(*(rng.normal(size=(2, N, 2)) / np.sqrt(N)))
    z = rng.normal(size=N)
    circuit = Circuit(W, W_r, rectified=rectified)
    assert circuit.n == N and bool(circuit.valid)
    found, eigenvalues, stable, moved, pulled = of_a_circuit(circuit, z)
    y, a = simulated(circuit, lambda _: z, np.array([20.0, 300.0]))
    x, J, want = at_rest(circuit, z, np.concatenate([y[1], a[1]]))
    assert found.converged
    np.testing.assert_allclose(np.concatenate(found.state), x, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.sort(eigenvalues.real), np.sort(want.real), rtol=1e-6, atol=1e-9)
    assert stable == (want.real.max() < 0)
    np.testing.assert_allclose(moved, a[0], rtol=1e-4, atol=1e-6)
    of_y = np.repeat([1.0, 0.0], N)  # the sum of all y, whose gradient is `-b J^-T of_y`
    slope = -np.asarray(circuit.b) * np.linalg.solve(J.T, of_y)[:N]
    np.testing.assert_allclose(pulled, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("factor", [1.0, 2.0**-40])
def test_proofs_take_the_product_of_the_factors_as_it_is(factor):
    """Not the rounded product: here that is the identity, the exact one is not."""
    eps = np.finfo(float).eps
    left = np.diag([1 + eps, 1.0])
    right = np.diag([1 - eps, 1.0])  # 1 - eps^2 is rounded to 1
    assert np.array_equal(left @ right.T, np.eye(2))
    circuit = Circuit(np.full((2, 2), 0.5), LowRank(left, right))
    z = factor * np.array([0.3, -0.2])
    proof, of_identity = (
        organics.prove(steady_state(c, z)) for c in (circuit, Circuit(np.full((2, 2), 0.5)))
    )
    assert proof.verdict == of_identity.verdict == "proved"
    assert proof.certificate.nrows() == 4 and of_identity.certificate.nrows() == 2


def test_a_circuit_of_weights_is_saved_as_its_matrices(tmp_path):
    rng = np.random.default_rng(0)
    circuit = Circuit(convolution(rng), low_rank(rng))
    organics.save_circuit(tmp_path / "c.npz", circuit, rng.normal(size=N))
    read, _ = organics.load_circuit(tmp_path / "c.npz")
    np.testing.assert_array_equal(read.W, np.asarray(circuit.W))
    np.testing.assert_array_equal(read.W_r, np.asarray(circuit.W_r))


@pytest.mark.parametrize("kind", KINDS)
def test_json_keeps_weights_as_they_are(tmp_path, kind):
    """Exactly, and of the same class."""
    rng = np.random.default_rng(1)
    weights = KINDS[kind](rng)
    circuit = Circuit(weights, None if kind == "identity" else weights)
    organics.save_circuit(tmp_path / "c.json", circuit, 0.5)
    read, z = organics.load_circuit(tmp_path / "c.json")
    assert z.shape == (1, N)
    for got, saved in ((read.pool, circuit.pool), (read.recurrent, circuit.recurrent)):
        if not isinstance(saved, Identity):
            assert type(got) is type(saved)
            assert jax.tree.structure(got) == jax.tree.structure(saved)
        np.testing.assert_array_equal(got, saved)


@pytest.mark.parametrize(
    ("W", "words"),
    [
        ({}, "`kernel`, `height`"),
        ({"kernel": [[1.0]], "height": 2}, "`kernel`, `height`"),
        ({"kernel": [[1.0]], "height": 2.5, "width": 1}, "whole number"),
        ({"kernel": [[1.0]], "height": 1e6, "width": 1e6}, "at most 1,000,000 neurons"),
        ({"kernel": [1.0], "height": 2, "width": 1}, "`kernel` must have 2 or 4 axes"),
        ({"kernel": [[1.0], [1.0, 2.0]], "height": 2, "width": 1}, "shape"),
        ({"kernel": [[1.0]], "height": 2, "width": 1, "border": "open"}, "`border` must be one"),
        ({"kernel": [[-1.0]], "height": 2, "width": 1}, "`W` must be >= 0"),
        ({"kernel": [[True]], "height": 2, "width": 1}, "must be a number"),
        ({"left": [[1.0]], "right": [[1.0]], "colour": 1}, "unknown keys of `W`"),
        ({"left": [[1.0]], "right": [[1.0], [2.0]]}, "of one shape"),
    ],
)
def test_files_with_wrong_weights_are_refused(tmp_path, W, words):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"W": W, "z": 1.0}))
    with pytest.raises(CircuitFileError, match=words):
        organics.load_circuit(path)


def test_a_transfer_function_is_the_spectrum():
    """On a torus of even and odd sides; positive semidefinite if it is positive."""
    rng = np.random.default_rng(2)
    values = rng.uniform(size=(HEIGHT, WIDTH))
    mirrored = np.roll(values[::-1, ::-1], (1, 1), (0, 1))
    weights = Convolution.from_transfer(values)
    matrix = np.asarray(weights)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
    expected = np.sort(((values + mirrored) / 2).ravel())
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix), expected, atol=1e-14)
    np.testing.assert_allclose(weights.transfer()[0, 0], (values + mirrored) / 2, atol=1e-14)


def test_waves_are_multiplied_by_the_transfer_function():
    """Also by weights that are not symmetric, in the direction that the docstring says."""
    weights = torus(np.random.default_rng(3), (3, 4))
    rows, columns = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    for k, m in ((1, 1), (2, 3)):
        wave = np.exp(2j * np.pi * (k * rows / HEIGHT + m * columns / WIDTH)).ravel()
        x = np.outer([1, 0], wave).ravel()  # of channel 0
        got = (np.asarray(weights) @ x).reshape(CHANNELS, -1)
        want = np.outer(np.asarray(weights.transfer())[:, 0, k, m], wave)
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_the_identity_is_none_whatever_it_is_given_as():
    circuit = Circuit(np.ones((3, 3)), Identity(3, np.dtype(float)))
    assert circuit.W_r is None and circuit.has_identity_recurrence
    assert not Circuit(np.ones((3, 3)), np.ones((3, 3))).has_identity_recurrence


@given(st.integers(0, 1000), st.sampled_from(["kernel", "left", "right"]))
def test_what_is_not_finite_or_negative_is_refused_by_name(seed, where):
    rng = np.random.default_rng(seed)
    kernel, left, right = rng.uniform(0, 1, (2, 2, 3, 3)), *rng.uniform(0, 1, (2, 4, 2))
    values = {"kernel": kernel, "left": left, "right": right}
    bad = values[where].reshape(-1)
    bad[rng.integers(bad.size)] = rng.choice([np.nan, np.inf])
    with pytest.raises(ValueError, match=f"`{where}` must be finite"):
        Convolution(kernel, 2, 3)
        LowRank(left, right)
    bad[~np.isfinite(bad)] = -0.5
    with pytest.raises(ValueError, match=r"`W` must be >= 0"):
        Circuit(Convolution(kernel, 2, 3))
        Circuit(LowRank(left, right))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Convolution(np.ones((2, 3, 3, 3)), 4, 4), "`kernel` must have shape"),
        (lambda: Convolution(np.ones((2, 3, 3)), 4, 4), "`kernel` must have shape"),
        (lambda: Convolution(np.ones((2, 2, 3, 2)), 4, 4), "odd height and width"),
        (lambda: Convolution(np.ones((2, 2, 3, 3)), 0, 4), "`height` must be at least 1"),
        (lambda: LowRank(np.ones((4, 2)), np.ones((4, 3))), "of one shape"),
        (lambda: LowRank(*np.ones((2, 4, 3)), np.ones(3)), r"`own` must be of shape \(4,\)"),
        (lambda: Convolution.from_transfer(np.ones(3)), "`transfer` must have shape"),
        (lambda: Circuit(np.ones((3, 3)), LowRank(*np.ones((2, 4, 1)))), "`W_r` must be weights"),
        (
            lambda: Circuit(np.ones((4, 4), np.float32), LowRank(*np.ones((2, 4, 1)))),
            "`W_r` must be weights among the 4 neurons of `W` and of its type float32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def largest_array(jaxpr):
    """The number of entries of the largest array in a program, whatever it calls."""
    return max(v.aval.size for equation in equations_in(jaxpr) for v in equation.outvars)


def test_an_image_needs_no_matrix_of_all_pairs_of_positions():
    layer = NormalizationConv2d(3, 8, 5, 5, key=jr.key(0))
    image = jr.normal(jr.key(1), (3, 32, 32))
    n = 8 * 32 * 32

    def loss(layer, image):
        return jnp.sum(layer(image))

    program = eqx.filter_make_jaxpr(eqx.filter_value_and_grad(loss))(layer, image)[0]
    assert n <= largest_array(program.jaxpr) <= 4 * n
    circuit, z = layer.circuit(image)
    assert circuit.n == n and z.shape == (n,)


def test_many_neurons_with_recurrence_between_them_come_to_rest_without_a_matrix():
    """The derivative too, against a finite difference."""
    rng = np.random.default_rng(0)
    side = 66  # 4,356 neurons
    W = Convolution(rng.uniform(0, 0.05, (1, 1, 5, 5)), side, side)
    kernel = rng.normal(size=(1, 1, 3, 3))
    W_r = Convolution(0.5 * kernel / np.abs(kernel).sum(), side, side)
    z, direction = rng.normal(size=(2, side**2))

    @jax.jit
    def rest(z):
        point = steady_state(Circuit(W, W_r, sigma=1.0), z, matrix_free=True, relaxation_steps=100)
        return point.state.y, point.converged

    def along(z):
        return jax.jvp(lambda z: rest(z)[0], (z,), (jnp.asarray(direction),))

    program = jax.make_jaxpr(along)(z)
    assert largest_array(program.jaxpr) <= 8 * side**2
    y, slope = along(jnp.asarray(z))
    assert rest(jnp.asarray(z))[1]
    step = 1e-5
    difference = (rest(z + step * direction)[0] - rest(z - step * direction)[0]) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-7)
    assert np.all(np.isfinite(y))


@pytest.mark.parametrize("word", ["scaled", "capped"])
def test_what_scales_weights_is_one_number(word):
    each = (
        organics.Diagonal(np.ones(N)),
        LowRank(*np.ones((2, N, 2))),
        Convolution(np.ones((1, 1, 3, 3)), 2, 3),
    )
    refused = (np.nan, np.inf, 1j) + ((0.0, -1.0) if word == "capped" else ())
    for weights in each:
        for value in refused:
            with pytest.raises(ValueError, match="`(factor|bound)` must be"):
                getattr(weights, word)(value)


def test_derivative_of_capped_weights_of_deficient_rank():
    """By finite differences; also where the left factor begins at 0."""
    rng = np.random.default_rng(0)
    right, direction = rng.normal(size=(2, 6, 2))

    @jax.jit
    def total(t, left):
        return jnp.sum(jnp.sin(LowRank(left + t * direction, right).capped(0.7).as_matrix()))

    slope, h = jax.jit(jax.grad(total)), 1e-5
    for left in (np.ones((6, 2)), np.zeros((6, 2)), rng.normal(size=(6, 2))):
        differences = (total(h, left) - total(-h, left)) / (2 * h)
        assert slope(0.0, left) == pytest.approx(float(differences), rel=1e-6)


def test_known_weights_are_a_matrix_of_numpy_while_a_program_is_traced():
    W = Dense(jnp.arange(9.0).reshape(3, 3))
    assert float(jax.jit(lambda x: x + np.asarray(W).sum())(1.0)) == 37


def test_the_norm_of_zeros_has_a_derivative():
    zeros = jnp.zeros((1, 1, 1, 3))
    for border in ("zeros", "periodic"):
        gradient = jax.grad(lambda k, b=border: Convolution(k, 1, 5, b).norm())(zeros)
        np.testing.assert_array_equal(gradient, zeros)
    none = jnp.zeros((3, 1))
    gradient = jax.grad(lambda own: LowRank(none, none, own).norm())(jnp.zeros(3))
    np.testing.assert_array_equal(gradient, np.zeros(3))


@pytest.mark.usefixtures("standard_promotion")
def test_a_convolution_takes_numbers_of_any_type():
    x = np.arange(25)
    for kernel in (np.ones((1, 1, 3, 3)), np.ones((1, 1, 9, 9))):
        weights = Convolution(kernel / 16, 5, 5)
        want = np.asarray(weights.as_matrix()) @ x
        for kind in (np.float32, np.float64):
            np.testing.assert_allclose(weights.apply(jnp.asarray(x, kind)), want, rtol=1e-6)
