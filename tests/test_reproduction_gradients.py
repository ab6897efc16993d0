import numpy as np
import pytest

from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.networks import runs as networks
from organics.studies.paper import gradients
from organics.training import Diverged, SequenceConfig
from organics.training.run_folder import RunFolder


@pytest.mark.usefixtures("standard_promotion")
def test_norms_are_those_of_every_step_and_nothing_is_clipped(tmp_path):
    job = Job(tmp_path / "kept", quick=True, runs=(tmp_path / "runs",))
    outcome = gradients.compute(job)
    folders = {
        folder.config.model: folder
        for folder in map(RunFolder.open, (tmp_path / "runs" / "gradients").iterdir())
    }
    for run, model in zip(outcome.numbers["runs"], ("organics", "lstm"), strict=True):
        config = folders[model].config
        assert isinstance(config, SequenceConfig) and config.clip_norm is None
        lines = folders[model].lines("steps.jsonl")
        norms = np.concatenate([line["gradient_norm"] for line in lines])
        np.testing.assert_allclose(run["norms"], norms, rtol=1e-3)
    save_figure(gradients.draw(outcome), tmp_path / "gradients.png")


def test_every_run_of_one_target_has_a_folder_of_its_own(tmp_path, monkeypatch):
    folders = []

    def pretend(config, folder, resume, progress):
        assert resume and not progress
        folders.append(folder)
        if len(folders) > 1:  # the first diverges before its first checkpoint
            RunFolder.create(folder, config)
        raise Diverged("not finite at step 3", 3, None)

    monkeypatch.setattr(networks, "train", pretend)
    outcome = gradients.compute(Job(tmp_path / "kept", runs=(tmp_path / "runs",)))
    assert len(set(folders)) == len(folders) == 15
    assert outcome.checks[-1].holds is False  # as ORGaNICs diverged, too
    save_figure(gradients.draw(outcome), tmp_path / "gradients.png")


def run(network, *norms, diverged=None):
    return {
        "network": network, "seed": 0, "learning_rate": 0.02, "test_accuracy": 0.9,
        "diverged_at_step": diverged, "norms": list(norms),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "diverged", "expected"),
    [
        (2.0, None, [True, True, True]),
        (7.0, None, [False, True, True]),
        (2.0, 12, [False, True, False]),
    ],
)
def test_every_check_can_fail(ours, diverged, expected):
    runs = [
        run("ORGaNICs, W_r = I", 1.0, ours, diverged=diverged),
        run("ORGaNICs, bounded W_r", 3.0, 1.0),
        run("LSTM", 1.0, 6.0),
        run("tanh RNN", 1.0, 8.0),
    ]
    outcome = gradients.conclude(runs)
    assert [check.holds for check in outcome.checks] == expected
    assert outcome.table is not None and len(outcome.table.rows) == 4
