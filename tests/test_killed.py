"""A run that is killed again and again ends like one that was never killed.

Kills for about ten seconds, or for `ORGANICS_FUZZ_SECONDS`.
"""

import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import pytest

from organics.files.lock import NAME as LOCK

SECONDS = float(os.environ.get("ORGANICS_FUZZ_SECONDS", "8"))
EPOCHS = 12


def train_small(folder):
    """The work of the killed processes: an epoch mostly writes files."""
    from organics.training import TrainConfig, train

    config = TrainConfig(
        dataset="digits", model="mlp", layers=(3,), encoder=(4,), epochs=EPOCHS, batch_size=1350,
        averaging=0.9,
    )  # fmt: skip
    train(config, folder, resume=True, progress=False)


def start(folder):
    context = multiprocessing.get_context("forkserver")  # has imported what takes seconds
    context.set_forkserver_preload(["organics.training.loop", "sklearn.datasets", "filelock"])
    process = context.Process(target=train_small, args=(folder,))
    process.start()
    return process


def left(folder):
    """All that a run leaves, except its times."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    found.pop(LOCK, None)  # there, and nobody's, if it was killed after its report
    lines = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    report = json.loads(found["report.json"])
    for document in (*lines, report):
        for timed in ("seconds", "seconds_per_epoch", "sha256"):
            document.pop(timed, None)
    return found | {"metrics.jsonl": lines, "report.json": report}


@pytest.mark.skipif(sys.platform == "win32", reason="processes are started by forking")
def test_a_run_that_is_killed_at_any_moment_ends_as_one_that_was_not(tmp_path):
    rng = random.Random(0)
    deadline = time.monotonic() + SECONDS
    unbroken = tmp_path / "unbroken"
    process = start(unbroken)
    process.join()
    assert process.exitcode == 0
    runs = kills = 0
    while runs == 0 or time.monotonic() < deadline:
        folder = tmp_path / str(runs)
        while not (folder / "report.json").exists():
            process = start(folder)
            if time.monotonic() < deadline or kills == 0:
                kills += kill(process, folder, rng)
            process.join()
            assert process.exitcode in (0, -9)
        assert left(folder) == left(unbroken)
        runs += 1
    assert kills > 0
    print(f"{kills} kills in {runs} runs", file=sys.stderr)


def kill(process, folder, rng):
    """Kill it at a random moment: soon, or after its next checkpoint."""
    before = checkpoints(folder)
    soon = time.monotonic() + rng.uniform(0, 2)
    early = rng.random() < 0.2
    while process.is_alive() and checkpoints(folder) == before:
        if early and time.monotonic() > soon:
            break
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.3))
    process.kill()
    process.join()
    return process.exitcode == -9


def checkpoints(folder: Path):
    return sorted(path.name for path in folder.glob("checkpoint-*"))
