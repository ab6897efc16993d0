import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
from hypothesis import assume, given
from hypothesis import strategies as st

from organics.models import build
from organics.nn import SSN
from organics.training import TrainConfig, evaluate, train
from organics.training.run_folder import RunFolder

SIZES = st.sampled_from([(1, 1), (5, 3)])  # each compiles again
SEEDS = st.integers(0, 2**16)


def network(sizes, seed, gain=1.0, input_gain=1.0):
    """An SSN, and an input. Its recurrent weights and inputs are initial ones times the gains."""
    return _network(sizes, seed, jnp.asarray(gain), jnp.asarray(input_gain))


@eqx.filter_jit
def _network(sizes, seed, gain, input_gain):
    k_layer, k_x = jr.split(jr.key(seed))
    layer = SSN(3, *sizes, key=k_layer)
    layer = eqx.tree_at(
        lambda s: (s.W_in, s.log_W), layer, (input_gain * layer.W_in, layer.log_W + jnp.log(gain))
    )
    return layer, jr.uniform(k_x, (3,))


@eqx.filter_jit
def rest_of(layer, x):
    """Where it rests, and there the Jacobian, velocity times `tau`, and recurrent input."""
    rest = layer.rest(x)
    speed = layer.velocity(rest.u, x) * layer.tau
    return rest, layer.jacobian(rest.u), speed, layer.W_s @ layer.rates(rest.u)


@given(sizes=SIZES, seed=SEEDS)
def test_rest_is_where_a_simulation_ends(sizes, seed):
    layer, x = network(sizes, np.uint32(seed))
    (u, found), J, _, _ = rest_of(layer, x)
    assume(found)  # a single unit of each kind may run away
    np.testing.assert_allclose(u, simulate(layer, x), rtol=1e-6, atol=1e-7)
    assert np.max(np.real(np.linalg.eigvals(J))) < 0


def simulate(layer, x):
    """Potentials ten seconds after release at 0, by a stiff solver of SciPy."""
    layer, x = jax.tree.map(np.asarray, (layer, x))
    n, excitatory = len(layer.log_W), layer.excitatory
    sign = np.where(np.arange(n) < excitatory, 1, -1)
    tau = np.where(sign > 0, layer.tau_E, layer.tau_I)
    W, h = np.exp(layer.log_W) * sign, layer.W_in @ x + layer.bias

    def velocity(_, u):
        return (h + W @ (layer.k * np.maximum(u, 0) ** 2) - u) / tau

    ends, options = (0, 10_000), {"rtol": 1e-10, "atol": 1e-10}
    return scipy.integrate.solve_ivp(velocity, ends, np.zeros(n), "LSODA", **options).y[:, -1]


@eqx.filter_jit
def slopes(layer, u, x):
    """The Jacobian, and the derivative of the velocity."""
    return layer.jacobian(u), jax.jacfwd(layer.velocity)(u, x)


@pytest.mark.rounding
@given(sizes=SIZES, seed=SEEDS)
def test_jacobian_is_the_derivative_of_the_velocity(sizes, seed):
    layer, x = network(sizes, np.uint32(seed))
    u = np.random.default_rng(seed).normal(size=layer.units)
    np.testing.assert_allclose(*slopes(layer, u, x), rtol=1e-12, atol=1e-14)


@given(sizes=SIZES, seed=SEEDS)
def test_implicit_gradient_is_that_of_finite_differences(sizes, seed):
    layer, x = network(sizes, np.uint32(seed))
    assume(rest_of(layer, x)[0].found)
    parameters = eqx.filter(layer, eqx.is_inexact_array)
    rng = np.random.default_rng(seed)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), parameters)
    step = 1e-5
    up, middle, down = (along(layer, x, direction, np.asarray(h)) for h in (step, 0.0, -step))
    differences = (up[0] - down[0]) / (2 * step)
    for derivative in middle[1:]:
        np.testing.assert_allclose(derivative, differences, rtol=1e-5, atol=1e-9)


@eqx.filter_jit
def along(layer, x, direction, step):
    """A number from the output, at a `step` along a direction, and its derivatives there."""

    def total(step):
        moved = jax.tree.map(lambda p, d: p + step * d, layer, direction)
        return jnp.sum(jnp.sin(1 + moved(x)))

    return total(step), jax.grad(total)(step), jax.jacfwd(total)(step)


@given(sizes=SIZES, seed=SEEDS, gain=st.sampled_from([1.0, 4.0, 16.0]))
def test_found_means_stable(sizes, seed, gain):
    layer, x = network(sizes, np.uint32(seed), gain, input_gain=30.0)
    (u, found), J, speed, recurrent = rest_of(layer, x)
    if found:
        assert np.max(np.abs(speed)) < 1e-9 * (1 + np.max(np.abs(recurrent)))
        assert np.max(np.real(np.linalg.eigvals(J))) < 0
    else:
        assert not np.any(u)


@eqx.filter_jit
def settled(layer, x):
    return layer.settle(x), layer.rest(x)


@given(seed=SEEDS, gain=st.sampled_from([1.0, 4.0]))
def test_products_find_the_state_that_factorizations_find(seed, gain):
    layer, x = network((5, 3), np.uint32(seed), gain, input_gain=3.0)
    (rates, found), rest = settled(layer, x)
    assert found == rest.found
    np.testing.assert_allclose(rates, layer.rates(rest.u)[:5], rtol=1e-8, atol=1e-10)


def test_each_excitatory_unit_may_have_an_input_of_its_own():
    layer = SSN(4, 4, 2, key=jr.key(0), drive="one-to-one", output="potentials")
    layer = eqx.tree_at(lambda s: s.log_drive, layer, jnp.log(jnp.array([0.7, 0.2, 1.5])))
    x = jnp.array([0.1, 0.9, -1.0, 0.4])
    own = np.array([0.1, 0.9, 0.0, 0.4, 0.0, 0.0])
    np.testing.assert_allclose(layer.drive(x), 0.7 * (own + 0.2) ** 1.5, rtol=1e-12)
    (potentials, found), rest = settled(layer, x)
    assert found
    np.testing.assert_allclose(potentials, rest.u[:4], rtol=1e-8)
    with pytest.raises(ValueError, match="`input_size` must be the number of E units, 4,"):
        SSN(3, 4, 2, key=jr.key(0), drive="one-to-one")


def test_at_the_start_it_comes_to_rest():
    @jax.jit
    def found():
        layer = SSN(40, 80, 20, key=jr.key(0))
        return jax.vmap(layer.rest)(jr.uniform(jr.key(1), (50, 40))).found

    assert np.all(found())


def runaway():
    """Excitation alone, several times too strong: `u = h + 2 u^2` has no solution for `h = 1`."""
    layer = SSN(1, 1, 1, key=jr.key(0), k=1.0)
    return eqx.tree_at(
        lambda s: (s.W_in, s.log_W),
        layer,
        (jnp.ones((2, 1)), jnp.log(jnp.array([[2.0, 1e-9], [1e-9, 1.0]]))),
    )


def test_where_it_rests_depends_on_the_ratio_of_the_time_constants_alone():
    x = jax.device_put(3 * np.random.default_rng(0).normal(size=3))
    rates = [
        SSN(3, 4, 2, key=jr.key(0), tau_E=tau, tau_I=tau / 2)(x) for tau in (0.02, 20.0, 200.0, 1e4)
    ]
    assert np.all(np.isfinite(rates))
    np.testing.assert_allclose(rates, np.tile(rates[1], (4, 1)), rtol=1e-8)


def test_runaway_excitation_is_not_taken_for_rest():
    layer = runaway()
    rest = layer.rest(jnp.ones(1))
    assert not rest.found and not np.any(rest.u)
    assert np.all(np.isnan(layer(jnp.ones(1))))
    # with h = 1/16 the same network rests at the smaller root of 2 u^2 - u + 1/16
    u, found = layer.rest(jnp.full(1, 1 / 16))
    assert found
    np.testing.assert_allclose(u[0], (1 - np.sqrt(1 / 2)) / 4, rtol=1e-9)


def test_an_oscillation_is_not_taken_for_rest():
    # strong E to I to E feedback with slow inhibition: the only steady state is unstable
    layer = SSN(1, 1, 1, key=jr.key(0), k=1.0, tau_I=200.0)
    weights = jnp.log(jnp.array([[2.0, 4.0], [4.0, 1.0]]))
    layer = eqx.tree_at(lambda s: (s.W_in, s.log_W), layer, (jnp.array([[1.0], [0.2]]), weights))
    assert not layer.rest(jnp.ones(1)).found


def test_a_lost_input_teaches_nothing_and_spoils_nothing():
    model = build("ssn", 2, layers=(1, 1), encoder=(1,), key=jr.key(3))
    model = eqx.tree_at(lambda m: m.layers, model, (runaway(),))
    # the code is about 1 for the first input, 1/16 for the second
    weight = jnp.array([[10.0, np.log(1 / 15)]])
    model = eqx.tree_at(
        lambda m: (m.encoder[0].weight, m.encoder[0].bias), model, (weight, jnp.zeros(1))
    )
    inputs, labels = jnp.eye(2), jnp.array([0, 1], jnp.int32)

    def cross_entropy(model, inputs, labels):
        _, metrics = model.loss(inputs, labels)
        return metrics["cross_entropy"], metrics

    gradient = eqx.filter_jit(eqx.filter_value_and_grad(cross_entropy, has_aux=True))
    (both, metrics), of_both = gradient(model, inputs, labels)
    (lost, of_lost), (good, of_good) = (
        (value, grad)
        for (value, _), grad in (
            gradient(model, inputs[i : i + 1], labels[i : i + 1]) for i in (0, 1)
        )
    )
    assert metrics["lost"] == 0.5 and metrics["accuracy"] <= 0.5
    np.testing.assert_allclose(lost, np.log(10), rtol=1e-12)  # a guess
    np.testing.assert_allclose(both, (lost + good) / 2, rtol=1e-12)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_lost))
    jax.tree.map(lambda b, g: np.testing.assert_allclose(2 * b, g, rtol=1e-10), of_both, of_good)
    scores = eqx.filter_jit(lambda model, inputs: model.predict(inputs))(model, inputs)
    assert np.isnan(scores[0]).all() and np.isfinite(scores[1]).all()


@pytest.mark.usefixtures("standard_promotion")
def test_training_keeps_the_signs_and_counts_what_is_lost(tmp_path):
    config = TrainConfig(
        dataset="digits", model="ssn", layers=(6, 4), encoder=(16, 8), epochs=2, batch_size=150,
        learning_rate=0.03,
    )  # fmt: skip
    report = train(config, tmp_path, progress=False)
    assert 0 <= report.test_accuracy <= 1 and report.layers == (6, 4)
    like = eqx.filter_eval_shape(lambda: build("ssn", 64, layers=(6, 4), encoder=(16, 8),
                                               key=jr.key(0), dtype=np.float32))  # fmt: skip
    (layer,) = RunFolder.open(tmp_path).load_model(like).layers
    assert np.all(layer.W_s[:, :6] > 0) and np.all(layer.W_s[:, 6:] < 0)
    for line in RunFolder.open(tmp_path).lines("steps.jsonl"):
        assert len(line["lost"]) == len(line["loss"]) and np.all(np.isfinite(line["lost"]))
    found = evaluate(tmp_path).summary
    (stability,) = found["stability"]
    assert stability["n"] == 10 and stability["stable"] <= 1 - found["lost"] + 1e-6


@pytest.mark.parametrize("layers", [(5,), (3, 2, 1)])
def test_layers_of_an_ssn_are_its_two_populations(layers):
    with pytest.raises(ValueError, match="`layers` of the model ssn must be two numbers"):
        TrainConfig(model="ssn", layers=layers)
    with pytest.raises(ValueError, match="`layers` of the model ssn must be two numbers"):
        build("ssn", 4, layers=layers, key=jr.key(0))


def test_sizes_and_constants_must_be_positive():
    with pytest.raises(ValueError, match="`inhibitory` must be at least 1"):
        SSN(3, 2, 0, key=jr.key(0))
    with pytest.raises(ValueError, match="`tau_E` must be > 0"):
        SSN(3, 2, 1, key=jr.key(0), tau_E=-1.0)


def test_without_rest_there_are_no_derivatives():
    layer = SSN(2, 2, 1, key=jr.key(0), output="potentials", drive="one-to-one")
    layer = eqx.tree_at(lambda one: one.log_W, layer, layer.log_W.at[:2, :2].add(3.0))
    x = jnp.array([5.0, 3.0])
    assert not layer.rest(x).found
    for of in (lambda x: layer.rest(x).u, lambda x: layer.settle(x)[0]):
        np.testing.assert_array_equal(jax.jacobian(of)(x), 0)


@pytest.mark.parametrize("taus", [(20.0, 10.0), (20.0, 1.0), (20.0, 0.05), (200.0, 1.0)])
def test_networks_rest_where_they_do_whatever_their_time_constants(taus):
    """A state of rest does not depend on them, if it is reached: against SciPy, from u = 0."""
    log_W = jnp.log(jnp.array([[1.25, 0.65], [1.2, 0.5]]))
    tau_E, tau_I = taus
    layer = SSN(2, 1, 1, key=jr.key(0), tau_E=tau_E, tau_I=tau_I)
    layer = eqx.tree_at(lambda one: (one.W_in, one.log_W), layer, (jnp.eye(2), log_W))
    for drive in ([0.1, 0.1], [20.0, 20.0], [50.0, 40.0], [1000.0, 1000.0]):
        x, W = jnp.array(drive), np.array([[1.25, -0.65], [1.2, -0.5]])
        found = layer.rest(x)
        assert found.found

        def velocity(t, u, h=drive, W=W, k=layer.k):
            del t
            return (np.array(h) + W @ (k * np.maximum(u, 0) ** 2) - u) / taus

        end = scipy.integrate.solve_ivp(
            velocity, (0, 60 * tau_E), [0, 0], method="LSODA", rtol=1e-8, atol=1e-10
        )
        np.testing.assert_allclose(found.u, end.y[:, -1], rtol=1e-5)


def test_potentials_of_another_shape_are_refused():
    layer = SSN(2, 3, 3, key=jr.key(0))
    for call in (
        lambda u: layer.velocity(u, jnp.ones(2)),
        layer.jacobian,
        layer.rates,
    ):
        with pytest.raises(ValueError, match=r"`u` must have shape \(6,\), not \(3,\)"):
            call(jnp.ones(3))
