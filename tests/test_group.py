"""Training shared among devices and processes gives the numbers of one device, in one folder."""

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec
from programs import Silent

from organics.training import SequenceConfig, TrainConfig, train
from organics.training.evaluation import mean_metrics
from organics.training.group import AXIS, Group, batch_spec
from organics.training.run_folder import RunFolder
from organics.training.step import Examples, advance, initial_state, make_optimizer, metric_dtypes

SEQUENCES = SequenceConfig(
    task="sdigits", rows=True, units=6, epochs=3, batch_size=128, learning_rate=0.003
)
IMAGES = TrainConfig(
    dataset="digits",
    layers=(6,),
    encoder=(16, 8),
    epochs=3,
    batch_size=270,
    averaging=0.9,
    input_noise=0.1,
)


@pytest.fixture(scope="module", autouse=True)
def _promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


def lines(folder, file="metrics.jsonl"):
    """The lines of a file, without the epochs' times."""
    found = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    for line in found:
        line.pop("seconds", None)
    return found


def assert_same_to_rounding(folder, other):
    """Compare all that two runs log, at every step and after every epoch."""
    for file in ("metrics.jsonl", "steps.jsonl"):
        for line, expected in zip(lines(folder, file), lines(other, file), strict=True):
            assert line.keys() == expected.keys()
            for name in line:
                # an example or two may be so close to the border of two classes
                atol = 0.02 if "accuracy" in name else 2e-4
                np.testing.assert_allclose(line[name], expected[name], 2e-3, atol, err_msg=name)


def test_two_devices_are_there():
    assert jax.local_device_count() == 2


@pytest.mark.parametrize("devices", [0, -1, 3])
def test_devices_that_are_not_there_are_refused(devices):
    with pytest.raises(ValueError, match=f"`devices` must be from 1 to 2, .*, not {devices}"):
        Group(devices)


def test_arrays_lie_whole_or_in_shares():
    group = Group(2)
    tree = group.replicate({"w": np.arange(6.0), "name": "kept", "n": np.int32(4)})
    assert tree["name"] == "kept" and tree["n"] == 4
    assert [np.asarray(s.data).tolist() for s in tree["w"].addressable_shards] == [
        [0, 1, 2, 3, 4, 5]
    ] * 2
    assert len(group.local(tree)["w"].devices()) == 1
    shared = group.share(np.arange(8, dtype=np.int32).reshape(2, 4))
    assert [s.data.tolist() for s in shared.addressable_shards] == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
    ]
    odd = group.share(np.arange(3, dtype=np.int32))
    assert [s.data.tolist() for s in odd.addressable_shards] == [[0, 1, 2]] * 2
    assert batch_spec(6, group.mesh, axis=2) == PartitionSpec(None, None, AXIS)
    assert Group(1).mesh is None and group.agree(lambda: "as it is") == "as it is"


class Linear(Silent):
    """Linear regression on the labels."""

    w: jax.Array

    def loss(self, inputs, labels):
        error = inputs @ self.w - labels.astype(inputs.dtype)
        return jnp.mean(error**2), {"accuracy": jnp.mean(jnp.abs(error))}


@pytest.mark.rounding
@given(batch=st.sampled_from([1, 5, 8]), seed=st.integers(0, 99))
@settings(max_examples=8)
def test_steps_and_measures_are_those_of_one_device(batch, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 17, (12, 3)).astype(np.uint8)
    labels = rng.integers(0, 10, 12).astype(np.int32)
    examples = Examples(jnp.asarray(pixels), jnp.asarray(labels), jnp.int32(16))
    start = Linear(jnp.asarray(rng.normal(size=3)))
    order = np.stack([rng.permutation(12)[:batch] for _ in range(4)]).astype(np.int32)
    optimizer = make_optimizer(TrainConfig(learning_rate=0.1), 4)
    found = []
    for devices in (1, 2):
        group = Group(devices)
        state = initial_state(start, optimizer)
        dtypes = metric_dtypes(state, optimizer, examples)
        record = {name: np.zeros(4, dtype) for name, dtype in dtypes.items()}
        carry = group.replicate((state, record))
        here, first, last = group.replicate((examples, np.int32(0), np.int32(4)))
        rows = group.share(order)
        state, record = advance(carry, optimizer, here, rows, first, last, group.mesh)
        found.append((state.model.w, record, mean_metrics(state.model, here, 11, group)))
    one, two = found
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), one, two)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run on sequences on one device, and its report."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    return folder, train(SEQUENCES, folder, progress=False)


@pytest.mark.parametrize("config", [SEQUENCES, IMAGES])
def test_a_run_on_two_devices_is_that_on_one_and_resumes_to_the_same_bits(
    config, alone, tmp_path, monkeypatch
):
    one, two, broken = (tmp_path / name for name in ("one", "two", "broken"))
    if config is SEQUENCES:
        one, report = alone
    else:
        report = train(config, one, progress=False)
    shared = train(config, two, progress=False, devices=2)
    assert (report.devices, shared.devices) == (1, 2)
    assert shared.test_loss == pytest.approx(report.test_loss, rel=1e-3)
    assert_same_to_rounding(two, one)
    save = RunFolder.save_checkpoint

    def stopping(self, epoch, state, notes):
        save(self, epoch, state, notes)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(config, broken, progress=False, devices=2)
    train(config, broken, resume=True, progress=False, devices=2)
    assert lines(broken) == lines(two) and lines(broken, "steps.jsonl") == lines(two, "steps.jsonl")
    for file in ("model.safetensors", "checkpoint-000003.safetensors"):
        assert (broken / file).read_bytes() == (two / file).read_bytes()


def test_a_batch_that_cannot_be_shared_is_refused_before_there_is_a_folder(tmp_path):
    config = dataclasses.replace(SEQUENCES, batch_size=127)
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of the 2 devices"):
        train(config, tmp_path / "run", devices=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("broken", ["on_epoch", "append", "save_checkpoint", "load_model"])
def test_what_the_first_process_does_alone_may_fail_in_all(broken, tmp_path, monkeypatch):
    """The others wait for it in `agree`, which tells them what it raised."""
    agree, failed = Group.agree, []

    def watched(self, function):
        try:
            return agree(self, function)
        except OSError as error:
            failed.append(error)
            raise

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(Group, "agree", watched)
    if broken != "on_epoch":
        monkeypatch.setattr(RunFolder, broken, fail)
    told = fail if broken == "on_epoch" else None
    with pytest.raises(OSError, match="no space left") as caught:
        train(dataclasses.replace(SEQUENCES, epochs=1), tmp_path, progress=False, on_epoch=told)
    assert failed == [caught.value]


# goes on with a run, begins it again, and then a new one with no room for its model on the disk;
# after each of these the exit code ends what both streams have of it
PROCESS = """
import resource, sys
from pathlib import Path
from organics import cli

process, port, folder = sys.argv[1:]
settings = "--rows --units 6 --epochs 3 --batch-size 128 --learning-rate 0.003 --json".split()
together = f"--process-id {process} --processes 2 --coordinator 127.0.0.1:{port}".split()

def train(out, *more):
    code = cli.run(["train", "sdigits", *settings, "--out", str(Path(folder, out)), *more])
    for stream in (sys.stdout, sys.stderr):
        print(f"\\n{code}", end="\\0", file=stream, flush=True)
    return code

train("run", "--resume", *together)
train("run")  # JAX knows of the other process by now
if process == "0":
    # no file may be larger, as when the disk is full: the settings still fit, the model does not
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(train("full"))
"""


def together(folder):
    """Two processes train together: standard output, standard error and exit code of each of their
    commands, and finally of the processes themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # one device each, whatever the tests themselves have
    flags = re.sub(r"(device_count)=\d+", r"\1=1", os.environ["XLA_FLAGS"])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(process), str(port), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XLA_FLAGS": flags},
        )
        for process in (0, 1)
    ]
    try:
        written = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = []
    for process, streams in zip(processes, written, strict=True):
        out, err = ([part.rpartition("\n") for part in text.split("\0")[:-1]] for text in streams)
        assert len(out) == len(err) == 3, streams[1]
        found.append([(o[0], e[0], int(o[2])) for o, e in zip(out, err, strict=True)])
        assert process.returncode == found[-1][-1][2]
    return zip(*found, strict=True)


def test_two_processes_go_on_with_a_run_and_agree_on_refusals(alone, tmp_path, monkeypatch):
    run = tmp_path / "run"
    save = RunFolder.save_checkpoint

    def stopping(self, epoch, state, notes):
        save(self, epoch, state, notes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(SEQUENCES, run, progress=False)
    resumed, again, full = together(tmp_path)

    first, second = resumed
    assert (first[2], second[2]) == (0, 0), first[1] + second[1]
    assert json.loads(first[0])["devices"] == 2 and second[0] == ""
    assert "epoch 3/3" in first[1] and "epoch" not in second[1]
    assert_same_to_rounding(run, alone[0])

    first, second = again
    assert (first[2], second[2]) == (2, 2)
    assert "organics: `out`: the folder" in first[1]
    assert "organics: the first process stopped: `out`: the folder" in second[1]

    first, second = full
    assert (first[2], second[2]) == (2, 2), first[1] + second[1]
    assert "File too large" in first[1]
    assert "organics: the first process stopped: " in second[1] and "too large" in second[1]
