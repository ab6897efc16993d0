"""Where gradients overflow: the study's verdict, and a circuit that is sure to."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from organics.nn import CellState, ORGaNICs
from organics.studies.ours import overflow
from organics.studies.ours.overflow import Sample, conclude


def frozen(y, dtype=np.float64, kind="modulated-y"):
    """One neuron whose y freezes as `a` grows, while `a` is pooled at the rate 1."""
    layer = ORGaNICs(
        1, 1, key=jr.key(0), recurrent="identity", drive="unit", time_constants=kind,
        dt_tau_max_y=1.0, dt_tau_max_a=1.0, dt_tau_max_gates=1.0, dtype=dtype, backend="scan",
    )  # fmt: skip
    cell = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), layer.cells[0])
    raw = jnp.array([[0.0], [40.0], [40.0], [40.0]], dtype)
    cell = eqx.tree_at(
        lambda c: (c.raw_rates, c.modulation.T_a), cell, (raw, jnp.full((1, 1, 1), -1e3, dtype))
    )
    start = (CellState(*(jnp.full(1, v, dtype) for v in (y, 1.0, 0.5, 0.5))),)
    return eqx.tree_at(lambda la: la.cells, layer, (cell,)), start


def test_a_frozen_value_above_one_makes_a_grow_without_bound():
    """a <- c + y^2 a: to rest at c / (1 - y^2) below 1, for ever by y^2 a step above."""
    x = jnp.zeros((200, 1))
    for y, known in ((0.9, 0.25 / (1 - 0.81)), (1.1, (1 + 0.25 / 0.21) * 1.21**200 - 0.25 / 0.21)):
        layer, start = frozen(y)
        _, state = eqx.filter_jit(lambda la, x, s: la(x, s))(layer, x, start)
        np.testing.assert_allclose(state[0].y, y, rtol=1e-12)
        np.testing.assert_allclose(state[0].a, known, rtol=1e-9)
    layer, start = frozen(1.1, np.float32)
    x = jnp.zeros((600, 1), np.float32)
    _, state = eqx.filter_jit(lambda la, x, s: la(x, s))(layer, x, start)
    assert not np.isfinite(state[0].a)


def test_without_rectification_learned_time_constants_and_a_unit_drive_are_not_enough():
    """The gate of b0 closes, `a` falls, y adds up its drive past `W y^2 = 1`, and `a` explodes."""
    x = jnp.zeros((60, 2), np.float32).at[:, 1].set(1).at[20:, 0].set(1)
    largest = {}
    for rectified in (False, True):
        layer = ORGaNICs(
            2, 1, key=jr.key(0), recurrent="identity", drive="unit", rectified=rectified,
            dt_tau_max_y=1.0, dt_tau_max_a=1.0, dt_tau_max_gates=1.0, dtype="float32",
            backend="scan",
        )  # fmt: skip
        cell = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), layer.cells[0])
        by_hand = [[1.0, 0.0]], [[0.0, -20.0]], [[0.0, 20.0]], [[20.0]] * 4
        cell = eqx.tree_at(
            lambda c: (c.W_zx, c.W_b0x, c.W_bx, c.raw_rates),
            cell,
            [jnp.array(value, np.float32) for value in by_hand],
        )
        start = (CellState(*(jnp.full(1, v, np.float32) for v in (0.0, 1.0, 1.0, 0.5))),)
        layer = eqx.tree_at(lambda la: la.cells, layer, (cell,))
        y, _ = eqx.filter_jit(lambda la, x, s: la(x, s))(layer, x, start)
        largest[rectified] = float(np.abs(np.asarray(y)).max())
    assert not np.isfinite(largest[False]) and largest[True] < 20


def test_a_neuron_that_freezes_as_a_whole_keeps_its_state():
    """The same weights, but `a` freezes with y, so that it cannot grow; b0 and b neither."""
    layer, start = frozen(1.1, kind="modulated-together")
    _, state = eqx.filter_jit(lambda la, x, s: la(x, s))(layer, jnp.zeros((200, 1)), start)
    for part, began in zip(state[0], start[0], strict=True):
        np.testing.assert_allclose(part, began, rtol=1e-9)


def test_layers_are_counted_and_every_one_is_another():
    sample = Sample(count=3, units=16, steps=5, at_once=3)
    kind = overflow.KINDS[2]
    run = overflow._gradients
    norms, largest = map(np.asarray, run(kind, sample, jnp.float32(10), jr.split(jr.key(0), 3)))
    assert norms.dtype == np.float32 and len(set(norms.tolist())) == 3
    assert np.all(norms > 0) and np.all(largest > 0)
    again, _ = run(kind, sample, jnp.float32(10), jr.split(jr.key(0), 3))
    np.testing.assert_array_equal(again, norms)


def test_one_gradient_that_overflows_decides():
    row = {
        "recurrent": "identity", "rectified": True, "time_constants": "learned", "weights": "any",
        "layers": 100, "overflow": 0, "states_overflow": 0, "largest_y": 1.0,
        "gradient_norm": {"median": 1.0, "0.999": 2.0, "largest": 3.0},
    }  # fmt: skip
    kinds = ("modulated-y", "modulated-together", "modulated")
    others = [row | {"time_constants": kind} for kind in kinds]
    others[2] |= {"overflow": 2, "states_overflow": 1}
    outcome = conclude({"count": 100, "steps": 5, "rows": [row, *others]})
    assert [check.holds for check in outcome.checks] == [True, True, True, False]
    assert outcome.here.endswith("2 of 100 gradients overflow, 1 of them where the states do not")
