"""A trained network as a file of another program: it computes the same, or nothing is written."""

import dataclasses
import importlib
import importlib.util
import json
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

from organics import cli
from organics.data.own.preparation import Preparation
from organics.exports import as_stablehlo, as_torch, export
from organics.models import build, build_sequence
from organics.training.config import FileConfig, GivenConfig, TaskConfig
from organics.training.evaluation import build_model, load_model
from organics.training.run_folder import RunFolder

TRAINED = Path(__file__).parent.parent / "results" / "trained" / "short"
RUN, OTHER = TRAINED / "smnist14-organics-64-seed0", TRAINED / "smnist14-lstm-clipped-64-seed0"


def lacking(format):
    """Whether a package of the format is not installed."""
    try:
        importlib.import_module(f"organics.exports.as_{format}").require_packages()
    except ValueError:
        return True
    return False


formats = pytest.mark.parametrize(
    "format",
    [
        pytest.param(format, marks=pytest.mark.skipif(lacking(format), reason="not installed"))
        for format in ("stablehlo", "torch", "onnx")
    ],
)


@formats
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("without_type_checks")
def test_the_file_computes_the_network(format, tmp_path, capsys):
    """The network as it is by default, with the native kernel where there is one; another batch."""
    out = tmp_path / "network"
    assert cli.run(["export", str(RUN), "--format", format, "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["wrote"] == [str(out)] and answer["bytes"] == out.stat().st_size > 10_000
    assert answer["input_shape"] == ["batch", "steps", 1] and answer["difference"] <= 1e-5
    assert answer["output_shape"] == ["batch", 10]
    # the loop is one operation, not a copy for each of the steps
    assert answer["bytes"] < 400_000
    run, _ = importlib.import_module(f"organics.exports.as_{format}").runner(out)
    model = eqx.filter_jit(load_model(RunFolder.open(RUN)))
    for count, steps in ((2, 196), (1, 30)):
        x = np.random.default_rng(1).uniform(size=(count, steps, 1)).astype(np.float32)
        want = model(x)
        np.testing.assert_allclose(run(x), want, atol=1e-4 * float(np.max(np.abs(want))))


@formats
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("without_type_checks")
def test_a_network_of_own_data_takes_raw_inputs(format, tmp_path):
    """And gives numbers in their units, at every step, at whatever length."""
    config = FileConfig(target="numbers", at="every", steps=7, features=2, outputs=2, units=16)
    model = build_model(config)
    prepared = Preparation((3.0, -1.0), (2.0, 0.5), target_mean=(10.0, 0), target_scale=(5.0, 2.0))
    folder = RunFolder.create(tmp_path / "run", config)
    folder.save_model(model, 1, prepared.to_document())
    found = export.export_run(folder.path, format, tmp_path / "network")
    assert found.input_shape == ("batch", "steps", 2) and found.output_shape == (
        "batch",
        "steps",
        2,
    )
    run, _ = importlib.import_module(f"organics.exports.as_{format}").runner(found.path)
    for count, steps in ((3, 7), (1, 1), (2, 12)):
        x = np.random.default_rng(1).normal(2.0, size=(count, steps, 2)).astype(np.float32)
        outputs = np.asarray(model((x - np.float32([3, -1])) / np.float32([2, 0.5])))
        np.testing.assert_allclose(run(x), outputs * np.float32([5, 2]) + np.float32([10, 0]), 1e-4)


@formats
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("name", ["organics", "mlp"])
def test_a_network_of_own_vectors(format, name, tmp_path):
    config = FileConfig(model=name, features=2, outputs=3, units=6, encoder=(5, 4))
    model = build_model(config)
    folder = RunFolder.create(tmp_path / "run", config)
    prepared = Preparation((3.0, -1.0), (2.0, 0.5), classes=("a", "b", "c"))
    folder.save_model(model, 1, prepared.to_document())
    found = export.export_run(folder.path, format, tmp_path / "network")
    assert (found.input_shape, found.output_shape) == (("batch", 2), ("batch", 3))
    run, _ = importlib.import_module(f"organics.exports.as_{format}").runner(found.path)
    x = np.random.default_rng(1).normal(2.0, size=(4, 2)).astype(np.float32)
    want = eqx.filter_jit(model.predict)((x - np.float32([3, -1])) / np.float32([2, 0.5]))
    np.testing.assert_allclose(run(x), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("prepared", "words"),
    [
        (Preparation((0.0, 1.7e9), (1.0, 170.0), ("a", "b"), features=("u", "when")), "`when`"),
        (Preparation((0.0, 0.0), (1.0, 1.0), target_mean=(1e6,), target_scale=(1.0,)), "0 of `y`"),
    ],
)
def test_numbers_that_float32_does_not_hold_are_refused(prepared, words, tmp_path, monkeypatch):
    """Such as the time in seconds of 1970: in float32 there is only every 128th."""
    monkeypatch.setattr(as_stablehlo, "require_packages", lambda: None)
    kind = "classes" if prepared.classes else "numbers"
    config = FileConfig(target=kind, steps=7, features=2, outputs=len(prepared.classes) or 1)
    folder = RunFolder.create(tmp_path / "run", config)
    folder.save_model(build_model(config), 1, prepared.to_document())
    with pytest.raises(ValueError, match=f"cannot be exported: .*{words}"):
        export.export_run(folder.path, "stablehlo", tmp_path / "network")
    assert not (tmp_path / "network").exists()


def test_networks_of_tasks_are_exported_as_plain_equations(tmp_path):
    config = TaskConfig(task="adding", units=3, products="bfloat16", memory="less")
    folder = RunFolder.create(tmp_path / "run", config)
    folder.save_model(build_model(config), 1)
    plain = dataclasses.replace(config, backend="scan", memory="more", products="full")
    found = jax.tree.structure(export._network(folder).model)
    assert found == jax.tree.structure(build_model(plain))
    assert found != jax.tree.structure(build_model(config))


@formats
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("name", ["organics", "mlp"])
def test_networks_of_images(format, name, tmp_path):
    model = build(name, 30, layers=(6, 5), encoder=(8, 7), key=jax.random.key(2), dtype=np.float32)
    maker = importlib.import_module(f"organics.exports.as_{format}")
    file = tmp_path / "network"
    file.write_bytes(maker.make(export.Network(model, (30,))))
    x = np.random.default_rng(1).uniform(size=(4, 30)).astype(np.float32)
    want = np.asarray(eqx.filter_jit(model.predict)(x))
    np.testing.assert_allclose(maker.runner(file)[0](x), want, atol=1e-6, rtol=1e-5)


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch, capsys):
    out = tmp_path / "network"
    out.write_bytes(b"of before")
    right = eqx.filter_jit(load_model(RunFolder.open(RUN)))
    wrong = lambda x: np.asarray(right(x)) + np.float32(1e-3)  # noqa: E731
    monkeypatch.setattr(as_stablehlo, "require_packages", lambda: None)
    monkeypatch.setattr(as_stablehlo, "make", lambda _: b"network")
    monkeypatch.setattr(as_stablehlo, "runner", lambda _: (wrong, "this test"))
    assert cli.run(["export", str(RUN), "--format", "stablehlo", "--out", str(out)]) == 2
    assert "gives other outputs than the network" in capsys.readouterr().err
    assert out.read_bytes() == b"of before"


def test_outputs_that_are_no_numbers_at_one_length_are_not_written(tmp_path, monkeypatch):
    right, calls = eqx.filter_jit(load_model(RunFolder.open(RUN))), []

    def wrong(x):
        calls.append(x.shape)
        return np.asarray(right(x)) * (1 if len(calls) == 1 else np.float32(np.nan))

    monkeypatch.setattr(as_stablehlo, "require_packages", lambda: None)
    monkeypatch.setattr(as_stablehlo, "make", lambda _: b"network")
    monkeypatch.setattr(as_stablehlo, "runner", lambda _: (wrong, "this test"))
    with pytest.raises(export.ExportFailed, match="they differ by nan"):
        export.export_run(RUN, "stablehlo", tmp_path / "network")
    assert len(calls) == 2 and not (tmp_path / "network").exists()


def test_numbers_in_small_units_are_compared_by_their_deviation():
    prepared = Preparation((0.0,), (1.0,), target_mean=(3e-9,), target_scale=(1e-9,))
    want = np.array([[2e-9], [4e-9]], np.float32)
    assert export._difference(lambda x: x, want, want, prepared) == 0
    wrong = export._difference(lambda x: 1.01 * x, want, want, prepared)
    assert wrong == pytest.approx(0.04 / 2, rel=1e-3)


def test_what_is_refused(tmp_path, capsys, monkeypatch):
    def said(*words):
        assert cli.run(["export", *map(str, words), "--out", str(tmp_path / "network")]) == 2
        assert not list(tmp_path.iterdir())
        return capsys.readouterr().err

    assert "is not the folder of a run" in said(tmp_path / "nothing", "--format", "stablehlo")
    with tempfile.TemporaryDirectory() as folder:
        RunFolder.create(folder, GivenConfig(model="Mine"))
        assert "trained a Mine that was given in Python" in said(folder, "--format", "stablehlo")
    assert "invalid choice 'tensorflow'" in said(RUN, "--format", "tensorflow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for format, package in (("torch", "torch"), ("onnx", "torch"), ("stablehlo", "flatbuffers")):
        message = f"`format` {format} needs the package {package}: pip"
        assert message in said(RUN, "--format", format)


@formats
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("recurrent", ["bounded", "orthogonal"])
def test_recurrent_weights_that_are_constrained(format, recurrent, tmp_path):
    """Such weights are computed by factorizations that formats lack."""
    options = {"recurrent": recurrent, "dt_tau_max_y": 0.5, "backend": "scan", "dtype": np.float32}
    model = build_sequence("organics", 1, 5, key=jax.random.key(0), **options)
    model = eqx.tree_at(lambda m: m.layer.cells[0].W_r, model, replace_fn=lambda W: 2 * W)
    maker = importlib.import_module(f"organics.exports.as_{format}")
    (file := tmp_path / "network").write_bytes(maker.make(export.Network(model, (20, 1))))
    x = np.random.default_rng(1).uniform(size=(2, 9, 1)).astype(np.float32)
    want = np.asarray(eqx.filter_jit(model.predict)(x))
    np.testing.assert_allclose(maker.runner(file)[0](x), want, atol=1e-6, rtol=1e-5)


@formats
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("kind", ["modulated", "modulated-together", "modulated-y"])
def test_modulated_time_constants(format, kind, tmp_path):
    """With a modulation that does something, and without one."""
    options = {"time_constants": kind, "recurrent": "identity", "dt_tau_max_y": 0.5}
    options |= {"backend": "scan", "dtype": np.float32}
    model = build_sequence("organics", 1, 4, key=jax.random.key(0), **options)
    maker = importlib.import_module(f"organics.exports.as_{format}")
    x = np.random.default_rng(1).uniform(size=(2, 9, 1)).astype(np.float32)
    found = []
    for size in (0.0, 1.0):
        weights = lambda m: jax.tree.leaves(m.layer.cells[0].modulation)  # noqa: E731
        moved = eqx.tree_at(weights, model, [leaf + np.float32(size) for leaf in weights(model)])
        file = tmp_path / f"network{size}"
        file.write_bytes(maker.make(export.Network(moved, (20, 1))))
        found.append(maker.runner(file)[0](x))
        want = np.asarray(eqx.filter_jit(moved.predict)(x))
        np.testing.assert_allclose(found[-1], want, atol=1e-6, rtol=1e-5)
    assert np.max(np.abs(found[1] - found[0])) > 1e-3


@pytest.mark.usefixtures("without_type_checks")
def test_networks_that_pytorch_has_no_layers_for_are_sent_to_stablehlo():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    searching = build(
        "organics", 9, layers=(3,), encoder=(4,), recurrent="bounded", key=jax.random.key(0)
    )
    lstm = load_model(RunFolder.open(OTHER))
    for model, shape in ((lstm, (196, 1)), (searching, (9,))):
        with pytest.raises(ValueError, match="`format` must be stablehlo for this network"):
            as_torch.make(export.Network(model, shape))
