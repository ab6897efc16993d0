"""The study of perturbed identity recurrence: computations at a small size, and verdicts."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from organics import Circuit, given_state, principal_state, stability, steady_state
from organics.circuit.circuit import State
from organics.linear_stability.spectrum import largest_euler_step
from organics.studies.ours import perturbed as study
from organics.studies.ours import perturbed_open

RESULT = Path(__file__).parents[1] / "results" / "ours" / "perturbed.json"
SAMPLE = study.Sample(neurons=6, grid=3, trials=1, spreads=2, strengths=2, runs=1)


def test_the_diagram_is_that_of_the_circuits():
    """Against the circuit with its matrix `W_r`: state, eigenvalues and largest step."""
    G = np.random.default_rng((0, 0)).normal(size=(6, 6)) / np.sqrt(6)
    spreads, strengths = study.axes(SAMPLE)
    abscissa, step = study.diagram(spreads, strengths, *study.matrix(SAMPLE, 0))
    for i, j in ((0, 0), (1, 1), (2, 0)):
        W_r = np.eye(6) + spreads[i] * (G + G.T) / 2
        circuit = Circuit(np.ones((6, 6)), W_r, 1.0, 1.0, 0.1, study.TAU, study.TAU)
        linear = stability(principal_state(circuit, np.full(6, strengths[j] / np.sqrt(6))))
        assert float(abscissa[i, j]) == pytest.approx(
            study.TAU * float(linear.spectral_abscissa), abs=1e-9
        )
        largest = float(largest_euler_step(linear.eigenvalues)) / study.TAU
        assert min(float(step[i, j]), 2.0) == pytest.approx(largest, rel=1e-6)


def test_half_of_the_trials():
    spreads = np.array([1.0, 2.0, 4.0])
    assert study._crossing(spreads, np.array([1.0, 0.75, 0.25])) == pytest.approx(2 * np.sqrt(2))
    assert study._crossing(spreads, np.ones(3)) is None


def test_a_rhythm_is_told_from_drift():
    t = np.arange(study._CHUNK)
    assert study._is_periodic(2 + np.sin(t / 20))
    assert not study._is_periodic(2 + np.sin(t / 20) * np.exp(-t / 300))
    assert not study._is_periodic(np.exp(-t / 300))


def test_euler_steps_lose_a_state_that_adaptive_steps_reach():
    """A drive so weak, and a perturbation so strong, that the state rings for long."""
    mu, share = study.matrix(study.Sample(neurons=30), 1)
    spread = 1.5 / mu[-1]
    batch = jax.tree.map(lambda x: np.asarray(x)[None], study.modes(spread, 0.05, mu, share))
    start = jax.vmap(study._normalized)(batch)
    outcomes = study.by_euler_steps(batch, start)
    assert study.OUTCOMES[outcomes[0]] == "periodic"
    adaptive, s = study.by_adaptive_steps(batch, start, np.zeros(1))
    found = study.principal(jax.tree.map(lambda x: x[0], batch))
    assert study.OUTCOMES[adaptive[0]] == "at rest" and s[0] == pytest.approx(
        float(found.s), rel=1e-3
    )
    circuit, z = jax.tree.map(lambda x: x[0], batch).as_circuit()
    state = State(found.v, jnp.full(30, jnp.square(found.s)))
    linear = stability(given_state(circuit, z, state))
    assert linear.stable and largest_euler_step(linear.eigenvalues) < study.STEP * study.TAU


def test_a_strongly_perturbed_circuit_diverges_in_a_finite_time():
    """Two solvers of another library meet the same moment; ours says so."""
    mu, share = study.matrix(study.Sample(neurons=30), 1)
    one = study.modes(10.0, 0.05, mu, share)
    batch = jax.tree.map(lambda x: np.asarray(x)[None], one)
    start = jax.vmap(study._normalized)(batch)
    adaptive, _ = study.by_adaptive_steps(batch, start, np.zeros(1))
    assert study.OUTCOMES[adaptive[0]] == "diverged"

    def velocity(_, x):
        v, a = x[:-1], x[-1]
        dv = -v + one.d + (1 - np.sqrt(a)) * one.omega * v
        return np.r_[dv, -a + study.C + a * np.sum(v * v)] / study.TAU

    def far(_, x):
        return x[-1] - 1e8

    setattr(far, "terminal", True)  # noqa: B010
    begin = np.r_[start.y[0], start.a[0, 0]]
    moments = []
    for method in ("DOP853", "Radau"):
        path = solve_ivp(velocity, (0, 60), begin, method, rtol=1e-8, atol=1e-10, events=far)
        moments.append(path.t[-1])
        assert path.status == 1
    assert moments[0] == pytest.approx(moments[1], rel=1e-5)


def test_what_does_not_come_out_is_said_so():
    numbers = json.loads(RESULT.read_text())["numbers"]
    numbers["diagram"] |= {"stable": 1, "weak_existing": 1}
    numbers["diagram"]["euler_border"][0] = 0.9
    numbers["simulations"]["normalized"]["near"][0][0][0] = False
    numbers["mean_field"][0]["mean"] *= 2
    holds = [check.holds for check in study.conclude(numbers).checks]
    assert not any(holds[i] for i in (0, 1, 2, 3, 6))


def test_a_state_that_is_lost_is_said_so():
    document = json.loads((RESULT.parent / "perturbed_open.json").read_text())
    lost = next(row for row in document["numbers"]["rows"] if "one pool" in row["kind"])
    lost["fates"][0] -= 1
    assert perturbed_open.conclude(document["numbers"]).checks[0].holds is False


def test_the_kinds_of_perturbation():
    sample = perturbed_open.Sample(neurons=8, trials=50)
    for kind, (symmetric, one_pool, _) in perturbed_open.KINDS.items():
        M, W = perturbed_open.draw_circuits(kind, sample)
        assert np.array_equal(M, M.transpose(0, 2, 1)) == symmetric and np.all(W == 1) == one_pool
        above = M[:, *np.triu_indices(8, 1)]
        assert np.var(above) == pytest.approx(1 / 16, rel=0.1)
        assert np.mean(W) == pytest.approx(1, rel=0.05)


@pytest.mark.slow
def test_a_state_that_is_followed():
    """Up to the last spread it is stable; in the next step it is lost as said."""
    sample = perturbed_open.Sample(neurons=4, trials=12, seed=1)
    M, W = perturbed_open.draw_circuits("not symmetric, random pools", sample)
    spreads, z = np.geomspace(0.03, 6, 120), np.full(4, 0.2)
    fates, lasts = perturbed_open.followed(False, M, W, spreads, z)
    assert len(set(np.asarray(fates).tolist())) > 1
    for fate, last, one, pools in zip(fates, lasts, M, W, strict=True):
        name = perturbed_open.FATES[int(fate)]
        assert (name == "stable") == (float(last) == spreads[-1])
        point, state = None, perturbed_open._normalized(z)
        for spread in spreads[spreads <= last]:
            circuit = Circuit(pools, np.eye(4) + spread * one, 1.0, 1.0, 0.1, 2.0, 2.0)
            point = steady_state(circuit, z, start=state)
            state = point.state
        assert point is not None and stability(point).stable
