"""No part of a drive is stepped over, and a failure says what happened."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import simulated

from organics.circuit.circuit import Circuit, State
from organics.simulation.ode import STEPS, Trajectory, require_ok, simulate, with_honest_end

ONE = Circuit([[1.0]])


@jax.jit
@jax.vmap
def response(on, width):
    """`y` of a neuron after a drive of 1, as a function of its duration in 10^5 ms."""
    drive = lambda t: jnp.where((t >= on) & (t < on + width), 1.0, 0.0)[None]  # noqa: E731
    near = jnp.linspace(on - 5, on + width, 40)
    t = jnp.concatenate([jnp.zeros(1), near, jnp.full(1, 1e5)])
    far = simulate(ONE, drive, t, max_steps=32_768)
    return far.state.y[-2, 0], far.ok


def held(times):
    """`y` and `a` of that neuron after so long a constant drive of 1."""
    y, a = simulated(ONE, lambda _: 1.0, times)
    return y[:, 0], a[:, 0]


def test_pulses_of_a_millisecond_and_more_are_seen_wherever_they_are():
    rng = np.random.default_rng(0)
    on, width = rng.uniform(10, 99_000, 24), np.ones(24)
    width[16:] = np.geomspace(1, 900, 8)
    found, ok = response(on, width)
    assert np.all(ok)
    widths, of = np.unique(width, return_inverse=True)
    np.testing.assert_allclose(found, held(widths)[0][of], rtol=1e-4)


def test_a_pulse_in_the_middle_of_rest_has_the_response_of_a_constant_drive():
    drive = lambda t: jnp.where((t >= 1000) & (t < 2000), 1.0, 0.0)[None]  # noqa: E731
    since = np.concatenate([np.linspace(0, 50, 95), np.linspace(60, 1000, 5)])
    found = simulate(ONE, drive, np.concatenate([[0], 1000 + since])).state
    np.testing.assert_allclose(found.y[-1], 0.995037, atol=1e-5)
    y, a = held(since)
    np.testing.assert_allclose(found.y[1:, 0], y, atol=1e-4)
    np.testing.assert_allclose(found.a[1:, 0], a, atol=1e-4)


@pytest.mark.parametrize("method", ["explicit", "implicit"])
def test_a_square_wave_of_single_precision_goes_through(method):
    circuit = Circuit(np.ones((1, 1), np.float32))
    wave = lambda t: jnp.where(jnp.mod(t, 100) < 50, 1.0, 0.0)[None]  # noqa: E731
    options = {} if method == "explicit" else {"rtol": 1e-4, "atol": 1e-6}
    found = simulate(circuit, wave, np.linspace(0, 1000, 201), method=method, **options)
    y = np.asarray(found.state.y)[:, 0]
    assert found.ok and y.dtype == np.float32
    np.testing.assert_allclose(y[[9, 29, 49, 189]], held([45.0])[0][0], atol=5e-3)


def test_the_derivative_of_the_moment_of_rest_is_that_of_differences():
    circuit = Circuit([[1.0, 0.5], [0.2, 1.0]], sigma=0.3, tau_y=10.0, tau_a=3.0)
    z = np.array([0.7, -0.4])

    @jax.jit
    @jax.value_and_grad
    def rest(scale):
        options = {"until_steady": True, "rtol": 1e-10, "atol": 1e-12}
        return simulate(circuit, scale * z, 1000.0, **options).steady_time

    slope = (rest(1.0 + 1e-4)[0] - rest(1.0 - 1e-4)[0]) / 2e-4
    assert abs(float(slope)) > 0.1
    np.testing.assert_allclose(rest(1.0)[1], slope, rtol=1e-3)


def test_what_has_no_derivative_is_refused_and_not_0():
    def end(scale):
        return simulate(ONE, scale * jnp.ones(1), 1.0, until_steady=True).steady_time

    with pytest.raises(
        Exception, match="have no derivative where the circuit did not come to rest"
    ):
        jax.block_until_ready(jax.grad(end)(1.0))


def in_time(scale, failure, weights):
    """A number from a trajectory that did not come to rest, whose states grow with `scale`."""
    y, end = scale * jnp.ones((2, 1)), jnp.ones(())
    path = Trajectory(jnp.arange(2.0), State(y, y), failure, end, jnp.bool_(False))
    path = with_honest_end(path)
    return weights[0] * path.end_time + weights[1] * path.steady_time + jnp.sum(path.state.y)


@pytest.mark.parametrize("compiled", [False, True])
def test_nor_are_they_0_where_that_is_compiled(compiled):
    slope = jax.jit(jax.grad(in_time)) if compiled else jax.grad(in_time)

    def of(failure, *weights):
        arguments = np.ones(()), np.asarray(failure), np.array(weights)
        return jax.block_until_ready(slope(*map(jnp.asarray, arguments)))

    assert of(0, 1.0, 0.0) == 2, "its end is the last save time"
    assert of(1, 0.0, 0.0) == 2, "only the states are looked at"
    for nothing in ((0, 0.0, 1.0), (1, 1.0, 0.0)):
        with pytest.raises(Exception, match="have no derivative"):
            of(*nothing)


def test_a_failure_says_so_while_derivatives_are_taken():
    def failing(scale):
        y = scale * jnp.ones((2, 1))
        path = Trajectory(jnp.arange(2.0), State(y, y), jnp.asarray(STEPS), scale, jnp.bool_(False))
        return require_ok(path, {STEPS: ("it took too long", "Wait.")}).end_time

    with pytest.raises(RuntimeError, match="it took too long. It is good until t = 0.5 of 1 ms"):
        jax.grad(failing)(0.5)


def test_a_failure_says_what_happened_and_what_would_do():
    growing = Circuit([[5.0]], [[0.0]], b=1.0)
    with pytest.raises(RuntimeError, match=r"diverged.*good until t = .*`organics.stability`"):
        simulate(growing, np.ones(1), 1e5)
    with pytest.raises(RuntimeError, match="`max_steps` = 5 steps .*Raise `max_steps`"):
        simulate(ONE, np.ones(1), 100.0, max_steps=5)
    broken = lambda t: jnp.where(t < 7, 1.0, jnp.nan)[None]  # noqa: E731
    with pytest.raises(RuntimeError, match="`z` is not finite"):
        simulate(ONE, broken, 100.0)
    failed = simulate(ONE, broken, 100.0, throw=False)
    assert failed.failure_name == "drive" and not failed.ok


def test_a_drive_of_traced_numbers_is_seen_too():
    @jax.jit
    @jax.value_and_grad
    def height(strength, on):
        drive = lambda t: jnp.where((t >= on) & (t < on + 2), strength, 0.0)[None]  # noqa: E731
        return jnp.max(simulate(ONE, drive, jnp.linspace(0.0, 5000.0, 5001)).state.y)

    on = 3217.3
    value, slope = height(1.0, on)
    assert value > 0.3
    difference = (height(1.0 + 1e-4, on)[0] - height(1.0 - 1e-4, on)[0]) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=1e-3)


@pytest.mark.parametrize("end", [60e3, 600e3])
def test_a_pulse_in_a_long_simulation_in_single_precision_is_not_passed_by(end):
    circuit = Circuit([[1.0]])
    circuit = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), circuit)

    def drive(t):
        return jnp.where((t >= 1000) & (t < 1005), jnp.ones(1, jnp.float32), 0)

    times = np.array([0.0, 999.0, 1005.0, 1010.0, end], np.float32)
    path = simulate(circuit, drive, times)
    alone = simulate(circuit, jnp.ones(1, jnp.float32), np.array([0.0, 5.0], np.float32))
    np.testing.assert_allclose(path.state.y[2], alone.state.y[1], rtol=1e-3)
