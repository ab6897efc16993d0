"""Files of hierarchies, and the commands that take them."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from organics import cli
from organics.circuit.circuit import Circuit
from organics.circuit.file import CircuitFileError, load_circuit, save_circuit
from organics.circuit.hierarchy import Hierarchy

PAIR = {
    "areas": [{"W": 1, "b": 1.0, "sigma": 0.05}, {"W": [[1]], "sigma": 0.05, "rectified": False}],
    "feedforward": [1],
    "feedback": [[[0.3]]],
    "gamma": 1.2,
    "g": [1],
    "form": "balanced",
    "z": [[0.02], [0.05]],
    "comment": "two areas of one neuron",
}


def write(tmp_path, document):
    path = tmp_path / "areas.json"
    path.write_text(json.dumps(document))
    return path


def test_a_file_is_read_back_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    areas = [
        Circuit(rng.uniform(size=(2, 2)), rng.normal(size=(2, 2)), tau_y=[1.0, 3.0]),
        Circuit(rng.uniform(size=(3, 3)), rectified=True),
        Circuit(rng.uniform(size=(1, 1))),
    ]
    up = [rng.normal(size=(3, 2)), rng.normal(size=(1, 3))]
    h = Hierarchy(areas, up, [rng.normal(size=(2, 3)), None], [0.1, 0.2], 2.0, "additive")
    path, drives = tmp_path / "areas.json", rng.normal(size=(4, 2))
    save_circuit(path, h, drives)
    again, z = load_circuit(path)
    for one, other in zip(jax.tree.leaves((h, drives)), jax.tree.leaves((again, z)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert jax.tree.structure(h) == jax.tree.structure(again)
    with pytest.raises(ValueError, match="`path` must end in .json for a hierarchy"):
        save_circuit(tmp_path / "areas.npz", h, drives)
    wrong = eqx.tree_at(lambda h: h.gamma, h, -1 - jnp.abs(h.gamma))
    with pytest.raises(ValueError, match="`gamma` must be finite and >= 0"):
        save_circuit(path, wrong, drives)  # it could not be read back
    load_circuit(path)  # nor is the other one lost


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"areas": []}, "`areas` must be a list of circuits, not an empty one"),
        ({"areas": [1, 2]}, r"`areas\[0\]`: must be an object, not 1.0"),
        ({"areas": [{"W": 1}, {"w": 1}]}, r"`areas\[1\]`: lacks W and has the unknown keys"),
        ({"areas": [{"W": 1, "z": 1}, {"W": 1}]}, r"`areas\[0\]`: has the unknown keys \['z'\]"),
        ({"areas": [{"W": 1}, {"W": -1}]}, r"`areas\[1\]`: `W` must be >= 0"),
        ({"gama": 1}, "unknown keys.*did you mean 'gamma'"),
        ({"gamma": [1, 2]}, "`gamma` must be one number"),
        ({"gamma": "1"}, "`gamma` must be a number or a list"),
        ({"form": "other"}, "`form` must be one of"),
        ({"form": [1]}, "`form` must be one of"),
        ({"feedback": [[[-1]]]}, r"`feedback\[0\]` must be >= 0"),
        ({"feedback": [[["a"]]]}, r"`feedback\[0\]\[0\]\[0\]` must be a number"),
        ({"feedforward": [None]}, r"`feedforward\[0\]` must be a number or a list"),
        ({"feedforward": [[1, 2]]}, r"`feedforward\[0\]` must have shape \(1, 1\)"),
        ({"feedforward": []}, "`feedforward` must hold 1 matrices"),
        ({"z": [["1"]]}, r"`z\[0\]\[0\]` must be a number"),
        ({"alpha": 1}, '`alpha` must be left out unless the `form` is "published"'),
        ({"form": "published", "floor": -1}, "`floor` must be >= 0"),
        ({"form": "published", "alpha": [1, 2]}, "`alpha` must be one number"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_key(tmp_path, changes, said):
    path = write(tmp_path, PAIR | changes)
    with pytest.raises(CircuitFileError, match=said) as caught:
        load_circuit(path)
    assert str(path) in str(caught.value)
    missing = {key: value for key, value in PAIR.items() if key != "feedforward"}
    with pytest.raises(CircuitFileError, match="lacks feedforward"):
        load_circuit(write(tmp_path, missing))


def test_commands_take_them(tmp_path, capsys):
    path = str(write(tmp_path, PAIR))
    assert cli.run(["analyze", path, "--json", "--check"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["drives"]) == 2
    one = document["drives"][0]
    assert one["z"] == [0.02] and one["converged"] and one["stable"]
    assert len(one["eigenvalues"]) == 4 and one["spectral_abscissa"] < 0
    assert one["certificate"]["kind"] == "small gain" and one["certificate"]["holds"]
    assert [area.keys() for area in one["areas"]] == [{"y", "a"}] * 2
    np.testing.assert_allclose(one["areas"][0]["a"], [0.00449959], atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["portrait"], "a portrait shows the two potentials"),
        (["spectrum", "--neurons", "y1"], "must be of 1.y1 to 1.y1"),
    ],
)
def test_commands_for_circuits_alone_say_why(tmp_path, capsys, arguments, said):
    command, *options = arguments
    assert cli.run([command, str(write(tmp_path, PAIR)), *options]) == 2
    assert said in capsys.readouterr().err
