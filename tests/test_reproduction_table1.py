import copy
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from programs import as_many_to_test

from organics.plots import save_figure, table
from organics.studies.harness.target import Job
from organics.studies.networks import static
from organics.studies.ours import mnist_static
from organics.studies.paper import table1
from organics.training import evaluation, loop
from organics.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The table of small networks, its messages, and the folder of its runs."""
    folder, told = tmp_path_factory.mktemp("table1"), []
    job = Job(
        folder / "kept", quick=True, runs=(folder / "runs",),
        progress=lambda fraction, what="": told.append(fraction),  # noqa: ARG005
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(static, "SIZES", {"organics": ((6,),), "mlp": ((6,),), "ssn": ((6, 4),)})
        patch.setattr(static, "PAPER", {("organics", (6,)): 0.981, ("ssn", (6, 4)): 0.949})
        for module in (loop, evaluation):
            patch.setattr(module, "load_task", lambda task: as_many_to_test(task.config))
        yield table1.compute(job), told, folder / "runs" / "mnist_static-quick"


@pytest.mark.usefixtures("standard_promotion")
def test_table_of_small_networks(made, tmp_path):
    outcome, told, runs = made
    assert told == sorted(told) and told[0] == 0 and told[-1] < 1
    assert "command" not in outcome.numbers
    ssn, circuits = outcome.numbers["rows"]
    assert (ssn["model"], circuits["model"]) == ("ssn", "organics")
    (folder,) = runs.glob("ssn-*")
    lines = RunFolder.open(folder).lines("steps.jsonl")
    lost = np.concatenate([line["lost"] for line in lines])
    assert ssn["lost_steps"] == [np.count_nonzero(lost)] and ssn["steps"] == [len(lost)]
    (folder,) = runs.glob("organics-*")
    report = RunFolder.open(folder).load_report()
    assert report is not None
    assert circuits["mean_test_accuracy"] == pytest.approx(report["test_accuracy"], abs=1e-6)
    save_figure(table1.draw(outcome), tmp_path / "table1.png")


@pytest.mark.usefixtures("standard_promotion")
def test_more_seeds_and_networks_at_toy_size(made):
    """With more seeds and networks, one of whose runs exists already."""
    outcome, _, runs = made
    networks = static.Networks(
        out=runs,
        dataset="digits",
        seeds=(0, 1),
        epochs=2,
        ssn_epochs=4,
        batch_size=135,
        averaging=0.9,
    )
    found = static.train_all(networks)
    circuit, control, other = found["rows"]
    assert [row["model"] for row in found["rows"]] == ["organics", "mlp", "ssn"]
    mean = np.mean(circuit["test_accuracy"])  # each to six digits
    assert circuit["mean_test_accuracy"] == pytest.approx(mean, abs=2e-6)
    assert circuit["stability"][0]["stable_fraction"] == [1.0, 1.0] and "stability" not in control
    assert circuit["test_inputs"] == 150
    assert other["stability"][0]["n"] == 10 and other["steps"] == [40, 40]
    assert other["test_accuracy"][:1] == outcome.numbers["rows"][0]["test_accuracy"]
    assert all(0 <= lost <= 1 for lost in other["lost_in_training"])
    assert static.train_all(networks) == found


def test_the_verdict_on_identity_recurrence_is_that_of_its_numbers():
    stored = Path(__file__).parents[1] / "results/ours/mnist_static.json"
    numbers = json.loads(stored.read_text())["numbers"]
    outcome = mnist_static.conclude(numbers)
    assert outcome.verdict == "holds" and len(outcome.checks) == 6
    assert mnist_static.draw(outcome).axes
    circuits = [row for row in numbers["rows"] if row["model"] == "organics"]
    circuits[0]["stability"][0]["stable_fraction"][1] = 0.9999
    assert [check.holds for check in mnist_static.conclude(numbers).checks].count(False) == 1
    circuits[1]["mean_test_accuracy"] -= 0.01
    assert [check.holds for check in mnist_static.conclude(numbers).checks].count(False) == 2


def row(model, layers, accuracy, paper, **more):
    return {
        "model": model, "layers": layers, "parameters": 1000, "epochs": 3, "seeds": [0, 1],
        "test_accuracy": [accuracy - 0.001, accuracy + 0.001], "mean_test_accuracy": accuracy,
        "sd_test_accuracy": 0.0014, "paper_test_accuracy": paper, **more,
    }  # fmt: skip


FOUND = {
    "settings": {"dataset": "mnist"},
    "rows": [
        row("ssn", [50, 50], 0.93, 0.949, lost_in_training=[0.0, 0.001], lost_steps=[0, 2],
            lost_at_most_in_a_step=[0.0, 0.2], steps=[9, 9],
            stability=[{"stable_fraction": [1.0, 0.99]}]),
        row("mlp", [120, 60], 0.984, None),
        row("organics", [50], 0.982, 0.981),
        row("organics", [120, 60], 0.977, 0.981),
    ]
}  # fmt: skip


def verdicts(change=None):
    found = copy.deepcopy(FOUND)
    if change is not None:
        change(found["rows"])
    return [check.holds for check in table1.conclude(found).checks]


def test_every_check_can_fail():
    assert verdicts() == [True, True, True, False, True]
    assert verdicts(lambda rows: rows[2].update(mean_test_accuracy=0.97))[0] is False
    assert verdicts(lambda rows: rows[3].update(mean_test_accuracy=0.97))[1] is False
    assert verdicts(lambda rows: rows[0].update(mean_test_accuracy=0.98))[2] is False
    assert verdicts(lambda rows: rows[0].update(lost_steps=[0, 0]))[4] is False

    def as_many_as_the_paper(rows):
        for found in rows[2:]:
            found["parameters"] = table1.PARAMETERS[tuple(found["layers"])]

    assert verdicts(as_many_as_the_paper)[3] is True


def test_the_table_and_the_picture_have_all_networks(tmp_path):
    outcome = table1.conclude(FOUND)
    labels = ["SSN 50:50", "dense ReLU 120, 60", "ORGaNICs 50:50", "ORGaNICs 120:120, 60:60"]
    assert [cells[0] for cells in outcome.table.rows] == labels
    cited = "94.9 % (of others, on a frozen code)"
    assert outcome.table.rows[0][3:] == ["93.00 ± 0.14 %", cited, "0.000%, 0.100%",
                                         "100.00%, 99.00%"]  # fmt: skip
    figure = table1.draw(outcome)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == labels
    save_figure(figure, tmp_path / "table1.png")
    save_figure(table(outcome.table.columns, outcome.table.rows), tmp_path / "table.png")
