"""Time constants that follow the input and the potentials: chapter 16's form, and what it holds."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from organics import certify, steady_state
from organics.kernels import native
from organics.nn import CellState, ORGaNICs, circuit_at, trajectory
from organics.nn.moments import jacobians
from organics.studies.ours.memory import bit, neuron
from organics.training.config import SequenceConfig, read_config

M, N = 2, 4
LARGE = {"dt_tau_max_y": 0.5, "dt_tau_max_a": 0.4, "dt_tau_max_gates": 0.7}
BACKENDS = ["scan", *([] if native.unavailable() else ["native"])]
kinds = pytest.mark.parametrize("kind", ["modulated", "modulated-together", "modulated-y"])
backends = pytest.mark.parametrize("backend", BACKENDS)


def layer_of(kind="modulated", m=M, n=N, **options):
    return ORGaNICs(m, n, key=jr.key(0), **{**LARGE, "time_constants": kind, **options})


def drawn(layer, seed, scale=1.0):
    """The layer with all weights drawn anew, those of modulation too."""
    rng = np.random.default_rng(seed)
    normal = lambda leaf: scale * rng.normal(size=leaf.shape)  # noqa: E731

    def of(cell):
        start = cell.start
        new = jax.tree.map(normal, cell)
        new = eqx.tree_at(lambda c: c.log_W, new, -np.abs(normal(cell.log_W)))
        return eqx.tree_at(lambda c: c.start, new, start)

    cells = tuple(of(cell) for cell in layer.cells)
    return jax.device_put(eqx.tree_at(lambda la: la.cells, layer, cells))


def numbers(seed, *shape):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape))


class Oracle:
    """The equations in NumPy, for one circuit, written from the theory."""

    def __init__(self, layer):
        c = jax.tree.map(np.asarray, layer.cells[0])
        self.n, self.rectified, self.sigma = c.size, layer.options.rectified, c.sigma
        self.W = np.minimum(np.exp(c.log_W), 1)
        self.W_r = np.eye(c.size) if c.W_r is None else c.W_r
        self.W_z, self.raw, self.largest = c.W_zx, c.raw_rates, c.largest_rates
        self.gates = [(c.W_b0x, c.W_b0y, c.W_b0a), (c.W_bx, c.W_by, c.W_ba)]
        T = list(zip(c.modulation.T_x, c.modulation.T_y, c.modulation.T_a, strict=True))
        self.T = T * (c.modulation.count // len(T))  # all rates may have the same

    def parts(self, X, x):
        y, a, b0, b = np.split(X, 4)
        q = np.maximum(y, 0) if self.rectified else y
        open_ = [expit(g[0] @ x + g[1] @ y + g[2] @ a) for g in self.gates]
        speed = [
            -y + b * (self.W_z @ x) + (1 - np.sqrt(a)) * (self.W_r @ q),
            -a + (self.sigma * b0) ** 2 + self.W @ (q * q * a),
            -b0 + open_[0],
            -b + open_[1],
        ]
        shift = [t[0] @ x + t[1] @ y + t[2] @ a for t in self.T]
        shift += [np.zeros(self.n)] * (4 - len(shift))
        sigma = [expit(raw + u) for raw, u in zip(self.raw, shift, strict=True)]
        return np.concatenate(speed), sigma, open_, q

    def step(self, X, x):
        speed, sigma, _, _ = self.parts(X, x)
        return X + np.concatenate([m * s for m, s in zip(self.largest, sigma, strict=True)]) * speed

    def J(self, X, x):
        """Of a step, minus the identity."""
        n = self.n
        y, a, b0, b = np.split(X, 4)
        speed, sigma, open_, q = self.parts(X, x)
        one, none, s = np.eye(n), np.zeros((n, n)), np.sqrt(a)
        h = 1.0 * (y > 0) if self.rectified else np.ones(n)
        (of_b0, of_b) = (
            [(v * (1 - v))[:, None] * matrix for matrix in g[1:]]
            for v, g in zip(open_, self.gates, strict=True)
        )
        dF = np.block(
            [
                [-one + (1 - s)[:, None] * self.W_r * h, np.diag(-(self.W_r @ q) / (2 * s)), none,
                 np.diag(self.W_z @ x)],
                [2 * self.W * (a * q), -one + self.W * q**2, np.diag(2 * self.sigma**2 * b0), none],
                [*of_b0, -one, none],
                [*of_b, none, -one],
            ]
        )  # fmt: skip
        rates = np.concatenate([m * s for m, s in zip(self.largest, sigma, strict=True)])
        moved = np.zeros((4 * n, 4 * n))
        for i, (t, m, s) in enumerate(zip(self.T, self.largest, sigma, strict=False)):
            moved[i * n : (i + 1) * n, : 2 * n] = (m * s * (1 - s))[:, None] * np.hstack(t[1:])
        return rates[:, None] * dF + speed[:, None] * moved


run = eqx.filter_jit(lambda layer, x, state=None, **options: layer(x, state, **options))


@kinds
@backends
def test_without_modulation_it_is_the_learned_layer(kind, backend):
    """Chapter 16, check 1: bit by bit, which the code promises."""
    x = numbers(1, 3, 20, M)
    for recurrent in ("identity", "free"):
        made = partial(layer_of, recurrent=recurrent, backend=backend, layers=2)
        jax.tree.map(np.testing.assert_array_equal, run(made(kind), x), run(made("learned"), x))


@kinds
@pytest.mark.parametrize("rectified", [True, False])
def test_a_step_and_its_jacobian_are_the_theorys(kind, rectified):
    """Check 2."""
    layer = drawn(layer_of(kind, rectified=rectified), 2)
    oracle, rng = Oracle(layer), np.random.default_rng(2)
    x = rng.normal(size=(10, M))
    X = [rng.normal(size=(10, N)) + 0.01, *(rng.random((3, 10, N)) + 0.2)]
    states = jax.device_put((CellState(*X),))
    J = np.asarray(jacobians(layer, jax.device_put(x), states))[:, 0]
    after = eqx.filter_jit(lambda la, x, s: la.step(x, s))(layer, jax.device_put(x), states)[0]
    for i, at in enumerate(np.concatenate(X, axis=1)):
        np.testing.assert_allclose(J[i], oracle.J(at, x[i]), atol=1e-10)
        got = np.concatenate([part[i] for part in after])
        np.testing.assert_allclose(got, oracle.step(at, x[i]), rtol=1e-10)


@pytest.mark.parametrize("recurrent", ["identity", "free"])
def test_a_stays_positive_and_gains_stay_from_0_to_1(recurrent):
    """Check 3: weights times 3, inputs times 10."""
    layer = drawn(layer_of(recurrent=recurrent, backend="scan", dt_tau_max_gates=1.0), 3, 3.0)
    _, states = jax.lax.scan(
        lambda s, x: (layer.step(x, s),) * 2, layer.initial_state(), 10 * numbers(3, 300, M)
    )
    y, a, b0, b = map(np.asarray, states[0])
    known = np.cumprod(np.all(np.isfinite(y) & np.isfinite(a), axis=1)) > 0
    assert known.sum() > 3
    assert np.all(a[known] > 0)
    assert all(np.all((part[known] >= 0) & (part[known] <= 1)) for part in (b0, b))


def test_fixed_points_are_stable_and_certified_whatever_the_modulation():
    """Check 4, for the circuits of layers at random moments, with the modulation in the step."""
    base = layer_of(recurrent="identity", rectified=False)

    @eqx.filter_jit
    @jax.vmap
    def at_rest(layer, x, state):
        circuit, z = circuit_at(layer, x, state)
        point = steady_state(circuit, z)
        rest = (state[0]._replace(y=point.state.y, a=point.state.a),)
        circuit, z = circuit_at(layer, x, rest)  # its time constants at rest
        J = jacobians(layer, x[None], jax.tree.map(lambda leaf: leaf[None], rest))[0, 0]
        return J[: 2 * N, : 2 * N], certify(steady_state(circuit, z)).holds, circuit.tau_y

    layers = [drawn(base, seed, 0.8) for seed in range(200)]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *layers)
    gains = np.random.default_rng(4).random((2, 200, N)) * 0.9 + 0.05
    state = (CellState(numbers(5, 200, N), jnp.ones((200, N)), *jax.device_put(gains)),)
    J, holds, tau_y = at_rest(stacked, numbers(6, 200, M), state)
    assert np.all(holds)
    assert np.linalg.eigvals(np.asarray(J)).real.max() < 0
    spread = np.asarray(tau_y).max() / np.asarray(tau_y).min()
    assert spread > 100  # the modulation did something


def at(y, a, b0=0.5, b=0.5):
    return (CellState(*(jnp.full(1, part) for part in (y, a, b0, b))),)


@eqx.filter_jit
def after(layer, x, steps, state):
    """The state after so many steps of one input."""
    return jax.lax.fori_loop(0, steps, lambda _, s: layer.step(x, s), state)


def test_how_long_a_neuron_holds_a_value():
    """Check 6: the numbers that chapter 16 measured, by the layer's own equations."""
    load, hold = jnp.array([0.6, 0.0]), jnp.array([0.0, 1.0])
    known = {
        (0.0, 0.0): 0.00002, (-8.0, 0.0): 0.505987, (0.0, -8.0): 0.486826, (-8.0, -8.0): 0.507953,
    }  # fmt: skip
    for (freeze, close), kept in known.items():
        layer = neuron(freeze=freeze, close=close)
        stored = after(layer, load, 300, at(0.0, 0.25))
        np.testing.assert_allclose(stored[0].y, 0.507960, atol=1e-6)
        np.testing.assert_allclose(after(layer, hold, 1000, stored)[0].y, kept, atol=1e-5)


def test_the_decay_of_a_held_value_is_the_closed_form():
    """Check 5: artanh v - v = b0 sigma t / tau_y + const, v = sqrt(1 - y^2)."""
    k, tau_y, dt, steps = 0.01, 100.0, 0.1, 300_000
    layer = neuron(sigma=2 * k, dt_y=dt / tau_y, dt_a=dt)
    found = after(layer, jnp.zeros(2), steps, at(0.9, k**2 / (1 - 0.81)))[0].y.item()
    curve = lambda y: np.arctanh(np.sqrt(1 - y * y)) - np.sqrt(1 - y * y)  # noqa: E731
    expected = brentq(lambda y: curve(y) - curve(0.9) - k * dt * steps / tau_y, 1e-6, 0.9)
    np.testing.assert_allclose(found, expected, atol=2e-3 * 0.9)


def test_what_closing_costs_is_the_closed_form():
    """Check 5: a factor exp(-2 (tau_a / tau_y) sqrt(a) / (1 - y^2))."""
    y, a, tau_y, dt = 0.5, 0.3, 50.0, 0.01
    layer = neuron(sigma=2e-6, dt_y=dt / tau_y, dt_a=dt)
    found = after(layer, jnp.zeros(2), 4000, at(y, a))[0].y.item()
    expected = y * np.exp(-2 / tau_y * np.sqrt(a) / (1 - y * y))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_neuron_with_strong_recurrence_is_a_bit():
    """Check 7: it keeps its sign under 0.9 of the closed form's pulse, and flips at 1.05."""
    w_r, k = 2.0, 0.1
    layer = bit()
    rest = 1 - 1 / w_r
    memory = np.sqrt(rest**2 - k**2) / rest
    np.testing.assert_allclose(memory, 0.979796, atol=1e-6)
    pulse = ((w_r - 1) ** (2 / 3) - (w_r * k) ** (2 / 3)) ** 1.5
    np.testing.assert_allclose(pulse, 0.533757, atol=1e-6)
    for factor, sign in ((0.9, -1), (1.05, 1)):
        state = at(-memory, rest**2)
        for x in (factor * pulse, 0.0):
            state = after(layer, jnp.array([x, 0.0]), 80_000, state)
        np.testing.assert_allclose(state[0].y, sign * memory, atol=1e-6)


def test_time_constants_begin_spread_over_the_memory_asked_for():
    """Check 8: raw = -log(max tau - 1)."""
    options = {"dt_tau_max_y": 1.0, "dt_tau_max_a": 0.5, "dt_tau_max_gates": 1.0}
    layer = layer_of("learned", n=64, initial_time_constants=(1.5, 5000.0), **options)
    tau = 1 / np.asarray(layer.cells[0].rates)
    largest = np.array([1, 0.5, 1, 1])[:, None]
    raw = np.asarray(layer.cells[0].raw_rates)
    np.testing.assert_allclose(raw, -np.log(largest * tau - 1), rtol=1e-8, atol=1e-8)
    assert 1.5 <= tau[0].min() < 10 and 1000 < tau[0].max() <= 5000
    middle = np.median(np.log(tau[0]))
    assert abs(middle - np.log(1.5 * 5000) / 2) < 1
    assert np.all(tau[1:] <= 5) and np.all(largest[1:] * tau[1:] >= 1.25 - 1e-12)


@pytest.mark.parametrize(
    "options, name",
    [
        ({"initial_time_constants": (1.0, 50.0)}, "initial_time_constants"),
        ({"initial_time_constants": (5.0, 3.0)}, "initial_time_constants"),
        ({"initial_time_constants": 3.0}, "initial_time_constants"),
        ({"initial_time_constants": (5.0, np.inf)}, "initial_time_constants"),
        ({"initial_time_constants": (5.0, 9.0), "dt_tau_max_a": 0.1}, "dt_tau_max_a"),
        ({"initial_time_constants": (5.0, 9.0), "time_constants": "fixed"}, "time_constants"),
        ({"time_constants": "moved"}, "time_constants"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_bad_arguments_are_named(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ORGaNICs(M, N, key=jr.key(0), **{**LARGE, **options})


@eqx.filter_jit
def with_gradients(layer, x, state, lengths=None):
    def value(given):
        layer, x, state = given
        outputs, final = layer(x, state, lengths=lengths)
        total = sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(final))
        return total + jnp.sum(outputs**2), (outputs, final)

    return eqx.filter_grad(value, has_aux=True)((layer, x, state))


@kinds
@pytest.mark.skipif("native" not in BACKENDS, reason="there is no native kernel")
def test_native_gives_values_and_gradients_of_the_scan(kind):
    """Of two circuits, with ends at different steps, a unit drive and less memory."""
    lengths = np.array([7, 11, 1])
    x = numbers(7, 3, 11, M)
    found = []
    for backend, memory in (("scan", "more"), ("native", "more"), ("native", "less")):
        layer = layer_of(kind, layers=2, drive="unit", backend=backend, memory=memory)
        layer = drawn(layer, 7, 0.5)
        state = jax.tree.map(lambda leaf: jnp.tile(leaf, (3, 1)), layer.initial_state())
        found.append(jax.tree.leaves(with_gradients(layer, x, state, lengths)))
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


def test_gradients_reach_the_modulation_from_where_it_is_absent():
    """By the step's closed form: d dt = dt (1 - dt / max) du, also at T = 0."""
    layer = layer_of("modulated", recurrent="identity", backend="scan")
    x = numbers(8, M)
    state = layer.initial_state()

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(layer):
        return jnp.sum(layer.step(x, state)[0].y)

    found = gradient(layer).cells[0].modulation
    oracle = Oracle(layer)
    X = np.concatenate([np.asarray(part) for part in state[0]])
    speed, sigma, _, _ = oracle.parts(X, np.asarray(x))
    slope = LARGE["dt_tau_max_y"] * sigma[0] * (1 - sigma[0]) * speed[:N]
    for name, times in (("T_x", x), ("T_y", state[0].y), ("T_a", state[0].a)):
        got = np.asarray(getattr(found, name))
        np.testing.assert_allclose(got[0], np.outer(slope, times), rtol=1e-10, atol=1e-14)
        assert not np.any(got[1:])


def test_trajectories_know_the_modulation():
    layer = drawn(layer_of(n=3, recurrent="identity"), 9, 0.5)
    path = trajectory(layer, numbers(9, 12, M), every=5)
    oracle = Oracle(layer)
    states = np.concatenate([np.asarray(part) for part in path.states[0]], axis=1)
    for i, t in enumerate(path.times):
        eigenvalues = np.linalg.eigvals(oracle.J(states[i], np.asarray(numbers(9, 12, M))[t]))
        np.testing.assert_allclose(path.spectral_abscissa[i], eigenvalues.real.max(), rtol=1e-8)


def test_settings_of_earlier_runs_have_no_initial_time_constants():
    config = SequenceConfig(time_constants="modulated", initial_time_constants=(2.0, 50.0))
    assert read_config(config.to_json()) == config
    assert config.layer_options(784)["initial_time_constants"] == (2.0, 50.0)
    text = SequenceConfig().to_json().replace('  "initial_time_constants": null,\n', "")
    for name in ("sigma", "initial_normalization"):
        text = text.replace(f'  "{name}": 1.0,\n', "")
        assert name not in text
    assert "initial_time_constants" not in text and read_config(text) == SequenceConfig()
    with pytest.raises(ValueError, match="must be 2 values, each a number > 0"):
        SequenceConfig(initial_time_constants=(-1.0, 2.0))
    with pytest.raises(ValueError, match="initial_time_constants"):
        SequenceConfig(model="lstm", initial_time_constants=(2.0, 3.0))
