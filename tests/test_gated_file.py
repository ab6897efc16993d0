"""Files of the published form of hierarchies, and the commands that take them."""

import json

import numpy as np
import pytest

from organics import cli
from organics.circuit.areas import joined
from organics.circuit.file import load_circuit, save_circuit
from organics.circuit.gated import GatedHierarchy
from organics.linear.jacobian import jacobian
from organics.rest.search import steady_state
from organics.simulation.noise import Noise
from organics.spectra import power_spectrum

PAIR = {
    "areas": [{"W": 1, "sigma": 0.3}, {"W": [[1]], "sigma": 0.3}],
    "feedforward": [1],
    "feedback": [1],
    "gamma": 0.7,
    "form": "published",
    "alpha": 5,
    "z": [0.5],
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "published.json"
    path.write_text(json.dumps(PAIR))
    return path


@pytest.fixture
def answer(path, capsys):
    """What a command says about the file, as JSON."""

    def run(*words):
        assert cli.run([words[0], str(path), *words[1:], "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_a_file_is_read_back_as_it_was_written(path, tmp_path):
    read, z = load_circuit(path)
    assert isinstance(read, GatedHierarchy) and read.form == "published"
    assert (read.alpha, read.floor, read.hierarchy.form) == (5, 1e-6, "balanced")
    save_circuit(tmp_path / "again.json", read, z)
    again, _ = load_circuit(tmp_path / "again.json")
    assert str(again) == str(read)
    np.testing.assert_array_equal(again.gamma, read.gamma)


def test_it_is_analyzed_and_its_states_are_those_of_the_balanced_form(answer, path):
    read, z = load_circuit(path)
    point = steady_state(read, z[0])
    found = answer("analyze", "--check")
    assert found["circuits"][0]["form"] == "published" and found["circuits"][0]["gamma"] == [0.7]
    (drive,) = found["drives"]
    values = [x for area in drive["areas"] for name in "yapt" for x in area[name]]
    np.testing.assert_allclose(values, joined(point.state), rtol=1e-9)
    assert len(drive["eigenvalues"]) == 8 and drive["certificate"]["kind"] == "spectral"
    assert "gates lag" in drive["certificate"]["why"]
    (drive,) = answer("states")["drives"]
    (state,) = drive["states"]
    assert state["stable"] and state["found_by"] == "from a state of the balanced form"
    np.testing.assert_allclose(state["areas"][0]["y"], point.state[0].y, rtol=1e-9)
    assert not drive["complete"]


def test_it_is_simulated_and_has_spectra_of_filtered_noise(answer, path):
    read, z = load_circuit(path)
    point = steady_state(read, z[0])
    end = answer("simulate", "--initial", "steady", "--duration", "5", "--samples", "3", "--check")
    values = [area[name][-1][0] for area in end["areas"] for name in "yapt"]
    np.testing.assert_allclose(values, joined(point.state), rtol=1e-5)
    found = answer("spectrum", "--neurons", "1.y1", "1.t1", "--points", "4", "--tau-f", "2")
    f = np.array(found["frequencies_hz"]) / 1000
    want = power_spectrum(point, f, Noise(0.1, tau_f=2.0))
    for name, i in (("1.y1", 0), ("1.t1", 3)):
        np.testing.assert_allclose(found["power_per_hz"][name], want[:, i] / 1000, rtol=1e-9)
    # a tracker follows its neuron through a filter of its own
    J = np.asarray(jacobian(read, point.state))
    tracks = np.abs(J[3, 0] / (2j * np.pi * f - J[3, 3])) ** 2
    np.testing.assert_allclose(want[:, 3], tracks * want[:, 0], rtol=1e-9)


def test_it_is_followed_over_its_own_parameters(answer, path):
    found = answer("continue", "--parameter", "alpha", "--from", "1", "--to", "6")
    (branch,) = found["branches"]
    read, z = load_circuit(path)
    state = steady_state(read, z[0]).state  # which does not depend on `alpha`
    for point in branch["points"]:
        np.testing.assert_allclose(point["areas"][0]["p"], state[0].p, rtol=1e-7)
    assert branch["ends"] == ["reached the lower bound", "reached the upper bound"]


@pytest.mark.parametrize(
    "words",
    [
        ["certify", "--rigorous"],
        ["states", "--prove"],
        ["continue", "--from", "0", "--to", "1", "--prove"],
    ],
)
def test_nothing_is_proved_about_gates(path, capsys, words):
    assert cli.run([words[0], str(path), *words[1:]]) == 2
    assert "nothing is proved about gates and trackers" in capsys.readouterr().err
