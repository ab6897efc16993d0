"""The comparison models: equations, counts, invariants, gradients, and training of each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from organics.baselines import PUBLISHED, TUNED, build
from organics.models import count_parameters

NAMES = ["lstm", "antisymmetric", "antisymmetric-gated", "cornn", "lipschitz", "lem", "rnn"]
OPTIONS = {
    "antisymmetric": {"epsilon": 0.3, "gamma": 0.2},
    "antisymmetric-gated": {"epsilon": 0.4, "gamma": 0.1},
    "cornn": {"dt": 0.3, "gamma": 1.3, "epsilon": 0.7},
    "lipschitz": {"epsilon": 0.2, "beta": 0.6, "gamma": 0.3, "spread": 2.0},
    "lem": {"dt": 0.7},
}

# compiled once for each model and shape
run = eqx.filter_jit(lambda layer, x, state=None, **options: layer(x, state, **options))
matrix = eqx.filter_jit(lambda layer: layer.matrix())
advance = eqx.filter_jit(lambda layer, x, state: layer.step(x, state))

every_model = pytest.mark.parametrize("name", NAMES)


def random_layer(name, seed=0, m=2, n=5, **options):
    """A layer with no parameter at a special value; its own are not drawn, only their shapes."""
    options = OPTIONS.get(name, {}) | options
    layer = eqx.filter_eval_shape(build, name, m, n, key=jr.key(0), **options)
    noise = np.random.default_rng(seed)
    draw = lambda p: jax.device_put(0.5 * noise.normal(size=p.shape))  # noqa: E731
    return jax.tree.map(draw, layer)


def sequence_of(seed, *shape):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape))


def same(got, want, rtol=1e-7, atol=1e-14):
    # where terms of order 1 cancel, what is left has their rounding
    np.testing.assert_allclose(got, want, rtol, atol)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(layer, name, x, h, rest=None):
    """The state's parts after one step of one sample, by the papers' equations in NumPy."""
    p = {k: np.asarray(v) for k, v in vars(layer).items() if eqx.is_array(v)}
    n, drive = layer.hidden_size, p["V"] @ x + p["bias"]
    if name == "rnn":
        return (np.tanh(p["W"] @ h + drive),)
    if name == "lstm":
        i, f, o, g = (p["W"] @ h + drive).reshape(4, n)
        c = sigmoid(f) * rest + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    if name == "cornn":
        force = np.tanh(p["W"][:, :n] @ h + p["W"][:, n:] @ rest + drive)
        v = rest + layer.dt * (force - layer.gamma * h - layer.epsilon * rest)
        return h + layer.dt * v, v
    if name == "lem":
        # `h` is what the papers call y, and `rest` its z
        W, (s_1, s_2, for_z, for_y) = p["W"].reshape(4, n, n), drive.reshape(4, n)
        dt_1, dt_2 = (layer.dt * sigmoid(W[i] @ h + s) for i, s in enumerate((s_1, s_2)))
        z = (1 - dt_1) * rest + dt_1 * np.tanh(W[2] @ h + for_z)
        return (1 - dt_2) * h + dt_2 * np.tanh(W[3] @ z + for_y), z
    one = np.eye(n)
    if name == "lipschitz":
        A, W = (
            (1 - layer.beta) * (M + M.T) + layer.beta * (M - M.T) - layer.gamma * one
            for M in p["M"]
        )
        return (h + layer.epsilon * (A @ h + np.tanh(W @ h + drive)),)
    W, entries = np.zeros((n, n)), iter(p["upper"])
    for i in range(n):
        for j in range(i + 1, n):
            W[i, j] = next(entries)
    A = W - W.T - layer.gamma * one
    gate = sigmoid(A @ h + p["V_z"] @ x + p["bias_z"]) if name == "antisymmetric-gated" else 1
    return (h + layer.epsilon * gate * np.tanh(A @ h + drive),)


@pytest.mark.rounding
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 10**6))
def test_a_sequence_follows_the_papers_equations(name, seed):
    layer, x = random_layer(name, seed), sequence_of(seed, 4, 2)
    outputs, state = run(layer, x)
    parts = (np.zeros(5),) * layer.parts
    for t in range(4):
        parts = by_hand(layer, name, np.asarray(x[t]), *parts)
        same(outputs[t], parts[0], rtol=1e-12)
    same(state, np.concatenate(parts), rtol=1e-12)


@pytest.mark.parametrize(
    "name, count",
    [
        ("lstm", 67_850),
        ("antisymmetric", 9_674),
        ("antisymmetric-gated", 9_930),
        ("cornn", 34_314),
        ("lipschitz", 34_314),
        ("lem", 4 * (128 * 128 + 128 + 128) + 1_290),
        ("rnn", 128 * 128 + 128 + 128 + 1_290),
    ],
)
def test_parameter_counts_are_the_papers(name, count):
    def made(key):
        layer, readout = build(name, 1, 128, key=key), eqx.nn.Linear(128, 10, key=key)
        assert (layer.input_size, layer.hidden_size) == (1, 128)
        return count_parameters(layer) + count_parameters(readout)

    assert eqx.filter_eval_shape(made, jr.key(0)) == count


@eqx.filter_jit
def in_every_way(layer, x):
    """Sequences whole, in two pieces, with the last output only, and mapped; one alone; and step by
    step."""
    first, state = layer(x[:, :4])
    second, state = layer(x[:, 4:], state)
    start = layer.initial_state()
    begin = start, jnp.broadcast_to(start, (len(x), *start.shape))
    advance = lambda now, x: ((layer.step(x[1], now[0]), layer.step(x, now[1])), None)  # noqa: E731
    (one, rows), _ = jax.lax.scan(advance, begin, jnp.moveaxis(x, 0, 1))
    pieces = jnp.concatenate([first, second], axis=1), state
    last = layer(x, sequence=False)[0], layer(x[1], sequence=False)[0]
    mapped = jax.vmap(lambda x: layer(x)[0])(x)
    return layer(x), pieces, last, mapped, layer(x[1]), one, rows


@pytest.mark.rounding
@every_model
def test_streaming_steps_and_samples_under_vmap_equal_the_whole(name):
    layer, x = random_layer(name, 1), sequence_of(1, 3, 8, 2)
    (whole, final), (pieces, state), last, mapped, (single, alone), one, rows = in_every_way(
        layer, x
    )
    assert whole.shape == (3, 8, 5)
    same(pieces, whole, rtol=1e-12)
    same(state, final, rtol=1e-12)
    same(last[0], whole[:, -1], rtol=1e-12)
    same(mapped, whole, rtol=1e-12)
    same(single, whole[1], rtol=1e-12)
    same(last[1], whole[1, -1], rtol=1e-12)
    same(one, alone, rtol=1e-12)
    same(rows, final, rtol=1e-12)
    same(advance(layer, x[1, 0], layer.initial_state())[:5], whole[1, 0], rtol=1e-12)


@pytest.mark.parametrize("name", ["lstm", "rnn"])
def test_padding_changes_nothing_neither_values_nor_gradients(name):
    layer, whole = random_layer(name, 1), sequence_of(1, 3, 8, 2)
    lengths = np.asarray([8, 3, 8])
    inside = np.arange(8) < lengths[:, None]
    padded = jax.device_put(np.where(inside[..., None], whole, np.nan))

    @eqx.filter_jit
    def with_gradients(layer, x, lengths=None):
        def score(given):
            outputs, final = given[0](given[1], lengths=lengths)
            return jnp.sum(outputs**2) + jnp.sum(jnp.sin(final)), (outputs, final)

        return eqx.filter_grad(score, has_aux=True)((layer, x))

    (d_layer, d_x), (outputs, final) = with_gradients(layer, padded, jax.device_put(lengths))
    (d_long, d_x_long), (long, ended_long) = with_gradients(layer, whole[::2])
    (d_short, d_x_short), (short, ended_short) = with_gradients(layer, whole[1, :3])
    for found in (outputs, d_x):
        assert np.all(np.asarray(found[1, 3:]) == 0)
    same(outputs[::2], long, rtol=1e-12)
    same(outputs[1, :3], short, rtol=1e-12)
    same(final, np.stack([ended_long[0], ended_short, ended_long[1]]), rtol=1e-12)
    same(d_x[::2], d_x_long, rtol=1e-10, atol=1e-13)
    same(d_x[1, :3], d_x_short, rtol=1e-10, atol=1e-13)
    jax.tree.map(
        lambda got, a, b: same(got, a + b, rtol=1e-10, atol=1e-12), d_layer, d_long, d_short
    )
    last, state = run(layer, padded, sequence=False, lengths=jax.device_put(lengths))
    same(last, final[:, :5], rtol=1e-12)
    same(state, final, rtol=1e-12)


@every_model
def test_the_last_output_does_not_store_the_sequence(name):
    def largest(sequence):
        layer = lambda: build(name, 1, 16, key=jr.key(2), backend="scan")  # noqa: E731
        outputs = lambda x: layer()(x, sequence=sequence)[0]  # noqa: E731
        jaxpr = jax.make_jaxpr(outputs)(np.zeros((7, 1)))
        return max(v.aval.size for e in jaxpr.eqns for v in e.outvars if e.primitive.name == "scan")

    assert largest(True) >= 7 * 16 > largest(False)


@every_model
@pytest.mark.parametrize("batch, steps, n", [(3, 4, 5), (1, 1, 1)])
def test_gradients_are_those_of_the_steps(name, batch, steps, n):
    """Of all outputs and of the last one alone, which is another program; each has its weights."""
    layer, x = random_layer(name, 3, n=n), sequence_of(3, batch, steps, 2)
    start = sequence_of(4, batch, layer.parts * n)
    shapes = (batch, steps, n), start.shape, (batch, n), start.shape
    weights = [sequence_of(5 + i, *shape) for i, shape in enumerate(shapes)]

    def whole(layer, x, state):
        return *layer(x, state), *layer(x, state, sequence=False)

    def by_steps(layer, x, state):
        advance = lambda state, x: (layer.step(x, state),) * 2  # noqa: E731
        final, states = jax.lax.scan(advance, state, jnp.moveaxis(x, 1, 0))
        outputs = jnp.moveaxis(states[..., :n], 0, 1)
        return outputs, final, outputs[:, -1], final

    @eqx.filter_jit
    def gradients(given):
        def score(given, function):
            found = function(*given)
            return sum(jnp.sum(w * jnp.sin(f)) for w, f in zip(weights, found, strict=True))

        return [eqx.filter_grad(score)(given, function) for function in (whole, by_steps)]

    got, want = gradients((layer, x, start))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda g, w: same(g, w, rtol=1e-10, atol=1e-12), got, want)


@every_model
def test_gradients_are_differences(name):
    layer, x = random_layer(name, 6), sequence_of(6, 2, 7, 2)
    parameters, static = eqx.partition(layer, eqx.is_array)

    @jax.jit
    @jax.value_and_grad
    def loss(parameters):
        return jnp.sum(jnp.square(eqx.combine(parameters, static)(x)[0]))

    direction = jax.tree.map(lambda p: sequence_of(7, *p.shape), parameters)
    direction = jax.tree.map(np.asarray, direction)
    moved = [
        jax.tree.map(lambda p, d: np.asarray(p) + h * d, parameters, direction)  # noqa: B023
        for h in (1e-5, -1e-5)
    ]
    difference = (float(loss(moved[0])[0]) - float(loss(moved[1])[0])) / 2e-5
    slope = jax.tree.map(np.vdot, loss(parameters)[1], direction)
    assert sum(jax.tree.leaves(slope)) == pytest.approx(float(difference), rel=1e-7)


@given(n=st.sampled_from([1, 2, 7]), seed=st.integers(0, 10**6), gated=st.booleans())
def test_the_antisymmetric_matrix_only_damps_and_turns(n, seed, gated):
    name = "antisymmetric-gated" if gated else "antisymmetric"
    layer = random_layer(name, seed, n=n, gamma=0.37)
    same(np.linalg.eigvals(matrix(layer)).real, -0.37, rtol=1e-12)


@given(kind=st.sampled_from([(1, 0.6), (2, 0.0), (7, 0.3), (7, 1.0)]), seed=st.integers(0, 10**6))
def test_the_lipschitz_matrices_have_the_symmetric_part_of_their_formula(kind, seed):
    n, beta = kind
    layer = random_layer("lipschitz", seed, n=n, beta=beta, gamma=0.2)
    A, W = np.split(np.asarray(matrix(layer)), 2)
    for found, M in zip((A, W), np.asarray(layer.M), strict=True):
        symmetric = (1 - beta) * (M + M.T) - 0.2 * np.eye(n)
        same((found + found.T) / 2, symmetric, atol=1e-12)
        same((found - found.T) / 2, beta * (M - M.T), atol=1e-12)


def test_positions_of_the_oscillators_move_with_the_new_velocity():
    layer = random_layer("cornn", 9)
    before, x = sequence_of(9, 10), sequence_of(10, 2)
    after = np.asarray(advance(layer, x, before))
    same(after[:5], np.asarray(before)[:5] + layer.dt * after[5:], rtol=1e-12)


def test_the_forget_gate_starts_open():
    layer = build("lstm", 1, 4, key=jr.key(0))
    same(layer.bias, [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], rtol=0)


@every_model
def test_single_precision_stays_single(name):
    """As the types of a program are known before it runs, none is compiled."""

    def everything(key, x):
        layer = build(name, 1, 4, key=key, dtype=jnp.float32)
        return layer, layer(x), layer.initial_state()

    found = eqx.filter_eval_shape(everything, jr.key(0), np.ones((2, 3, 1), np.float32))
    types = {leaf.dtype for leaf in jax.tree.leaves(found) if hasattr(leaf, "dtype")}
    assert types == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "name, options, argument",
    [
        ("gru", {}, "name"),
        ("lstm", {"hidden_size": 0}, "hidden_size"),
        ("rnn", {"input_size": 0}, "input_size"),
        ("antisymmetric", {"epsilon": 0.0}, "epsilon"),
        ("antisymmetric-gated", {"gamma": -0.1}, "gamma"),
        ("cornn", {"dt": 0.0}, "dt"),
        ("cornn", {"epsilon": -1.0}, "epsilon"),
        ("lipschitz", {"beta": 1.1}, "beta"),
        ("lipschitz", {"spread": 0.0}, "spread"),
        ("lipschitz", {"spread": np.inf}, "spread"),
        ("cornn", {"gamma": np.inf}, "gamma"),
        ("lem", {"dt": 0.0}, "dt"),
        ("lem", {"backend": "cuda"}, "backend"),
        ("lstm", {"memory": "none"}, "memory"),
        ("lstm", {"forget_bias": np.nan}, "forget_bias"),
        ("lstm", {"forget_bias": None}, "forget_bias"),
        ("lstm", {"forget_bias": [1.0, 2.0]}, "forget_bias"),
        ("lstm", {"forget_bias": 1e39, "dtype": np.float32}, "forget_bias"),
        ("lipschitz", {"beta": None}, "beta"),
        ("lipschitz", {"beta": [0.1, 0.2]}, "beta"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_bad_arguments_are_named(name, options, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        build(name, **{"input_size": 1, "hidden_size": 3, "key": jr.key(0), **options})


@every_model
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, jnp.int32, complex, "real"])
@pytest.mark.usefixtures("without_type_checks")
def test_types_other_than_float32_and_float64_are_refused(name, dtype):
    with pytest.raises(ValueError, match="`dtype` must be float32 or float64, not "):
        build(name, 1, 3, key=jr.key(0), dtype=dtype)


def test_float64_is_refused_where_jax_would_make_float32_of_it():
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="`dtype` must be float32, not float64, unless"):
            build("rnn", 1, 3, key=jr.key(0), dtype=np.float64)
        assert build("rnn", 1, 3, key=jr.key(0), dtype=float).bias.dtype == np.float32


@every_model
def test_bad_inputs_are_refused(name):
    layer = random_layer(name, 11)
    size = 5 * layer.parts
    for shape in ((5, 3), (0, 2), (1, 1, 5, 2)):
        with pytest.raises(ValueError, match=r"`x` must have shape \(time, 2\)"):
            layer(jnp.zeros(shape))
    with pytest.raises(ValueError, match="float64, not float32"):
        layer(jnp.zeros((5, 2), jnp.float32))
    with pytest.raises(ValueError, match=rf"`state` must have shape \({size},\), not"):
        layer(jnp.zeros((5, 2)), jnp.zeros((1, size)))
    with pytest.raises(ValueError, match=rf"`state` must have shape \({size},\) or \(3, {size}\)"):
        layer(jnp.zeros((3, 5, 2)), jnp.zeros((2, size)))
    with pytest.raises(ValueError, match="float64, not float32"):
        layer(jnp.zeros((5, 2)), jnp.zeros(size, jnp.float32))
    with pytest.raises(ValueError, match=r"`x` must have shape \(2,\)"):
        layer.step(jnp.zeros(3), layer.initial_state())


def test_every_recipe_builds_its_layer():
    tasks = ("sdigits", "smnist-14", "psmnist-14")
    assert set(TUNED) == {(name, task) for name in NAMES if name != "lem" for task in tasks}
    assert {name for name, _ in PUBLISHED} == set(NAMES) - {"rnn"}
    for (name, _), recipe in {**PUBLISHED, **TUNED}.items():
        options = dict(recipe.hyperparameters)
        make = lambda key: build(name, 1, 3, key=key, **options)  # noqa: B023, E731
        layer = eqx.filter_eval_shape(make, jr.key(0))
        for option, value in recipe.hyperparameters:
            assert getattr(layer, option, value) == value
        assert recipe.learning_rate > 0
        assert (recipe.schedule == "drops") == (len(recipe.drops) > 0) == (recipe.factor < 1)


SHORT = {  # step sizes for eight steps
    "antisymmetric": {"epsilon": 0.5},
    "antisymmetric-gated": {"epsilon": 0.8},
    "cornn": {"dt": 0.5, "gamma": 1.0, "epsilon": 1.0},
    "lipschitz": {"epsilon": 0.3, "spread": 4.0},
}


@every_model
@pytest.mark.usefixtures("standard_promotion")
def test_digits_are_learned_row_by_row(name):
    """24 units and 600 steps of Adam get seven of eight held-out digits right."""
    digits = load_digits()
    mixed = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = jnp.asarray(digits.images[mixed] / 16), jnp.asarray(digits.target[mixed])
    k_layer, k_readout, k_order = jr.split(jr.key(0), 3)
    layer = eqx.filter_jit(build)(name, 8, 24, key=k_layer, **SHORT.get(name, {}))
    model = (layer, eqx.nn.Linear(24, 10, key=k_readout))
    parameters, static = eqx.partition(model, eqx.is_array)
    orders = jr.randint(k_order, (600, 64), 0, 1400)
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, len(orders)))

    def scores(parameters, images):
        layer, readout = eqx.combine(parameters, static)
        return jax.vmap(readout)(layer(images, sequence=False)[0])

    def loss(parameters, batch):
        logits = scores(parameters, images[batch])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

    def update(carry, batch):
        parameters, state = carry
        value, gradient = jax.value_and_grad(loss)(parameters, batch)
        change, state = adam.update(gradient, state)
        return (optax.apply_updates(parameters, change), state), value

    @jax.jit
    def train(parameters):
        carry, losses = jax.lax.scan(update, (parameters, adam.init(parameters)), orders)
        found = jnp.argmax(scores(carry[0], images[1400:]), axis=1)
        return losses, jnp.mean(found == labels[1400:])

    losses, accuracy = train(parameters)
    assert losses[0] > 2 > 0.5 > losses[-1]
    assert accuracy > 0.875
