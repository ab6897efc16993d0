"""Native kernels of the comparison models give what the scan of their equations gives."""

import os
import subprocess
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from programs import equations_in
from test_kernels import keeping

from organics.baselines import build
from organics.kernels import library, native
from organics.nn import ORGaNICs

NAMES = ["lstm", "antisymmetric", "antisymmetric-gated", "cornn", "lipschitz", "lem", "rnn"]
every_cell = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.skipif(
    native.unavailable() is not None, reason=f"no native kernel here: {native.unavailable()}"
)


def layer_of(name, m, n, *, dtype=np.float64, **options):
    """A layer with no parameter at a special value; its own are not drawn, only their shapes."""
    layer = eqx.filter_eval_shape(build, name, m, n, key=jr.key(0), dtype=dtype, **options)
    noise = np.random.default_rng(n)
    draw = lambda leaf: noise.normal(size=leaf.shape) * 0.4  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf), dtype), layer)


def numbers(seed, *shape, dtype=np.float64):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(dtype))


@eqx.filter_jit
def pulled_back(layer, x, state, lengths=None, *, sequence=True, keep=None):
    """Outputs, final state, and gradients of a function of them. `keep` keeps the products."""

    def value(given):
        layer, x, state = given
        outputs, final = layer(x, state, sequence=sequence, lengths=lengths)
        return jnp.sum(jnp.sin(outputs)) + jnp.sum(jnp.cos(final)), (outputs, final)

    with keeping(keep):
        gradients, found = eqx.filter_grad(value, has_aux=True)((layer, x, state))
    return found, jax.tree.leaves(gradients)


def close(got, want, tolerance):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g, w, tolerance, tolerance * (1 + np.max(np.abs(w))))


@pytest.mark.rounding
@every_cell
def test_native_gives_what_the_scan_gives(name):
    """With tiles that are not full, units that are no multiple of 16, and NaN as padding."""
    by = lambda **options: layer_of(name, 3, 17, **options)  # noqa: E731
    layer = by(backend="native")
    lengths = np.random.default_rng(1).integers(1, 19, 35)
    lengths[:5] = 1, 8, 9, 16, 18
    inside = np.arange(18)[:, None] < lengths[:, None, None]
    x = jax.device_put(np.where(inside, numbers(2, 35, 18, 3), np.nan))
    state = numbers(3, 35, 17 * layer.parts)
    want = pulled_back(by(backend="scan"), x, state, lengths)
    for keep in (True, False):
        close(pulled_back(layer, x, state, lengths, keep=keep), want, 1e-11)
    less = by(backend="native", memory="less")
    close(pulled_back(less, x, state, lengths, keep=True), want, 1e-11)


@every_cell
def test_native_in_single_precision(name):
    single = partial(layer_of, name, 1, 32, dtype=np.float32)
    layer, x = single(backend="native"), numbers(4, 1, 9, 1, dtype=np.float32)
    state = numbers(5, 1, 32 * layer.parts, dtype=np.float32)
    got = pulled_back(layer, x, state, sequence=False)
    close(got, pulled_back(single(backend="scan"), x, state, sequence=False), 1e-5)
    double = jax.tree.map(lambda leaf: leaf.astype(float), layer)
    want = pulled_back(double, x.astype(float), state.astype(float), sequence=False)
    close(got, jax.tree.map(lambda leaf: leaf.astype(np.float32), want), 1e-4)


@pytest.mark.rounding
@every_cell
def test_gradients_do_not_depend_on_the_number_of_threads(name):
    layer = layer_of(name, 2, 16, dtype=np.float32)
    x = numbers(6, 5, 70, 2, dtype=np.float32)
    state = numbers(7, 70, 16 * layer.parts, dtype=np.float32)

    @partial(jax.jit, static_argnums=2)
    def everything(layer, x, threads):
        def value(layer, x):
            given = layer.cell(), layer.parameters(layer.matrix()), x, state
            final, outputs = native.run(*given, sequence=True, threads=threads)
            return jnp.sum(jnp.sin(final)) + jnp.sum(jnp.cos(outputs)), (final, outputs)

        return jax.grad(value, (0, 1), has_aux=True)(layer, x)

    jax.tree.map(np.testing.assert_array_equal, everything(layer, x, 1), everything(layer, x, 2))


def total(layer, x):
    return jnp.sum(jnp.sin(layer(x)[0]))


@pytest.mark.parametrize("name", [*NAMES, "organics"])
def test_native_under_vmap(name):
    if name == "organics":
        layers = [ORGaNICs(2, 5, key=jr.key(0), backend="native")] * 2
    else:
        layers = [layer_of(name, 2, 5, backend="native")] * 2
    layers[1] = jax.tree.map(lambda leaf: leaf / 2, layers[1])
    x = numbers(8, 2, 3, 4, 2)
    arrays = [eqx.filter(layer, eqx.is_array) for layer in layers]
    static = eqx.filter(layers[0], eqx.is_array, inverse=True)
    value = lambda arrays, x: total(eqx.combine(arrays, static), x)  # noqa: E731
    of = jax.value_and_grad(value, (0, 1))

    @jax.jit
    def found(arrays, x):
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
        summed = lambda arrays, x: jnp.sum(jax.vmap(lambda x: value(arrays, x))(x))  # noqa: E731
        return (
            jax.vmap(of)(together, x),  # other weights for each
            jax.vmap(lambda arrays: of(arrays, x[0]))(together),  # of the same input
            jax.vmap(lambda x: of(arrays[0], x))(x),  # a gradient for each
            jax.grad(summed, (0, 1))(arrays[0], x),  # one for all
            jax.vmap(lambda x: jax.vmap(of, (0, None))(together, x))(x),
        )

    @jax.jit
    def one_by_one(arrays, x):
        return [[of(one, sequences) for sequences in x] for one in arrays]

    each = one_by_one(arrays, x)
    stack = lambda *values: jax.tree.map(lambda *leaves: np.stack(leaves), *values)  # noqa: E731
    per_layer, same, per_sample, summed, nested = found(arrays, x)
    close(per_layer, stack(each[0][0], each[1][1]), 1e-12)
    close(same, stack(each[0][0], each[1][0]), 1e-12)
    close(per_sample, stack(*each[0]), 1e-12)
    (d_first, d_x_first), (d_second, d_x_second) = each[0][0][1], each[0][1][1]
    close(summed, (jax.tree.map(np.add, d_first, d_second), stack(d_x_first, d_x_second)), 1e-12)
    close(nested, stack(*[stack(each[0][i], each[1][i]) for i in range(2)]), 1e-12)


def test_what_is_mapped_is_one_larger_batch():
    """Also where it is differentiated: there is one gradient of the weights, and no sum of many."""
    layer, x = layer_of("lstm", 2, 16), numbers(8, 3, 5, 4, 2)
    loss = lambda layer, x: jnp.sum(jax.vmap(lambda x: layer(x)[0])(x))  # noqa: E731
    calls = [
        [tuple(shape.shape) for shape in equation.params["result_avals"]]
        for equation in equations_in(jax.make_jaxpr(jax.grad(loss))(layer, x).jaxpr)
        if equation.primitive.name == "ffi_call"
    ]
    assert calls[0][0] == (15, 32)  # the final states
    assert calls[1][0][0] == 0  # none of the input, which nobody asked for
    assert calls[1][2:] == [(64, 16), (0, 0), (0, 0), (64, 3), (0, 16)]  # of the weights


@every_cell
def test_extreme_inputs_saturate_and_what_is_not_finite_stays_so(name):
    run = eqx.filter_jit(lambda layer, x: layer(x))
    by_native, by_scan = (layer_of(name, 1, 16, backend=kind) for kind in ("native", "scan"))
    x = np.array(numbers(9, 6, 12, 1))
    x[0], x[1], x[2], x[3, ::2] = 1e4, -1e4, 1e300, 1e-300
    x[4, -1], x[5, -1] = np.nan, np.inf
    (outputs, final), want = (run(layer, jax.device_put(x)) for layer in (by_native, by_scan))
    assert np.all(np.isfinite(outputs[:4])) and np.all(np.isnan(outputs[4, -1]))
    assert np.any(np.isnan(final[4]))
    np.testing.assert_allclose(outputs, want[0], 1e-10, 1e-12)
    np.testing.assert_allclose(final, want[1], 1e-10, 1e-12)


@every_cell
def test_keys_of_other_kinds(name):
    layer = build(name, 2, 3, key=jr.key(0, impl="rbg"))
    assert np.all(np.isfinite(layer(jnp.ones((4, 2)))[0]))


@every_cell
def test_what_native_has_not_is_refused_by_name(name):
    layer, by_scan = (layer_of(name, 2, 3, backend=kind) for kind in ("native", "scan"))
    x = numbers(10, 4, 2)
    words = r'recurrence of `organics.nn.ORGaNICs` and `organics.baselines`.*`backend="scan"`'
    with pytest.raises(ValueError, match=words):
        jax.jvp(lambda x: layer(x)[0], (x,), (x,))
    with pytest.raises(ValueError, match=words):
        jax.export.export(jax.jit(lambda x: layer(x)[0]))(x)
    if name == "lem":  # the others are of the same making
        tangent = jax.jit(lambda x: jax.jvp(lambda x: by_scan(x)[0], (x,), (x,)))(x)[1]
        assert np.any(tangent != 0)
        got = jax.export.export(jax.jit(lambda x: by_scan(x)[0]))(x).call(x)
        close(got, layer(x)[0], 1e-12)


# run by a process of its own, as the choice of instructions is made once
PINNED = """
import sys, jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, "tests")
import numpy as np, test_cells as t
print(t.native.instruction_set())
np.savez(sys.argv[1], *jax.tree.leaves([t.small(name, "native") for name in t.NAMES]))
"""


def small(name, backend):
    found = []
    for dtype in (np.float32, np.float64):
        layer = layer_of(name, 3, 20, dtype=dtype, backend=backend)
        state = numbers(11, 9, 20 * layer.parts, dtype=dtype)
        found.append(pulled_back(layer, numbers(12, 9, 7, 3, dtype=dtype), state))
    return found


@pytest.mark.parametrize("isa", library.INSTRUCTION_SETS[:-1])
def test_native_pinned_to_older_instruction_sets(isa, tmp_path):
    file = tmp_path / "found.npz"
    ran = subprocess.run(
        [sys.executable, "-c", PINNED, str(file)],
        env={**os.environ, library.PIN: isa}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    if "the variable ORGANICS_ISA must be" in ran.stderr:
        pytest.skip(f"no {isa} here")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == isa
    want = jax.tree.leaves([small(name, "scan") for name in NAMES])
    with np.load(file) as stored:
        for got, expected in zip(stored.values(), want, strict=True):
            close(got, expected, 1e-11 if expected.dtype == np.float64 else 2e-4)
