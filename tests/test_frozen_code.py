import copy

import equinox as eqx
import jax
import numpy as np
import pytest

from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.ours import frozen_code
from organics.studies.ours.frozen_code import CIRCUIT, CITED, LAYERS, RELU, Trainings

SMALL = Trainings(
    dataset="digits", encoder=(32, 16), code_epochs=150, epochs=10, batch_size=150,
    learning_rate=0.03, seeds=(0,),
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The numbers of small networks, and the folder of their code. As steady states take long to
    compile, dense layers stand for all of them."""
    runs = tmp_path_factory.mktemp("frozen")
    few = {name: LAYERS[RELU] for name in (CITED, CIRCUIT, RELU)} | {"linear readout": None}
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(frozen_code, "LAYERS", few)
        found = frozen_code.measure(SMALL, Job(runs / "kept", runs=(runs,)))
    return found, frozen_code.code(SMALL, runs / "frozen_code")


def test_all_networks_read_one_code_of_the_images(made):
    found, codes = made
    assert codes["train"].shape == (1_500, 16) and codes["test"].shape == (297, 16)
    assert np.all((codes["train"] > 0) & (codes["train"] < 1))
    assert np.min(np.std(codes["train"], axis=0)) > 0.1  # no number is about the same for all
    rows = {row["network"]: row for row in found["rows"]}
    assert rows["linear readout"]["parameters"] == 10 * 16 + 10
    # equal layers, seeds and codes
    assert rows[CITED]["test_accuracy"] == rows[RELU]["test_accuracy"]
    assert rows[RELU]["mean_test_accuracy"] > 0.5  # a guess is right for a tenth


def test_the_table_has_all_networks(made, tmp_path):
    outcome = frozen_code.conclude(made[0])
    assert outcome.table is not None
    assert [cells[0] for cells in outcome.table.rows] == [CITED, CIRCUIT, RELU, "linear readout"]
    assert [cells[3] for cells in outcome.table.rows] == ["94.9 %", "", "", ""]
    save_figure(frozen_code.draw(outcome), tmp_path / "table.png")


def test_each_network_has_its_layer():
    def parameters(name):
        shapes = eqx.filter_eval_shape(
            lambda: frozen_code.network(name, 50, jax.random.key(0))
        )  # fmt: skip
        return sum(leaf.size for leaf in jax.tree.leaves(shapes) if hasattr(leaf, "dtype"))

    readout, n = 510, 50
    assert [parameters(name) - readout for name in LAYERS] == [
        3 + 100**2, 100**2 + 100 * 50 + 100, 3 * n**2 + n, n**2 + n, 0,
    ]  # fmt: skip


def row(name, accuracy, late_gain=0.0):
    return {
        "network": name, "parameters": 1, "mean_test_accuracy": accuracy, "sd_test_accuracy": None,
        "late_gain": late_gain, "lost_in_training": [0.0],
    }  # fmt: skip


def test_every_check_can_fail():
    good = {"rows": [row(CITED, 0.95), row(CIRCUIT, 0.957), row(RELU, 0.944)]}

    def answers(i=0, **change):
        found = copy.deepcopy(good)
        found["rows"][i] |= change
        return [check.holds for check in frozen_code.conclude(found).checks]

    assert answers() == [True] * 4
    assert answers(0, mean_test_accuracy=0.953) == [False, True, True, True]
    assert answers(2, mean_test_accuracy=0.953) == [True, False, True, True]
    assert answers(0, mean_test_accuracy=0.943) == [True, True, False, True]
    assert answers(1, late_gain=0.006) == [True, True, True, False]
