"""Trained networks looked into: fixed points of steps, and proofs that they exist and attract."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from flint import arb, ctx
from programs import stored_run

from organics import plots
from organics.baselines import build
from organics.cli import run
from organics.inspection.fixed_points import fixed_points
from organics.inspection.network import _abscissa, _principal_plane, _within, inspect
from organics.inspection.step_map import StepMap
from organics.models.target import Marks
from organics.nn import ORGaNICs, circuit_at
from organics.proofs.balls import exact, exact_matrix, floats
from organics.proofs.gated import BallGated, contracts, prove_attraction
from organics.rest.search import steady_state
from organics.training import SequenceConfig, TaskConfig

N = 2


def circuit_layer(**options):
    options = {"recurrent": "free", "dt_tau_max_y": 0.5, "dt_tau_max_a": 0.5} | options
    return ORGaNICs(3, N, key=jr.key(3), dtype=np.float64, backend="scan", **options)


def test_one_unit_with_a_strong_weight_has_three_fixed_points():
    """Of `h <- tanh(2 h)`: 0, which repels, and the two others."""
    layer = build("rnn", 1, 1, key=jr.key(0), dtype=np.float64, backend="scan")
    layer = eqx.tree_at(lambda one: (one.W, one.bias), layer, (jnp.full((1, 1), 2.0), jnp.zeros(1)))
    starts = np.array([[-0.5], [0.01], [0.4], [2.0]])
    found = fixed_points(StepMap(layer), np.zeros(1), starts)
    root = scipy.optimize.brentq(lambda h: np.tanh(2 * h) - h, 0.5, 2)
    states = sorted(float(point.state[0]) for point in found)
    np.testing.assert_allclose(states, [-root, 0, root], atol=1e-9)
    assert [point.stable for point in found] == [True, True, False]
    assert found[-1].radius == pytest.approx(2, abs=1e-9)
    assert found[-1].unstable_directions == 1
    slope = 2 * (1 - root**2)
    np.testing.assert_allclose([point.radius for point in found[:2]], slope, rtol=1e-8)
    shares = {round(float(p.state[0]), 3): p.attracted for p in found}
    assert shares[round(root, 3)] == 0.75 and shares[round(-root, 3)] == 0.25


@pytest.mark.parametrize("rectified", [True, False])
def test_the_balls_have_the_equations_of_the_layer(rectified):
    layer = circuit_layer(rectified=rectified)
    steps = StepMap(layer)
    rng = np.random.default_rng(0)
    x = rng.normal(size=3)
    state = rng.uniform(0.1, 0.9, 4 * N) * np.where(np.arange(4 * N) == 0, -1, 1)
    weights = layer.cells[0].weights()
    rates = np.asarray(weights.rates).reshape(-1)
    with ctx.workprec(106):
        system = BallGated.of(weights, layer.options, x)
        numbers = exact(state)
        velocity = np.array([float(v.mid()) for v in system.imbalance(numbers)])
        J = floats(system.imbalance_jacobian(numbers))
        np.testing.assert_allclose([float(v.mid()) for v in system.tau], 1 / rates, rtol=1e-14)
    step = np.asarray(steps(jnp.asarray(x), jnp.asarray(state))) - state
    np.testing.assert_allclose(rates * velocity, step, atol=1e-14)
    M = np.asarray(steps.jacobian(jnp.asarray(x), jnp.asarray(state)))
    np.testing.assert_allclose(np.eye(4 * N) + rates[:, None] * J, M, atol=1e-13)


@pytest.mark.parametrize("recurrent", ["free", "identity"])
def test_a_fixed_point_is_proved_to_exist_and_to_attract(recurrent):
    layer = circuit_layer(recurrent=recurrent)
    steps = StepMap(layer)
    x = np.array([0.3, -0.2, 0.5])
    (point,) = fixed_points(steps, x, np.asarray(steps.start)[None])
    assert point.stable and point.attracted == 1
    weights = layer.cells[0].weights()
    found = prove_attraction(weights, layer.options, x, point.state)
    assert found.exists and found.attracts, found
    assert found.enclosure is not None
    for ball, value in zip(found.enclosure, point.state, strict=True):
        assert abs(float(ball.mid()) - value) < 1e-9 and float(ball.rad()) < 1e-20
    # with steps so long that it repels, it still exists
    rates = jnp.full_like(weights.rates, 40.0)
    longer = prove_attraction(weights._replace(rates=rates), layer.options, x, point.state)
    assert longer.exists and not longer.attracts
    with pytest.raises(ValueError, match="rectification"):
        BallGated.of(
            weights._replace(recurrent=jnp.eye(N)),
            dataclasses.replace(layer.options, rectified_after=True),
            x,
        )


def test_matrices_contract_if_and_only_if_the_largest_eigenvalue_is_below_1():
    rng = np.random.default_rng(1)
    M = rng.normal(size=(6, 6))
    M /= np.max(np.abs(np.linalg.eigvals(M)))
    with ctx.workprec(106):
        assert all(inequality.holds for inequality in contracts(exact_matrix(0.999 * M)))
        assert contracts(exact_matrix(0.999 * M))
        assert not contracts(exact_matrix(1.001 * M))
        blurred = exact_matrix(0.999 * M) + exact_matrix(np.zeros((6, 6))) * arb(0, 1)
        assert all(inequality.holds for inequality in contracts(blurred))
        wide = exact_matrix(0.999 * M)
        wide[0, 0] = wide[0, 0] + arb(0, 0.5)
        assert not all(inequality.holds for inequality in contracts(wide))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_fixed_point_is_found_where_time_constants_follow_the_state(layers):
    """Where Newton's method on the change of a step runs to states that are merely slow."""
    layer = circuit_layer(
        recurrent="identity", drive="unit", time_constants="modulated-together", layers=layers
    )
    cells = [
        eqx.tree_at(lambda c: c.modulation, cell, jax.tree.map(lambda w: w + 6.0, cell.modulation))
        for cell in layer.cells
    ]
    layer = eqx.tree_at(lambda one: one.cells, layer, tuple(cells))
    steps, x = StepMap(layer), np.array([0.3, -0.2, 0.5])
    rng = np.random.default_rng(0)
    starts = np.asarray(steps.start) + rng.uniform(-0.9, 0.0, (6, 4 * N * layers))
    (point,) = fixed_points(steps, x, starts)
    assert point.residual < 1e-12
    # gains held, rest is that of a circuit; and the gains are those that the gates say there
    circuit, z = circuit_at(layer, jnp.asarray(x), steps.state(jnp.asarray(point.state)))
    rest = steady_state(circuit, z).state
    np.testing.assert_allclose(point.output, rest.y, rtol=1e-8)
    after = steps(jnp.asarray(x), jnp.asarray(point.state))
    np.testing.assert_allclose(after, point.state, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n", [2, 8])  # all sides are tried, or some
def test_silence_that_grows_on_one_side_is_not_stable(n):
    """A neuron excites itself by `1.5 relu(y)`: from `y > 0` it goes away, from `y < 0` it comes
    back."""
    layer = ORGaNICs(
        1, n, key=jr.key(0), recurrent="free", sigma=0.1, initial_normalization=0.1,
        dt_tau_max_y=0.1, dt_tau_max_a=0.9, dt_tau_max_gates=0.5, backend="scan",
    )  # fmt: skip
    layer = eqx.tree_at(lambda la: la.cells[0].W_r, layer, 1.5 * jnp.eye(n))
    steps, x = StepMap(layer), np.zeros(1)
    below = np.array(steps.settled(jnp.zeros(1), steps.start, 500))
    below[:n] = -1e-3
    found = fixed_points(steps, x, below[None])
    silent = next(point for point in found if np.all(np.abs(point.state[:n]) < 1e-9))
    assert not silent.stable and silent.unstable_directions >= 1
    near = silent.state.copy()
    near[:n] = 1e-6
    away = np.asarray(steps.settled(jnp.zeros(1), jnp.asarray(near), 500))
    assert np.max(np.abs(away[:n])) > 0.1
    calm = eqx.tree_at(lambda la: la.cells[0].W_r, layer, 0.5 * jnp.eye(n))
    assert fixed_points(StepMap(calm), x, below[None])[0].stable


def test_the_abscissa_is_that_of_the_circuit_at_the_fixed_point():
    """Gains that no potential moves, so one circuit: `y = 0`, which repels, and two others."""
    layer = circuit_layer(rectified=False)
    cell, W_r = layer.cells[0], jnp.array([[2.0, -1.0], [-1.0, 2.0]])
    cell = eqx.tree_at(
        lambda c: (c.W_b0y, c.W_b0a, c.W_by, c.W_ba, c.W_r), cell, (*jnp.zeros((4, N, N)), W_r)
    )
    layer = eqx.tree_at(lambda one: one.cells[0], layer, cell)
    steps, x = StepMap(layer), np.zeros(3)
    start = np.asarray(steps.start)
    starts = np.array([np.concatenate([y, start[N:]]) for y in ((0.1, 0), (0, 0.1), (0, 0))])
    found = fixed_points(steps, x, starts)
    assert [point.stable for point in found] == [True, True, False]
    for point in found:
        M = np.asarray(steps.jacobian(jnp.asarray(x), jnp.asarray(point.state)))
        slowest = np.max(np.linalg.eigvals((M - np.eye(4 * N))[: 2 * N, : 2 * N]).real)
        abscissa = _abscissa(layer, steps, x, point)
        assert abscissa == pytest.approx(slowest / layer.dt, rel=1e-6)
        assert (abscissa < 0) == point.stable


CONFIG = TaskConfig(task="flip-flop", steps=8, units=N, epochs=1, epoch_steps=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose network was not trained: with `W_r = I` and no pulses all activity decays."""
    return stored_run(CONFIG, tmp_path_factory.mktemp("runs") / "flip-flop")


def test_with_identity_recurrence_and_no_input_there_is_one_fixed_point_without_activity(folder):
    """`y` is divided by the pool whatever the gains are, so that nothing is held."""
    found = inspect(folder, trials=3, starts=4, prove=True)
    (rest,) = found.rests
    (one,) = rest.found
    np.testing.assert_allclose(one.point.output, 0, atol=1e-9)
    assert one.point.stable and one.point.attracted == 1
    assert one.attraction is not None and one.attraction.attracts, "all neurons are silent"
    # its spectrum is that of the circuit with the gains held: at y = 0 both have -1/tau
    assert one.circuit_abscissa is not None and one.circuit_abscissa < 0
    assert [number for _, number in found.patterns] == [None] * 8
    plane = found.plane
    assert plane.courses.shape == (3, 8, 2) and plane.explained.sum() == pytest.approx(1)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
    shown = {rest.condition.name: [(plane.place(one.point.output), True)]}
    figure = plots.rest_plane(plane.courses, plane.explained, shown)
    assert len(figure.axes) == 1
    again = inspect(folder, trials=3, starts=4)
    np.testing.assert_array_equal(again.rests[0].found[0].point.state, one.point.state)


def test_the_command_says_what_is_held(folder, tmp_path, capsys):
    picture = tmp_path / "plane.png"
    words = ["inspect", str(folder), "--trials", "3", "--starts", "4"]
    assert run([*words, "--out", str(picture)]) == 0
    assert "0 of 8 outputs are held" in capsys.readouterr().out
    assert picture.exists()
    assert run([*words, "--check", "--json"]) == 1
    assert '"fixed_points"' in capsys.readouterr().out


def test_other_runs_are_refused(tmp_path, folder):
    other = stored_run(SequenceConfig(task="sdigits", units=2), tmp_path / "other")
    with pytest.raises(ValueError, match="made on the fly"):
        inspect(other)
    with pytest.raises(ValueError, match="trials"):
        inspect(folder, trials=0)


def test_the_step_map_is_the_layer():
    layer = circuit_layer(layers=2)
    steps = StepMap(layer)
    x = jr.normal(jr.key(0), (5, 3), np.float64)
    outputs, _ = layer(x)
    courses = eqx.filter_jit(StepMap.course)(steps, x)
    np.testing.assert_allclose(jax.vmap(steps.output)(courses), outputs, atol=1e-14)
    assert steps.start.shape == (8 * N,)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_signed_drive_answers_an_input_linearly_in_the_same_step(layers):
    """So it cannot both answer a pulse and hold what was before: of the flip-flop the squared error
    is at least p (1 - p) at every step after the first. A rectified drive can."""
    x, none = jnp.asarray([0.7, -0.2, 0.4]), jnp.zeros(3)
    rng = np.random.default_rng(2)
    state = jnp.asarray(rng.uniform(0.1, 0.9, 4 * N * layers))
    bends = {}
    for drive in ("signed", "rectified"):
        steps = StepMap(circuit_layer(layers=layers, drive=drive))
        up, down, held = (steps.output(steps(one, state)) for one in (x, -x, none))
        bends[drive] = float(jnp.max(jnp.abs(up + down - 2 * held)))
    assert bends["signed"] < 1e-14 < 1e-3 < bends["rectified"]


def test_the_least_error_of_such_a_network_on_the_flip_flop():
    """The answer of a bit that holds h is a + b x for the pulse x: least squares over x and h."""
    p = 0.3
    x = np.array([1.0, -1.0, 0.0])
    weight = np.array([p / 2, p / 2, 1 - p])
    wanted = np.array([1.0, -1.0, 1.0])  # h = 1
    root = np.sqrt(weight)
    design = np.stack([np.ones(3), x], axis=1) * root[:, None]
    _, residual, *_ = np.linalg.lstsq(design, wanted * root, rcond=None)
    assert residual[0] == pytest.approx(p * (1 - p), abs=1e-12)


def test_what_follows_the_end_of_a_trial_is_not_looked_at():
    loss = np.array([[0.0, 1, 1, 0], [1, 0, 2, 0], [0, 0, 0, 1]])
    within = _within(Marks(loss, loss > 1), loss.shape)
    np.testing.assert_array_equal(within, [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    assert _within(None, (2, 3)).all()
    outputs = np.random.default_rng(0).normal(size=(within.sum(), 5))
    plane = _principal_plane(outputs, within)
    np.testing.assert_array_equal(np.isnan(plane.courses[..., 0]), ~within)
    np.testing.assert_allclose(plane.courses[within], [plane.place(one) for one in outputs])
