from collections import Counter

import pytest
from programs import untrained_report

from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.networks import tuned as networks_tuned
from organics.studies.networks.runs import Run
from organics.studies.ours import ablation
from organics.studies.ours.ablation import CHANGES, FREE, REFERENCE, TOGETHER, TWO_LAYERS

ROWS = ablation.Rows()


def job(folder):
    return Job(folder, runs=(folder,))


@pytest.fixture
def trained(monkeypatch):
    """The runs asked for, none of which is trained: 0.05 is the better rate but for two layers, a
    free `W_r` diverges at it, and more seeds are more accurate on the test images."""
    asked = []

    def run(setting, folder):
        asked.append((setting, folder))
        if setting.recurrent == "free" and setting.learning_rate == 0.05:
            return Run(setting, folder, None, 7)
        best = 0.02 if setting.layers == 2 else 0.05
        validated = 0.9 if setting.learning_rate == best else 0.8
        report = untrained_report(setting, validated, 0.9 + setting.seed / 100)
        return Run(setting, folder, report, None)

    monkeypatch.setattr(networks_tuned, "run", run)
    return asked


def test_each_row_has_its_change_and_its_best_rate_with_all_seeds(trained, tmp_path):
    found = ablation.measure(ROWS, job(tmp_path))
    rows = {row["change"]: row for row in found["rows"]}
    assert list(rows) == list(CHANGES)
    assert len(trained) == 4 * len(CHANGES)
    assert len({folder for _, folder in trained}) == len(trained)
    rates = {name: row["learning_rate"] for name, row in rows.items()}
    assert rates.pop(TWO_LAYERS) == rates.pop(FREE) == 0.02
    assert set(rates.values()) == {0.05}
    for row in rows.values():
        assert row["seeds"] == [0, 1, 2] and row["mean_test_accuracy"] == pytest.approx(0.91)
    assert rows[FREE]["diverged_at_step"] == [None, 7, None, None]
    assert found["settings"]["epochs"] == ROWS.epochs and "seed" not in found["settings"]
    reference = trained[0][0]
    for setting, _ in trained:
        differing = {k: v for k, v in vars(setting).items() if v != getattr(reference, k)}
        assert {k: v for k, v in differing.items() if k not in ("learning_rate", "seed")} in (
            CHANGES.values()
        )
    assert Counter(setting.seed for setting, _ in trained) == {
        0: 2 * len(CHANGES), 1: len(CHANGES), 2: len(CHANGES)
    }  # fmt: skip
    outcome = ablation.conclude(found)
    assert [line[0] for line in outcome.table.rows] == list(CHANGES)
    assert outcome.table.rows[list(CHANGES).index(FREE)][-1] == "1 of 4"
    save_figure(ablation.draw(outcome), tmp_path / "table.png")


def test_a_row_of_which_every_run_diverges_has_no_accuracy(monkeypatch, tmp_path):
    monkeypatch.setattr(
        networks_tuned, "run", lambda setting, folder: Run(setting, folder, None, 3)
    )
    rows = ablation.Rows(changes=(REFERENCE,))
    outcome = ablation.conclude(ablation.measure(rows, job(tmp_path)))
    assert outcome.here == "every run diverged" and outcome.verdict == "not run"
    assert outcome.table.rows == [[REFERENCE, "", "", "", "", "2 of 2"]]


@pytest.mark.usefixtures("trained")
def test_every_check_can_fail(tmp_path):
    found = ablation.measure(ROWS, job(tmp_path))
    means = {TOGETHER: 0.94, TWO_LAYERS: 0.95, REFERENCE: 0.92}

    def answers(**change):
        rows = [
            row | {"mean_test_accuracy": (means | change).get(row["change"], 0.9)}
            for row in found["rows"]
        ]
        return [check.holds for check in ablation.conclude({"rows": rows}).checks]

    assert answers() == [True] * 5
    assert answers(**{FREE: None}) == [True] * 5  # it diverges
    assert answers(**{TWO_LAYERS: 0.925}) == [True, False, True, True, True]
    assert answers(**{REFERENCE: 0.935}) == [False, True, True, True, True]
    assert answers(**{FREE: 0.915}) == [True, True, False, True, True]
