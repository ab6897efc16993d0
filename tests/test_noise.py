import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from organics.circuit.circuit import Circuit, State, random_drive
from organics.simulation import noise as simulation_noise
from organics.simulation.noise import Noise, simulate_increments, simulate_noisy
from organics.simulation.ode import FAILURES, simulate

N = 2
TRIALS = 200
FINEST = 2**10  # steps of the finest grid; coarser ones add up its increments


def example_circuit():
    """A circuit whose tonic drive `c` is well above the noise levels of the tests."""
    circuit = Circuit.random(jr.key(3), N, tau_y=np.array([2.0, 5.0]))
    gains = jax.device_put((np.ones(N), np.full(N, 0.7)))
    circuit = eqx.tree_at(lambda c: (c.b0, c.sigma), circuit, gains)
    return circuit, random_drive(jr.key(4), N)


def wiener(end, seed=0, trials=TRIALS, steps=FINEST):
    """Increments of Wiener processes on the finest grid of [0, end], (trials, steps, 2, N)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(trials, steps, 2, N)) * np.sqrt(end / steps)


def single_path(end, steps):
    return jax.device_put(wiener(end, trials=1, steps=steps)[0])


STEPS = 2 ** np.arange(4, 8)


def coarsen(increments, steps):
    """The increments in so many steps, with zeros up to `STEPS[-1]`: one shape to compile."""
    coarse = increments.reshape(len(increments), steps, -1, 2, N).sum(2)
    return np.pad(coarse, ((0, 0), (0, STEPS[-1] - steps), (0, 0), (0, 0)))


def end_states(circuit, z, noise, end, increments, start, scheme):
    """Final `(y, a)` of every trial, shape (trials, 2, N)."""
    steps = increments.shape[1]

    def one(increments):
        path = simulate_increments(
            circuit, z, noise, end / steps, increments, start, scheme=scheme, save_every=steps
        )
        return jnp.stack([path.state.y[-1], path.state.a[-1]])

    return jax.jit(jax.vmap(one))(increments)


def coarse_end_states(circuit, z, noise, end, increments, start, scheme):
    """The same in each of `STEPS`, shape (STEPS, trials, 2, N)."""

    @jax.jit
    @jax.vmap
    def in_steps_of(steps, dt, increments):
        def one(increments):
            path = simulate_increments(circuit, z, noise, dt, increments, start, scheme=scheme)
            return jnp.stack([path.state.y[steps], path.state.a[steps]])

        return jax.vmap(one)(increments)

    return in_steps_of(STEPS, end / STEPS, np.stack([coarsen(increments, s) for s in STEPS]))


def order(steps, errors):
    """Slope of log error against log step size."""
    return np.polyfit(-np.log2(steps), np.log2(errors), 1)[0]


def strong_errors(circuit, z, noise, end, start, scheme, exact=None):
    """Mean absolute error at the end, for each of `STEPS`, against the exact solution, or else
    against the same scheme on the finest grid."""
    fine = wiener(end)
    if exact is None:
        exact = end_states(circuit, z, noise, end, fine, start, scheme)
    else:
        exact = exact(fine.sum(1))
    ends = coarse_end_states(circuit, z, noise, end, fine, start, scheme)
    return np.mean(np.abs(np.asarray(ends) - np.asarray(exact)), axis=(1, 2, 3))


@pytest.mark.parametrize("scheme", ["euler-maruyama", "heun"])
def test_strong_order_is_1_with_additive_noise(scheme):
    circuit, z = example_circuit()
    start = State(jnp.array([1.0, -0.5]), jnp.array([0.5, 1.0]))
    noise = Noise(np.array([0.05, 0.1]), 0.03)
    errors = strong_errors(circuit, z, noise, 4.0, start, scheme)
    assert abs(order(STEPS, errors) - 1.0) < 0.12


def geometric(ito):
    """Without drive and normalization `y` is a geometric Brownian motion, with a known solution.

    `dy = -r y dt + g |y| dB` with `r = sqrt(c) / tau` and `g = level / sqrt(tau)`.
    """
    tau = np.array([1.0, 2.0])
    circuit = Circuit(W=np.zeros((N, N)), b0=1.0, sigma=0.5, tau_y=tau)
    level = np.array([0.8, 1.1])
    start = State(jnp.array([1.0, -2.0]), circuit.c)

    def exact(B):  # at time 1
        g = level / np.sqrt(tau)
        rate = -0.5 / tau - (g**2 / 2 if ito else 0)
        y = np.asarray(start.y) * np.exp(rate + np.sign(start.y) * g * np.asarray(B)[:, 0])
        return np.stack([y, np.broadcast_to(circuit.c, y.shape)], axis=1)

    return circuit, Noise(multiplicative_y=level), start, exact


def test_euler_maruyama_has_strong_order_one_half_to_the_ito_solution():
    circuit, noise, start, exact = geometric(ito=True)
    errors = strong_errors(circuit, np.zeros(N), noise, 1.0, start, "euler-maruyama", exact)
    assert abs(order(STEPS, errors) - 0.5) < 0.1


def test_heun_has_strong_order_1_to_the_stratonovich_solution():
    circuit, noise, start, exact = geometric(ito=False)
    errors = strong_errors(circuit, np.zeros(N), noise, 1.0, start, "heun", exact)
    assert abs(order(STEPS, errors) - 1.0) < 0.12


def test_heun_has_strong_order_1_with_multiplicative_noise_in_the_whole_circuit():
    circuit, z = example_circuit()
    start = State(jnp.array([1.0, -0.5]), jnp.array([0.5, 1.0]))
    noise = Noise(0.02, 0.01, multiplicative_y=0.3, multiplicative_a=np.array([0.2, 0.4]))
    errors = strong_errors(circuit, z, noise, 4.0, start, "heun")
    assert abs(order(STEPS, errors) - 1.0) < 0.15


def by_hand(circuit, drive, noise, dt, increments, start, scheme):
    """The schemes as an explicit loop over neurons' arrays, independent of the library's scan."""
    tau = np.stack([circuit.tau_y, circuit.tau_a])
    add = np.stack([np.broadcast_to(x, N) for x in (noise.additive_y, noise.additive_a)])
    mult = np.stack(
        [np.broadcast_to(x, N) for x in (noise.multiplicative_y, noise.multiplicative_a)]
    )
    velocity = jax.jit(lambda x, z: jnp.stack(circuit.velocity(State(x[0], x[1]), z)))
    f = lambda x, k: np.asarray(velocity(jnp.asarray(x), jnp.asarray(drive(k * dt))))  # noqa: E731
    g = lambda x: np.sqrt((add**2 + (mult * x) ** 2) / tau)  # noqa: E731
    x, path = np.stack(start), [np.stack(start)]
    for k, dB in enumerate(np.asarray(increments)):
        new = x + dt * f(x, k) + g(x) * dB
        if scheme == "heun":
            new = x + dt / 2 * (f(x, k) + f(new, k + 1)) + (g(x) + g(new)) / 2 * dB
        x = new
        path.append(x)
    return np.stack(path)


@pytest.mark.parametrize(
    "scheme", ["euler-maruyama", pytest.param("heun", marks=pytest.mark.rounding)]
)
def test_every_step_over_several_chunks_with_a_drive_that_varies(scheme):
    circuit, z = example_circuit()
    noise = Noise(0.01, 0.01, np.array([0.1, 0.2]), 0.05)
    start = State(jnp.zeros(N), jnp.ones(N))
    dt, increments = 0.05, single_path(60.0, 1200)
    drive = lambda t: jnp.asarray(z) * jnp.cos(0.3 * t)  # noqa: E731
    want = by_hand(circuit, drive, noise, dt, increments, start, scheme)
    got = simulate_increments(circuit, drive, noise, dt, increments, start, scheme=scheme)
    np.testing.assert_allclose(got.t, dt * np.arange(1201))
    np.testing.assert_allclose(got.state.y, want[:, 0], atol=1e-12)
    np.testing.assert_allclose(got.state.a, want[:, 1], atol=1e-12)


def test_a_sampled_drive_is_linear_between_the_saved_rows():
    circuit, z = example_circuit()
    noise, increments = Noise(0.01, 0.01), single_path(8.0, 160)
    ramp = z[None, :] * jnp.linspace(0, 1, 9)[:, None]
    by_samples = simulate_increments(circuit, ramp, noise, 0.05, increments, save_every=20)
    by_function = simulate_increments(
        circuit, lambda t: z * t / 8, noise, 0.05, increments, save_every=20
    )
    np.testing.assert_allclose(by_samples.state.y, by_function.state.y, atol=1e-12)


def test_the_path_depends_on_the_key_and_not_on_what_is_saved():
    circuit, z = example_circuit()
    noise, steps = Noise(0.01, 0.01), 1800
    run = lambda key, every: simulate_noisy(  # noqa: E731
        circuit, z, noise, 0.1, steps, key=jr.key(key), save_every=every
    )
    full = run(0, 1)
    for every in (100, steps):
        sparse = run(0, every)
        np.testing.assert_allclose(sparse.t, full.t[::every], rtol=1e-12)
        np.testing.assert_allclose(sparse.state.y, full.state.y[::every], rtol=1e-12)
        np.testing.assert_allclose(sparse.state.a, full.state.a[::every], rtol=1e-12)
    shorter = simulate_noisy(circuit, z, noise, 0.1, 600, key=jr.key(0))
    np.testing.assert_allclose(shorter.state.y, full.state.y[:601], rtol=1e-12)
    assert not np.allclose(run(1, 1).state.y[-1], full.state.y[-1])


def test_without_noise_it_is_the_differential_equation():
    circuit, z = example_circuit()
    want = simulate(circuit, z, 10.0).state
    got = simulate_noisy(
        circuit, z, Noise(), 0.01, 1000, key=jr.key(0), scheme="heun", save_every=10
    )
    np.testing.assert_allclose(got.state.y, want.y, atol=1e-5)
    np.testing.assert_allclose(got.state.a, want.a, atol=1e-5)
    assert got.ok and got.end_time == got.t[-1] and got.steady_time == np.inf


def test_a_leaky_neuron_has_half_the_squared_level_as_variance():
    """For any time constant, by the convention `S = sqrt(D(1/tau))`."""
    circuit = Circuit(W=np.zeros((N, N)), b0=1.0, sigma=1.0, tau_a=np.array([2.0, 6.0]))
    start = State(jnp.zeros(N), circuit.c)
    noise = Noise(additive_a=np.array([0.01, 0.02]))
    run = lambda key: simulate_noisy(  # noqa: E731
        circuit, np.zeros(N), noise, 0.1, 4000, start, key=key, save_every=400, scheme="heun"
    )
    a = np.asarray(jax.jit(jax.vmap(run))(jr.split(jr.key(0), 400)).state.a)[:, 1:]
    independent = a.reshape(-1, N)  # 40 ms apart
    variance = np.mean((independent - 1) ** 2, axis=0)
    # standard error 2.2 %
    np.testing.assert_allclose(variance, np.array([0.01, 0.02]) ** 2 / 2, rtol=0.08)


def test_levels_combine_independent_sources():
    circuit, _ = example_circuit()
    noise = Noise(3.0, np.array([1.0, 2.0]), multiplicative_y=np.array([2.0, 0.0]))
    levels = noise.levels(circuit, State(jnp.array([-2.0, 7.0]), jnp.ones(N)))
    np.testing.assert_allclose(levels.y, [5.0, 3.0])
    np.testing.assert_allclose(levels.a, [1.0, 2.0])
    amplitudes = noise.amplitudes(circuit, State(jnp.array([-2.0, 7.0]), jnp.ones(N)))
    np.testing.assert_allclose(amplitudes.y, np.array([5.0, 3.0]) / np.sqrt([2.0, 5.0]))


def test_noise_that_drives_a_below_zero_is_reported_even_between_saved_rows():
    circuit, z = example_circuit()
    start = State(jnp.zeros(N), jnp.ones(N))
    increments = np.zeros((40, 2, N))
    increments[13, 1, 0], increments[14, 1, 0] = -20.0, 20.0  # down and up again
    run = lambda **options: simulate_increments(  # noqa: E731
        circuit, z, Noise(0.0, 0.1), 0.01, jnp.asarray(increments), start, save_every=10, **options
    )
    got = run(throw=False)
    assert np.all(got.state.a > 0), "only an unsaved state was negative"
    assert not got.ok
    np.testing.assert_allclose(got.end_time, 0.1)  # the saved row before
    with pytest.raises(RuntimeError, match=r"`a` is not positive.*good until t = 0.1 of 0.4 ms"):
        run()
    with pytest.raises(RuntimeError, match="simulation failed"):
        eqx.filter_jit(run)()


def test_too_long_a_step_is_reported_and_not_hidden():
    """`a` relaxes from 1 to about 0; a step of more than `tau_a` overshoots."""
    circuit = Circuit(W=np.zeros((N, N)), b0=0.1, sigma=0.1, tau_a=1.0)
    start = State(jnp.zeros(N), jnp.ones(N))
    run = lambda dt, **options: simulate_noisy(  # noqa: E731
        circuit, np.zeros(N), Noise(), dt, 8, start, key=jr.key(0), **options
    )
    assert run(0.9).ok
    long = run(1.5, throw=False)
    assert not long.ok and np.any(long.state.a < 0), "`a` is not clipped"
    assert long.end_time == 0
    with pytest.raises(RuntimeError, match="shorter steps"):
        run(1.5)
    with pytest.warns(UserWarning, match="`dt` should be at most"):
        diverged = run(1e200, throw=False)
    assert not diverged.ok
    assert np.all(np.isnan(diverged.state.a[-1]))


# with z = 1 at rest there: modes of -0.128 +- 0.330i per ms, stable in Euler steps up to 2.04 ms
OSCILLATING = Circuit(W=np.eye(N))
AT_REST = State(jnp.full(N, 0.995), jnp.full(N, 0.2525))


def in_steps_of(dt, noise=0.01, z=None, **options):
    z = np.ones(N) if z is None else z
    noise = Noise(noise)
    return simulate_noisy(OSCILLATING, z, noise, dt, 8, AT_REST, key=jr.key(0), **options)


def test_steps_that_are_unstable_are_refused_with_those_that_would_do():
    with pytest.raises(
        ValueError, match="`dt` must be at most 2.03 ms.*not 2.1. Steps of up to"
    ) as e:
        in_steps_of(2.1)
    assert in_steps_of(float(str(e.value).split("up to ")[1].split()[0])).ok  # without a warning
    with pytest.warns(UserWarning, match="`dt` should be at most 2.03 ms.*not 2.1. Steps of up to"):
        assert in_steps_of(2.1, throw=False).failure_name == "stability"
    with pytest.raises(ValueError, match="`dt` must be at most"):  # while it is being traced, too
        jax.jit(lambda _: in_steps_of(2.1).ok)(0)
    traced = jax.jit(lambda dt: in_steps_of(dt, throw=False))
    assert FAILURES[int(traced(2.1).failure)] == "stability" and traced(2.1).end_time == 0
    assert traced(0.1).ok


def test_of_large_circuits_no_eigenvalues_are_computed(monkeypatch):
    monkeypatch.setattr(simulation_noise, "_MOST_JUDGED", 1)
    circuit = Circuit(np.eye(2), sigma=0.1)
    with pytest.warns(UserWarning, match="up to n = 1, not for 2 neurons"):
        found = simulate_noisy(circuit, np.ones(2), Noise(0.01), 0.01, 10, key=jr.key(0))
    assert found.ok


def test_of_steps_that_change_the_variances_there_is_word():
    with pytest.warns(
        UserWarning, match="`dt` = 0.5 ms change the variance .* by 3[0-9]%.*up to 0.18"
    ):
        in_steps_of(0.5)
    in_steps_of(0.5, noise=0.0)  # in which there are none
    in_steps_of(0.5, scheme="heun")
    strong = np.linspace(0, 40, 9)[:, None] * np.ones(N)
    with pytest.warns(UserWarning, match="`dt` should be at most .* under some of `z`, not 0.5"):
        in_steps_of(0.5, z=strong, throw=False)


def test_a_pulse_that_is_shorter_than_a_step_is_not_missed():
    """Whenever it begins, the integral of the response is that of the pulse."""
    circuit = Circuit(W=np.zeros((N, N)), b=1.0, b0=1.0, sigma=1.0, tau_y=8.0, tau_a=8.0)

    @jax.jit
    @jax.vmap
    def area(begin):
        pulse = lambda t: jnp.full(N, jnp.where((t >= begin) & (t < begin + 1), 1.0, 0.0))  # noqa: E731
        path = simulate_noisy(circuit, pulse, Noise(), 4.0, 40, key=jr.key(0))
        return jnp.sum(path.state.y[:, 0]) * 4.0

    begins = np.random.default_rng(0).uniform(1, 40, 50)
    # y decays at the rate 1/8: the area is that of the pulse, as far as it is looked at
    np.testing.assert_allclose(area(begins), 1.0, atol=0.45)
    with pytest.raises(Exception, match="`dt` must be at most 0.45 ms, or not traced"):
        varying = lambda t: jnp.full(N, jnp.sin(t))  # noqa: E731
        step = jax.jit(lambda dt: in_steps_of(dt, z=varying, noise=0.0).state.y)
        jax.block_until_ready(step(0.5))


def test_a_drive_that_is_not_finite_is_told_from_a_state_that_diverges():
    broken = lambda t: jnp.full(N, jnp.where(t < 0.3, 1.0, jnp.nan))  # noqa: E731
    assert in_steps_of(0.1, z=broken, throw=False).failure_name == "drive"


def test_multiplicative_noise_alone_keeps_a_positive():
    circuit, z = example_circuit()
    noise = Noise(multiplicative_y=0.5, multiplicative_a=0.5)
    run = lambda key: simulate_noisy(circuit, z, noise, 0.01, 2000, key=key, throw=False)  # noqa: E731
    assert np.all(jax.jit(jax.vmap(run))(jr.split(jr.key(0), 50)).failure == 0)


def test_trials_by_vmap_are_single_simulations():
    circuit, z = example_circuit()
    keys = jr.split(jr.key(5), 3)
    run = lambda key: simulate_noisy(circuit, z, Noise(0.01, 0.01), 0.1, 700, key=key)  # noqa: E731
    batch = jax.vmap(run)(keys)
    np.testing.assert_allclose(batch.state.y[2], run(keys[2]).state.y, atol=1e-12)


def test_gradient_against_finite_differences():
    circuit, z = example_circuit()
    increments = single_path(5.0, 100)

    def loss(parameters):
        circuit, z, level = parameters
        noise = Noise(level, 0.01, multiplicative_y=level)
        state = simulate_increments(circuit, z, noise, 0.05, increments).state
        return jnp.sum(state.y**2) + jnp.sum(state.a[-1])

    at = (circuit, z, jnp.asarray(0.1))
    loss_and_gradient = jax.jit(jax.value_and_grad(loss))
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, at))
    gradient = jax.tree.leaves(loss_and_gradient(at)[1])
    rng = np.random.default_rng(0)
    for k, leaf in enumerate(leaves):
        along = rng.normal(size=leaf.shape)
        moved = [
            loss_and_gradient(tree.unflatten([*leaves[:k], leaf + h * along, *leaves[k + 1 :]]))[0]
            for h in (1e-6, -1e-6)
        ]
        difference = (moved[0] - moved[1]) / 2e-6
        np.testing.assert_allclose(np.sum(gradient[k] * along), difference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [1536, 1537])
def test_gradients_do_not_depend_on_the_drive_after_the_end(steps):
    """Steps come in chunks, the last of which may end later."""
    circuit = Circuit(np.ones((1, 1)), tau_y=2.0, tau_a=10.0)

    def z(t):
        return jnp.where(t <= steps * 0.1 + 1e-9, 1.0, jnp.nan) * jnp.ones(1)

    def loss(level):
        path = simulate_noisy(circuit, z, Noise(level), 0.1, steps, key=jr.key(0))
        return jnp.mean(path.state.y**2)

    slope = jax.jit(jax.grad(loss))(0.001)
    assert np.isfinite(slope) and slope > 0


def test_float32():
    circuit, z = example_circuit()
    single = jax.tree.map(lambda x: x.astype(jnp.float32), circuit)
    start = State(jnp.zeros(N), jnp.ones(N))
    increments = single_path(20.0, 400)
    noise = Noise(0.01, 0.001, 0.01)
    got = simulate_increments(single, z, noise, 0.05, increments, start)
    want = simulate_increments(circuit, z, noise, 0.05, increments, start)
    assert got.t.dtype == got.state.y.dtype == jnp.float32
    np.testing.assert_allclose(got.state.y, want.state.y, atol=1e-5)
    drawn = simulate_noisy(single, z, noise, 0.05, 400, start, key=jr.key(0))
    assert drawn.state.a.dtype == jnp.float32 and drawn.end_time.dtype == jnp.float32


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dt": 0.0}, "`dt` must be finite and > 0 ms, not 0.0"),
        ({"dt": np.nan}, "`dt` must be finite and > 0 ms"),
        ({"steps": 0}, "`steps` must be at least 1, not 0"),
        ({"steps": 10.0}, "`steps` must be a whole number, not 10.0"),
        ({"save_every": 0}, "`save_every` must be at least 1, not 0"),
        ({"noise": 0.1}, "`noise` must be an `organics.Noise`, not 0.1"),
        ({"dt": np.ones(2)}, r"`dt` must be one number, not of shape \(2,\)"),
        ({"save_every": 3}, "not 10 and 3"),
        ({"initial": State(jnp.zeros(N), jnp.array([1.0, 0.0]))}, "`initial.a` must be > 0"),
        ({"initial": State(jnp.zeros(3), jnp.ones(N))}, "`initial.y` must have shape"),
        ({"z": np.ones((5, N))}, r"or \(11, 2\) with a sample for each save time"),
        ({"noise": Noise(np.ones(3))}, r"`additive_y` must be a scalar or have shape \(2,\)"),
        ({"noise": Noise(0, 0, 0, np.ones(3))}, "`multiplicative_a` must be a scalar or have"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_refusals(changed, message):
    arguments = {"z": np.ones(N), "noise": Noise(0.1), "dt": 0.1, "steps": 10} | changed
    with pytest.raises(ValueError, match=message):
        simulate_noisy(Circuit(W=np.ones((N, N))), **arguments, key=jr.key(0))


@pytest.mark.parametrize("name", ["additive_y", "additive_a", "multiplicative_y"])
@pytest.mark.parametrize("value", [-1.0, np.inf, np.array([1.0, np.nan])])
def test_levels_must_be_finite_and_not_negative(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and >= 0"):
        Noise(**{name: value})


def test_increments_must_fit_the_circuit():
    with pytest.raises(ValueError, match=r"`increments` must have shape \(steps, 2, 2\)"):
        simulate_increments(
            Circuit(W=np.ones((N, N))), np.ones(N), Noise(), 0.1, jnp.zeros((10, 2, 3))
        )
