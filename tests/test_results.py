"""What is committed as measured can be measured again."""

import json
import re
from pathlib import Path

import pytest

from organics.circuit_file import load_circuit
from organics.data import DataUnavailable
from organics.training import evaluate
from organics.training.evaluation import load_dataset
from organics.training.run_folder import RunFolder

RESULTS = Path(__file__).parents[1] / "results"


def _name(path):
    return str(path.relative_to(RESULTS))


def _trained():
    """The folders of runs; of those of the shorter task, three seeds each, the first on one."""
    folders = sorted(path.parent for path in (RESULTS / "trained").rglob("config.json"))
    return [f for f in folders if f.parent.name != "short" or re.match("psmnist.*seed0", f.name)]


@pytest.mark.parametrize("folder", _trained(), ids=lambda folder: folder.name)
def test_the_trained_weights_have_the_accuracy_that_their_report_says(folder):
    try:
        load_dataset(RunFolder.open(folder).config)
    except DataUnavailable as missing:
        pytest.skip(str(missing))
    found, _ = evaluate(folder, with_stability=False)
    report = RunFolder.open(folder).load_report()
    if report is None:  # a run that was not completed: there is only what it had on validation
        lines = RunFolder.open(folder).lines("metrics.jsonl")
        best = max(line["validation_accuracy"] for line in lines)
        assert found["accuracy"] == pytest.approx(best, abs=0.02)
        return
    # another processor rounds otherwise, and an image or two are at the border of two classes
    assert found["accuracy"] == pytest.approx(report["test_accuracy"], abs=5e-4)
    assert found["images"] == 10_000


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=_name)
def test_every_result_says_how_it_was_made(path):
    if "trained" in path.parts:
        assert (path.parent / "config.json").exists()
        return
    if path.parent.name in ("conjecture", "fig5"):  # circuits
        circuit, drives = load_circuit(path)
        assert len(drives) and circuit.n >= 1
        return
    text = path.read_text()
    document = json.loads(text)
    assert not re.search(r"[\s\"=]/\w", text), "a path of one machine"
    parts = [document] if {"command", "report"} & document.keys() else document["rows"]
    for part in parts:
        assert {"versions", "machine"} & part.get("report", part).keys()
        assert {"command", "report"} & part.keys()
