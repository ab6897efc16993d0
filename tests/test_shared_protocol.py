import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from programs import untrained_report

from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.networks import runs, tuned
from organics.studies.networks.runs import Run
from organics.studies.ours import shared_protocol
from organics.studies.ours.shared_protocol import NETWORKS
from organics.training import Diverged, SequenceConfig
from organics.training.run_folder import RunFolder

TRAINED = Path(__file__).parents[1] / "results" / "trained"
ROWS = shared_protocol.Rows()
CIRCUIT = "ORGaNICs, W_r = I"


@pytest.fixture
def asked(monkeypatch):
    """The runs that a study asks for, none of which is trained; 0.006 is the best rate."""
    settings = []

    def run(setting, folder):
        settings.append(setting)
        validated = 0.9 if setting.learning_rate == 0.006 else 0.8
        return Run(setting, folder, untrained_report(setting, validated, 0.99), None)

    monkeypatch.setattr(tuned, "run", run)
    return settings


def measured(tmp_path, rows=ROWS):
    return shared_protocol.measure(rows, Job(tmp_path, runs=(tmp_path,)))


def test_all_networks_have_the_same_effort(asked, tmp_path):
    found = measured(tmp_path)
    each = len(ROWS.learning_rates) + len(ROWS.seeds)
    assert len(found["rows"]) == 2 * len(NETWORKS) and len(asked) == each * len(found["rows"])
    assert {row["learning_rate"] for row in found["rows"]} == {0.006}
    kinds = {}
    for one in asked:
        rate = None if one.epochs == ROWS.epochs else one.learning_rate
        constants = (one.model, one.units, one.time_constants, one.recurrent, one.rectification)
        kinds.setdefault((one.task, *constants), set()).add((one.epochs, rate, one.seed))
        assert (one.batch_size, one.optimizer, one.schedule) == (128, "adam", "warmup-cosine")
        assert one.model in ("lstm", "lem") or one.clip_norm is None
    assert len(kinds) == len(found["rows"])
    assert len({frozenset(runs) for runs in kinds.values()}) == 1
    assert {one.units for one in asked} == {64, 128}
    shared = ("batch_size", "schedule", "optimizer", "weight_decay", "products", "epochs")
    assert set(shared) <= set(found["settings"])
    assert not {"task", "seed", "units", "model", "clip_norm"} & set(found["settings"])


def test_every_network_has_its_first_seed_before_any_has_its_second(asked, tmp_path):
    measured(tmp_path)
    seeds = [one.seed for one in asked]
    assert seeds == sorted(seeds)


def test_a_complete_run_without_its_weights_is_not_trained_again(monkeypatch, tmp_path):
    monkeypatch.setattr(tuned, "run", None)
    kept = TRAINED / "smnist-cornn-128-seed0"
    setting = RunFolder.open(kept).config
    name = f"coRNN-rate{setting.learning_rate:g}-epochs{setting.epochs}-seed{setting.seed}"
    folder = tmp_path / "second" / "some_study" / name
    folder.mkdir(parents=True)
    for file in ("config.json", "report.json", "metrics.jsonl"):
        shutil.copy(kept / file, folder)
    job = Job(tmp_path, runs=(tmp_path / "first", tmp_path / "second"))

    def measured(setting):
        settings = {"coRNN": replace(setting, learning_rate=1.0, seed=5)}  # both are replaced
        rates, seeds = (kept_rate,), (kept_seed,)
        return tuned.summary(tuned.tuned(settings, rates, seeds, job, "some_study")["coRNN"])

    kept_rate, kept_seed = setting.learning_rate, setting.seed
    found = measured(setting)
    reported = RunFolder.open(kept).load_report()["test_accuracy"]
    assert found["test_accuracy"] == [pytest.approx(reported, abs=1e-6)]
    assert found["largest_gradient_norm"] == max(
        line["gradient_norm_max"] for line in RunFolder.open(kept).lines("metrics.jsonl")
    )
    with pytest.raises(TypeError, match="NoneType"):  # it would be trained
        measured(replace(setting, units=64))


def test_a_run_that_diverged_is_not_trained_again(monkeypatch, tmp_path):
    trained = []

    def diverges(setting, _, **__):
        trained.append(setting)
        raise Diverged("not finite at step 5", 5, None)

    monkeypatch.setattr(runs, "train", diverges)
    setting = SequenceConfig(task="sdigits", units=4, epochs=1)
    folder = tmp_path / "first" / "one"
    assert runs.found(setting, [folder]) is None
    for _ in range(2):
        assert runs.run(setting, folder).diverged_at_step == 5
    known = runs.found(setting, [tmp_path / "none", folder])
    assert known == Run(setting, folder, None, 5) and len(trained) == 1
    other = replace(setting, units=5)
    assert runs.found(other, [folder]) is None
    runs.run(other, folder)
    assert trained == [setting, other]
    record = folder.with_name("one.diverged.json")
    record.write_text(record.read_text().replace('"step": 5', '"step": 6'))
    with pytest.raises(ValueError, match="one.diverged.json is not the record"):
        runs.found(other, [folder])


@pytest.mark.usefixtures("asked")
def test_the_table_says_what_falls_short_and_every_check_can_fail(tmp_path):
    found = measured(tmp_path, shared_protocol.Rows(tasks=("psmnist",)))

    def outcome(**means):
        rows = [
            row | {"mean_test_accuracy": means.get(row["model"], row["published"] or 0.95)}
            for row in found["rows"]
        ]
        return shared_protocol.conclude({"rows": rows})

    good = outcome(organics=0.96)
    assert [check.holds for check in good.checks] == [True, True, True]
    assert "LEM 96.6%" in good.here and good.verdict == "holds"
    # a model that falls short is not compared with
    behind = outcome(organics=0.95, lem=0.97)
    assert [check.holds for check in behind.checks] == [False, True, True]
    short = outcome(organics=0.957, lem=0.951, cornn=0.951)
    assert [check.holds for check in short.checks] == [True, True, False]
    cells = {line[1]: line[4] for line in short.table.rows}
    assert cells["LEM"] == "95.1% ± 0.0%; falls short" and "short" not in cells[CIRCUIT]
    assert "Lipschitz RNN 96.3%" in short.here
    save_figure(shared_protocol.draw(short), tmp_path / "table.png")


def test_circuits_that_diverge_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(tuned, "run", lambda setting, folder: Run(setting, folder, None, 3))
    found = measured(tmp_path, shared_protocol.Rows(tasks=("smnist",), networks=(CIRCUIT, "LEM")))
    checks = shared_protocol.conclude(found).checks
    assert [check.holds for check in checks] == [None, False, False]
    each = len(ROWS.learning_rates)
    assert f"{each} of {each} runs diverge" in checks[1].here
