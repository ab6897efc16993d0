import dataclasses
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from organics import data
from organics.experiments import mnist_static
from organics.linear_stability import stability
from organics.models import build
from organics.training import BadCheckpoint, Diverged, TrainConfig, evaluate, train
from organics.training.checkpoint import load_tree, save_tree
from organics.training.evaluation import (
    as_examples,
    build_model,
    load_model,
    mean_metrics,
    spectral_abscissae,
)
from organics.training.run_folder import RunFolder
from organics.training.step import Examples, advance, initial_state, make_optimizer, metric_dtypes

SMALL = TrainConfig(
    dataset="digits", layers=(6,), encoder=(16, 8), epochs=3, batch_size=450, learning_rate=0.01
)


def quiet(config, out, **options):
    return train(config, out, progress=False, **options)


def lines(folder, file="metrics.jsonl"):
    """The lines of a file, without the time that each epoch took."""
    found = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    for line in found:
        line.pop("seconds", None)
    return found


@pytest.fixture(scope="module", autouse=True)
def _promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A complete small run and its report."""
    folder = tmp_path_factory.mktemp("runs") / "complete"
    return folder, quiet(SMALL, folder)


@pytest.fixture
def interrupt_after(monkeypatch):
    """Makes a run stop as if by Ctrl-C, just before or just after a checkpoint is written."""

    def interrupt(epochs, before=False):
        save = RunFolder.save_checkpoint

        def stopping(self, epoch, state, notes):
            if epoch == epochs and before:
                raise KeyboardInterrupt
            save(self, epoch, state, notes)
            if epoch == epochs:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "save_checkpoint", stopping)
        return lambda: monkeypatch.setattr(RunFolder, "save_checkpoint", save)

    return interrupt


# --- one step -------------------------------------------------------------------------------------


class Linear(eqx.Module):
    """A model that the trainer has never seen: linear regression on the labels."""

    w: jax.Array

    def loss(self, inputs, labels):
        error = inputs @ self.w - labels.astype(inputs.dtype)
        return 50 * jnp.mean(error**2), {"accuracy": jnp.mean(jnp.abs(error))}


@pytest.mark.rounding
def test_steps_are_those_of_adam_with_l2_in_the_gradient_and_no_clipping():
    config = TrainConfig(learning_rate=0.1, weight_decay=0.3, schedule="cosine")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 17, (12, 3)).astype(np.uint8)
    labels = rng.integers(0, 10, 12).astype(np.int32)
    order = rng.permutation(12).reshape(4, 3)
    examples = Examples(jnp.asarray(pixels), jnp.asarray(labels), jnp.int32(16))
    optimizer = make_optimizer(config, 4)
    state = initial_state(Linear(jnp.array([1.0, -2.0, 0.5])), optimizer)
    record = {
        name: jnp.zeros(4, dtype)
        for name, dtype in metric_dtypes(state, optimizer, examples).items()
    }
    rows = jnp.asarray(order, jnp.int32)
    carry = (state, record)
    for first, last in ((0, 1), (1, 4)):
        carry = advance(carry, optimizer, examples, rows, jnp.int32(first), jnp.int32(last))
    state, record = carry

    w, m, v = np.array([1.0, -2.0, 0.5]), np.zeros(3), np.zeros(3)
    for t, batch in enumerate(order):
        x, target = pixels[batch] / 16, labels[batch]
        error = x @ w - target
        gradient = 100 * x.T @ error / 3
        np.testing.assert_allclose(record["loss"][t], 50 * np.mean(error**2), rtol=1e-10)
        np.testing.assert_allclose(record["gradient_norm"][t], np.linalg.norm(gradient), rtol=1e-10)
        gradient = gradient + 0.3 * w
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        unbiased_m, unbiased_v = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
        rate = 0.1 * (1 + np.cos(np.pi * t / 4)) / 2
        w = w - rate * unbiased_m / (np.sqrt(unbiased_v) + 1e-8)
    np.testing.assert_allclose(state.model.w, w, rtol=1e-10)
    assert state.step == 4 and record["gradient_norm"][0] > 10
    assert state.average is None and state.evaluated is state.model


@pytest.mark.rounding
def test_averaging_follows_the_same_steps():
    optimizer = make_optimizer(TrainConfig(learning_rate=0.1), 30)
    examples = Examples(jnp.eye(3, dtype=np.uint8), jnp.arange(3, dtype=np.int32), jnp.int32(1))
    rows = jnp.zeros((30, 1), np.int32)
    start = Linear(jnp.array([1.0, -2.0, 0.5]))

    def after(steps, averaging):
        state = initial_state(start, optimizer, averaging)
        dtypes = metric_dtypes(state, optimizer, examples)
        record = {name: jnp.zeros(30, dtype) for name, dtype in dtypes.items()}
        return advance((state, record), optimizer, examples, rows, jnp.int32(0), jnp.int32(steps))[
            0
        ]

    average = np.asarray(start.w)
    for step in range(1, 31):
        w = np.asarray(after(step, 0.0).evaluated.w)
        decay = min(0.7, step / (9 + step))
        average = decay * average + (1 - decay) * w
    found = after(30, 0.7)
    np.testing.assert_allclose(found.model.w, w, rtol=1e-12)
    np.testing.assert_allclose(found.evaluated.w, average, rtol=1e-12)


# --- a run ----------------------------------------------------------------------------------------


def test_what_a_run_leaves_behind(complete):
    folder, report = complete
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "steps.jsonl",
        "model.safetensors",
        "report.json",
        "checkpoint-000002.safetensors",
        "checkpoint-000003.safetensors",
    }
    metrics = lines(folder)
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert [line["step"] for line in metrics] == [3, 6, 9]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    for line, steps in zip(metrics, lines(folder, "steps.jsonl"), strict=True):
        assert len(steps["loss"]) == len(steps["gradient_norm"]) == 3
        np.testing.assert_allclose(line["loss"], np.mean(steps["loss"]), rtol=1e-6)
        assert line["gradient_norm_max"] == max(steps["gradient_norm"])
        assert line["learning_rate"] == pytest.approx(0.01)
    stored = json.loads((folder / "report.json").read_text())
    assert stored["test_accuracy"] == report.test_accuracy
    assert stored["parameters"] == 64 * 16 * 2 + 16 + 64 + 16 * 8 * 2 + 24 + 2 * 48 + 36 + 6 + 70
    assert stored["versions"]["jax"] == jax.__version__ and stored["seed"] == 0
    assert str(folder.parent) not in (folder / "report.json").read_text()
    assert TrainConfig.from_json((folder / "config.json").read_text()) == SMALL


def test_the_model_is_selected_on_validation_accuracy(complete):
    folder, report = complete
    metrics = lines(folder)
    ranked = [(m["validation_accuracy"], -m["validation_loss"], m["epoch"]) for m in metrics]
    best = max(ranked)
    assert (report.validation_accuracy, report.best_epoch) == (best[0], best[2])
    digits = data.load("digits")
    _, held_out = data.split(len(digits.train_labels), digits.n_validation)
    examples = as_examples(digits.train_images[held_out], digits.train_labels[held_out], 16)
    model = load_model(RunFolder.open(folder))
    found = mean_metrics(model, examples, len(held_out))
    assert (found["accuracy"], found["loss"]) == (best[0], -best[1])


def test_evaluate_repeats_the_test_and_asks_for_stability_everywhere(complete):
    folder, report = complete
    found = evaluate(folder).summary
    assert found["accuracy"] == report.test_accuracy and found["loss"] == report.test_loss
    assert found["images"] == 297 and found["dataset"] == "digits"
    (layer,) = found["stability"]
    assert layer["n"] == 6 and layer["stable"] == 1 and layer["largest_spectral_abscissa"] < 0
    digits = data.load("digits")
    examples = as_examples(digits.test_images[:5], digits.test_labels[:5], 16)
    model = load_model(RunFolder.open(folder))
    (abscissae,), (stable,) = spectral_abscissae(model, examples)
    inputs, _ = examples.take(jnp.arange(5, dtype=jnp.int32), np.float32)
    for x, abscissa in zip(inputs, abscissae, strict=True):
        ((circuit, z),) = model.circuits(x)
        np.testing.assert_allclose(abscissa, stability(circuit, z).spectral_abscissa, rtol=1e-4)
    assert np.all(stable)
    assert "stability" not in evaluate(folder, with_stability=False).summary


def test_same_seed_same_numbers_other_seed_others(complete, tmp_path):
    folder, report = complete
    again = quiet(SMALL, tmp_path / "again")
    assert lines(tmp_path / "again") == lines(folder)
    assert same_bytes(tmp_path / "again", folder)
    assert dataclasses.replace(again, seconds_per_epoch=0.0) == dataclasses.replace(
        report, seconds_per_epoch=0.0
    )
    quiet(dataclasses.replace(SMALL, seed=1, epochs=1), tmp_path / "other")
    assert lines(tmp_path / "other")[0]["loss"] != lines(folder)[0]["loss"]


def same_bytes(one, other):
    files = ("model.safetensors", "checkpoint-000003.safetensors")
    return all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_the_control_with_a_smaller_last_batch_learns_under_a_schedule(tmp_path, capsys):
    config = dataclasses.replace(
        SMALL, model="mlp", batch_size=100, epochs=15, schedule="cosine", layers=(12,)
    )
    report = train(config, tmp_path / "run")
    metrics = lines(tmp_path / "run")
    assert metrics[0]["step"] == 14  # 13 batches of 100 and one of 50
    assert report.test_accuracy > 0.5
    rates = [line["learning_rate"] for line in metrics]
    last = 0.005 * (1 + np.cos(np.pi * 209 / 210))  # little is left of the difference in float32
    np.testing.assert_allclose(rates[-1], last, atol=1e-8)
    assert sorted(rates, reverse=True) == rates
    assert "stability" not in evaluate(tmp_path / "run").summary
    shown = capsys.readouterr()
    assert shown.out == "" and "validation" in shown.err


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_run_resumes_to_the_same_bits(complete, tmp_path, interrupt_after, before):
    folder, report = complete
    restore = interrupt_after(2, before)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run")
    restore()
    assert len(lines(tmp_path / "run")) == 2
    with (tmp_path / "run" / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 3, "lo')  # a line that was being written
    (tmp_path / "run" / ".0123.tmp").write_bytes(b"and a file")
    resumed = quiet(SMALL, tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == lines(folder)
    assert lines(tmp_path / "run", "steps.jsonl") == lines(folder, "steps.jsonl")
    assert same_bytes(tmp_path / "run", folder)
    assert resumed.test_loss == report.test_loss
    assert not (tmp_path / "run" / ".0123.tmp").exists()


KILLED = """
import sys
from pathlib import Path
from organics.training import TrainConfig, train
config = TrainConfig(
    dataset="digits", layers=(10, 6), encoder=(32, 16), epochs=12, batch_size=135, averaging=0.9
)
for folder in sys.argv[1:]:
    train(config, Path(folder), resume=True, progress=False)
"""


def test_every_epoch_is_told_also_across_an_interruption(complete, tmp_path, interrupt_after):
    folder, report = complete
    told = {}
    restore = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run", on_epoch=told.__setitem__)
    restore()
    assert list(told) == [0, 1, 2]
    quiet(SMALL, tmp_path / "run", resume=True, on_epoch=told.__setitem__)
    assert list(told) == [0, 1, 2, 3]
    for epoch, model in ((0, build_model(SMALL)), (report.best_epoch, best_model(folder))):
        pairs = zip(jax.tree.leaves(told[epoch]), jax.tree.leaves(model), strict=True)
        assert all(np.array_equal(told_leaf, leaf) for told_leaf, leaf in pairs)


def best_model(folder):
    return load_model(RunFolder.open(folder))


def test_a_killed_process_loses_at_most_an_epoch(tmp_path):
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(killed)])
    try:
        while not (killed / "checkpoint-000003.safetensors").exists():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (killed / "report.json").exists()
    subprocess.run([sys.executable, "-c", KILLED, str(killed), str(unbroken)], check=True)
    assert len(lines(unbroken)) == 12
    assert lines(killed) == lines(unbroken)
    assert lines(killed, "steps.jsonl") == lines(unbroken, "steps.jsonl")
    for file in ("model.safetensors", "checkpoint-000012.safetensors"):
        assert (killed / file).read_bytes() == (unbroken / file).read_bytes()


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    complete, tmp_path, interrupt_after
):
    folder, _ = complete
    restore = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run")
    restore()
    newest = tmp_path / "run" / "checkpoint-000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="checkpoint-000002.safetensors cannot be read"):
        quiet(SMALL, tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == lines(folder) and same_bytes(tmp_path / "run", folder)


def test_all_checkpoints_damaged(tmp_path, interrupt_after):
    restore = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run")
    restore()
    for path in (tmp_path / "run").glob("checkpoint-*"):
        path.write_bytes(b"\0" * 10)
    with pytest.warns(UserWarning, match="000002"), pytest.raises(BadCheckpoint, match="000001"):
        quiet(SMALL, tmp_path / "run", resume=True)


def test_divergence_stops_the_run(tmp_path):
    wild = dataclasses.replace(SMALL, learning_rate=1e30, recurrent="identity")
    with pytest.raises(Diverged, match="not finite at step [12] .*no checkpoint.*learning_rate"):
        quiet(wild, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_divergence_later_names_the_last_good_checkpoint(tmp_path, interrupt_after):
    restore = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run")
    restore()
    path = tmp_path / "run" / "checkpoint-000002.safetensors"
    model = build("organics", 64, layers=(6,), encoder=(16, 8), key=jr.key(0), dtype=np.float32)
    state, notes = load_tree(path, initial_state(model, make_optimizer(SMALL, 9)))
    poisoned = eqx.tree_at(lambda s: s.model.layers[0].beta, state, jnp.full(6, jnp.nan, "f4"))
    save_tree(path, poisoned, notes)
    with pytest.raises(Diverged) as caught:
        quiet(SMALL, tmp_path / "run", resume=True)
    assert caught.value.step == 6 and caught.value.checkpoint == path
    assert "checkpoint-000002" in str(caught.value) and "in epoch 3" in str(caught.value)


# --- folders, settings, files ---------------------------------------------------------------------


def test_a_folder_is_neither_overwritten_nor_mistaken(complete, tmp_path):
    folder, report = complete
    with pytest.raises(ValueError, match="`out`: the folder .* is not empty"):
        quiet(SMALL, folder)
    other = dataclasses.replace(SMALL, learning_rate=0.5, layers=(7,))
    words = r"`layers` is \(7,\) and was \(6,\).*`learning_rate` is 0.5 and was 0.01"
    with pytest.raises(ValueError, match=words):
        quiet(other, folder, resume=True)
    assert quiet(SMALL, folder, resume=True) == report  # complete: nothing is done again
    with pytest.raises(ValueError, match="is not the folder of a run"):
        evaluate(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="`out` must be a folder"):
        quiet(SMALL, file)
    (tmp_path / "file").unlink()
    (tmp_path / "config.json").write_text(SMALL.to_json())
    with pytest.raises(ValueError, match="has no model yet"):
        evaluate(tmp_path)


def test_a_run_that_ends_before_its_first_epoch_leaves_the_folder_to_another(tmp_path, monkeypatch):
    def unavailable(_):
        raise data.DataUnavailable("not here")

    with monkeypatch.context() as patched, pytest.raises(data.DataUnavailable):
        patched.setattr("organics.training.loop.load_dataset", unavailable)
        quiet(SMALL, tmp_path)
    assert not list(tmp_path.iterdir())
    assert quiet(dataclasses.replace(SMALL, epochs=1), tmp_path).epochs == 1


def test_two_processes_do_not_train_in_one_folder(complete):
    folder, report = complete
    refused = pytest.raises(ValueError, match="another process is training in")
    with RunFolder.open(folder).locked(), refused:
        quiet(SMALL, folder, resume=True)
    assert quiet(SMALL, folder, resume=True) == report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "digits"}', "[" * 100_000])
def test_a_broken_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json is not that of a run"):
        RunFolder.open(tmp_path)


@given(
    layers=st.lists(st.integers(1, 500), max_size=3).map(tuple),
    seed=st.integers(0, 2**32 - 1),
    learning_rate=st.floats(1e-9, 10),
    schedule=st.sampled_from(["constant", "cosine"]),
)
@settings(max_examples=50)
def test_settings_survive_json(layers, seed, learning_rate, schedule):
    config = TrainConfig(layers=layers, seed=seed, learning_rate=learning_rate, schedule=schedule)
    assert TrainConfig.from_json(config.to_json()) == config
    assert config.differing(config) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1e-5),
        ("weight_decay", float("inf")),
        ("layers", (50, 0)),
        ("encoder", ()),
        ("seed", -1),
        ("averaging", 1.0),
    ],
)
def test_wrong_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must"):
        TrainConfig(**{field: value})


@pytest.mark.parametrize("field", ["dataset", "model", "recurrent", "schedule", "epochs", "layers"])
def test_settings_of_another_kind_in_a_file_are_refused_by_name(field):
    values = json.loads(SMALL.to_json()) | {field: "something else"}
    with pytest.raises(ValueError, match=f"`{field}` must"):
        TrainConfig.from_json(json.dumps(values))


TREE = {"w": jnp.arange(6.0).reshape(2, 3), "n": (jnp.int32(3), jnp.float32(0.5)), "text": "kept"}


def test_trees_survive_the_disk(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, TREE, {"epoch": 4, "nested": [1, None]})
    blank = jax.tree.map(lambda leaf: leaf if isinstance(leaf, str) else jnp.zeros_like(leaf), TREE)
    loaded, notes = load_tree(path, blank)
    assert notes == {"epoch": 4, "nested": [1, None]} and loaded["text"] == "kept"
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(TREE), strict=True):
        assert a is b or (a.dtype == b.dtype and np.array_equal(a, b))
    assert [path.name for path in tmp_path.iterdir()] == ["tree.safetensors"]


def header(text):
    return struct.pack("<Q", len(text)) + text


def declared(shape, end):
    return header(b'{"w": {"dtype": "F64", "shape": %a, "data_offsets": [0, %d]}}' % (shape, end))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        pickle.dumps({"w": 1}),
        declared([2**62, 9], 8),  # overflows
        declared([2**40], 2**43),  # 8 TiB
        header(b'{"__metadata__": {"organics": "{not json"}}'),
    ],
)
def test_hostile_files_are_refused(tmp_path, content):
    path = tmp_path / "tree.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="tree.safetensors cannot be read"):
        load_tree(path, TREE)


def test_a_tree_of_another_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, TREE)
    with pytest.raises(BadCheckpoint, match="differs in 'more'"):
        load_tree(path, {**TREE, "more": jnp.zeros(1)})
    with pytest.raises(BadCheckpoint, match=r"holds 'w' as float64\[2, 3\]; float64\[3\] is"):
        load_tree(path, {**TREE, "w": jnp.zeros(3)})
    with pytest.raises(BadCheckpoint, match="holds 'w' as float64.*float32"):
        load_tree(path, {**TREE, "w": jnp.zeros((2, 3), np.float32)})


# --- the experiment -------------------------------------------------------------------------------


def test_the_experiment_at_toy_size(tmp_path, monkeypatch):
    monkeypatch.setattr(
        mnist_static, "SIZES", {"organics": ((5,),), "mlp": ((5,),), "ssn": ((5, 3),)}
    )
    config = mnist_static.Config(
        out=tmp_path / "runs",
        results=tmp_path / "results" / "found.json",
        dataset="digits",
        seeds=(0, 1),
        epochs=1,
        ssn_epochs=1,
        processes=1,
    )
    found = mnist_static.compute(config)
    assert json.loads(config.results.read_text()) == found
    circuit, control, other = found["rows"]
    assert [row["model"] for row in found["rows"]] == ["organics", "mlp", "ssn"]
    mean = np.mean(circuit["test_accuracy"])  # each to six digits
    assert circuit["mean_test_accuracy"] == pytest.approx(mean, abs=2e-6)
    assert circuit["stability"][0]["stable_fraction"] == [1.0, 1.0] and "stability" not in control
    assert circuit["test_inputs"] == 297
    assert other["stability"][0]["n"] == 8 and other["steps"] == [6, 6]
    assert all(0 <= lost <= 1 for lost in other["lost_in_training"])
    assert mnist_static.compute(config) == found
