"""Branches of hierarchies: their proofs, and the way through kinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx

from organics.branches import arclength
from organics.branches.continuation import as_system, continuation
from organics.branches.family import as_family, as_line
from organics.circuit.areas import joined
from organics.circuit.circuit import Circuit
from organics.circuit.hierarchy import Hierarchy
from organics.proofs.balls import exact
from organics.proofs.bifurcations import prove_event
from organics.proofs.line import Equations
from organics.proofs.proof import STABLE, prove
from organics.rest.search import steady_state

FOLDS = 1.159286, 1.076991
HOPF = 1.437846


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arclength, "_WIDTHS", (4,))
        yield


def pair(gamma, sigma, g=1.0, tau_a=2.0, b=1.0):
    """Two areas of one neuron."""
    one = np.ones((1, 1))
    areas = [Circuit(one, b=b, sigma=sigma, tau_y=2.0, tau_a=tau_a) for b in (b, 0.5)]
    return Hierarchy(areas, [one], [one], gamma, g)


def areas_of(form, rectified, seed=0):
    """Two areas of 2 neurons and 1 with general recurrence; feedback comes to one neuron alone."""
    rng = np.random.default_rng(seed)
    circuits = [
        Circuit(
            rng.uniform(0.1, 1, (n, n)), 0.5 * np.eye(n) + 0.3 * rng.normal(size=(n, n)),
            rng.uniform(0.3, 1, n), 0.5, 0.3, *rng.uniform(1, 10, (2, n)), rectified=rectified,
        )
        for n in (2, 1)
    ]  # fmt: skip
    up, back = rng.uniform(0.1, 1, (1, 2)), np.array([[0.6], [0.0]])
    return Hierarchy(circuits, [up], [back], 0.7, 0.6, form), np.array([0.5, -0.3])


STATES = [[0.3, 0.2, 0.2, 0.3, 0.4, 0.3], [0.3, -0.2, 0.2, 0.3, 0.4, 0.3],
          [-0.3, 0.2, 0.2, 0.3, 0.4, 0.3], [-0.3, -0.2, 0.2, 0.3, -0.4, 0.3]]  # fmt: skip


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("form", ["balanced", "additive"])
def test_pieces_are_the_hierarchy_where_the_signs_are_theirs(form, rectified):
    """In floats, and as the equations in balls that proofs use; with any parameter."""
    h, z = areas_of(form, rectified)
    with ctx.workprec(53):
        for state, parameter in zip(
            STATES, ("gamma", "areas[0].W[0,1]", "feedforward[0][0,1]", "g"), strict=True
        ):
            x, value = np.array(state), 0.9
            line = as_line(as_system(h, z, parameter), parameter)
            family, _ = as_family(as_system(h, z, parameter), (parameter,))
            system = jax.tree.map(jnp.asarray, family.whole(value))
            piece = system.piece(jnp.asarray(x[system.kinks()] > 0))
            F, J = system.imbalance(jnp.asarray(x)), system.jacobian(jnp.asarray(x))
            equations = Equations.of(line.base, line.slope, x)
            balls = exact(x), arb(value)
            values = [float(ball.mid()) for ball in equations.imbalance(*balls)]
            rows = [[arb(entry) for entry in row] for row in equations.jacobian(*balls)]
            entries = [[float(entry.mid()) for entry in row] for row in rows]
            for one in (piece.imbalance(jnp.asarray(x)), values):
                np.testing.assert_allclose(one, F, rtol=0, atol=1e-13)
            for one in (piece.jacobian(jnp.asarray(x)), entries):
                np.testing.assert_allclose(one, J, rtol=0, atol=1e-13)
            assert all(one.holds for one in equations.on_this_piece(*balls))
            tau = np.asarray(system.time_constants())[:, None]
            rates = [[float(entry.mid()) for entry in row] for row in equations.rates(*balls)]
            np.testing.assert_allclose(rates, J / tau, rtol=0, atol=1e-13)


def test_folds_and_hopf_points_of_areas_are_proved():
    bistable, rhythmic = pair(1.1, 0.1), pair(1.3, 0.05, 0.3, 10.0, 0.5)
    for h, z, bounds, wanted in (
        (bistable, [5e-4], (0.9, 1.2), [("fold", value) for value in FOLDS]),
        (rhythmic, [0.04], (1.3, 1.5), [("hopf", HOPF)]),
    ):
        (branch,) = continuation(h, np.array(z), "gamma", bounds).branches
        assert [event.kind for event in branch.events] == [kind for kind, _ in wanted]
        for event, (_, value) in zip(branch.events, wanted, strict=True):
            proof = prove_event(h, np.array(z), "gamma", event)
            assert proof.proved and proof.parameter is not None
            assert abs(float(proof.parameter.mid()) - value) < 1e-6
            assert any("active or silent" in one.name for one in proof.evidence)
            # with another sign assumed there is no such point
            other = event._replace(x=np.abs(event.x) * [-1, 1, 1, 1])
            assert not prove_event(h, np.array(z), "gamma", other).proved


@pytest.mark.parametrize("form", ["balanced", "additive"])
def test_branches_of_rectified_areas_go_on_through_kinks(form):
    h, z = areas_of(form, True)
    (branch,) = continuation(h, z, "z[1]", (-0.5, 0.5)).branches
    assert branch.ends == ("reached the lower bound", "reached the upper bound")
    (event,) = branch.events
    assert event.kind == "switch" and event.switched == ("1.y2",) and event.confirmed
    assert "switch of neuron 1.y2" in event.words and abs(event.x[1]) < 1e-12
    for i in (0, -1):
        at = np.array([0.5, branch.parameter[i]])
        np.testing.assert_allclose(branch.x[i], joined(steady_state(h, at).state), rtol=1e-7)
    assert np.all(np.diff(np.sign(branch.x[:, 1])) >= 0) and branch.x[0, 1] < 0 < branch.x[-1, 1]


def test_a_silent_neuron_with_feedback_is_proved_to_rest_at_0():
    """Up to `gamma = 1 / (1 - s)` of the theory (15.4.4a)."""
    one = np.ones((1, 1))
    areas = [Circuit(np.ones((2, 2)), b=0.5, sigma=0.3), Circuit(one, b=0.5, sigma=0.3)]
    z = np.array([0.6, 0.0])
    for gamma in (0.7, 1.0, 1.5, 1.7):
        h = Hierarchy(areas, [np.array([[1.0, 0.0]])], [np.ones((2, 1))], gamma)
        point = steady_state(h, z)
        assert point.converged and point.state[0].y[1] == 0
        assert gamma < 1 / (1 - np.sqrt(point.state[0].a[1]))
        assert prove(point).verdict == "proved"


@pytest.mark.parametrize("strength", [0.5, 0.9])
def test_a_rectified_circuit_at_rest_without_input_is_proved_on_all_its_pieces(strength):
    W_r = strength * np.array([[0.3, -0.8], [0.6, 0.2]])
    circuit = Circuit(np.ones((2, 2)), W_r, b0=1.0, sigma=0.3, rectified=True)
    point = steady_state(circuit, np.zeros(2))
    assert np.all(np.asarray(point.state.y) == 0)
    proof = prove(point)
    pieces = [
        np.linalg.eigvals(0.7 * W_r * np.array(on) - np.eye(2)).real.max()
        for on in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert max(pieces) < 0
    assert (proof.verdict, proof.statement) == ("proved", STABLE)
    assert all(ball.contains(0) for ball in proof.enclosure.y)
