"""Figure 1: the six panels match the examples, and their claims can be refuted."""

from pathlib import Path

import numpy as np
import pytest

from organics.circuit.file import load_circuit
from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.paper import fig1
from organics.studies.paper.portraits import count_check, one_neuron_circuits, point_checks

EXAMPLES = Path(__file__).parents[1] / "examples"
REFERENCE = {  # (y, a) and the first eigenvalue, by rising y
    "a": [(0.897971, 0.012910, -0.187615 + 0.056652j)],
    "b": [
        (-0.978886, 0.059833, 0.117250 + 0.313226j),
        (-0.569235, 0.003698, 0.426294),
        (0.997779, 0.563335, -0.126388 + 0.598494j),
    ],
    "c": [(0.416648, 1.210061, -0.506615 + 0.294540j)],
}
REFERENCE |= dict(zip("def", (REFERENCE[panel][-1:] for panel in "abc"), strict=True))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return fig1.compute(Job(tmp_path_factory.mktemp("fig1"), quick=True))


def test_circuits_are_those_of_the_examples():
    for case in one_neuron_circuits(1.0):
        circuit, drives = load_circuit(EXAMPLES / f"figure1{case.letter}.json")
        assert drives.tolist() == [[case.z]] and circuit.rectified == case.circuit.rectified
        for name in ("W", "W_r", "b", "b0", "sigma", "tau_y", "tau_a"):
            assert np.array_equal(getattr(circuit, name), getattr(case.circuit, name)), name


def test_fixed_points_are_those_of_the_reference(outcome):
    assert outcome.verdict == "holds"
    for panel in outcome.numbers["panels"]:
        found = [
            (point["y"], point["a"], complex(*point["eigenvalues"][0]))
            for point in panel["fixed_points"]
        ]
        assert np.allclose(found, REFERENCE[panel["panel"]], rtol=0, atol=1e-6)


def test_a_wrong_count_is_told(outcome):
    wrong = fig1.PAPER | {"b": (1, 1)}
    assert not count_check(outcome.data, wrong, paper=None).holds


@pytest.mark.parametrize(
    ("values", "fails"),
    [
        ({"residual": 1e-3}, [0]),
        ({"eigenvalue_difference": 1e-3}, [1]),
        ({"ends_at_most": 0.05}, [2]),
        ({"ends_at_most": None}, [2]),  # a simulation that broke off
        ({"simulations_from_the_window": 1}, [3]),
    ],
)
def test_every_check_can_fail(outcome, values, fails):
    panels = [
        panel._replace(
            numbers=panel.numbers
            | {"fixed_points": [point | values for point in panel.numbers["fixed_points"]]}
        )
        for panel in outcome.data[:1]
    ]
    assert [i for i, check in enumerate(point_checks(panels)) if not check.holds] == fails


def test_a_stable_point_called_unstable_is_told(outcome):
    panel = outcome.data[1]
    point = panel.numbers["fixed_points"][-1]
    numbers = panel.numbers | {"fixed_points": [point, point | {"stable": False}]}
    assert not point_checks([panel._replace(numbers=numbers)])[-1].holds


def test_draws(outcome, tmp_path):
    figure = fig1.draw(outcome)
    assert len(figure.axes) == 6
    save_figure(figure, tmp_path / "fig1.png")
