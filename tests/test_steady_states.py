from functools import partial

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from circuits import seeds, sizes, wide_circuit
from hypothesis import assume, given
from hypothesis import strategies as st

from organics.circuit.circuit import Circuit, State, random_drive
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import newton as newton_for_all
from organics.linear.jacobian import jacobian
from organics.rest import algorithm1, balance, newton
from organics.rest.algorithm1 import algorithm_1_start, algorithm_1_step
from organics.rest.closed_form import closed_form
from organics.rest.point import METHODS
from organics.rest.search import steady_state
from organics.rest.system import DrivenCircuit

# each compiled once for a kind of circuit and a size
solve = eqx.filter_jit(steady_state)
solve_all = jax.jit(jax.vmap(steady_state))
jacobian_at = jax.jit(jacobian)


def paper_trials(n, trials, norm, *, rectified=False, seed=0, dtype=np.float64):
    return _paper_trials(seed, n, trials, norm, rectified, dtype)


@partial(jax.jit, static_argnums=(1, 2, 4, 5))
def _paper_trials(seed, n, trials, norm, rectified, dtype):
    k_circuit, k_drive = jr.split(jr.key(seed))
    circuits = jax.vmap(lambda k: Circuit.random(k, n, norm, rectified=rectified, dtype=dtype))(
        jr.split(k_circuit, trials)
    )
    return circuits, jax.vmap(lambda k: random_drive(k, n, dtype=dtype))(jr.split(k_drive, trials))


def residual_by_hand(circuit, state, z):
    """The equations as written, in NumPy, for one circuit or several."""
    y, a, z, b, W = (np.asarray(x) for x in (*state, z, circuit.b, circuit.W))
    c = np.square(np.asarray(circuit.b0) * circuit.sigma)
    q = np.maximum(y, 0) if circuit.rectified else y
    received = q if circuit.W_r is None else np.einsum("...ij,...j", circuit.W_r, q)
    dy = -y + b * z + (1 - np.sqrt(np.maximum(a, 0))) * received
    da = -a + c + np.einsum("...ij,...j", W, q**2 * np.maximum(a, 0))
    return np.linalg.norm(np.concatenate([dy, da], axis=-1), axis=-1)


def abscissa(circuit, state):
    return np.linalg.eigvals(jacobian_at(circuit, state)).real.max()


firing_rates = jax.jit(lambda circuit, state: circuit.firing_rates(state))


@pytest.mark.rounding
@given(seed=seeds, n=sizes, rectified=st.booleans())
def test_closed_form_is_at_rest_and_normalizes(seed, n, rectified):
    circuit, z = wide_circuit(seed, n, rectified=rectified)
    found, z = solve(circuit, z), np.asarray(z)
    assert found.converged and found.method_name == "closed form" and found.iterations == 0
    y, a = np.asarray(found.state.y), np.asarray(found.state.a)
    scale = np.linalg.norm(y) + np.linalg.norm(a) + np.linalg.norm(np.asarray(circuit.b) * z)
    assert residual_by_hand(circuit, found.state, z) <= 1e-13 * scale
    np.testing.assert_allclose(found.residual, residual_by_hand(circuit, found.state, z), atol=1e-9)
    # the normalization equation, written with rates
    d = np.asarray(circuit.b) * z
    drive = np.maximum(d, 0) if rectified else d
    pool = np.square(np.asarray(circuit.b0) * circuit.sigma) + np.asarray(circuit.W) @ drive**2
    rates = jax.device_get(firing_rates(circuit, found.state))
    np.testing.assert_allclose(rates.y_plus, np.maximum(d, 0) ** 2 / pool, rtol=1e-12)
    if rectified:
        np.testing.assert_allclose(y[d < 0], d[d < 0])
    else:
        np.testing.assert_allclose(rates.y_minus, np.maximum(-d, 0) ** 2 / pool, rtol=1e-12)


def test_equal_gains_cancel_and_give_the_normalization_equation():
    rng = np.random.default_rng(0)
    W, z, sigma = rng.uniform(size=(4, 4)), rng.normal(size=4), 0.3
    state = closed_form(Circuit(W, b=0.7, b0=0.7, sigma=sigma), jnp.asarray(z))
    want = np.maximum(z, 0) ** 2 / (sigma**2 + W @ z**2)
    np.testing.assert_allclose(np.maximum(state.y, 0) ** 2, want, rtol=1e-12)


@pytest.mark.parametrize(("n", "rectified"), [(1, False), (10, False), (50, True)])
def test_spectral_norm_one_always_converges(n, rectified):
    circuits, drives = paper_trials(n, 100, 1.0, rectified=rectified, seed=n)
    found = solve_all(circuits, drives)
    assert np.all(found.converged)
    assert np.max(found.residual) <= 1e-10
    assert set(np.asarray(found.found.method)) <= {
        METHODS.index("iteration"),
        METHODS.index("newton"),
    }
    assert np.all(np.asarray(found.state.a) >= np.asarray(circuits.c) * (1 - 1e-12))


solve_with_norm = jax.jit(
    jax.vmap(lambda c, z, norm: steady_state(c, z, spectral_norm=norm), in_axes=(0, 0, None))
)


@pytest.mark.rounding
@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_a_known_spectral_norm_changes_nothing_and_a_wrong_one_nothing_that_counts(norm):
    circuits, drives = paper_trials(5, 16, norm, seed=8)
    want = solve_all(circuits, drives)
    got, wrong = (solve_with_norm(circuits, drives, known) for known in (norm, 3 - norm))
    np.testing.assert_array_equal(got.found.method, want.found.method)
    np.testing.assert_allclose(got.state.y, want.state.y, atol=1e-9)
    np.testing.assert_allclose(got.state.a, want.state.a, atol=1e-9)
    residual = residual_by_hand(circuits, wrong.state, drives)
    np.testing.assert_allclose(wrong.residual, residual, rtol=1e-6, atol=1e-13)
    assert np.all(residual[np.asarray(wrong.converged)] <= 1e-10)


@pytest.mark.rounding
@given(
    seed=seeds, n=sizes, rectified=st.booleans(), norm=st.sampled_from([0.1, 0.9, 1.0, 2.0, 3.0])
)
def test_what_counts_as_converged_is_at_rest(seed, n, rectified, norm):
    circuit, z = wide_circuit(seed, n, recurrence=norm, rectified=rectified)
    found = solve(circuit, z)
    residual = residual_by_hand(circuit, found.state, z)
    size = np.linalg.norm(found.state.y) + np.linalg.norm(found.state.a) + np.max(circuit.c)
    np.testing.assert_allclose(found.residual, residual, rtol=1e-6, atol=1e-14 * (1 + size))
    if found.converged:
        assert residual <= 1e-10 * (1 + size)
        assert np.all(np.asarray(found.state.a) > 0)
    assert found.converged or norm > 1


@given(seed=seeds)
def test_an_explicit_identity_gives_the_closed_form(seed):
    circuit, z = wide_circuit(seed, 12, rectified=seed % 2 == 1)
    identity = jax.device_put(np.eye(12))
    explicit = eqx.tree_at(lambda c: c.W_r, circuit, identity, is_leaf=lambda leaf: leaf is None)
    want, got = solve(circuit, z), solve(explicit, z)
    assert got.converged and got.method_name != "closed form"
    np.testing.assert_allclose(got.state.a, want.state.a, rtol=1e-9)
    np.testing.assert_allclose(got.state.y, want.state.y, rtol=1e-9, atol=1e-9)


@jax.jit
@jax.vmap
def long_simulations(circuit, z, time=2000.0):
    """The circuit from another start, by another solver."""
    solution = dfx.diffeqsolve(
        dfx.ODETerm(lambda t, state, args: circuit.velocity(state, z)),  # noqa: ARG005
        dfx.Dopri8(),
        0.0,
        time,
        None,
        State(0.01 + 0 * z, circuit.c + 0.2),
        stepsize_controller=dfx.PIDController(rtol=1e-7, atol=1e-9),
        max_steps=20_000,
        throw=False,
    )
    return State(solution.ys.y[0], solution.ys.a[0])


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0])
def test_steady_state_is_where_a_long_simulation_ends(norm):
    circuits, drives = paper_trials(5, 16, norm, seed=3)
    found = solve_all(circuits, drives)
    ends = long_simulations(circuits, drives)
    same = np.linalg.norm(np.asarray(found.state.y) - ends.y, axis=1) < 1e-5
    settled = residual_by_hand(circuits, ends, drives) < 1e-6
    # wherever the simulation settles, `steady_state` found that very state; several stable
    # states, which the two starts may tell apart, appear only above 1
    if norm <= 1:
        assert settled.all() and same.all()
    else:
        assert settled.mean() > 0.8
        assert np.mean(same[settled]) >= 0.9
    assert np.all(np.asarray(found.converged)[settled])


def test_no_steady_state_is_never_reported_as_one():
    # the pool gain of neuron 2 is 5 * 0.8^2 > 1 and nothing reduces it: a grows
    circuit = Circuit(5 * np.eye(2), np.diag([1.0, 0.0]), b=1.0, b0=1.0, sigma=0.5)
    found = solve(circuit, np.array([0.6, 0.8]))
    assert not found.converged
    assert np.all(np.isfinite(found.residual)) and found.residual > 0.1
    # weak recurrence brings a steady state back, far away
    circuit = Circuit(5 * np.eye(2), np.diag([1.0, 0.1]), b=1.0, b0=1.0, sigma=0.5)
    found = solve(circuit, np.array([0.6, 0.8]))
    assert found.converged and found.state.a[1] > 50


def test_a_state_so_far_away_that_its_terms_overflow_is_no_steady_state():
    circuit = Circuit(
        [[1.0]], [[0.0]], b=0.7406142393046513, b0=0.36086841156719096, sigma=0.8871127946168271,
        tau_y=1.310747735748408, tau_a=15.880237411770395, rectified=True,
    )  # fmt: skip
    assert not solve(circuit, np.array([1.8912892294158154])).converged


@given(
    r=st.floats(0.05, 1),
    parameters=st.tuples(*[st.floats(0.02, 1)] * 4),
    rectified=st.booleans(),
)
def test_negative_recurrence_of_one_neuron_bounds_what_can_be_stable(r, parameters, rectified):
    """With `W_r = -r` and `s = sqrt(a)`, `y > 0` rests where `c/s^2 + w p^2/(1 + r - r s)^2 = 1`.

    For `s < (1 + r)/r` the left side is convex, with a minimum by Hoelder's inequality. Rest is
    stable at the smaller of the two roots; beyond are saddles. So a stable state exists if and only
    if the minimum is below 1. With `r = 1` and all else close to 1 it is not.
    """
    w, p, b0, sigma = parameters
    minimum = ((r * b0 * sigma) ** (2 / 3) + (w**0.5 * p) ** (2 / 3)) / (1 + r) ** (2 / 3)
    assume(abs(minimum - 1) > 1e-3)
    circuit = Circuit([[w]], [[-r]], b=p, b0=b0, sigma=sigma, rectified=rectified)
    found = solve(circuit, jnp.ones(1))
    stable = found.converged and abscissa(circuit, found.state) < 0
    assert stable == (minimum < 1)


def test_a_saddle_is_passed_over_where_another_state_is_found():
    circuit = Circuit([[0.84594733]], [[-1.0]], b=0.92461562, b0=1.0, sigma=0.31517131**0.5)
    saddle = State(jnp.array([0.87165055]), jnp.array([0.88216406]))  # where Newton ends
    assert residual_by_hand(circuit, saddle, jnp.ones(1)) < 1e-7
    assert abscissa(circuit, saddle) > 0
    found = solve(circuit, jnp.ones(1))
    assert found.converged and found.method_name == "relaxation"
    assert abscissa(circuit, found.state) < 0


@pytest.mark.parametrize("gain", [1 - 1e-3, 1.0, 1 + 1e-9, 1.5])
def test_the_edge_of_existence_without_recurrence(gain):
    circuit = Circuit([[gain]], [[0.0]], b=1.0, b0=1.0, sigma=0.5)
    found = solve(circuit, np.array([1.0]))
    assert bool(found.converged) == (gain < 1)
    if gain < 1:
        np.testing.assert_allclose(found.state.a, 0.25 / (1 - gain), rtol=1e-8)


def test_symmetric_states_at_zero_drive_are_stable_ones():
    circuit = Circuit([[1.0]], [[2.0]], b=0.5, b0=0.5, sigma=0.1)
    found = solve(circuit, np.zeros(1))  # (0, c) exists too, and is unstable
    assert found.converged
    assert abscissa(circuit, found.state) < 0
    np.testing.assert_allclose(found.state.a, 0.25, rtol=1e-9)


@pytest.mark.parametrize("rectified", [False, True])
def test_derivatives_are_those_of_finite_differences(rectified):
    circuit, z = wide_circuit(4, 3, recurrence=0.9, rectified=rectified)
    rng = np.random.default_rng(1)
    weights = State(jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=3)))
    leaves, structure = jax.tree.flatten((circuit, z))

    def readout(leaves):
        state = steady_state(*jax.tree.unflatten(structure, leaves)).state
        return jnp.sum(weights.y * state.y) + jnp.sum(weights.a * state.a)

    @jax.jit
    def value_and_derivatives(leaves, directions):
        value, reverse = jax.value_and_grad(readout)(leaves)
        return value, reverse, jax.jvp(readout, (leaves,), (directions,))[1]

    leaves = [np.asarray(leaf) for leaf in leaves]
    directions = [rng.normal(size=leaf.shape) * leaf for leaf in leaves]
    _, reverse, forward = value_and_derivatives(leaves, directions)
    for i, direction in enumerate(directions):
        step = 1e-5
        moved = [
            value_and_derivatives(
                [*leaves[:i], leaves[i] + sign * step * direction, *leaves[i + 1 :]], directions
            )[0]
            for sign in (1, -1)
        ]
        want = (moved[0] - moved[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(reverse[i] * direction), want, rtol=1e-6, atol=1e-9)
    total = sum(np.sum(g * d) for g, d in zip(reverse, directions, strict=True))
    np.testing.assert_allclose(forward, total, rtol=1e-9)
    gradient, _ = jax.tree.unflatten(structure, reverse)
    for tau in (gradient.tau_y, gradient.tau_a):  # time constants do not move the steady state
        np.testing.assert_array_equal(tau, 0)


def test_second_derivatives():
    circuit, z = wide_circuit(4, 2, recurrence=0.9)

    @jax.jit
    @jax.value_and_grad
    def gradient(scale):
        return jax.grad(lambda s: jnp.sum(steady_state(circuit, s * z).state.y ** 2))(scale)

    want = (gradient(1.0 + 1e-5)[0] - gradient(1.0 - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(gradient(1.0)[1], want, rtol=1e-6)


@pytest.mark.parametrize("norm", [None, 1.0, 2.0])
def test_single_precision(norm):
    circuits, drives = paper_trials(6, 20, norm, dtype=np.float32)
    found = solve_all(circuits, drives)
    assert found.state.y.dtype == found.residual.dtype == np.float32
    converged = np.asarray(found.converged)
    assert np.mean(converged) > 0.9
    assert np.max(np.asarray(found.residual)[converged]) < 1e-4


@jax.jit
@jax.vmap
def by_algorithm_1(circuit, z):
    start = algorithm_1_start(circuit, z)
    return jax.lax.fori_loop(0, 40, lambda _, s: algorithm_1_step(circuit, s, z), start)


def test_algorithm_1_contracts_to_the_steady_state():
    circuits, drives = paper_trials(10, 100, 1.0, seed=1)
    want, found = solve_all(circuits, drives).state, by_algorithm_1(circuits, drives)
    known = np.all(np.asarray(circuits.b0) * circuits.sigma > 1e-3, axis=1)
    assert known.sum() > 60
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(got[known], np.asarray(expected)[known], atol=1e-3)


matrix_free = eqx.filter_jit(lambda circuit, z: steady_state(circuit, z, matrix_free=True))


@pytest.mark.parametrize(
    ("n", "norm", "rectified", "dtype"),
    [
        (1, 0.5, True, np.float64),
        (30, 1.0, True, np.float32),
        (30, 1.0, False, np.float64),
    ],
)
def test_matrix_free_finds_the_same_states_for_many_drives(n, norm, rectified, dtype):
    circuit, z = wide_circuit(n, n, recurrence=norm, rectified=rectified, dtype=dtype)
    rng = np.random.default_rng(n)
    drives = rng.normal(size=(40, n))
    drives *= rng.uniform(size=(40, 1)) / np.linalg.norm(drives, axis=1, keepdims=True)

    @jax.jit
    def both(drives):
        mapped = lambda **options: jax.vmap(lambda z: steady_state(circuit, z, **options))(drives)  # noqa: E731
        # the latter as `Normalization` has it
        return mapped(), mapped(matrix_free=True, spectral_norm=1.0)

    want, got = both(drives.astype(dtype))
    assert got.state.y.dtype == dtype and np.all(want.converged) and np.all(got.converged)
    accuracy = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(got.state.y, want.state.y, rtol=accuracy, atol=accuracy)
    np.testing.assert_allclose(got.state.a, want.state.a, rtol=accuracy)


def test_matrix_free_derivatives_are_those_of_a_factorization():
    n = 12
    circuit, z = wide_circuit(4, n, recurrence=1.0, rectified=True)
    rng = np.random.default_rng(1)
    drives = np.array([[1], [-0.5], [0.1]]) * np.asarray(z)
    weights = rng.normal(size=(2, n))

    def readout(options):
        def value(circuit, drives):
            states = jax.vmap(lambda z: steady_state(circuit, z, **options).state)(drives)
            return jnp.sum((states.y @ weights[0]) ** 2 + states.a @ weights[1])

        return value

    dense, free = readout({}), readout({"matrix_free": True})

    @jax.jit
    def derivatives(circuit, drives, directions):
        want = jax.grad(dense, argnums=(0, 1))(circuit, drives)
        _, forward = jax.linearize(free, circuit, drives)
        got = jax.linear_transpose(forward, circuit, drives)(1.0)
        return want, got, forward(directions, jnp.zeros_like(drives))

    directions = jax.tree.map(lambda leaf: np.asarray(leaf) * rng.normal(size=leaf.shape), circuit)
    want, got, forward = derivatives(circuit, drives, directions)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-8, atol=1e-9 * np.max(np.abs(w)))
    total = jax.tree.map(lambda g, d: np.sum(g * d), want[0], directions)
    np.testing.assert_allclose(forward, sum(jax.tree.leaves(total)), rtol=1e-8)


def test_matrix_free_derivatives_are_those_of_finite_differences():
    circuit, z = wide_circuit(4, 3, recurrence=0.9)
    rng = np.random.default_rng(3)
    at = [np.asarray(x) for x in (circuit.W, circuit.W_r, z)]
    weights = State(*rng.normal(size=(2, 3)))
    first, second = ([rng.normal(size=x.shape) for x in at] for _ in range(2))

    def value(W, W_r, z):
        moved = eqx.tree_at(lambda c: (c.W, c.W_r), circuit, (W, W_r))
        state = steady_state(moved, z, matrix_free=True).state
        return state.y @ weights.y + state.a @ weights.a

    @jax.jit
    def derivatives(at):
        """The value, its slope along the first directions, and the slope's gradient."""

        def slope(at):
            value_there, gradient = jax.value_and_grad(value, argnums=(0, 1, 2))(*at)
            return sum(jnp.sum(g * d) for g, d in zip(gradient, first, strict=True)), value_there

        return jax.value_and_grad(slope, has_aux=True)(at)

    def differences(directions):
        ends = (
            derivatives([x + h * d for x, d in zip(at, directions, strict=True)])[0]
            for h in (1e-5, -1e-5)
        )
        return (np.array(next(ends)) - np.array(next(ends))) / 2e-5

    (slope, _), curved = derivatives(at)
    np.testing.assert_allclose(slope, differences(first)[1], rtol=1e-6)
    along = sum(np.sum(g * d) for g, d in zip(curved, second, strict=True))
    np.testing.assert_allclose(along, differences(second)[0], rtol=1e-6)


sweep, krylov = jax.jit(algorithm1.sweep), jax.jit(newton.newton_krylov)


def judge(circuit, state, z):
    """The circuit under its drive, and the judgement of the state."""
    driven = DrivenCircuit(circuit, z)
    return driven, balance.judge(driven, jnp.concatenate(state))


def test_sweeps_go_on_while_the_residual_rises_for_a_moment():
    # recurrence along a chain, from a state whose modulators are far too weak
    circuit = Circuit(2.5 * np.eye(4) + 0.1, np.eye(4, k=1), b=0.9, b0=0.5, sigma=0.5)
    z = jnp.ones(4) / 2
    y, a = solve(circuit, z).state
    driven, start = judge(circuit, State(y, a / 4), z)
    swept, count = sweep(driven, 1e-5, start)
    assert swept.error <= 1e-5 and count > 4
    # nothing is lost where they lead away: what comes back is no worse than the start
    hopeless = Circuit(50 * np.eye(4), np.eye(4, k=1), b=1.0, b0=0.1, sigma=0.5)
    driven, start = judge(hopeless, State(y, a / 4), z)
    swept, _ = sweep(driven, 1e-5, start)
    assert swept.error > 1e-5 and swept.residual <= start.residual


@pytest.mark.rounding
def test_matrix_free_falls_back_to_the_other_routes():
    # weak recurrence of the second neuron, whose pool gain exceeds 1: the state is far away
    circuit = Circuit(5 * np.eye(2), np.diag([1.0, 0.05]), b=1.0, b0=1.0, sigma=0.5)
    z = jnp.array([0.6, 0.8])
    driven, start = judge(circuit, algorithm_1_start(circuit, z), z)
    swept, _ = sweep(driven, 1e-12, start)
    direct = krylov(driven, 1e-12, swept, True).found
    assert not direct.converged
    want, got = solve(circuit, z), matrix_free(circuit, z)
    assert got.converged and got.found.method == want.found.method
    np.testing.assert_allclose(got.state.a, want.state.a, rtol=1e-9)
    # and where there is no steady state, none is reported
    circuit = Circuit(5 * np.eye(2), np.diag([1.0, 0.0]), b=1.0, b0=1.0, sigma=0.5)
    assert not matrix_free(circuit, z).converged


def test_matrix_free_tells_a_saddle_from_a_stable_state_in_small_circuits_only():
    for n, stable in ((1, True), (9, False)):  # of the circuit above, so many, uncoupled
        identity = np.eye(n)
        circuit = Circuit(
            0.84594733 * identity, -identity, b=0.92461562, b0=1.0, sigma=0.31517131**0.5
        )
        found = matrix_free(circuit, np.ones(n))
        assert found.converged
        assert (abscissa(circuit, found.state) < 0) == stable


def test_matrix_free_reports_no_state_where_newton_stalls_at_none():
    circuit = Circuit([[0.7]], [[-1.0]], b=0.9, b0=1.0, sigma=0.9)
    assert not matrix_free(circuit, np.ones(1)).converged


def test_without_recurrent_weights_matrix_free_is_the_closed_form():
    circuit, z = wide_circuit(1, 3)
    assert matrix_free(circuit, z).method_name == "closed form"


def test_refusals():
    circuit = Circuit(np.ones((2, 2)), np.eye(2))
    with pytest.raises(ValueError, match="`z` must have shape"):
        steady_state(circuit, np.ones(3))
    with pytest.raises(ValueError, match="`z` must be finite"):
        steady_state(circuit, np.array([1.0, np.inf]))
    with pytest.raises(ValueError, match="W_r=None"):
        closed_form(circuit, jnp.ones(2))
    for tolerance in (0.0, np.nan, 1.0):
        with pytest.raises(ValueError, match=r"`tolerance` must be a number in \(0, 1\)"):
            steady_state(circuit, np.ones(2), tolerance=tolerance)
    for norm in (-1.0, np.nan):
        with pytest.raises(ValueError, match="`spectral_norm` must be one number >= 0"):
            steady_state(circuit, np.ones(2), spectral_norm=norm)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_equation_hides_behind_a_larger_one(dtype):
    """With drives decades apart, the small one's equation is judged by its own terms. Here it
    balances nowhere; with `W_r = I` its `y` has all its digits."""
    W = np.eye(2, dtype=dtype)
    circuit = Circuit(
        W, np.array([[-0.5, -0.2], [0, 0.5]], dtype), b=1.0, b0=1.0, sigma=10.0, rectified=True
    )
    z = [1e-9, -1e4] if dtype == np.float64 else [1e-3, -1e2]
    assert not solve(circuit, np.array(z, dtype)).converged
    at_rest = solve(Circuit(W, W, rectified=True), np.array([-0.005, 1000], dtype))
    assert at_rest.converged
    np.testing.assert_allclose(at_rest.state.y, [-0.0025, 1.0], rtol=1e-5)


def _near_one(seed, excess):
    """A circuit with `a = 1 + excess` in its first neuron, which hardly has any drive: neither that
    nor the recurrent input, times `1 - sqrt(a)`, is large beside the rounding of `a`."""
    n, rng = 20, np.random.default_rng(seed)
    W_r, W = rng.normal(size=(n, n)), rng.uniform(size=(n, n)) / (2 * n)
    W_r *= 0.9 / np.linalg.norm(W_r, 2)
    z, sigma = rng.normal(size=n), np.full(n, 0.5)
    z = z / np.linalg.norm(z) * np.where(np.arange(n) > 0, 1, 1e-6)
    for _ in range(3):
        found = _found_with(W, W_r, z, sigma)
        sigma[0] = np.sqrt(1 + excess - (found.state.a[0] - sigma[0] ** 2))
    assert abs(_found_with(W, W_r, z, sigma).state.a[0] - 1 - excess) < abs(excess)
    return W, W_r, z, sigma


@jax.jit
def _found_with(W, W_r, z, sigma):
    return steady_state(Circuit(W, W_r, b=0.5, b0=1.0, sigma=sigma), z).found


@partial(jax.jit, static_argnums=4)
@partial(jax.vmap, in_axes=(0, 0, 0, 0, None))
def _converge(W, W_r, z, sigma, matrix_free):
    one = jnp.ones((), W.dtype)
    circuit = Circuit(W, W_r, b=one / 2, b0=one, sigma=sigma)
    return steady_state(circuit, z, matrix_free=matrix_free).converged


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_neuron_without_drive_whose_recurrent_input_cancels_is_at_rest(dtype):
    sizes = 10 ** np.arange(-7.0, -2.0)
    cases = [_near_one(seed, sign * e) for seed in range(6) for e in sizes for sign in (1, -1)]
    arrays = [np.stack(parts).astype(dtype) for parts in zip(*cases, strict=True)]
    for matrix_free in (False, True):
        assert np.all(_converge(*arrays, matrix_free))


def test_such_a_neuron_is_at_rest_in_the_search_for_all_states_too():
    for seed in range(6):
        for excess in (1e-7, -1e-7, 1e-6, -1e-6, 1e-5, -1e-5):
            W, W_r, z, sigma = _near_one(seed, excess)
            z[0] *= 1e-4
            circuit = Circuit(W, W_r, b=0.5, b0=1.0, sigma=sigma)
            system = Reduced.of(circuit, z)
            start = system.unknowns(_found_with(W, W_r, z, sigma).state)
            assert len(newton_for_all(system, start[None])) == 1


def test_a_circuit_with_parameters_out_of_their_domains_has_no_steady_state():
    """Traced parameters have not been refused yet: with `b < 0` the equations do balance."""
    for W_r in (None, np.eye(2)):
        circuit, z = Circuit(np.eye(2), W_r), np.ones(2)
        for name in ("b", "tau_y"):
            wrong = eqx.tree_at(lambda c, name=name: getattr(c, name), circuit, -jnp.ones(2))
            assert not steady_state(wrong, z).converged
        assert steady_state(circuit, z).converged


def test_no_state_far_away_is_taken_for_one_where_the_recurrence_cancels():
    """The columns of `W_r` add up to 0, and so does `(y - b z) / (1 - sqrt(a))`. In float32, states
    with `a` of 1e15 seemed to balance, though all their terms have one sign."""
    rng, n, count = np.random.default_rng(5), 3, 300
    L = rng.normal(size=(count, n, n)) * 10 ** rng.uniform(-1, 2, (count, 1, 1))
    L -= L.mean(axis=1, keepdims=True)
    b = 10 ** rng.uniform(-1, 1, (count, n))
    z = rng.normal(size=(count, n)) * 10 ** rng.uniform(-2, 2, (count, 1))
    given = [x.astype(np.float32) for x in (rng.uniform(size=(count, n, n)), L, b, z)]

    @jax.jit
    @jax.vmap
    def solve_each(W, W_r, b, z):
        found = steady_state(Circuit(W, W_r, b, b0=1.0), z, relaxation_steps=500)
        return found.state, found.converged

    (y, a), converged = jax.tree.map(np.asarray, solve_each(*given))
    terms = (y - given[2] * given[3]).astype(float) / (1 - np.sqrt(a.astype(float)))
    left = np.abs(terms.sum(axis=1)) / np.abs(terms).sum(axis=1)
    assert 50 < converged.sum() < count
    assert np.all(left[converged] < 0.1)
