import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from circuits import seeds, wide_circuit
from hypothesis import given
from hypothesis import strategies as st
from programs import simulated

from organics.circuit.circuit import Circuit, State, random_drive
from organics.rest.search import steady_state
from organics.simulation.ode import save_times, simulate

# One size and one number of save times for most tests, since each other one compiles again.
N, ROWS = 3, 101


def paper_circuit(seed, **options):
    return Circuit.random(jr.key(seed), N, **options), random_drive(jr.key(seed + 1), N)


def diverging():
    """A row of `W_r` vanishes and its neuron's pool gain exceeds 1: there is no steady state."""
    circuit = Circuit(W=5 * np.eye(N), W_r=np.diag([1.0, 0.0, 1.0]), b=1.0)
    return circuit, np.array([0.6, 0.8, 0.0])


def leaky():
    """No normalization: with `a = c = 1/4` throughout, `y' = rate (z - y)`."""
    tau = np.array([2.0, 3, 20])
    circuit = Circuit(np.zeros((N, N)), np.eye(N), b=0.5, b0=1.0, sigma=0.5, tau_y=tau)
    return circuit, 0.5 / tau


class Course(eqx.Module):
    """A drive: a sine (radians per ms) plus a scaled triangle of 5 ms to either side at 350 ms. Its
    numbers are arguments of the compiled program, not constants in it."""

    frequency: float
    pulse: float

    def __call__(self, t):
        hat = jnp.maximum(0.0, 1 - jnp.abs(t - 350.0) / 5)
        return jnp.full(N, jnp.sin(self.frequency * t) + self.pulse * hat)


def times(end, start=0.0):
    return np.linspace(start, end, ROWS)


@pytest.mark.parametrize(
    ("method", "rectified"), [("explicit", False), ("explicit", True), ("implicit", False)]
)
def test_agrees_with_scipy(method, rectified):
    circuit, z = paper_circuit(3, rectified=rectified, tau_y=np.array([0.5, 3.0, 20.0]))
    t = np.sort(np.random.default_rng(0).uniform(5, 60, ROWS))
    start = State(jnp.array([1.0, -2.0, 0.1]), jnp.array([0.5, 3.0, 0.0]))
    drive = np.asarray(z)
    want = simulated(circuit, lambda _: drive, t, start)
    got = simulate(circuit, z, t, start, method=method, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(got.state, want, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(got.t, t)
    assert got.ok and got.end_time == t[-1] and got.steady_time == np.inf


def test_exact_response_to_a_step():
    circuit, rate = leaky()
    start = State(jnp.array([0.7, -1.0, 0.0]), circuit.c)
    got = simulate(circuit, np.ones(N), times(9.0, 1.0), start, rtol=1e-9, atol=1e-11)
    decay = np.exp(-np.outer(got.t - 1, rate))
    np.testing.assert_allclose(got.state.y, np.asarray(start.y) * decay + (1 - decay), rtol=1e-7)
    np.testing.assert_allclose(got.state.a, 0.25)


def test_exact_response_to_a_sine():
    circuit, rate = leaky()
    t, w = times(9.0)[:, None], 2.0
    options = {"rtol": 1e-9, "atol": 1e-11, "max_step": 1.0}
    got = simulate(circuit, Course(*jax.device_put((w, 0.0))), t[:, 0], **options)
    driven = rate * (rate * np.sin(w * t) - w * np.cos(w * t)) / (rate**2 + w**2)
    want = driven + rate * w / (rate**2 + w**2) * np.exp(-rate * t)
    np.testing.assert_allclose(got.state.y, want, atol=1e-8)


def test_a_sampled_drive_is_linear_between_its_samples():
    circuit, rate = leaky()
    t = times(10.0)
    t[1:-1] += 0.04 * np.sin(t[1:-1])
    got = simulate(circuit, np.tile(t[:, None], N), t, rtol=1e-9, atol=1e-11)  # z = t
    want = t[:, None] - (1 - np.exp(-np.outer(t, rate))) / rate
    np.testing.assert_allclose(got.state.y, want, atol=1e-8)


def test_a_brief_pulse_between_samples_is_not_passed_by():
    circuit, rate = leaky()
    z = np.zeros((ROWS, N))
    z[70] = 1.0  # a triangle of 5 ms to either side, while the circuit is at rest
    got = simulate(circuit, z, times(500.0)).state.y
    assert np.all(got[:70] == 0)
    r = rate[2]
    triangle = (np.exp(5 * r) - 2 + np.exp(-5 * r)) / (5 * r)  # its exact transfer
    np.testing.assert_allclose(got[75, 2], triangle * np.exp(-25 * r), rtol=1e-4)

    course = Course(*jax.device_put((0.0, 1.0)))
    same = simulate(circuit, course, times(500.0), max_step=1.0).state.y
    np.testing.assert_allclose(same, got, atol=1e-4)


def test_a_duration_gives_evenly_spaced_times():
    circuit, z = paper_circuit(0)
    np.testing.assert_allclose(simulate(circuit, z, 50.0).t, np.linspace(0, 50, 101))
    np.testing.assert_allclose(save_times(circuit, 3, 7), np.linspace(0, 3, 7))
    # as many as `z` has samples
    with pytest.raises(ValueError, match="`max_steps` must be at least 7"):
        simulate(circuit, np.ones((7, N)), 3.0, max_steps=1)


def test_starts_where_the_circuit_rests_without_input():
    circuit, z = paper_circuit(0)
    start = simulate(circuit, z, 1.0).state
    np.testing.assert_array_equal(start.y[0], np.zeros(N))
    np.testing.assert_allclose(start.a[0], circuit.c, rtol=1e-14)
    still = simulate(circuit, 0 * z, 30.0).state
    np.testing.assert_allclose(still.a, np.tile(circuit.c, (ROWS, 1)), rtol=1e-12)
    np.testing.assert_array_equal(still.y, np.zeros((ROWS, N)))


@given(seed=seeds)
def test_arrives_at_the_steady_state(seed):
    circuit, z = wide_circuit(seed, N)
    slowest = max(np.max(circuit.tau_y), np.max(circuit.tau_a))
    identity = jax.device_put(np.eye(N))  # as weights: a program that other tests have
    explicit = eqx.tree_at(lambda c: c.W_r, circuit, identity, is_leaf=lambda leaf: leaf is None)
    got = simulate(explicit, z, 1e4 * slowest, method="implicit")
    want = steady_state(circuit, z).state
    np.testing.assert_allclose(got.state.y[-1], want.y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.state.a[-1], want.a, rtol=1e-4)


@given(seed=seeds, rectified=st.booleans())
def test_a_stays_above_its_bound_from_any_start(seed, rectified):
    circuit, z = wide_circuit(seed, N, recurrence=1.0, rectified=rectified)
    rng = np.random.default_rng(seed)
    start = State(jnp.asarray(rng.normal(size=N)), jnp.asarray(rng.normal(size=N)))
    got = simulate(circuit, z, 100.0, start, throw=False)  # some of them diverge
    reached = np.asarray(got.t <= got.end_time)
    t, a, c = np.asarray(got.t)[reached], np.asarray(got.state.a)[reached], np.asarray(circuit.c)
    assert len(t) > 1 and np.all(np.isfinite(a))
    bound = c + np.minimum(start.a - c, 0) * np.exp(-t[:, None] / np.asarray(circuit.tau_a))
    assert np.all(a >= bound - 1e-5)


def test_stops_at_rest():
    circuit, z = paper_circuit(3)
    full = simulate(circuit, z, times(2000.0))
    got = simulate(circuit, z, times(2000.0), until_steady=True, steady_tolerance=1e-4, dense=True)
    assert got.ok and 10 < got.steady_time < 1000
    assert got.end_time == got.steady_time
    before = np.asarray(got.t <= got.steady_time)
    np.testing.assert_allclose(got.state.y[before], full.state.y[before], rtol=1e-9)
    y, a = np.asarray(got.state.y)[~before], np.asarray(got.state.a)[~before]
    assert np.all(y == y[0]) and np.all(a == a[0])
    residual = np.linalg.norm(circuit.imbalance(State(jnp.asarray(y[0]), jnp.asarray(a[0])), z))
    assert 1e-7 < residual <= 1e-4 * (1 + 1e-9)  # and it did not wait for much more than was asked
    np.testing.assert_allclose(y[0], steady_state(circuit, z).state.y, atol=1e-3)


def test_rest_is_judged_by_the_residual_and_not_by_how_little_the_samples_change():
    circuit = Circuit(W=np.ones((N, N)), W_r=np.eye(N), tau_y=1e6, tau_a=1e6)
    got = simulate(circuit, np.ones(N), 1.0, until_steady=True, dense=True)
    assert np.max(np.abs(np.diff(got.state.y, axis=0))) < 1e-7
    assert got.ok and got.steady_time == np.inf and got.end_time == 1


def test_a_start_at_rest_is_rest():
    circuit, z = paper_circuit(3)
    at_rest = steady_state(circuit, z).state
    got = simulate(circuit, z, 10.0, at_rest, until_steady=True, dense=True)
    assert got.steady_time == 0 and got.ok
    np.testing.assert_array_equal(got.state.y, np.tile(at_rest.y, (ROWS, 1)))
    np.testing.assert_array_equal(got(7.0).y, at_rest.y)


def test_dense_output_holds_the_state_of_rest():
    circuit, z = paper_circuit(3)
    got = simulate(circuit, z, 1000.0, dense=True, until_steady=True)
    np.testing.assert_array_equal(got(999.0).y, got.state.y[-1])
    assert not np.allclose(got(0.1 * float(got.steady_time)).y, got.state.y[-1])


def test_dense_output():
    circuit, z = paper_circuit(5)
    got = simulate(circuit, z, times(30.0), dense=True, rtol=1e-9, atol=1e-12)
    between = times(30.0) ** 2 / 30.0
    want = simulate(circuit, z, between, rtol=1e-9, atol=1e-12).state
    dense = jax.vmap(got)(between)
    np.testing.assert_allclose(dense.y, want.y, atol=1e-9)
    np.testing.assert_allclose(dense.a, want.a, atol=1e-9)
    with pytest.raises(ValueError, match=r"`t` must be between 0.0 and 30.0 ms.*not 30.5"):
        got(30.5)
    assert np.all(np.isnan(jax.vmap(got)(jnp.array([-1.0, 31.0])).y))


def test_a_trajectory_without_interpolation_says_so():
    with pytest.raises(ValueError, match="dense=True"):
        simulate(*paper_circuit(0), 1.0)(0.5)


@pytest.mark.parametrize("method", ["explicit", "implicit"])
def test_divergence_is_reported(method):
    circuit, z = diverging()
    with pytest.raises(RuntimeError, match=r"good until t = [56]\d\d.* of 5000 ms"):
        simulate(circuit, z, 5000.0, method=method)
    got = simulate(circuit, z, 5000.0, method=method, throw=False)
    assert not got.ok and 500 < got.end_time < 700 and got.steady_time == np.inf
    reached = np.asarray(got.t <= got.end_time)
    assert np.all(np.isfinite(got.state.a[reached])) and np.all(np.isnan(got.state.a[~reached]))


def test_dense_output_ends_where_the_solver_failed():
    got = simulate(*diverging(), 5000.0, throw=False, dense=True)
    assert np.all(np.isfinite(got(0.99 * float(got.end_time)).a))
    with pytest.raises(ValueError, match="where the circuit was simulated"):
        got(4000.0)


def batch_of(circuits, drives, end, starts, **options):
    run = eqx.filter_vmap(lambda c, z, start: simulate(c, z, times(end), start, **options))
    return run(circuits, drives, starts)


def test_divergence_is_reported_under_jit():
    with pytest.raises(RuntimeError, match="the simulation failed"):
        eqx.filter_jit(simulate)(*diverging(), times(2000.0))


def test_of_a_batch_only_the_diverging_ones_fail():
    circuit, z = diverging()
    stack = lambda x: np.stack([x] * 3)  # noqa: E731
    circuits, starts = jax.tree.map(stack, (circuit, State(0 * z, circuit.c)))
    drives = np.stack([0.1 * z, z, 0 * z])
    got = batch_of(circuits, drives, 2000.0, starts, throw=False)
    assert got.ok.tolist() == [True, False, True]
    assert np.all(np.isfinite(got.state.y[::2])) and np.isnan(got.state.y[1, -1, 0])
    with pytest.raises(RuntimeError, match="the simulation failed"):
        batch_of(circuits, drives, 2000.0, starts)


def test_too_few_steps_are_reported():
    circuit = Circuit(W=np.eye(N), W_r=np.eye(N), tau_y=1e-3)
    with pytest.raises(RuntimeError, match="Raise `max_steps`"):
        simulate(circuit, np.ones(N), 1000.0)
    assert simulate(circuit, np.ones(N), 1000.0, method="implicit").ok


def test_an_a_that_turns_negative_is_reported():
    """Only tolerances that allow far too large a step make that happen."""
    circuit = Circuit(W=np.eye(N), W_r=np.eye(N), b0=0.01, sigma=0.01, tau_y=1.0, tau_a=0.01)
    start = State(jnp.ones(N), jnp.full(N, 1e-3))
    arguments = (circuit, np.zeros(N), 100.0, start)
    good = simulate(*arguments)
    assert good.ok and np.all(good.state.a > 0)
    bad = simulate(*arguments, rtol=10.0, atol=10.0, throw=False)
    assert np.any(bad.state.a <= 0) and not bad.ok and bad.end_time < 100
    with pytest.raises(RuntimeError, match="not positive"):
        simulate(*arguments, rtol=10.0, atol=10.0)


@pytest.mark.rounding
def test_batches_are_the_single_trajectories():
    parts = [paper_circuit(seed) for seed in range(3)]
    circuits, drives = jax.tree.map(lambda *x: np.stack(x), *parts)
    starts = State(np.eye(N), np.ones((N, N)))
    batch = batch_of(circuits, drives, 40.0, starts)
    for i in range(3):
        want = simulate(*parts[i], times(40.0), State(starts.y[i], starts.a[i]))
        np.testing.assert_allclose(batch.state.y[i], want.state.y, atol=1e-12)
        np.testing.assert_allclose(batch.state.a[i], want.state.a, atol=1e-12)


def test_gradient_against_finite_differences():
    circuit, z = paper_circuit(11)
    t = times(12.0)

    def loss(parameters):
        circuit, samples, start = parameters
        state = simulate(circuit, samples, t, start, rtol=1e-10, atol=1e-12).state
        return jnp.sum(state.y[30:60] ** 2) + jnp.sum(state.a[-1])

    at = (circuit, np.asarray(z) * np.cos(t)[:, None], State(np.full(N, 0.1), np.ones(N)))
    loss_and_gradient = jax.jit(jax.value_and_grad(loss))
    gradient = jax.tree.leaves(loss_and_gradient(at)[1])
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, at))
    rng = np.random.default_rng(0)
    for k, leaf in enumerate(leaves):
        along = rng.normal(size=leaf.shape)
        moved = [
            loss_and_gradient(tree.unflatten([*leaves[:k], leaf + h * along, *leaves[k + 1 :]]))[0]
            for h in (1e-5, -1e-5)
        ]
        difference = (moved[0] - moved[1]) / 2e-5
        np.testing.assert_allclose(np.vdot(gradient[k], along), difference, rtol=1e-5, atol=1e-7)


def test_float32():
    circuit, z = paper_circuit(4)
    single = jax.tree.map(lambda x: np.asarray(x, np.float32), circuit)
    got = simulate(jax.device_put(single), z, 60.0)
    assert got.t.dtype == got.state.y.dtype == got.state.a.dtype == jnp.float32
    np.testing.assert_allclose(got.state.y, simulate(circuit, z, 60.0).state.y, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"z": np.ones(3)}, r"`z` must have shape \(2,\)"),
        ({"z": np.ones((4, 2))}, r"`z` must have shape \(2,\), or \(3, 2\)"),
        ({"z": np.array([[0, 1], [np.nan, 1], [1, 1.0]])}, "`z` must be finite"),
        ({"z": np.array([1, np.inf])}, "`z` must be finite"),
        ({"z": 1j * np.ones((3, 2))}, "`z` must be real"),
        (
            {"z": lambda t: jax.lax.complex(t, t) * jnp.ones(2, complex)},
            "`z` must return real numbers",
        ),
        ({"t": "10"}, "`t` must be an array of real numbers"),
        ({"initial": (np.ones(2), np.ones(2))}, "`initial` must be a `State`"),
        ({"max_steps": 100.0}, "`max_steps` must be a whole number"),
        ({"z": lambda _: jnp.ones(5)}, r"`z` must return shape \(2,\) at each time, not \(5,\)"),
        ({"t": np.array([0.0, 2.0, 1.0])}, "`t` must be finite and increasing"),
        ({"t": np.array([0.0, np.nan])}, "`t` must be finite and increasing"),
        ({"t": np.array([1.0])}, "`t` must be a duration"),
        ({"t": -3.0}, "duration must be > 0"),
        ({"initial": State(jnp.ones(3), jnp.ones(2))}, "`initial.y` must have shape"),
        ({"initial": State(jnp.ones(2), jnp.array([1, jnp.nan]))}, "`initial.a` must be finite"),
        (
            {"circuit": Circuit(np.ones((2, 2)), sigma=1e-200)},
            "`b0 sigma` squared is out of the range",
        ),
        ({"circuit": Circuit(np.ones((2, 2)), sigma=1e200)}, "`initial` must be given"),
        ({"rtol": 0.0}, "`rtol` must be finite and > 0, not 0.0"),
        ({"atol": -1.0}, "`atol` must be finite and > 0"),
        ({"steady_tolerance": np.inf}, "`steady_tolerance` must be finite"),
        ({"max_step": 0.0}, "`max_step` must be > 0 ms"),
        ({"max_steps": 0}, "`max_steps` must be at least 1, not 0"),
        ({"z": np.ones((3, 2)), "max_steps": 2}, "`max_steps` must be at least 3"),
        ({"z": np.ones((3, 2)), "until_steady": True}, "`until_steady` needs a constant drive"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_refusals(changed, message):
    arguments = {"z": np.ones(2), "t": np.array([0.0, 1.0, 2.0])} | changed
    with pytest.raises(ValueError, match=message):
        simulate(**{"circuit": Circuit(W=np.ones((2, 2))), **arguments})


def test_nothing_in_a_good_trajectory_is_infinite():
    """`jax_debug_infs` and `jax_debug_nans` would refuse it."""
    circuit, z = paper_circuit(3)
    for got in (simulate(circuit, z, 50.0), simulate(circuit, 0 * z, 10.0, until_steady=True)):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(got))
    assert got.ok and got.steady_time == 0


def test_derivatives_are_right_where_nothing_moves():
    """A step from rest has no error, however long; small deviations must still decay in it."""
    circuit, z = paper_circuit(3)
    start = steady_state(circuit, z).state

    @jax.jit
    @jax.grad
    def at_the_end(scale):
        return jnp.sum(simulate(circuit, scale * z, times(2000.0), start).state.y[-1])

    want = jax.jit(jax.grad(lambda scale: jnp.sum(steady_state(circuit, scale * z).state.y)))
    np.testing.assert_allclose(at_the_end(1.0), want(1.0), rtol=1e-8)
