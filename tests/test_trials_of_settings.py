import json

from organics.studies.harness.trials import Trials, main
from organics.training import SequenceConfig
from organics.training.config import TaskConfig
from organics.training.run_folder import RunFolder

LINE = dict.fromkeys((
    "step", "loss", "accuracy", "gradient_norm_mean", "validation_loss", "learning_rate", "seconds",
), 1.0)  # fmt: skip


def run(folder, accuracies, norm, **settings):
    made = RunFolder.create(folder, SequenceConfig(epochs=3, **settings))
    for epoch, accuracy in enumerate(accuracies, 1):
        line = {"epoch": epoch, "validation_accuracy": accuracy, "gradient_norm_max": norm}
        made.append("metrics.jsonl", LINE | line)


def test_all_trials_stand_in_one_file_and_known_ones_stay(tmp_path):
    out = tmp_path / "trials.json"
    run(tmp_path / "a" / "good", (0.5, 0.9), 2.0, units=8)
    run(tmp_path / "a" / "lost", (), None, units=16)
    main(Trials(tmp_path / "a", out))
    run(tmp_path / "b" / "better", (0.95,), 4.0, units=32)
    run(tmp_path / "b" / "again", (0.5, 0.6, 0.91), 3.0, units=8)
    main(Trials(tmp_path / "b", out))
    document = json.loads(out.read_text())
    assert {"command", "versions", "machine"} <= document.keys()
    found = document["trials"]
    assert [trial["validation_accuracy"] for trial in found] == [[], [0.5, 0.6, 0.91], [0.95]]
    assert [trial["epochs"] for trial in found] == ["0 of 3", "3 of 3", "1 of 3"]
    assert [trial["largest_gradient_norm"] for trial in found] == [None, 3.0, 4.0]
    assert "--units 16" in found[0]["command"] and found[0]["test_accuracy"] is None


def test_trials_of_tasks_have_losses(tmp_path):
    out = tmp_path / "trials.json"
    for name, loss in (("less", 0.1), ("more", 0.2)):
        config = TaskConfig(task="copy", steps=9, sigma=loss, recurrent="orthogonal")
        made = RunFolder.create(tmp_path / name, config)
        made.append("metrics.jsonl", LINE | {
            "epoch": 1, "gradient_norm_max": 1.0,
            "validation_loss": loss, "validation_accuracy": 0.5,
        })  # fmt: skip
    main(Trials(tmp_path, out))
    found = json.loads(out.read_text())["trials"]
    assert [trial["validation_loss"] for trial in found] == [[0.2], [0.1]]
    assert found[1]["command"] == "organics train copy --steps 9 --recurrent orthogonal --sigma 0.1"
    assert found[1]["test_score"] is None
