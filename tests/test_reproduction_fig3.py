"""Figure 3: one fixed point for all time constants; eigenvalues match the closed form."""

from pathlib import Path

import numpy as np
import pytest

from organics.circuit.file import load_circuit
from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.paper import fig3

EXAMPLES = Path(__file__).parents[1] / "examples"
Y, A = 0.995037, 0.2525


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return fig3.compute(Job(tmp_path_factory.mktemp("fig3"), quick=True))


def test_circuits_are_those_of_the_examples():
    for case in fig3.cases():
        circuit, drives = load_circuit(EXAMPLES / f"figure3{case.letter}.json")
        assert drives.tolist() == [[case.z]] and circuit.rectified and case.circuit.rectified
        assert circuit.W_r is None and case.circuit.W_r is None
        for name in ("W", "b", "b0", "sigma", "tau_y", "tau_a"):
            assert np.array_equal(getattr(circuit, name), getattr(case.circuit, name)), name


def test_spectrum_is_the_closed_form(outcome):
    assert outcome.verdict == "holds"
    for panel in outcome.numbers["panels"]:
        [point] = panel["fixed_points"]
        assert np.allclose((point["y"], point["a"]), (Y, A), rtol=0, atol=1e-6)
        c, root = 0.05**2, np.sqrt(point["a"])
        damping = root / panel["tau_y"] + c / (point["a"] * panel["tau_a"])
        stiffness = root / (panel["tau_y"] * panel["tau_a"])
        expected = np.roots([1, damping, stiffness])
        found = [complex(*value) for value in point["eigenvalues"]]
        assert np.allclose(sorted(found, key=np.imag), sorted(expected, key=np.imag), atol=1e-8)


def test_every_check_can_fail(outcome):
    panels = outcome.numbers["panels"]
    broken = [panels[0] | {"from_closed_form": 1e-3, "path": {"ends_at": 1e-3}}, *panels[1:]]
    assert not any(check.holds for check in fig3.path_checks(broken))


def test_draws(outcome, tmp_path):
    figure = fig3.draw(outcome)
    assert len(figure.axes) == 6
    save_figure(figure, tmp_path / "fig3.png")
