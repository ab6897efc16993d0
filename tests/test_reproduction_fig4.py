"""Figure 4: the errors match an independent iteration, and have the right size."""

import numpy as np
import pytest

from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.paper import fig4
from organics.trials import trial


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return fig4.compute(Job(tmp_path_factory.mktemp("fig4"), quick=True))


def iterates(W, W_r, b, b0, sigma, z, count):
    """Algorithm 1 as it stands in the paper, in NumPy."""
    bound, d, c = np.linalg.norm(W_r, 2), b * z, (b0 * sigma) ** 2
    respond = lambda a: W_r @ d / (bound - bound**2 + bound**2 * np.sqrt(a))  # noqa: E731
    a = c + W @ (c * respond(c) ** 2)
    y = respond(a)
    for _ in range(count):
        yield y, a
        y = np.linalg.solve(np.eye(len(d)) - (1 - np.sqrt(a))[:, None] * W_r, d)
        a = c + W @ (a * y**2)


def test_errors_are_those_of_the_algorithm(outcome):
    assert outcome.verdict == "holds"
    count, errors = outcome.numbers["circuits"], []
    for index in range(count):
        circuit, z = trial(0, index, 10)
        names = ("W", "W_r", "b", "b0", "sigma")
        arrays = [np.asarray(getattr(circuit, name)) for name in names]
        found = list(iterates(*arrays, np.asarray(z), 200))
        y, a = found[-1]
        errors.append(
            [(np.linalg.norm(u - y), np.linalg.norm(v - a)) for u, v in found[: fig4.ITERATIONS]]
        )
    expected = np.mean(errors, axis=0).T
    for name, mean in zip("ya", expected, strict=True):
        assert np.allclose(outcome.numbers["error"][name]["mean"], mean, rtol=1e-4, atol=1e-12)


def test_errors_are_of_the_size_that_was_measured_before(outcome):
    """Another 100 circuits had 0.98 and 0.12 at the start, 4.5e-4 and 3.0e-4 at iteration 5; a few
    slow ones make up the mean."""
    error = outcome.numbers["error"]
    assert 0.7 < error["y"]["mean"][0] < 1.3 and 0.05 < error["a"]["mean"][0] < 0.25
    assert all(3e-5 < error[name]["mean"][4] < 1e-2 for name in "ya")


@pytest.mark.parametrize(
    ("values", "fails"),
    [
        ({"simulations_at_rest": 1}, [0]),
        ({"largest_residual": None}, [0]),
        ({"largest_error_at_200": 1e-3}, [4]),
    ],
)
def test_every_check_can_fail(outcome, values, fails):
    checks = fig4.checks(outcome.numbers | values)
    assert [i for i, check in enumerate(checks) if not check.holds] == fails


def test_an_error_that_stays_is_told(outcome):
    error = outcome.numbers["error"]
    stuck = error | {"a": error["a"] | {"mean": [0.1] * fig4.ITERATIONS}}
    checks = fig4.checks(outcome.numbers | {"error": stuck})
    assert [check.holds for check in checks[1:4]] == [False, False, False]


def test_draws(outcome, tmp_path):
    save_figure(fig4.draw(outcome), tmp_path / "fig4.png")
