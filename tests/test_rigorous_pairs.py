import jax.numpy as jnp
import numpy as np
import pytest

from organics.circuit.circuit import Circuit
from organics.circuit.file import load_circuit
from organics.linear.jacobian import jacobian
from organics.planar import fixed_points_2d
from organics.proofs.existence import NONE_STABLE
from organics.proofs.pairs import steady_states_of_two
from organics.proofs.proof import UNSTABLE, prove
from organics.rest.search import given_state, steady_state
from organics.trials import trial


def middle(balls):
    return [float(ball.mid()) for ball in balls]


def test_no_stable_state_with_semidefinite_recurrence():
    """The bounds of the conjecture hold with room to spare, so rounding does not matter."""
    circuit, drives = load_circuit("examples/no_stable_state_semidefinite.json")
    assert circuit.W_r is not None
    np.testing.assert_array_equal(circuit.W_r, circuit.W_r.T)
    low, high = np.linalg.eigvalsh(circuit.W_r)
    assert low > 0.003 and high < 0.997 and np.linalg.norm(drives[0]) < 0.998
    pairs = steady_states_of_two(circuit, drives[0])
    assert pairs is not None and pairs.none_stable
    proof = prove(steady_state(circuit, drives[0]))
    assert (proof.verdict, proof.statement) == ("disproved", NONE_STABLE)
    # the margin is a lower bound on the growth that simulations start with
    J = jacobian(circuit, steady_state(circuit, drives[0]).state)
    growth = np.max(np.linalg.eigvals(J).real)
    assert 0 < float(proof.decided_by.margin.mid()) <= growth and proof.enclosure is not None
    state = steady_state(circuit, drives[0]).state
    assert prove(given_state(circuit, drives[0], state)).statement == UNSTABLE  # of this one alone
    found = [
        all(one.overlaps(other) for one, other in zip(box.y + box.a, [*proof.enclosure.y,
            *proof.enclosure.a], strict=True))
        for box in pairs.enclosures
    ]  # fmt: skip
    assert sum(found) == 1


def test_all_steady_states_of_two_separate_neurons():
    """Those of each neuron alone, in all combinations: 3 times 1. The second has w_r = 0.5."""
    gains = {"b": 0.5, "b0": 0.5, "sigma": 0.1}
    circuit = Circuit(jnp.eye(2), jnp.diag(jnp.array([2.0, 0.5])), **gains)
    pairs = steady_states_of_two(circuit, jnp.ones(2))
    assert pairs is not None and not pairs.none_stable
    first, second = (fixed_points_2d(Circuit([[1.0]], [[w_r]], **gains), 1.0) for w_r in (2.0, 0.5))
    expected = sorted([one.y, other.y] for one in first for other in second)
    np.testing.assert_allclose(sorted(middle(box.y) for box in pairs.enclosures), expected)
    stable = sorted(zip([box.y[0] > 0 for box in pairs.enclosures], pairs.unstable, strict=True))
    assert stable == [(False, True), (False, True), (True, False)]


@pytest.mark.parametrize("norm", [None, 1.0, 3.0])
def test_what_is_proved_stable_is_among_them(norm):
    for index in range(8):
        circuit, z = trial(5, index, 2, norm)
        pairs = steady_states_of_two(circuit, z)
        proof = prove(steady_state(circuit, z))
        if pairs is None or proof.verdict != "proved":
            continue
        assert not pairs.none_stable and proof.enclosure is not None
        y = np.array([middle(box.y) for box in pairs.enclosures])
        assert np.min(np.max(np.abs(y - middle(proof.enclosure.y)), axis=1)) < 1e-8
        if norm is None:
            assert len(pairs.enclosures) == 1


def test_steady_states_that_form_a_curve_are_not_enumerated():
    """Without drive and normalization, `y_1` is free where its effective gain vanishes."""
    W_r = [[2.0, 0.0], [0.0, 0.5]]
    circuit = Circuit(jnp.zeros((2, 2)), W_r, b=0.5, b0=[1.0, 0.5], sigma=[0.5, 0.5])
    assert steady_states_of_two(circuit, jnp.zeros(2)) is None


def test_refusals():
    with pytest.raises(ValueError, match="have n = 2, not n = 3"):
        steady_states_of_two(Circuit(jnp.eye(3)), jnp.ones(3))
    with pytest.raises(ValueError, match="main model and have n = 2, not n = 2, rectified"):
        steady_states_of_two(Circuit(jnp.eye(2), rectified=True), jnp.ones(2))
