import copy

import numpy as np
import pytest

from organics.experiments import mnist_static
from organics.plots import save_figure, table
from organics.reproduction import table1
from organics.reproduction.target import Job
from organics.training.run_folder import RunFolder


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_table_of_small_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(
        mnist_static, "SIZES", {"organics": ((6,),), "mlp": ((6,),), "ssn": ((6, 4),)}
    )
    monkeypatch.setattr(mnist_static, "PAPER", {("organics", (6,)): 0.981, ("ssn", (6, 4)): 0.949})
    told = []
    job = Job(
        tmp_path / "kept", quick=True, runs=(tmp_path / "runs",),
        progress=lambda fraction, what="": told.append(fraction),  # noqa: ARG005
    )  # fmt: skip
    outcome = table1.compute(job)
    assert told == sorted(told) and told[0] == 0 and told[-1] < 1
    assert "command" not in outcome.numbers
    ssn, circuits = outcome.numbers["rows"]
    assert (ssn["model"], circuits["model"]) == ("ssn", "organics")
    (folder,) = (tmp_path / "runs" / "mnist_static-quick").glob("ssn-*")
    lines = RunFolder.open(folder).lines("steps.jsonl")
    lost = np.concatenate([line["lost"] for line in lines])
    assert ssn["lost_steps"] == [np.count_nonzero(lost)] and ssn["steps"] == [len(lost)]
    (folder,) = (tmp_path / "runs" / "mnist_static-quick").glob("organics-*")
    report = RunFolder.open(folder).load_report()
    assert report is not None
    assert circuits["mean_test_accuracy"] == pytest.approx(report["test_accuracy"], abs=1e-6)
    save_figure(table1.draw(outcome), tmp_path / "table1.png")


def row(model, layers, accuracy, paper, **more):
    return {
        "model": model, "layers": layers, "parameters": 1000, "epochs": 3, "seeds": [0, 1],
        "test_accuracy": [accuracy - 0.001, accuracy + 0.001], "mean_test_accuracy": accuracy,
        "sd_test_accuracy": 0.0014, "paper_test_accuracy": paper, **more,
    }  # fmt: skip


FOUND = {
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
    assert outcome.table.rows[0][3:] == ["93.00 ± 0.14 %", "94.9 %", "0.000%, 0.100%",
                                         "100.00%, 99.00%"]  # fmt: skip
    figure = table1.draw(outcome)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == labels
    save_figure(figure, tmp_path / "table1.png")
    save_figure(table(outcome.table.columns, outcome.table.rows), tmp_path / "table.png")
