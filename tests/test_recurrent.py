"""The recurrent layer: its steps are the circuit's, and it streams, stacks and stays in bounds."""

from pathlib import Path
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from organics import certify, stability
from organics.circuit.circuit import State
from organics.models import count_parameters
from organics.names import Recurrence
from organics.nn import CellState, ORGaNICs, circuit_at, trainable, trajectory
from organics.nn.dynamics import spectral_abscissa
from organics.nn.moments import spectra
from organics.rest.search import steady_state
from organics.training.evaluation import load_model
from organics.training.run_folder import RunFolder

TUNED = {"dt_tau_max_y": 0.2, "dt_tau_max_a": 0.05, "dt_tau_max_gates": 0.8}
LARGE = {"dt_tau_max_y": 0.5, "dt_tau_max_a": 0.3, "dt_tau_max_gates": 0.7}


# each compiled once for a kind of layer and a shape
run = eqx.filter_jit(lambda layer, x, state=None, **options: layer(x, state, **options))
advance = eqx.filter_jit(lambda layer, x, state: layer.step(x, state))
frozen_at = eqx.filter_jit(circuit_at)
monitor = eqx.filter_jit(lambda layer: layer.monitor())


def random_layer(seed, m=2, n=4, **options):
    return ORGaNICs(m, n, key=jr.key(seed), **{**LARGE, **options})


def sequence_of(seed, *shape):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape))


def same(got, want, rtol=1e-7, atol=1e-14):
    # where terms of order 1 cancel, what is left has their rounding
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol, atol), got, want)


@pytest.mark.parametrize(
    "recurrent, rectified, drive",
    [
        ("free", True, "signed"),
        pytest.param("free", False, "rectified", marks=pytest.mark.rounding),
        ("identity", True, "rectified"),
        ("identity", False, "unit"),
        pytest.param("bounded", True, "unit", marks=pytest.mark.rounding),
        ("semidefinite", False, "signed"),
        ("orthogonal", False, "signed"),
    ],
)
def test_a_step_is_an_euler_step_of_the_circuit(recurrent, rectified, drive):
    options = {"recurrent": recurrent, "rectified": rectified, "drive": drive, "dt": 0.7}

    @jax.jit
    @jax.vmap
    def compare(seed, x):
        return both_steps(random_layer(seed, **options), x)

    same(*compare(np.arange(20), sequence_of(0, 20, 5, 2)), rtol=1e-11)


def both_steps(layer, x):
    """`y`, `a` and `b` after the layer's fifth step, and by the circuit's velocity."""
    _, state = layer(x[:4])
    circuit, z = circuit_at(layer, x[4], state)
    before = State(state[0].y, state[0].a)
    velocity = circuit.velocity(before, z)
    after = layer.step(x[4], state)[0]
    cell = layer.cells[0]
    gate = jax.nn.sigmoid(
        cell.W_bx @ x[4] + cell.W_by @ state[0].y + cell.W_ba @ state[0].a  # theory's b1
    )
    b = state[0].b + cell.rates[3] * (gate - state[0].b)
    expected = before.y + layer.dt * velocity.y, before.a + layer.dt * velocity.a, b
    return (after.y, after.a, after.b), expected


@pytest.mark.parametrize("layers", [1, pytest.param(2, marks=pytest.mark.rounding)])
@pytest.mark.parametrize("backend", ["auto", "scan"])
def test_streaming_equals_whole_and_steps(layers, backend):
    layer = random_layer(1, layers=layers, backend=backend)
    x = sequence_of(1, 3, 9, 2)
    whole, final = run(layer, x)
    pieces, state = [], None
    for piece in (x[:, :1], x[:, 1:5], x[:, 5:]):
        outputs, state = run(layer, piece, state)
        pieces.append(outputs)
    same(np.concatenate(pieces, axis=1), whole, rtol=1e-12)
    same(state, final, rtol=1e-12)
    last, _ = run(layer, x, sequence=False)
    same(last, whole[:, -1], rtol=1e-12)
    single, state = run(layer, x[1])
    same(single, whole[1], rtol=1e-11)
    stepped = layer.initial_state()
    for t in range(9):
        stepped = advance(layer, x[1, t], stepped)
    same(stepped, state, rtol=1e-11)


def scores(layer, x, state, lengths=None, *, sequence):
    """A number that depends on all outputs and the whole final state; then both of these."""
    outputs, final = layer(x, state, sequence=sequence, lengths=lengths)
    total = sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(final))
    return total + jnp.sum(outputs**2), (outputs, final)


@eqx.filter_jit
def with_gradients(layer, x, state, lengths=None, *, sequence):
    value = lambda given: scores(*given, lengths, sequence=sequence)  # noqa: E731
    return eqx.filter_grad(value, has_aux=True)((layer, x, state))


@pytest.mark.parametrize(
    "backend, memory, sequence, layers",
    [
        ("auto", "more", True, 2),
        ("auto", "less", False, 1),
        ("scan", "less", True, 1),
    ],
)
def test_padding_changes_nothing_neither_values_nor_gradients(backend, memory, sequence, layers):
    options = {"backend": backend, "memory": memory, "layers": layers}
    layer = random_layer(13, **options, drive="unit" if sequence else "rectified")
    whole = sequence_of(13, 4, 11, 2)
    lengths = np.asarray([11, 4, 4, 11])
    inside = np.arange(11) < lengths[:, None]
    padded = np.where(inside[..., None], whole, np.nan)
    start = jax.tree.map(lambda leaf: np.tile(leaf, (4, 1)), layer.initial_state())
    (d_layer, d_x, d_start), (outputs, final) = with_gradients(
        layer, padded, start, lengths, sequence=sequence
    )
    assert np.all(np.asarray(d_x)[~inside] == 0)
    if sequence:
        assert np.all(np.asarray(outputs)[~inside] == 0)
    total = jax.tree.map(np.zeros_like, d_layer)
    for length in (4, 11):
        chosen = np.flatnonzero(lengths == length)
        pick = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], tree)  # noqa: B023, E731
        (part, d_piece, d_state), (piece, state) = with_gradients(
            layer, pick(whole)[:, :length], pick(start), sequence=sequence
        )
        got = pick(outputs)[:, :length] if sequence else pick(outputs)
        same(got, piece, rtol=1e-12, atol=1e-14)
        same(pick(final), state, rtol=1e-12)
        same(pick(d_x)[:, :length], d_piece, rtol=1e-9, atol=1e-12)
        same(pick(d_start), d_state, rtol=1e-9, atol=1e-12)
        total = jax.tree.map(np.add, total, part)
    same(d_layer, total, rtol=1e-9, atol=1e-12)


def test_the_length_of_one_sequence_is_one_number_traced_or_not():
    layer, x = random_layer(13), sequence_of(13, 3, 9, 2)
    outputs, final = run(layer, x[1], lengths=jnp.int32(5))
    same(final, run(layer, x[1, :5])[1], rtol=1e-12)
    assert outputs.shape == (9, 4) and np.all(np.asarray(outputs[5:]) == 0)
    same(outputs[4], final[0].y, rtol=0)
    same(run(layer, x[1].at[5:].set(np.nan), lengths=5), (outputs, final), rtol=1e-12)
    several = jax.jit(jax.vmap(lambda x, length: layer(x, lengths=length)[1]))
    mapped = several(x, jnp.asarray([2, 5, 9], jnp.uint8))
    same(jax.tree.map(lambda leaf: leaf[1], mapped), final, rtol=1e-12)


def test_the_last_output_does_not_store_the_sequence():
    layer = random_layer(2, m=1, n=16, backend="scan")

    def largest(sequence):
        jaxpr = jax.make_jaxpr(lambda x: layer(x, sequence=sequence)[0])(jnp.zeros((7, 1)))
        return max(v.aval.size for e in jaxpr.eqns for v in e.outvars if e.primitive.name == "scan")

    assert largest(True) >= 7 * 16 > largest(False)


def test_parameter_counts_are_the_papers():
    def count(make, *sizes, **options):
        return eqx.filter_eval_shape(
            lambda key: count_parameters(make(*sizes, key=key, **options)), jr.key(0)
        )

    for n, recurrence, readout in ((64, 25_024, 650), (128, 99_200, 1_290)):
        assert count(ORGaNICs, 1, n) == recurrence
        assert count(eqx.nn.Linear, n, 10) == readout
        assert count(ORGaNICs, 1, n, time_constants="fixed") == recurrence - 4 * n


def test_weights_start_as_they_are_said_to():
    cell = jax.tree.map(np.asarray, random_layer(3).cells[0])
    of_gates = cell.W_b0y, cell.W_b0a, cell.W_by, cell.W_ba
    for drawn, fan_in in (((cell.W_b0x, cell.W_bx), 2), (of_gates, 4)):
        for W in drawn:
            assert np.std(W) > 0.2 / np.sqrt(fan_in) and np.all(np.abs(W) <= 1 / np.sqrt(fan_in))
        assert len({W.tobytes() for W in drawn}) == len(drawn)
    np.testing.assert_allclose(np.linalg.norm(cell.W_zx, 2), 1)
    np.testing.assert_allclose(cell.W_r @ cell.W_r.T, np.eye(4), atol=1e-14)
    assert np.all(np.diag(cell.log_W) == 0)
    assert np.all(cell.log_W[~np.eye(4, dtype=bool)] < 0)


def test_the_initial_state_is_drawn_once_and_is_no_parameter():
    layer = random_layer(3)
    first = layer.initial_state()[0]
    np.testing.assert_allclose(np.linalg.norm(first.y), 1)
    assert np.all(np.asarray(first.b0) == 1)
    assert not np.allclose(first.y, random_layer(4).initial_state()[0].y)
    kept, rest = eqx.partition((layer, 1.0, None), trainable((layer, 1.0, None)))
    assert not jax.tree.leaves(kept[0].cells[0].start) and rest[1] == 1.0
    assert count_parameters(layer) == sum(leaf.size for leaf in jax.tree.leaves(kept))


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name, weight_decay", [("adam", {}), ("adamw", {"weight_decay": 1.0})])
def test_an_optimizer_of_all_arrays_leaves_the_initial_state_alone(name, weight_decay):
    layer, x = random_layer(3, backend="scan"), sequence_of(3, 9, 2)
    masked = {"mask": trainable} if weight_decay else {}
    optimizer = getattr(optax, name)(1e-2, **weight_decay, **masked)

    @eqx.filter_jit
    def update(layer):
        state = optimizer.init(eqx.filter(layer, eqx.is_array))
        gradient = eqx.filter_grad(lambda layer: jnp.sum(layer(x)[0] ** 2))(layer)
        change, _ = optimizer.update(gradient, state, eqx.filter(layer, eqx.is_array))
        return eqx.apply_updates(layer, change)

    after = update(layer)
    same(after.initial_state(), layer.initial_state(), rtol=0)
    assert not np.any(np.asarray(after.cells[0].W_zx) == layer.cells[0].W_zx)


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg", None])
def test_a_layer_can_be_made_of_any_kind_of_key(implementation):
    ordinary = random_layer(0)
    key = jr.PRNGKey(0) if implementation is None else jr.key(0, impl=implementation)
    layer = ORGaNICs(2, 4, key=key, **LARGE)
    assert jax.tree.map(jnp.shape, layer) == jax.tree.map(jnp.shape, ordinary)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(layer))
    np.testing.assert_allclose(np.linalg.norm(layer.initial_state()[0].y), 1)
    assert np.all(np.isfinite(run(layer, sequence_of(0, 3, 9, 2))[0]))
    if implementation is None:
        same(layer, ordinary, rtol=0)


def test_a_layer_converted_to_another_type_is_the_same_model():
    single = random_layer(3, dtype=np.float32)
    x = sequence_of(3, 3, 9, 2).astype(np.float32)
    double, exact = jax.tree.map(lambda leaf: leaf.astype(np.float64), (single, x))
    same(run(single, x), run(double, exact), rtol=1e-5, atol=1e-6)
    back = jax.tree.map(lambda leaf: leaf.astype(np.float32), double)
    same(back, single, rtol=0)


def test_of_a_file_that_has_only_the_bits_of_the_initial_state_it_is_drawn_from_them():
    """A file as version 0.1.0 wrote it."""
    run = Path(__file__).parents[1] / "results/trained/short/smnist14-organics-64-seed0"
    layer = load_model(RunFolder.open(run)).layer
    stored = safetensors.numpy.load_file(run / "model.safetensors")
    k_y, k_a, k_b = jr.split(jr.wrap_key_data(stored["layer.cells.0.start"]), 3)
    y, a, b = (np.asarray(jr.uniform(k, (64,), np.float32)) for k in (k_y, k_a, k_b))
    expected = (CellState(y / np.linalg.norm(y), a, np.ones(64), b),)
    same(layer.initial_state(), expected, rtol=1e-6)
    same(layer.cells[0].W_zx, stored["layer.cells.0.W_zx"], rtol=0)


@pytest.mark.parametrize(
    ("recurrent", "time_constants"),
    [(name, "learned") for name in get_args(Recurrence)] + [("free", "fixed")],
)
def test_gradients_reach_every_parameter(recurrent, time_constants):
    layer = random_layer(5, recurrent=recurrent, time_constants=time_constants, layers=2)
    x = sequence_of(5, 3, 6, 2)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(layer):
        return jnp.sum(jnp.square(layer(x, sequence=False)[0]))

    for leaf in jax.tree.leaves(eqx.filter(gradient(layer), trainable(layer))):
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf))


recurrent_of = eqx.filter_jit(lambda cell: cell.recurrent)


def test_bounded_stays_bounded_whatever_the_parameter():
    layer = random_layer(6, recurrent="bounded")
    pushed = eqx.tree_at(
        lambda la: la.cells[0].W_r,
        layer,
        replace_fn=lambda W: jax.device_put(5 * np.asarray(W) + 1),
    )
    norm = np.linalg.norm(recurrent_of(pushed.cells[0]), 2)
    assert norm <= 1 + 1e-12
    assert float(monitor(pushed)["recurrent_spectral_norm"]) == pytest.approx(1, rel=1e-3)


@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.1, 1.0, 100.0]))
def test_with_semidefinite_weights_y_is_stable_for_any_a(seed, size):
    """When `a > 4`, a negative eigenvalue of `W_r` can destabilize y; these weights have none."""
    layer = random_layer(seed, recurrent="semidefinite")
    rng = np.random.default_rng(seed)
    drawn = jax.device_put(size * rng.normal(size=(4, 4)))
    W_r = np.asarray(recurrent_of(eqx.tree_at(lambda c: c.W_r, layer.cells[0], drawn)))
    np.testing.assert_allclose(W_r, W_r.T, atol=1e-15)
    values = np.linalg.eigvalsh(W_r)
    assert values.min() > -1e-12 and values.max() <= 1 + 1e-12
    a = np.exp(rng.normal(size=4, scale=3))
    frozen = -np.eye(4) + (1 - np.sqrt(a))[:, None] * W_r
    assert np.linalg.eigvals(frozen).real.max() < 0


@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.0, 0.1, 1.0, 100.0]))
def test_orthogonal_weights_stay_orthogonal_whatever_the_parameter(seed, size):
    layer = random_layer(seed, recurrent="orthogonal")
    M = size * np.random.default_rng(seed).normal(size=(4, 4))
    for drawn in (layer.cells[0], eqx.tree_at(lambda c: c.W_r, layer.cells[0], jax.device_put(M))):
        W_r = np.asarray(recurrent_of(drawn))
        np.testing.assert_allclose(W_r @ W_r.T, np.eye(4), atol=1e-11)
        assert np.linalg.det(W_r) == pytest.approx(1)


def test_rotations_begin_in_planes_of_two_neurons():
    for n in (1, 2, 7):
        W_r = np.asarray(recurrent_of(random_layer(3, n=n, recurrent="orthogonal").cells[0]))
        in_planes = np.kron(np.eye(n // 2 + 1), np.ones((2, 2)))[:n, :n]
        assert not np.any(W_r[in_planes == 0])
        angles = np.angle(np.linalg.eigvals(W_r))
        assert np.all(np.abs(angles) < 0.96 * np.pi) and (n == 1 or np.ptp(angles) > 0.01)
        assert n % 2 == 0 or W_r[-1, -1] == 1


def test_initial_normalization_scales_the_weights_before_training():
    whole, scaled = (random_layer(4, initial_normalization=c).cells[0] for c in (1.0, 1e-5))
    np.testing.assert_allclose(np.exp(scaled.log_W), 1e-5 * np.exp(whole.log_W), rtol=1e-12)
    same(eqx.tree_at(lambda c: c.log_W, scaled, whole.log_W), whole, rtol=0)


def test_activity_goes_round_where_little_is_normalized():
    """With orthogonal weights, a small `sigma` and little normalization, the norm of what was put
    in is kept for a thousand steps; with a larger `sigma` it is lost."""

    def kept(sigma):
        layer = ORGaNICs(
            1, 8, key=jr.key(3), recurrent="orthogonal", rectified=False, sigma=sigma,
            initial_normalization=1e-6,
            initial_time_constants=(1.00001, 1.00001), dt_tau_max_y=1.0, dt_tau_max_a=1.0,
            dt_tau_max_gates=1.0,
        )  # fmt: skip
        norms = np.linalg.norm(run(layer, 100 * np.eye(1000, 1))[0], axis=1)
        return norms[-1] / norms[20]

    assert kept(1e-5) > 0.9
    assert kept(0.1) < 1e-6


@pytest.mark.parametrize("m", [1, 30])
def test_monitor_is_the_spectral_radius_and_norm(m):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        layer = random_layer(seed, m=m, n=16, layers=2)
        drawn = jax.device_put((rng.normal(size=(16, 16)), 10 * rng.normal(size=(16, m))))
        layer = eqx.tree_at(lambda la: (la.cells[0].W_r, la.cells[0].W_zx), layer, drawn)
        found = monitor(layer)
        radius = max(np.abs(np.linalg.eigvals(cell.W_r)).max() for cell in layer.cells)
        assert float(found["recurrent_spectral_radius"]) == pytest.approx(radius, rel=2e-3)
        for name, weights in (("recurrent", "W_r"), ("input", "W_zx")):
            norm = max(np.linalg.norm(getattr(cell, weights), 2) for cell in layer.cells)
            assert float(found[f"{name}_spectral_norm"]) == pytest.approx(norm, rel=1e-3)
    found = monitor(random_layer(0, recurrent="identity"))
    assert float(found["recurrent_spectral_norm"]) == pytest.approx(1, rel=1e-3)
    assert float(found["recurrent_spectral_radius"]) == pytest.approx(1, rel=1e-5)


def test_spectra_are_those_of_the_trajectories():
    layer = random_layer(3, layers=2)
    x = sequence_of(4, 3, 7, 2)
    abscissae, radii = spectra(layer, x)
    for i, time in enumerate((6, 4, 2)):
        path = trajectory(layer, x[i])
        same(abscissae[i], path.spectral_abscissa[time], rtol=1e-9)
        same(radii[i], path.step_radius[time], rtol=1e-9)


def test_the_spectrum_is_nan_where_the_numbers_have_overflowed():
    layer = random_layer(8, rectified=False)
    x = jnp.full((60, 2), 1e4)
    path = trajectory(layer, x)
    finite = np.isfinite(np.concatenate(path.states[0], axis=1)).all(axis=1)
    assert finite[0] and not finite[-1]
    for values in (path.spectral_abscissa[:, 0], path.step_radius[:, 0]):
        assert np.isfinite(values[0]) and np.isnan(values[~finite]).all()
    assert not path.step_stable[~finite].any()
    abscissae, radii = spectra(layer, jnp.stack([x, 0 * x]))
    assert np.isnan(abscissae).tolist() == np.isnan(radii).tolist() == [[True], [False]]


@pytest.mark.parametrize("recurrent", get_args(Recurrence))
@pytest.mark.parametrize("rectified", [True, False])
def test_invariants_over_ten_thousand_steps(recurrent, rectified):
    layer = ORGaNICs(1, 16, key=jr.key(7), recurrent=recurrent, rectified=rectified)
    x = jnp.asarray(np.random.default_rng(7).uniform(size=(10_000, 1)))

    def widen(carry, x):
        state, extremes = carry
        (state,) = layer.step(x, (state,))
        low, high = extremes
        widened = (jax.tree.map(jnp.minimum, low, state), jax.tree.map(jnp.maximum, high, state))
        return (state, widened), None

    (start,) = layer.initial_state()
    scan = jax.jit(lambda x: jax.lax.scan(widen, (start, (start, start)), x)[0])
    final, (low, high) = scan(x)
    assert np.all(np.asarray(low.a) > 0)
    for least, most in ((low.b, high.b), (low.b0, high.b0)):
        assert np.all(np.asarray(least) > 0) and np.all(np.asarray(most) <= 1)
    assert np.min(low.y) > -5 and np.max(high.y) < 5
    same(run(layer, x, sequence=False)[1][0], final, rtol=1e-9)


@pytest.mark.parametrize("recurrent", get_args(Recurrence))
@pytest.mark.parametrize("rectified", [True, False])
def test_silence_and_inputs_far_too_large(recurrent, rectified):
    """Zeros are harmless. On inputs of 1e4 the layer overflows, and before that `trajectory`
    reports an unstable step. With weights of the rectified model that have no negative direction,
    it only goes far out. A unit drive (next test) does neither."""
    options = {"recurrent": recurrent, "rectified": rectified}
    layer = ORGaNICs(1, 16, key=jr.key(8), **options)
    outputs, _ = run(layer, np.zeros((200, 1)))
    assert np.all(np.isfinite(outputs))
    large = np.full((200, 1), 1e4)
    outputs = np.asarray(run(layer, large)[0])
    if rectified and recurrent in ("identity", "semidefinite"):
        assert np.isfinite(outputs).all() and np.abs(outputs).max() > 1000
    else:
        overflow = int(np.argmin(np.isfinite(outputs).all(axis=1)))
        assert overflow > 0 and not np.isfinite(outputs[overflow:]).all(axis=1).any()
        stable = trajectory(layer, jnp.asarray(large)).step_stable[:, 0]
        assert stable[0] and 0 < int(np.argmin(stable)) < overflow


@pytest.mark.rounding
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([0.0, 1e-3, 1.0, 1e4, 1e300]),
    recurrent=st.sampled_from(get_args(Recurrence)),
    rectified=st.booleans(),
)
def test_no_input_is_too_large_for_a_unit_drive(seed, size, recurrent, rectified):
    """y stays at the order of the drive, even at step sizes far beyond the defaults."""
    options = {"recurrent": recurrent, "rectified": rectified, "drive": "unit"}
    layer = ORGaNICs(2, 16, key=jr.key(seed), **options, **TUNED)
    x = size * np.asarray(sequence_of(seed, 300, 2))
    outputs, state = run(layer, x)
    assert np.max(np.abs(outputs)) < 3 and np.all(np.asarray(state[0].a) > 0)
    if rectified:  # of which the drive knows nothing
        return
    _, z = frozen_at(layer, x[-1], state)
    plain = np.asarray(layer.cells[0].W_zx).astype(np.longdouble) @ np.asarray(x[-1])
    same(z, plain / max(1, np.sqrt(np.sum(plain**2))), rtol=1e-12, atol=1e-300)


def test_a_unit_drive_is_at_most_1_also_where_the_weights_take_most_away():
    layer = ORGaNICs(64, 8, key=jr.key(0), drive="unit", dtype="float32")
    W = np.asarray(layer.cells[0].W_zx)
    V = np.linalg.svd(W)[2]
    x = jax.device_put(np.float32(1e4) * V[-1] + np.float32(3) * V[0])
    drive = W @ np.asarray(layer.cells[0].bounded_input(x))  # rounding leaves a thousandth of V[-1]
    assert 0.9 < np.linalg.norm(drive) < 1.01


def test_a_unit_drive_is_at_most_1_also_where_columns_are_nearly_equal():
    layer = ORGaNICs(2, 8, key=jr.key(0), drive="unit", dtype="float32")
    w, e = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 2)))[0].T
    W = (np.stack([w + 1e-5 * e, w - 1e-5 * e], axis=1) / np.sqrt(2)).astype(np.float32)
    layer = eqx.tree_at(lambda one: one.cells[0].W_zx, layer, jnp.asarray(W))
    bounded = layer.cells[0].bounded_input(jnp.array([1e6, -1e6], jnp.float32))
    drive = W.astype(float) @ np.asarray(bounded, float)
    assert 0.9 < np.linalg.norm(drive) < 1.01


def test_the_gradient_through_a_unit_drive():
    x = 3 * sequence_of(11, 4, 6, 2)  # some drives are scaled down, some are not

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def value_and_gradient(layer):
        return jnp.sum(jnp.square(layer(x, sequence=False)[0]))

    layers = [random_layer(11, drive="unit", backend=name, layers=2) for name in ("auto", "scan")]
    gradients = [value_and_gradient(layer)[1] for layer in layers]
    same(gradients[0].cells, gradients[1].cells, rtol=1e-9, atol=1e-13)
    W = np.asarray(layers[1].cells[0].W_zx)
    for i, j in ((0, 0), (3, 1)):
        step = np.zeros_like(W)
        step[i, j] = 1e-6
        up, down = (
            value_and_gradient(
                eqx.tree_at(lambda one: one.cells[0].W_zx, layers[1], jax.device_put(moved))
            )[0]
            for moved in (W + step, W - step)
        )
        slope = (up - down) / 2e-6
        np.testing.assert_allclose(gradients[1].cells[0].W_zx[i, j], slope, rtol=1e-6)


def test_of_a_stack_the_upper_circuit_sees_the_lower_ones_output():
    layer = random_layer(8, layers=2)
    x = sequence_of(8, 2)
    state = layer.initial_state()
    circuit, z = frozen_at(layer, x, state)
    below = advance(layer, x, state)[0]
    same(z, np.asarray(layer.cells[1].W_zx) @ np.asarray(below.y), rtol=1e-12)
    lower, z = frozen_at(layer, x, state, index=0)
    same(z, np.asarray(layer.cells[0].W_zx) @ np.asarray(x), rtol=1e-12)
    same(lower.tau_y, layer.dt / layer.cells[0].rates[0], rtol=1e-12)


def test_a_layer_of_identity_circuits_is_certified_anywhere():
    layer = random_layer(9, recurrent="identity")
    x = sequence_of(9, 6, 2)
    _, state = run(layer, x)
    circuit, z = frozen_at(layer, x[-1], state)
    assert certify(steady_state(circuit, z)).holds and stability(steady_state(circuit, z)).stable


def test_the_trajectory_has_the_jacobian_of_the_theory():
    """Section 11 of the theory, written out, equals the derivative of the step."""
    layer = random_layer(10, n=3)
    x = sequence_of(10, 7, 2)
    path = trajectory(layer, x, every=3)
    assert list(path.times) == [0, 3, 6]
    cell = layer.cells[0]
    for k, t in enumerate(path.times):
        y, a, b0, b = (np.asarray(leaf[k]) for leaf in path.states[0])
        W_r, W = np.asarray(cell.W_r), np.minimum(np.exp(np.asarray(cell.log_W)), 1)
        q, s, u = np.maximum(y, 0), np.sqrt(a), np.asarray(x[t])
        f0, f1 = (
            1 / (1 + np.exp(-(np.asarray(X) @ u + np.asarray(Y) @ y + np.asarray(A) @ a)))
            for X, Y, A in (
                (cell.W_b0x, cell.W_b0y, cell.W_b0a),
                (cell.W_bx, cell.W_by, cell.W_ba),
            )
        )
        g0, g1, zero, one = f0 * (1 - f0), f1 * (1 - f1), np.zeros((3, 3)), np.eye(3)
        J = np.block(
            [
                [
                    -one + (1 - s)[:, None] * W_r * (y > 0),
                    -np.diag(W_r @ q / (2 * s)),
                    zero,
                    np.diag(np.asarray(cell.W_zx) @ u),
                ],
                [2 * W * (a * q), -one + W * q**2, np.diag(2 * b0), zero],
                [g0[:, None] * cell.W_b0y, g0[:, None] * cell.W_b0a, -one, zero],
                [g1[:, None] * cell.W_by, g1[:, None] * cell.W_ba, zero, -one],
            ]
        )
        spectrum = np.linalg.eigvals(np.asarray(cell.rates).reshape(-1, 1) * J)
        assert path.spectral_abscissa[k, 0] == pytest.approx(spectrum.real.max(), rel=1e-9)
        assert path.step_radius[k, 0] == pytest.approx(np.abs(1 + spectrum).max(), rel=1e-9)
        assert path.step_stable[k, 0] == (path.step_radius[k, 0] < 1)
        batch = tuple(CellState(*(leaf[k : k + 1] for leaf in part)) for part in path.states)
        same(spectral_abscissa(layer, x[t][None], batch)[0], path.spectral_abscissa[k], rtol=1e-9)


@pytest.mark.parametrize(
    "options, name",
    [
        ({"recurrent": "none"}, "recurrent"),
        ({"time_constants": "none"}, "time_constants"),
        ({"rectification": "both"}, "rectification"),
        ({"drive": "none"}, "drive"),
        ({"backend": "gpu"}, "backend"),
        ({"memory": "none"}, "memory"),
        ({"layers": 0}, "layers"),
        ({"sigma": -1.0}, "sigma"),
        ({"sigma": np.inf}, "sigma"),
        ({"sigma": 1e20, "dtype": "float32"}, "sigma"),
        ({"sigma": 1e-160}, "sigma"),
        ({"dt_tau_max_a": 1.5}, "dt_tau_max_a"),
        ({"dtype": jnp.bfloat16}, "dtype"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_bad_arguments_are_named(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ORGaNICs(1, 4, key=jr.key(0), **options)


@pytest.mark.parametrize("backend", ["auto", "scan"])
@pytest.mark.parametrize("part", CellState._fields)
@pytest.mark.usefixtures("without_type_checks")
def test_every_part_of_a_state_is_checked_by_name(backend, part):
    layer = random_layer(11, layers=2, backend=backend)
    x, good = jax.device_put(np.zeros((3, 5, 2))), layer.initial_state()
    bad = {
        r"must have shape \(4,\) or \(3, 4\), not \(2, 4\)": np.ones((2, 4)),
        r"must have shape \(4,\) or \(3, 4\), not \(5,\)": np.ones(5),
        "must be of the layer's type float64, not float16": np.ones(4, np.float16),
        "must be of the layer's type float64, not float32": np.ones((3, 4), np.float32),
        "must be of the layer's type float64, not int32": np.ones(4, np.int32),
    }
    bad = {words: jax.device_put(array) for words, array in bad.items()}
    for words, array in bad.items():
        for i in range(2):
            state = list(good)
            state[i] = state[i]._replace(**{part: array})
            for call in (lambda s: layer(x, s), lambda s: layer.step(x[:, 0], s)):
                with pytest.raises(ValueError, match=rf"`state\[{i}\].{part}` {words}"):
                    call(tuple(state))
    # of what would be as long together, each is looked at
    other = CellState(*jax.device_put([np.ones(5), np.ones(3), np.ones(4), np.ones(4)]))
    with pytest.raises(ValueError, match=r"`state\[0\].y` must have shape"):
        layer(x, (other, good[1]))
    one = tuple(c._replace(**{part: np.tile(getattr(c, part), (3, 1))}) for c in good)
    same(
        run(layer, x, one), run(layer, x), rtol=1e-12
    )  # one part for each sequence, the others for all


@pytest.mark.usefixtures("without_type_checks")
def test_a_step_refuses_the_inputs_that_a_sequence_of_them_would_be_refused_for():
    layer = random_layer(11)
    state = layer.initial_state()
    for shape in ((3,), (5, 3), (), (0, 2), (2, 5, 2)):
        with pytest.raises(ValueError, match=r"`x` must have shape \(2,\) or \(batch, 2\), not"):
            layer.step(jnp.zeros(shape), state)
    for dtype in (jnp.float32, jnp.int32):
        with pytest.raises(ValueError, match="`x` must be of the layer's type float64, not"):
            layer.step(jnp.zeros(2, dtype), state)


@pytest.mark.usefixtures("without_type_checks")
def test_bad_inputs_are_refused():
    layer = random_layer(11)
    with pytest.raises(ValueError, match=r"`x` must have shape \(time, 2\)"):
        layer(jnp.zeros((5, 3)))
    with pytest.raises(ValueError, match="float64, not float32"):
        layer(jnp.zeros((5, 2), jnp.float32))
    with pytest.raises(ValueError, match="`state` must have one part"):
        layer(jnp.zeros((5, 2)), layer.initial_state() * 2)
    with pytest.raises(ValueError, match=r"`state\[0\]` must be a `CellState`, not"):
        layer(jnp.zeros((5, 2)), (jnp.zeros((2, 4)),))
    with pytest.raises(ValueError, match=r"`state\[0\].a` must be an array, not None"):
        layer(jnp.zeros((5, 2)), (layer.initial_state()[0]._replace(a=None),))
    with pytest.raises(ValueError, match=r"`state\[0\].y` must have shape \(4,\), not \(5,\)"):
        layer(jnp.zeros((5, 2)), random_layer(0, n=5).initial_state())
    for x in (jnp.zeros((5, 3)), jnp.zeros((2, 5, 2)), jnp.zeros((0, 2))):
        with pytest.raises(ValueError, match=r"`x` must have shape \(time, 2\), not"):
            trajectory(layer, x)
    with pytest.raises(ValueError, match="`x` must be of the layer's type float64, not int32"):
        trajectory(layer, jnp.zeros((5, 2), jnp.int32))
    for every in (0, 1.5, "2"):
        with pytest.raises(ValueError, match="`every` must be"):
            trajectory(layer, jnp.zeros((5, 2)), every)
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, time, 2\), not"):
        layer.diagnose(jnp.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"`lengths` must be from 1 to 5, as `x` has, not 6"):
        layer.diagnose(jnp.zeros((2, 5, 2)), jnp.array([5, 6]))
    outside = random_layer(12, rectification="outside")
    with pytest.raises(ValueError, match="rectification='outside'"):
        circuit_at(outside, jnp.zeros(2), outside.initial_state())
    with pytest.raises(ValueError, match=r"`index` must be from -1 to 0, not 1"):
        circuit_at(layer, jnp.zeros(2), layer.initial_state(), index=1)
    with pytest.raises(ValueError, match=r"`x` must have shape \(2,\).*use `jax.vmap`"):
        circuit_at(layer, jnp.zeros((3, 2)), layer.initial_state())
    with pytest.raises(ValueError, match="one sequence at a time"):
        trajectory(layer, jnp.zeros((3, 5, 2)))
    with pytest.raises(ValueError, match=r"`x` must be finite; entry \[1, 0\] is nan"):
        trajectory(layer, jnp.zeros((5, 2)).at[1, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="`every`"):
        trajectory(layer, jnp.zeros((5, 2)), every=0)


def test_derivatives_forward_and_of_second_order_by_the_scan():
    """What the native kernel does not have."""
    layer = ORGaNICs(2, 3, key=jr.key(0), backend="scan")
    x, direction = np.random.default_rng(1).normal(size=(2, 5, 2))

    def value(x):
        return jnp.sum(layer(x)[0] ** 2)

    @jax.jit
    def forward_and_second(x, direction):
        along = jax.jvp(value, (x,), (direction,))[1]
        return along, jax.jacfwd(value)(x), jnp.tensordot(jax.hessian(value)(x), direction, 2)

    along, forward, curved = forward_and_second(x, direction)
    gradient = jax.jit(jax.grad(value))
    slope = np.vdot(gradient(x), direction)
    np.testing.assert_allclose(along, slope, rtol=1e-10)
    np.testing.assert_allclose(np.vdot(forward, direction), slope, rtol=1e-10)
    up, down = (np.asarray(gradient(x + h * direction)) for h in (1e-5, -1e-5))
    differences = (up - down) / 2e-5
    np.testing.assert_allclose(curved, differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_norms_of_small_and_large_weights_are_those_of_others_scaled(dtype):
    limits = np.finfo(dtype)
    W = np.random.default_rng(0).normal(size=(4, 4))
    W[0] = 0.0  # a radius that is not the norm
    radius, norm = np.max(np.abs(np.linalg.eigvals(W))), np.linalg.norm(W, 2)
    layer = random_layer(0, dtype=dtype)
    for scale in (limits.tiny**0.9, 1e-20, 1e-3, 1.0, 1e18, limits.max**0.9):
        scaled = eqx.tree_at(
            lambda layer: layer.cells[0].W_r, layer, jnp.asarray(W * dtype(scale), dtype)
        )
        found = monitor(scaled)
        np.testing.assert_allclose(found["recurrent_spectral_radius"] / scale, radius, rtol=2e-3)
        np.testing.assert_allclose(found["recurrent_spectral_norm"] / scale, norm, rtol=2e-3)


def test_a_time_constant_that_is_the_shortest_after_rounding_is_refused():
    for least, dtype in ((10.0000001, np.float32), (10.0, np.float64)):
        with pytest.raises(
            ValueError, match="`initial_time_constants` must be two .* above 1 / dt"
        ):
            random_layer(0, dt_tau_max_y=0.1, initial_time_constants=(least, 20.0), dtype=dtype)
    layer = random_layer(
        0, dt_tau_max_y=0.1, initial_time_constants=(10.0001, 20.0), dtype=np.float32
    )
    assert np.all(np.isfinite(layer.cells[0].raw_rates))


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_no_state_is_named():
    layer, x = random_layer(0), sequence_of(0, 3, 2)
    for state in (3, layer.initial_state()[0]):
        with pytest.raises(ValueError, match="`state` must be a tuple with one `CellState`"):
            layer(x, state)
    for index in (None, 0.0, 1):
        with pytest.raises(ValueError, match="`index` must be from -1 to 0"):
            circuit_at(layer, x[0], layer.initial_state(), index)
    with pytest.raises(ValueError, match="`recurrent` must be one of"):
        random_layer(0, recurrent=np.array(["free", "identity"]))
