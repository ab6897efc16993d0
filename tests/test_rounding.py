"""Products of numbers in bfloat16: what they are, and that the native kernels have the same."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import ml_dtypes
import numpy as np
import pytest
from test_cells import NAMES, layer_of, numbers
from test_kernels import keeping, needs_native, problem
from test_library import pulled_back as by_addresses

from organics.baselines import build
from organics.kernels import library
from organics.kernels.equations import Options
from organics.kernels.rounding import product
from organics.nn import ORGaNICs, circuit_at
from organics.nn.moments import jacobians
from organics.training import SequenceConfig

single = partial(numbers, dtype=np.float32)


def rounded(array):
    """By the type of another library, then in float64, where these products are exact."""
    return np.asarray(array, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def far(got, want):
    """How far some arrays are from others, relative to their size, each as a whole."""
    got, want = (np.concatenate([np.ravel(a) for a in jax.tree.leaves(t)]) for t in (got, want))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def test_a_product_and_its_gradients_are_of_rounded_factors():
    x, W, bias, g = single(0, 5, 3), single(1, 4, 3), single(2, 4), single(3, 5, 4)
    of = lambda x, W, bias: product(x, W, "bfloat16", bias)  # noqa: E731
    found, back = jax.jit(lambda *given: jax.vjp(of, *given))(x, W, bias)
    of_x, of_W, of_bias = back(g)
    x_, W_, g_ = rounded(x), rounded(W), rounded(g)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(found, x_ @ W_.T + rounded(bias))
    close(of_x, g_ @ W_)
    close(of_W, g_.T @ x_)
    close(of_bias, g_.sum(axis=0))
    assert far(found, np.asarray(x) @ np.asarray(W).T + np.asarray(bias)) > 1e-4


def test_a_product_in_full_is_the_product():
    x, W = numbers(0, 5, 3), numbers(1, 4, 3)
    np.testing.assert_array_equal(product(x, W, "full"), x @ W.T)


def layer(name, n=17, **options):
    """One whose parameters are drawn in float32."""
    options = {"dtype": np.float32, "products": "bfloat16"} | options
    if not name.startswith("organics"):
        return layer_of(name, 3, n, **options)
    kind = "modulated" if name == "organics-modulated" else "learned"
    fast = {"dt_tau_max_y": 0.4, "dt_tau_max_a": 0.4, "time_constants": kind}
    return ORGaNICs(3, n, key=jr.key(0), **fast, **options)


@eqx.filter_jit
def pulled_back(layers, x, state, lengths):
    """Of each layer its outputs, and gradients of a function of them; with and without keeping the
    products of each step where the layer is native."""

    def value(given, layer):
        arrays, x = given
        layer = eqx.combine(arrays, layer)
        outputs, final = layer(x, state, lengths=lengths)
        final = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(final)])
        return jnp.sum(jnp.sin(outputs)) + jnp.sum(jnp.cos(final)), (outputs, final)

    found = []
    for layer in layers:
        for keep in (True, False) if layer.backend == "native" else (False,):
            with keeping(keep):
                arrays, static = eqx.partition(layer, eqx.is_array)
                found.append(jax.grad(value, has_aux=True)((arrays, x), static))
    return found


@needs_native
@pytest.mark.parametrize("name", [*NAMES, "organics", "organics-modulated"])
def test_native_rounds_what_the_scan_rounds(name):
    """In tiles that are not full, of units that are no multiple of 16, where sequences end early.

    Sums are rounded in another order, so now and then a factor is rounded the other way.
    """
    lengths = np.random.default_rng(1).integers(1, 19, 35)
    lengths[:5] = 1, 8, 9, 16, 18
    inside = np.arange(18)[:, None] < lengths[:, None, None]
    x = jax.device_put(np.where(inside, single(2, 35, 18, 3), np.float32(np.nan)))
    ways = {"backend": "native"}, {"backend": "native", "memory": "less"}
    full, scan, *native_ = pulled_back(
        [
            layer(name, backend="scan", products="full"),
            layer(name, backend="scan"),
            *(layer(name, **way) for way in ways),
        ],
        x, None, lengths,
    )  # fmt: skip
    rounding = far(scan, full)
    assert 1e-4 < rounding < 0.3
    for got in native_:
        assert far(got, scan) < rounding / 10
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(got))


@needs_native
@pytest.mark.parametrize("name", ["lstm", "organics"])
def test_native_rounds_what_the_scan_rounds_in_one_short_sequence(name):
    """So few numbers that none is rounded the other way."""
    scan, *native_ = pulled_back(
        [layer(name, 32, backend="scan"), layer(name, 32, backend="native")],
        single(4, 1, 3, 3), None, None,
    )  # fmt: skip
    for got in native_:
        assert far(got, scan) < 1e-5


@needs_native
@pytest.mark.parametrize("batch", [1, 5, 50, 70])
def test_native_gives_the_same_numbers_by_every_instruction_set(batch):
    """Whether the processor has such products, or they are made of those in float32; and bit by bit
    for any number of threads."""
    handle, chosen, _ = library.load()
    given, cotangents = problem(7, 48, 3, 9, batch, dtype=np.float32)
    arrays, cotangents = jax.tree.map(np.array, (given, cotangents))
    options = {"sequence": True, "segment": 4, "keep": batch == 5}
    of = partial(by_addresses, arrays=arrays, cotangents=cotangents, lengths=None, **options)
    full = of(Options(), threads=1)
    try:
        found = []
        for name in library.INSTRUCTION_SETS:
            if handle.organics_use(name.encode()):
                found.append(of(Options(products="bfloat16"), threads=1))
                again = of(Options(products="bfloat16"), threads=2)
                jax.tree.map(np.testing.assert_array_equal, found[-1], again)
    finally:
        handle.organics_use(chosen.encode())
    rounding = far(found[0], full)
    assert 1e-4 < rounding < 0.1
    for got in found[1:]:
        assert far(got, found[0]) < rounding / 10


@needs_native
@pytest.mark.parametrize("name", ["lstm", "organics"])
def test_extreme_inputs_saturate_and_what_is_not_finite_stays_so(name):
    x = np.array(single(9, 6, 12, 3))
    x[0], x[1], x[2], x[3, ::2] = 1e4, -1e4, 3.3e38, 1e-30
    x[4, -1], x[5, -1] = np.nan, np.inf
    options = {"drive": "unit"} if name == "organics" else {}
    made = [layer(name, 16, backend=kind, **options) for kind in ("native", "scan")]
    found = [eqx.filter_jit(lambda one, x: one(x)[0])(one, jax.device_put(x)) for one in made]
    for outputs in found:
        assert np.all(np.isfinite(outputs[:4])) and np.any(np.isnan(outputs[4, -1]))
    assert far(found[0][:4], found[1][:4]) < 1e-3


def test_the_scan_has_other_derivatives():
    """Which are nearly those without rounding."""
    x = single(3, 5, 3)
    made = [layer("lem", backend="scan", products=kind) for kind in ("full", "bfloat16")]
    push = jax.jit(lambda x: [jax.jvp(lambda x, of=of: of(x)[0], (x,), (x,))[1] for of in made])
    full, found = push(x)
    assert 1e-4 < far(found, full) < 0.1


def test_a_circuit_and_its_linearization_are_not_rounded():
    x, state = single(4, 3), layer("organics-modulated", 5).initial_state()

    @eqx.filter_jit
    def of(layer):
        batch = jax.tree.map(lambda leaf: leaf[None], (x, state))
        return (circuit_at(layer, x, state), jacobians(layer, *batch)), layer.step(x, state)

    full, rounded = (of(layer("organics-modulated", 5, products=k)) for k in ("full", "bfloat16"))
    jax.tree.map(np.testing.assert_array_equal, full[0], rounded[0])
    assert 1e-5 < far(rounded[1], full[1]) < 0.1


@pytest.mark.parametrize("make", [ORGaNICs, partial(build, "lstm"), partial(build, "lem")])
@pytest.mark.usefixtures("without_type_checks")
def test_what_is_refused(make):
    with pytest.raises(ValueError, match=r"`products` must be one of .*'float16'"):
        make(2, 3, key=jr.key(0), products="float16")
    words = r"`products` must be 'full' for numbers of type float64, not 'bfloat16'"
    with pytest.raises(ValueError, match=words):
        make(2, 3, key=jr.key(0), products="bfloat16", dtype=np.float64)
    one = make(2, 3, key=jr.key(0), products="bfloat16", dtype=np.float32)
    double = jax.tree.map(lambda leaf: leaf.astype(np.float64), one)
    with pytest.raises(ValueError, match=words):
        double(numbers(0, 4, 2))


@needs_native
def test_the_library_refuses_doubles():
    cell = library.gated_cell(False, True, False, False, products="bfloat16")
    sizes, nowhere = library.Sizes(True, 3, 2, 16, 1, 1, 1), library.Addresses(0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="products in bfloat16 are of numbers in float32"):
        library.forward(cell, sizes, nowhere, library.ForwardArrays(*[0] * 7))


def test_a_run_says_what_its_products_are_of():
    config = SequenceConfig(task="sdigits", units=4, products="bfloat16")
    assert config.layer_options(64)["products"] == "bfloat16"
    assert SequenceConfig().layer_options(64)["products"] == "full"
