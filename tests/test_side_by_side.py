"""Calls in separate processes."""

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import pytest
from processes import deadly, leave, refuse, refuse_soon, running, slowly, wait_for

from organics.machine.processors import available
from organics.machine.side_by_side import apart, call_each, side_by_side, workers
from organics.studies.harness.runner import reproduce
from organics.studies.networks.static import Networks, train_all
from organics.training.run_folder import RunFolder


@pytest.mark.parametrize("processes", [1, 2, len(available()) + 1])
def test_every_call_is_made_once(tmp_path, processes):
    glances = []
    calls = [(tmp_path, str(i)) for i in range(5)]
    side_by_side(leave, calls, processes=processes, watch=lambda: glances.append(1))
    found = [path.read_text().split() for path in sorted(tmp_path.iterdir())]
    assert len(found) == 5 and glances
    here = {pid == str(os.getpid()) for pid, _ in found}
    assert here == {processes == 1}
    if processes > 1 and hasattr(os, "sched_getaffinity"):
        assert {count for _, count in found} == {"1"}


def test_less_than_one_process_is_refused(tmp_path):
    for begin in (partial(side_by_side, leave, []), partial(reproduce, [], tmp_path / "out")):
        with pytest.raises(ValueError, match="`processes` must be at least 1, not 0"):
            begin(processes=0)
    assert not list(tmp_path.iterdir())


def test_no_call_is_no_process(tmp_path):
    side_by_side(leave, [])
    assert not list(tmp_path.iterdir())


def test_a_failure_stops_the_others_and_is_told(tmp_path):
    calls = [(tmp_path, name) for name in ("bad", "long", "never", "neither")]
    before = set(multiprocessing.active_children())
    begin = time.monotonic()
    with pytest.raises(ValueError, match="this one is bad"):
        side_by_side(refuse, calls, processes=2)
    for process in set(multiprocessing.active_children()) - before:
        process.join(30)
    assert time.monotonic() - begin < 50
    assert not (tmp_path / "neither").exists()


def test_calls_of_several_studies_share_the_workers(tmp_path):
    with workers(2) as submit:
        beside = submit(slowly, tmp_path, 7)
        with pytest.raises(ValueError, match="this one is bad"):
            call_each(refuse_soon, [(tmp_path, name) for name in ("bad", *"0123456789")], submit)
        call_each(slowly, [(tmp_path, i) for i in range(3)], submit)
        beside.result(30)
    written = {path.name for path in tmp_path.glob("*.txt")}
    assert written == {"0.txt", "1.txt", "2.txt", "7.txt"}
    assert not (tmp_path / "9").exists()  # the failure cancelled it


def test_a_process_that_dies_is_replaced_for_later_calls(tmp_path):
    with workers(1) as submit:
        with pytest.raises(BrokenProcessPool):
            call_each(deadly, [(tmp_path, 1), (tmp_path, 2)], submit)
        call_each(slowly, [(tmp_path, 3)], submit)
    assert (tmp_path / "3.txt").read_text() == "9"


def test_a_call_apart_returns_or_raises_what_it_does():
    assert apart(os.getpid) != os.getpid()
    assert apart(available) == available()
    with pytest.raises(ValueError, match="invalid literal for int"):
        apart(int, "none")


def test_the_others_end_when_the_first_is_killed(tmp_path):
    program = (
        "import sys; from pathlib import Path; "
        "from organics.machine.side_by_side import side_by_side; "
        "from processes import stay; folder = Path(sys.argv[1]); "
        "side_by_side(stay, [(folder, 0), (folder, 1)], processes=2)"
    )
    here = str(Path(__file__).parent)
    first = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env=os.environ | {"PYTHONPATH": here}
    )
    pids = wait_for(lambda: [int(path.name) for path in tmp_path.iterdir()], 2)
    first.kill()
    first.wait()
    wait_for(lambda: [pid for pid in pids if not running(pid)], 2)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_networks_trained_side_by_side_are_those_trained_one_after_another(tmp_path):
    found = []
    for processes in (1, 2):
        networks = Networks(
            out=tmp_path / str(processes),
            dataset="digits",
            models=("mlp",),
            sizes=2,
            seeds=(0,),
            epochs=1,
            batch_size=135,  # divides the number of images: one size of batch to compile for
            stability=None,
        )
        told = []
        begun = workers(processes) if processes > 1 else nullcontext()
        with jax.enable_x64(False), begun as submit:  # as the other processes have it
            tell = lambda *what, told=told: told.append(what)  # noqa: E731
            rows = train_all(networks, tell, submit)["rows"]
        for row in rows:
            del row["seconds_per_epoch"]
        found.append(rows)
        assert all(0 <= done <= 1 and words.endswith("of 2 networks") for done, words in told)
        assert len(list(networks.out.iterdir())) == 2
        assert RunFolder.open(next(networks.out.iterdir())).load_report() is not None
    for one, other in zip(*found, strict=True):
        for name in ("test_accuracy", "mean_test_accuracy", "validation_accuracy"):
            # one processor adds up otherwise than two: an image or two may change sides
            assert one.pop(name) == pytest.approx(other.pop(name), abs=0.02)
        assert one == other
