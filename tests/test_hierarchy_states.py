"""All steady states of areas with feedback, and proofs about them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import ctx

from organics import cli
from organics.branches.continuation import continuation
from organics.circuit.areas import joined
from organics.circuit.circuit import Circuit
from organics.circuit.hierarchy import Hierarchy
from organics.enumeration.states import steady_states
from organics.proofs.ball_areas import BallHierarchy
from organics.proofs.balls import exact, floats
from organics.proofs.proof import UNIQUE, prove
from organics.rest.search import given_state, steady_state
from organics.rest.system import driven_by

BETWEEN_FOLDS = 1.118  # the folds of `pair` are at 1.076991 and 1.159286
DRIVE = np.array([5e-4])


def pair(gamma, sigma=0.1):
    """Two areas of one neuron; bistable."""
    one = np.ones((1, 1))
    areas = [Circuit(one, b=b, sigma=sigma) for b in (1.0, 0.5)]
    return Hierarchy(areas, [one], [one], gamma)


def random_areas(seed, form, rectified):
    """Two areas of 2 and 3 neurons with general recurrence."""
    rng = np.random.default_rng(seed)
    circuits = []
    for n in (2, 3):
        W_r = 0.5 * np.eye(n) + 0.2 * rng.uniform(size=(n, n))
        taus = rng.uniform(1, 10, (2, n))
        W, b = rng.uniform(0.1, 1, (n, n)), rng.uniform(0.3, 1, n)
        circuits.append(Circuit(W, W_r, b, 0.5, 0.3, *taus, rectified=rectified))
    up, back = rng.uniform(0.1, 1, (3, 2)), rng.uniform(0, 0.5, (2, 3))
    return Hierarchy(circuits, [up], [back], 0.7, 0.6, form), rng.uniform(0.1, 1, 2)


@pytest.mark.parametrize("form", ["balanced", "additive"])
def test_the_equations_in_balls_are_those_of_the_hierarchy(form):
    for seed in range(4):
        h, z = random_areas(seed, form, bool(seed % 2))
        rng = np.random.default_rng(seed)
        x = np.concatenate(
            [part for n in (2, 3) for part in (rng.normal(size=n), rng.uniform(0.1, 1.5, n))]
        )
        system = driven_by(h, jnp.asarray(z))
        balls = BallHierarchy.of(h, jnp.asarray(z))
        with ctx.workprec(53):
            values = [float(value.mid()) for value in balls.imbalance(exact(x))]
            J = floats(balls.imbalance_jacobian(exact(x)))
        np.testing.assert_allclose(system.imbalance(jnp.asarray(x)), values, rtol=0, atol=1e-13)
        np.testing.assert_allclose(system.jacobian(jnp.asarray(x)), J, rtol=0, atol=1e-13)


def test_between_the_folds_there_are_three_states_each_of_which_is_proved():
    found = steady_states(pair(BETWEEN_FOLDS), DRIVE, prove=True)
    assert [state.stable for state in found.states] == [True, False, True]
    assert all(state.proved for state in found.states)
    assert found.degree == (1, 1) and found.outcome == "at least these, proved"
    assert not found.complete and not found.proved
    assert "3 steady states, 2 stable" in str(found)
    ways = {state.found_by for state in found.states}
    assert "continued in gamma" in ways
    # Newton's method from near one of them ends there
    h, state = pair(BETWEEN_FOLDS), found.states[1].state
    near = jax.tree.map(lambda x: x * (1 + 1e-4), state)
    again = steady_state(h, DRIVE, start=near)
    assert again.converged
    np.testing.assert_allclose(joined(again.state), joined(state), rtol=1e-8)
    with pytest.raises(ValueError, match="`start` must hold a `State` for each area, not 5"):
        steady_state(h, DRIVE, start=5)


def test_where_feedback_changes_nothing_the_only_state_is_proved_area_by_area():
    found = steady_states(pair(1.0), np.array([0.3]), prove=True)
    (state,) = found.states
    assert found.proved and found.complete and state.proof.statement == UNIQUE
    names = [one.name for one in state.proof.inequalities]
    assert any(name.endswith("area 1") for name in names) and names[-1].endswith("area 2")
    for box, at in zip(state.proof.enclosure, state.state, strict=True):
        for ball, value in zip([*box.y, *box.a], np.concatenate(at), strict=True):
            assert abs(float(ball.mid()) - value) < 1e-12
    assert not pair(1.0).never_acts(-np.ones(1)) and not pair(1.1).never_acts(np.ones(1))


def test_a_state_with_feedback_is_proved_from_all_equations_and_another_is_not():
    h, z = random_areas(0, "balanced", False)
    point = steady_state(h, z)
    proof = prove(point)
    assert proof.verdict == "proved" and len(proof.balls()) == 4
    elsewhere = jax.tree.map(lambda x: x * 1.5, point.state)
    assert prove(given_state(h, z, elsewhere)).verdict == "undecided"


@pytest.mark.parametrize("parameter", ["g", "feedback[0][0,0]", "areas[1].b[0]", "z[0]"])
def test_branches_over_any_number_have_its_value(parameter):
    """The state at the bound is that of the hierarchy with that value."""
    h = pair(0.8, 0.3)
    (branch,) = continuation(h, np.array([0.5]), parameter, (0.4, 1.2)).branches
    last = {
        "g": lambda v: Hierarchy(h.areas, h.feedforward, h.feedback, h.gamma, v),
        "feedback[0][0,0]": lambda v: Hierarchy(h.areas, h.feedforward, [[[v]]], h.gamma),
        "areas[1].b[0]": lambda v: Hierarchy(
            [h.areas[0], Circuit(np.ones((1, 1)), b=v, sigma=0.3)], h.feedforward, h.feedback, 0.8
        ),
        "z[0]": lambda _: h,
    }[parameter]
    for i in (0, -1):
        value = branch.parameter[i]
        z = np.array([value if parameter == "z[0]" else 0.5])
        want = joined(steady_state(last(value), z).state)
        np.testing.assert_allclose(branch.x[i], want, rtol=1e-7)
    assert {round(branch.parameter[i], 9) for i in (0, -1)} == {0.4, 1.2}


def test_the_commands_say_the_same(tmp_path, capsys):
    path = tmp_path / "pair.json"
    area = {"W": 1, "sigma": 0.1}
    path.write_text(
        json.dumps(
            {
                "areas": [area | {"b": 1.0}, area],
                "feedforward": [1],
                "feedback": [1],
                "gamma": BETWEEN_FOLDS,
                "z": DRIVE.tolist(),
            }
        )
    )

    def run(*arguments):
        assert cli.run([*arguments[:1], str(path), *arguments[1:], "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    (drive,) = run("states", "--prove")["drives"]
    assert [state["stable"] for state in drive["states"]] == [True, False, True]
    assert drive["complete"] is False and all(len(s["areas"]) == 2 for s in drive["states"])
    found = run("continue", "--parameter", "gamma", "--from", "0.9", "--to", "1.2")
    (branch,) = found["branches"]
    folds = sorted(one["parameter"] for one in branch["events"] if one["kind"] == "fold")
    np.testing.assert_allclose(folds, [1.076991, 1.159286], rtol=0, atol=1e-6)
    assert branch["points"][0]["areas"][1].keys() == {"y", "a"}
    (one,) = run("certify", "--rigorous")["circuits"][0]["drives"]
    assert one["verdict"] == "proved" and len(one["areas"]) == 2
