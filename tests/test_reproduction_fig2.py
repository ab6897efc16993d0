"""Figure 2: spectra, certificates and energies of random circuits, by second routes."""

import numpy as np
import pytest

from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.paper import fig2


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return fig2.compute(Job(tmp_path_factory.mktemp("fig2"), quick=True))


def test_everything_holds(outcome):
    assert outcome.verdict == "holds"
    numbers = [len(panel["fixed_points"]) for panel in outcome.numbers["panels"]]
    assert numbers == [1, 3, 1, 1, 3, 1, 1, 3, 1, 1, 2, 1]  # the counting table of the equations


def test_reference_values(outcome):
    """Negative drive mirrors Figure 1b; a zero drive leaves s* = 1 - 1/w_r, and D = 0 there."""
    negative, zero = (
        next(p for p in outcome.numbers["panels"] if p["z"] == z and p["panel"] == "b")
        for z in (-1.0, 0.0)
    )
    found = [(point["y"], point["a"]) for point in negative["fixed_points"]]
    mirrored = [(-0.997779, 0.563335), (0.569235, 0.003698), (0.978886, 0.059833)]
    assert np.allclose(found, mirrored, atol=1e-6)
    last = zero["fixed_points"][-1]
    assert np.allclose((last["y"], last["a"]), (np.sqrt(0.25 - 0.0025) / 0.5, 0.25), atol=1e-6)
    assert np.isclose(last["eigenvalues"][0][0], -0.0025 / 0.25 / 2 / 2)  # half of the trace


def test_mismatch_is_that_of_the_best_matching():
    values = np.array([-1 + 1j, -1 - 1j, -3 + 0j])
    assert fig2.spectral_mismatch(values, values[::-1]) == 0
    assert np.isclose(fig2.spectral_mismatch(values, np.array([-3.3, -1 + 1j, -1 - 1j])), 0.1)


def test_growth_of_a_form_that_does_not_decrease():
    J = np.array([[-0.1, 1.0], [0.0, -0.1]])  # stable, but the plain norm grows at first
    assert fig2.growth(J, np.eye(2)) > 0.5
    assert fig2.growth(-np.eye(2), np.eye(2)) < 0


@pytest.mark.parametrize(
    ("values", "fails"),
    [
        ({"mismatch": {"most": 1e-3}}, [0]),
        ({"spectral_abscissa": {"most": 1e-3}}, [1]),
        ({"certified": 9}, [2]),
    ],
)
def test_every_check_of_the_oscillators_can_fail(outcome, values, fails):
    first, *others = outcome.numbers["oscillators"]
    checks = fig2.oscillator_checks([first | values, *others])
    assert [i for i, check in enumerate(checks) if not check.holds] == fails


@pytest.mark.parametrize(
    ("values", "fails"),
    [
        ({"largest_rate": 1e-3}, [0]),
        ({"near": {"rising": 1, "largest_rise": 0.1, "end": 0.0}}, [1]),
        ({"far": {"rising": 0, "largest_rise": 0.0, "end": None}}, [2]),  # it broke off
    ],
)
def test_every_check_of_the_energy_can_fail(outcome, values, fails):
    checks = fig2.energy_checks(outcome.numbers["energy"] | values)
    assert [i for i, check in enumerate(checks) if not check.holds] == fails


def test_a_missing_fixed_point_is_told(outcome):
    panel = outcome.data[1]
    portrait = panel.portrait._replace(fixed_points=panel.portrait.fixed_points[1:])
    assert not fig2.number_check([panel._replace(portrait=portrait)]).holds


def test_draws(outcome, tmp_path):
    figure = fig2.draw(outcome)
    assert len(figure.axes) == 9
    save_figure(figure, tmp_path / "fig2.png")
