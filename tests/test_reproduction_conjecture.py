import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from programs import stability_of_trial
from scipy.stats import binom

from organics.circuit.circuit import Circuit
from organics.circuit.file import load_circuit
from organics.linear_stability.spectrum import stability
from organics.plots import save_figure
from organics.rest.search import steady_state
from organics.studies.harness.target import Job
from organics.studies.paper import conjecture, hunt, survey
from organics.studies.paper.hunt import Hunt, all_found, alone, constrained, random_start
from organics.studies.paper.survey import Piecework, fractions, pieces

PIECES = [Piecework(2, norm, False, 0, 40) for norm in (0.5, 5.0)]


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    return [survey.survey(folder, 3, work) for work in PIECES]


@pytest.fixture(scope="module")
def hunted(tmp_path_factory):
    """A small hunt without simulation, which takes long to compile."""
    what = Hunt(2, 1.0, "semidefinite", 16, 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            hunt, "comes_to_rest", lambda circuits, *_, **__: np.zeros(len(circuits.c), bool)
        )
        piece = hunt.hunt(tmp_path_factory.mktemp("hunt"), 0, what)
    return what, piece


def test_found_is_what_each_trial_alone_says(surveyed):
    for work, piece in zip(PIECES, surveyed, strict=True):
        exact = 0
        for index in range(0, work.trials, 5):
            alone = stability_of_trial(3, index, work.n, work.spectral_norm)
            assert piece["found"][index] or not alone.stable
            if work.spectral_norm <= 1:  # the steady state found is then the same
                above = piece["abscissa"][index] - float(alone.spectral_abscissa)
                assert above > -1e-5 and piece["abscissa"][index] < 0
                exact += abs(above) < 1e-5
        assert work.spectral_norm > 1 or 0 < exact < 8  # the others are bounded
    # the largest is exact
    largest = int(np.argmax(surveyed[0]["abscissa"]))
    alone = stability_of_trial(3, largest, PIECES[0].n, PIECES[0].spectral_norm)
    np.testing.assert_allclose(
        surveyed[0]["abscissa"][largest], float(alone.spectral_abscissa), rtol=1e-5
    )
    assert surveyed[0]["found"].all() and not surveyed[1]["found"].all()


def test_pieces_add_up():
    work = pieces({2: (30, 0, 1, 0, 25)}, False, 10)
    assert [one.spectral_norm for one in work] == [0.5] * 3 + [2.0] + [5.0] * 3
    assert len({one.name for one in work}) == len(work)
    number = sum(sum(numbers) for numbers in conjecture.TRIALS.values())
    assert number >= 1e6
    assert all(one.trials == survey.PIECE[one.n] for one in pieces(conjecture.TRIALS, False))


def test_fractions_merge_pieces():
    work = [Piecework(2, 1.0, False, i, 50) for i in range(2)]
    found = np.ones(50, bool)
    parts = [{"found": found, "abscissa": np.full(50, -0.2)} for _ in work]
    parts[1] = {"found": found & (np.arange(50) != 7), "abscissa": np.full(50, -0.1)}
    (row,) = fractions(work, parts)
    assert (row["trials"], row["found"], row["fraction"]) == (100, 99, 0.99)
    assert row["first_not_found"] == [57]
    assert row["largest_abscissa_of_the_stable"] == -0.1
    # Clopper and Pearson's interval, from their own equations
    low, high = row["interval_95"]
    np.testing.assert_allclose([binom.sf(98, 100, low), binom.cdf(99, 100, high)], 0.025, rtol=1e-4)


@pytest.mark.parametrize(("kind", "free_tau"), [("any", False), ("semidefinite", True)])
def test_what_is_hunted_is_within_the_bounds(kind, free_tau):
    @jax.jit
    @jax.vmap
    def drawn(key):
        free = jax.tree.map(lambda x: 9 * x, random_start(key, 3))
        return constrained(free, 0.7, kind, free_tau)

    circuits, drives = jax.tree.map(np.asarray, drawn(jr.split(jr.key(0), 5)))
    assert np.all((circuits.W >= 0) & (circuits.W <= 1))
    for values in (circuits.b, circuits.b0, circuits.sigma):
        assert np.all((values > 0) & (values < 1))
    assert np.all(np.linalg.norm(circuits.W_r, 2, axis=(1, 2)) <= 0.7 * (1 + 1e-12))
    assert np.all(np.linalg.norm(drives, axis=1) <= 1 + 1e-12)
    for tau in (circuits.tau_y, circuits.tau_a):
        assert np.all((tau >= 2 / 10**0.5) & (tau <= 2 * 10**0.5))
        assert free_tau or np.all(tau == 2)
    if kind == "semidefinite":
        np.testing.assert_allclose(circuits.W_r, circuits.W_r.swapaxes(1, 2), atol=1e-15)
        assert np.all(np.linalg.eigvalsh(circuits.W_r) > -1e-12)


def test_the_ascent_has_the_gradient_of_finite_differences():
    free = jax.tree.map(np.asarray, jax.jit(random_start, static_argnums=1)(jr.key(1), 2))
    aim = lambda free: hunt._aim(free, 1.0, 300, jnp.bool_(True), "any", True)[0]  # noqa: E731
    both = jax.jit(jax.value_and_grad(aim))
    _, gradient = both(free)
    for name, values in free.items():
        step = np.zeros_like(values)
        step[(0,) * values.ndim] = 1e-5
        ahead, behind = (both(free | {name: values + sign * step})[0] for sign in (1, -1))
        difference = (ahead - behind) / 2e-5
        np.testing.assert_allclose(gradient[name][(0,) * values.ndim], difference, atol=1e-7)


def test_a_hunt_ascends_and_finds_an_exception(hunted):
    what, piece = hunted
    assert np.all(np.diff(piece["highest"]) >= 0)
    assert piece["highest"][-1] > piece["highest"][0]
    assert len(piece["W"]) == what.starts and not piece["found"].all()
    for index in np.flatnonzero(~piece["found"] & piece["converged"])[:2]:
        circuit, z = hunt.circuit_of(piece, int(index))
        found = stability(steady_state(circuit, z))
        assert not found.stable
        assert alone(piece, int(index)) == []
        least = all_found(circuit, z, 0, 30)[0]
        assert least.abscissa > 0
        if np.isclose(least.abscissa, found.spectral_abscissa):
            np.testing.assert_allclose(least.state.y, found.point.state.y, rtol=1e-6)


def test_a_neuron_without_a_stable_steady_state_is_noticed():
    values = {"W": 0.9 * np.eye(2), "W_r": np.diag([-1.0, 0.5])}
    values |= {name: np.full(2, 0.9) for name in ("b", "b0", "sigma")}
    values |= {name: np.full(2, 2.0) for name in ("tau_y", "tau_a")} | {"z": np.array([1.0, 0.0])}
    assert alone({name: value[None] for name, value in values.items()}, 0) == [0]


def test_all_steady_states_of_figure_1b_are_found():
    """Against theory: eigenvalues of largest real part, in 1/ms."""
    circuit = Circuit([[1.0]], [[2.0]])
    np.testing.assert_allclose(
        [found.abscissa for found in all_found(circuit, jnp.ones(1), 0, 60)],
        [-0.126388, 0.117250, 0.426294],
        atol=2e-6,
    )


def test_the_counterexamples_are_proved():
    proofs = conjecture._proofs()
    assert {proof["verdict"] for proof in proofs.values()} == {"disproved"}
    assert proofs["conjecture"]["statement"] == "no steady state exists"


def test_the_counterexamples_are_those_of_the_examples():
    for name, file in (
        ("conjecture", "no_steady_state"),
        ("bounded", "no_stable_state"),
        ("semidefinite", "no_stable_state_semidefinite"),
    ):
        circuit, drives = load_circuit(f"examples/{file}.json")
        ours, z = conjecture.counterexamples()[name][1:]
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(circuit), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(z, drives[0])


def test_outcome_and_drawing(surveyed, hunted, tmp_path):
    what, piece = hunted
    row = conjecture._hunt_row(what, piece, Job(tmp_path, quick=True, out=tmp_path))
    rows = fractions(PIECES, surveyed)
    outcome = conjecture.conclude(conjecture._proofs(), rows, [row])
    holds = [check.holds for check in outcome.checks]
    assert holds == [False, False, False, True, None, None, None, False]
    assert outcome.verdict == "does not hold"  # what holds besides is not what is conjectured
    (line,) = (line for line in outcome.numbers["first_exceptions"] if line["n"] == 2)
    assert (line["kind"], line["none_up_to"], line["first"]) == ("semidefinite", None, 1.0)
    assert outcome.table is not None and outcome.table.rows[-1][2:] == ["none", "1", "1"]
    circuit, drives = load_circuit(tmp_path / row["worst"]["file"])
    growth = float(stability(steady_state(circuit, drives[0])).spectral_abscissa)
    np.testing.assert_allclose(growth, row["worst"]["abscissa"], rtol=1e-3)
    save_figure(conjecture.draw(outcome), tmp_path / "conjecture.png")
    assert (tmp_path / "conjecture.png").stat().st_size > 10_000


def test_each_check_can_hold_and_fail():
    def verdicts(found, confirmed, verdict):
        row = {"rectified": False, "n": 2, "trials": 100, "interval_95": [0, 1]}
        rows = [
            row | {"spectral_norm": norm, "found": here, "fraction": here / 100}
            for norm, here in zip((1.0, 2.0, 3.0), found, strict=True)
        ]
        worst = {"proof": {"verdict": "disproved", "statement": "so"}}
        hunts = [
            {"kind": kind, "n": 2, "spectral_norm": 1.0, "free_tau": False, "confirmed": confirmed,
             "worst": worst}
            for kind in ("any", "semidefinite")
        ]  # fmt: skip
        said = "no stable steady state exists" if verdict == "disproved" else "so"
        proof = {"verdict": verdict, "statement": said, "circuit": "one", "n": 1}
        proof["spectral_norm"] = 1.0
        proofs = dict.fromkeys(("conjecture", "bounded", "semidefinite"), proof)
        return [check.holds for check in conjecture.conclude(proofs, rows, hunts).checks]

    assert verdicts((100, 100, 90), 0, "proved") == [True] * 8
    assert verdicts((99, 98, 99), 1, "disproved") == [False] * 8


def test_where_exceptions_begin():
    def row(kind, n, norm, confirmed, free_tau=False):
        return {"kind": kind, "n": n, "spectral_norm": norm, "confirmed": confirmed,
                "free_tau": free_tau}  # fmt: skip

    none = {"statement": "no stable steady state exists"}
    one = {"statement": "the enclosure holds exactly one steady state, and it is unstable"}
    proofs = {
        "a": {"n": 1, "spectral_norm": 0.1, **none},
        "b": {"n": 1, "spectral_norm": 0.01, **one},
    }
    hunted = [
        row("any", 2, 0.3, 1), row("semidefinite", 2, 0.5, 0), row("semidefinite", 2, 0.8, 0),
        row("semidefinite", 2, 0.9, 3), row("semidefinite", 2, 1.0, 0),
        row("semidefinite", 2, 0.1, 1, True), row("semidefinite", 16, 1.0, 0),
    ]  # fmt: skip
    found = [tuple(line.values()) for line in conjecture.first_exceptions(hunted, proofs)]
    assert found == [
        ("any", 2, None, 0.3, 0.1),
        ("semidefinite", 2, 0.8, 0.9, 0.9),
        ("semidefinite", 16, 1.0, None, 0.9),
    ]
