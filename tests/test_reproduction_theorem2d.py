import numpy as np
import pytest
from scipy.optimize import brentq

from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.paper import theorem2d
from organics.studies.paper.theorem2d import (
    Sets,
    by_eigenvalues,
    by_trace,
    distance_to_equality,
    expected_count,
    fixed_points,
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        every = {"w_r": 10, "w": 2, "abs(b z)": 8, "b0 sigma": 5, "tau_y/tau_a": 4}
        patch.setattr(theorem2d, "QUICK_EVERY", every)
        patch.setattr(theorem2d, "QUICK_SAMPLE", 10)
        patch.setattr(theorem2d, "QUICK_SLICE_SIDE", 40)
        yield theorem2d.compute(Job(tmp_path_factory.mktemp("job"), quick=True))


def one(w_r, w, p, k):
    return Sets(*(np.array([float(value)]) for value in (w_r, w, p, k)))


def test_every_set_has_a_stable_fixed_point(outcome):
    assert outcome.verdict == "holds", outcome.checks
    total = outcome.numbers["total"]
    assert total["count_sets"] == 5 * 3 * 4 * 2 * 2 * 4
    assert total["count_points"] == total["count_sets"] + 2 * total["count_with_three"]
    assert 0 < total["count_bistable"] < total["count_with_three"]


def test_the_grid_of_the_full_size():
    sizes = [len(values) for values in theorem2d.GRID.values()]
    assert 4 * np.prod(sizes) >= 1e6
    assert np.any(np.isclose(theorem2d.GRID["w_r"], 1))


def test_fixed_points_of_figure_1b():
    """Its values: b = 0.5, w = 1, z = 1, w_r = 2, b0 sigma = 0.05, equal time constants of 2 ms."""
    sets = one(2, 1, 0.5, 0.05)
    points = fixed_points(sets, False)
    np.testing.assert_allclose(points.y[0], [0.997779, -0.569235, -0.978886], atol=1e-6)
    np.testing.assert_allclose(points.s[0] ** 2, [0.563335, 0.003698, 0.059833], atol=1e-6)
    judged = by_trace(sets, points, 1.0)
    np.testing.assert_array_equal(judged.stable[0], [True, False, False])
    np.testing.assert_array_equal(judged.saddle[0], [False, True, False])
    rectified = fixed_points(sets, True)
    np.testing.assert_array_equal(np.isfinite(rectified.y[0]), [True, False, False])


def test_identity_recurrence_has_its_closed_form():
    points = fixed_points(one(1, 2, -0.3, 0.1), False)
    a = 0.1**2 + 2 * 0.3**2
    np.testing.assert_array_equal(points.number, [1])
    np.testing.assert_allclose([points.y[0, 0], points.s[0, 0]], [-0.3 / a**0.5, a**0.5])


def test_the_tangent_point_is_at_equality():
    """The two fixed points with D < 0 merge there: found by counting roots, not by the formula."""
    count = lambda p: int(fixed_points(one(3, 1, p, 0.2), False).number[0])  # noqa: E731
    border = brentq(lambda p: count(p) - 2.0, 0.1, 2.0, xtol=1e-9)
    assert count(border - 1e-3) == 3 and count(border + 1e-3) == 1
    np.testing.assert_allclose(distance_to_equality(one(3, 1, border, 0.2)), 0, atol=1e-8)


@pytest.mark.parametrize("rectified", [False, True])
def test_both_judgements_are_of_random_sets_the_same(rectified):
    rng = np.random.default_rng(int(rectified))
    draw = lambda low, high: 10 ** rng.uniform(low, high, 300)  # noqa: E731
    sets = Sets(draw(-1, 1), draw(-1, 1), draw(-2, 0) * rng.choice([-1, 1], 300), draw(-2, 0))
    points = fixed_points(sets, rectified)
    np.testing.assert_array_equal(points.number, expected_count(sets, rectified))
    for ratio in (0.1, 20.0):
        judged = by_trace(sets, points, ratio)
        other, residual = by_eigenvalues(sets, points, ratio, rectified)
        exists = np.isfinite(points.y)
        np.testing.assert_array_equal(judged.stable[exists], other.stable[exists])
        assert residual.max() < 1e-10


def test_the_map_changes_at_the_curve(outcome):
    main = outcome.numbers["slices"][0]
    side = len(main["map"])
    w_r = (np.arange(side) + 0.5) * 4 / side
    for line, bz in zip(main["map"], -2.5 + (np.arange(side) + 0.5) * 5 / side, strict=True):
        inside = np.abs(bz) < np.interp(w_r, *main["curve"], left=0)
        assert np.sum(inside != np.array([digit in "12" for digit in line])) <= 1


def test_each_check_can_fail(outcome):
    slices, sample = outcome.numbers["slices"], outcome.numbers["sample"]
    for key, change, failing in (
        ("count_with_a_stable_point", -1, 0),
        ("count_first_stable", -1, 1),
        ("count_differing", 1, 2),
        ("largest_residual", 1e-3, 3),
        ("count_disputed", 1, 4),
        ("count_saddles", -1, 5),
    ):
        rows = [dict(row) for row in outcome.numbers["by_model"]]
        rows[0][key] += change
        checks = theorem2d.conclude(rows, sample, slices, {}).checks
        assert [i for i, check in enumerate(checks) if not check.holds] == [failing]
    worse = sample | {"agreeing": sample["agreeing"] - 1}
    assert theorem2d.conclude(rows, worse, slices, {}).checks[-1].holds is False


def test_it_is_drawn(outcome, tmp_path):
    save_figure(theorem2d.draw(outcome), tmp_path / "theorem2d.png")
    assert (tmp_path / "theorem2d.png").stat().st_size > 10_000
