"""Networks trained on a user's own data, from the command line and in Python."""

import dataclasses
import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import organics
from organics import baselines, cli, models, nn
from organics.files.documents import sealed
from organics.kernels import native
from organics.models import SequenceClassifier, Target
from organics.studies.harness.target import Job
from organics.studies.ours import own_data
from organics.training import FileConfig, GivenConfig, evaluate, file_config, fit, train
from organics.training.choices import task_of_file
from organics.training.run_folder import RunFolder

# as many examples to validate as to test, and whole batches: fewer shapes to compile
SMALL = {"epochs": 3, "batch_size": 12, "units": 4, "validation_share": 0.25}
SETTINGS = [str(word) for name, value in SMALL.items()
            for word in (f"--{name.replace('_', '-')}", value)]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


def waves(count=60, steps=8):
    """Noisy sequences of unequal length, padded with NaN, and whether they rise or fall."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, steps + 1, count)
    y = np.array(["falls", "rises"])[np.arange(count) % 2]
    slope = np.where(y == "rises", 1.0, -1.0)[:, None] * np.arange(steps)
    x = 100 + 20 * np.stack([slope, rng.normal(size=slope.shape)], axis=-1)
    x[np.arange(steps) >= lengths[:, None]] = np.nan
    return {"x": x, "y": y, "lengths": lengths}


def answer(capsys, *arguments):
    code = cli.run([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A file, the folder of a run on it, and the answer of the command."""
    home = tmp_path_factory.mktemp("own")
    np.savez(home / "waves.npz", **waves())
    path, out = home / "waves.npz", home / "run"
    report = train(file_config(path, **SMALL), out, progress=False)
    return path, out, report


# --- from the command line ------------------------------------------------------------------------


def test_train_a_file_then_evaluate(trained, capsys, tmp_path):
    path, out, report = trained
    found = answer(capsys, "train", path, *SETTINGS, "--quiet", "--out", out, "--resume")
    assert found["test_accuracy"] == report.test_accuracy and found["classes"] == report.classes
    assert set(found["classes"]) == {"falls", "rises"} and found["settings"]["units"] == 4
    assert found["test_guessing"] == 0.5 and found["dataset"] == "waves"
    again = answer(capsys, "evaluate", out)
    assert again["accuracy"] == pytest.approx(report.test_accuracy) and again["examples"] == 12
    assert again["classes"] == pytest.approx(report.classes) and "dynamics" in again
    moved = tmp_path / "elsewhere.npz"
    shutil.copy(path, moved)
    del again["dynamics"]
    there = answer(capsys, "evaluate", out, "--data", moved, "--no-stability")
    assert there == again | {"dataset": "elsewhere"}
    code = cli.run(["evaluate", str(out)])
    assert code == 0 and "on 12 test examples" in capsys.readouterr().out


def test_a_run_is_about_one_content_of_its_file(trained, capsys, tmp_path):
    path, out, report = trained
    elsewhere = tmp_path / "same.npz"
    shutil.copy(path, elsewhere)
    config = file_config(elsewhere, **SMALL)
    assert train(config, out, resume=True, progress=False) == report
    arrays = waves()
    arrays["x"][0, 0, 0] += 1
    np.savez(elsewhere, **arrays)
    with pytest.raises(ValueError, match="same.npz changed since the run began: the SHA-256"):
        train(config, tmp_path / "new", progress=False)
    with pytest.raises(ValueError, match="is about other data, or they changed since"):
        train(file_config(elsewhere, **SMALL), out, True, False)
    with pytest.raises(ValueError, match="same.npz changed since"):
        evaluate(out, data=elsewhere)
    code = cli.run(["train", str(tmp_path / "no.npz"), *SETTINGS])
    assert code == 2 and "cannot read" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], ["`epochs`", "0"]),
        (["--model", "mlp"], ["`model`", "sequences"]),
        (["--encoder", "4"], ["`encoder`", "sequences"]),
        (["--model", "lstm", "--recurrent", "free"], ["`recurrent`", "lstm"]),
        (["--learning-rate", "nan"], ["`learning_rate`", "nan"]),
        (["--test-share", "0.6"], ["`test_share`", "0.6"]),
        (["--units", "200000"], ["`units`", "memory"]),
        (["--target", "numbers"], ["`y` is text", "'falls'"]),
        (["--test", "missing.npz"], ["missing.npz"]),
        (["--nothing"], ["--nothing", "organics train file"]),
    ],
)
def test_bad_options_exit_with_2_before_anything_is_written(
    trained, capsys, tmp_path, arguments, words
):
    out = tmp_path / "run"
    code = cli.run(["train", str(trained[0]), "--out", str(out), *arguments])
    err = capsys.readouterr().err
    assert code == 2 and all(word in err for word in words), err
    assert not out.exists() or not list(out.iterdir())


def test_names_in_a_file_cannot_reach_the_terminal(capsys, tmp_path):
    evil = "a\x1b[2Jb"
    (tmp_path / "a.csv").write_text(f"{evil},y\n1,{evil}\n2,{evil}\n")
    assert cli.run(["train", str(tmp_path / "a.csv")]) == 2
    (tmp_path / "b.csv").write_text(f"{evil},z\n1,2\n")
    assert cli.run(["train", str(tmp_path / "b.csv")]) == 2
    err = capsys.readouterr().err
    assert "one class only" in err and "a?[2Jb, z" in err and "\x1b" not in err


@pytest.mark.parametrize("word", ["mnsit", "waves"])
def test_a_word_that_is_no_file_is_an_unknown_data_set(capsys, word):
    assert cli.run(["train", word]) == 2
    assert f"no `organics train {word}`" in capsys.readouterr().err


def test_vectors_and_numbers_from_the_command_line(capsys, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 3))
    rows = np.column_stack([x, 50 + 4 * x[:, 0] + 0.1 * rng.normal(size=80)])
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="p,q,r,y", comments="")
    found = answer(
        capsys, "train", tmp_path / "a.csv", "--epochs", 20, "--batch-size", 24, "--encoder", 8, 4,
        "--units", 3, "--learning-rate", 0.05, "--validation-share", 0.25, "--quiet",
        "--input-noise", 0.01,
        "--out", tmp_path / "run", "--figure", tmp_path / "curves.png",
    )  # fmt: skip
    assert found["test_error"] < 0.7 * found["test_guessing"] and found["model"] == "organics"
    assert "test_accuracy" not in found and (tmp_path / "curves.png").exists()
    loaded = organics.load_run(tmp_path / "run")
    assert loaded.preparation.features == ("p", "q", "r") and loaded.classes == []
    guessed = loaded.predict(x)
    assert guessed.shape == (80, 1)
    assert np.sqrt(np.mean((guessed[:, 0] - rows[:, 3]) ** 2)) < 0.7 * found["test_guessing"]
    with pytest.raises(ValueError, match="`probabilities` are of classes"):
        loaded.probabilities(x)
    again = answer(capsys, "evaluate", tmp_path / "run", "--no-stability")
    assert again["error"] == pytest.approx(found["test_error"])


# --- a run on disk --------------------------------------------------------------------------------


def test_a_loaded_run_predicts_from_raw_inputs_without_the_data(trained, tmp_path):
    _, out, report = trained
    copy = tmp_path / "run"
    shutil.copytree(out, copy)
    config = dataclasses.replace(RunFolder.open(out).config, data="/nowhere/waves.npz")
    document = sealed(json.loads(config.to_json()))
    (copy / "config.json").write_text(json.dumps(document))
    loaded, arrays = organics.load_run(copy), waves()
    assert loaded.report == report and loaded.classes == ["falls", "rises"]
    probable = loaded.probabilities(arrays["x"], arrays["lengths"])
    np.testing.assert_allclose(probable.sum(axis=1), 1, rtol=1e-12)
    guessed = loaded.predict(arrays["x"], arrays["lengths"])
    np.testing.assert_array_equal(guessed, np.array(["falls", "rises"])[probable.argmax(axis=1)])
    # a sequence by itself, without padding, is classified as it is in the batch
    for i in (0, 5):
        alone = arrays["x"][i : i + 1, : arrays["lengths"][i]]
        np.testing.assert_allclose(loaded.probabilities(alone)[0], probable[i], atol=1e-5)
    for x, ends, words in (
        (arrays["x"], None, "not finite"),
        (arrays["x"][..., :1], arrays["lengths"], "`x` must have shape"),
        (arrays["x"][:, 0], None, "`x` must have shape"),
        (arrays["x"], arrays["lengths"] + 9, "`lengths` must be from 1 to 8"),
    ):
        with pytest.raises(ValueError, match=words):
            loaded.predict(x, ends)
    with pytest.raises(ValueError, match="`model` must not be given"):
        organics.load_run(copy, loaded.model)


def test_an_interrupted_run_on_a_file_resumes_to_the_same_bits(trained, tmp_path, monkeypatch):
    _, out, report = trained
    save = RunFolder.save_checkpoint

    def stopping(self, epoch, state, notes):
        save(self, epoch, state, notes)
        if epoch == 2:
            raise KeyboardInterrupt

    config = RunFolder.open(out).config
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunFolder, "save_checkpoint", stopping)
        train(config, tmp_path / "run", progress=False)
    resumed = train(config, tmp_path / "run", resume=True, progress=False)
    for name in ("model.safetensors", "checkpoint-000003.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (out / name).read_bytes()
    alike = dataclasses.replace(resumed, seconds_per_epoch=report.seconds_per_epoch)
    assert alike == report


def test_a_damaged_preparation_is_refused(trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained[1], copy)
    data = (copy / "model.safetensors").read_bytes()
    assert b"rises" in data
    (copy / "model.safetensors").write_bytes(data.replace(b"rises", b"sinks"))
    with pytest.raises(ValueError, match="model.safetensors was changed"):
        organics.load_run(copy)


def test_two_devices_share_batches_of_unequal_lengths(trained, tmp_path):
    path, _, report = trained
    config = file_config(path, **SMALL)
    shared = train(config, tmp_path / "run", progress=False, devices=2)
    assert shared.test_loss == pytest.approx(report.test_loss, rel=1e-4)


# --- lengths, in every backend --------------------------------------------------------------------


def network(name, backend, target):
    key, options = jr.key(0), {"backend": backend, "dtype": np.float64}
    if name == "organics":
        layer = nn.ORGaNICs(2, 3, recurrent="identity", key=key, dt_tau_max_y=0.3, **options)
    else:
        layer = baselines.build(name, 2, 3, key=key, **options)
    return SequenceClassifier(layer, target=target, key=jr.key(1), dtype=np.float64)


@eqx.filter_jit
def loss_and_gradient(model, batch):
    return eqx.filter_value_and_grad(lambda model: model.loss(*batch)[0])(model)


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("name", "backend", "target"),
    [
        ("organics", "native", Target("classes", 3)),
        ("organics", "scan", Target("numbers", 2, "every")),
        ("lstm", "native", Target("numbers", 2, "every")),
        ("lstm", "scan", Target("classes", 3)),
    ],
)
def test_padding_changes_neither_loss_nor_gradient(name, backend, target):
    """The loss and gradient of a batch are the means of those of its sequences by themselves."""
    if backend == "native" and (missing := native.unavailable()):
        pytest.skip(missing)
    model, rng = network(name, backend, target), np.random.default_rng(2)
    steps, lengths = 4, np.array([4, 2, 2, 4], np.int32)
    x, each = rng.normal(size=(4, steps, 2)), rng.normal(size=(4, steps, 2))
    after = np.arange(steps) >= lengths[:, None]
    y = np.arange(4, dtype=np.int32) % 3 if target.at == "last" else each
    alone = [
        loss_and_gradient(
            model,
            (
                jnp.asarray(x[i : i + 1, :n]),
                jnp.asarray(y[i : i + 1] if target.at == "last" else y[i : i + 1, :n]),
            ),
        )
        for i, n in enumerate(lengths)
    ]
    x[after] = np.nan
    if target.at == "every":
        y[after] = np.nan
    loss, gradient = loss_and_gradient(model, tuple(map(jnp.asarray, (x, y, lengths))))
    np.testing.assert_allclose(loss, np.mean([one for one, _ in alone]), rtol=1e-12)
    for got, *parts in zip(
        jax.tree.leaves(gradient), *(jax.tree.leaves(g) for _, g in alone), strict=True
    ):
        np.testing.assert_allclose(got, np.mean(parts, axis=0), rtol=1e-9, atol=1e-13)


def test_the_accuracy_of_steps_is_a_mean_over_each_sequence_first():
    target = Target("classes", 2, "every")
    outputs = jnp.asarray(np.eye(2)[[[0, 1, 1], [1, 0, 0]]])
    wanted = jnp.asarray(np.array([[0, 1, 0], [1, 1, 1]]), jnp.int32)
    lengths = jnp.asarray([3, 1], jnp.int32)
    found = jax.jit(target.loss)(outputs, wanted, lengths)[1]["accuracy"]
    assert found == pytest.approx((2 / 3 + 1) / 2)
    right, wrong = np.log1p(np.exp(-1.0)), np.log1p(np.exp(1.0))
    loss = jax.jit(target.loss)(outputs, wanted, lengths)[0]
    assert loss == pytest.approx(((2 * right + wrong) / 3 + right) / 2)


@pytest.mark.parametrize(
    "wrong", [{"kind": "words"}, {"at": "first"}, {"size": 0}, {"size": 2.5}], ids=str
)
@pytest.mark.usefixtures("without_type_checks")
def test_wrong_targets_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must"):
        Target(**wrong)


# --- in Python ------------------------------------------------------------------------------------


class Linear(eqx.Module):
    """A module that knows nothing of this library: one input, and the number of its steps."""

    weight: jax.Array

    def __call__(self, x, length):
        goes = (jnp.arange(x.shape[0], dtype=jnp.int32) < length)[:, None]
        return self.weight @ (jnp.sum(jnp.where(goes, x, 0), axis=0) / length.astype(x.dtype))


class Pair(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight @ x.astype(self.weight.dtype)


class Named(eqx.Module):
    p: dict

    def __call__(self, x):
        return self.p["a.b"] * x[:1]


class Overflowing(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight @ x * 1e3


def test_any_module_is_fitted_and_loaded_again(tmp_path):
    arrays = waves()
    module = Linear(jnp.zeros((2, 2), jnp.float32))
    labels = [("up", 1) if label == "rises" else None.__class__ for label in arrays["y"]]
    x, lengths = arrays["x"], arrays["lengths"]
    settings = {"epochs": 30, "batch_size": 41, "learning_rate": 0.1, "progress": False}
    fitted = fit(module, x, labels, lengths=lengths, out=tmp_path / "run", **settings)
    assert isinstance(fitted.model, models.Plain) and fitted.report.test_accuracy > 0.9
    assert set(fitted.report.classes) == {"('up', 1)", "<class 'NoneType'>"}
    loaded = organics.load_run(tmp_path / "run", module)
    np.testing.assert_array_equal(loaded.predict(x, lengths), fitted.predict(x, lengths))
    assert isinstance(loaded.config, GivenConfig) and loaded.config.model == "Linear"
    with pytest.raises(ValueError, match="`model` must be given: .* trained a Linear"):
        organics.load_run(tmp_path / "run")
    with pytest.raises(ValueError, match="of another model|holds"):
        organics.load_run(tmp_path / "run", Linear(jnp.zeros((3, 2), jnp.float32)))
    with pytest.raises(ValueError, match="given in Python"):
        evaluate(tmp_path / "run")
    again = fit(module, x, labels, lengths=lengths, out=tmp_path / "run", resume=True, **settings)
    assert again.report == fitted.report
    x[0, 0] += 1
    with pytest.raises(ValueError, match="is about other data, or they changed"):
        fit(module, x, labels, lengths=lengths, out=tmp_path / "run", resume=True, **settings)


def test_a_module_of_few_bits_is_fitted():
    x = np.random.default_rng(0).normal(size=(40, 2))
    module = models.Plain(Pair(jnp.zeros((1, 2), jnp.bfloat16)), models.Target("numbers", 1))
    fitted = fit(module, x, x[:, 0], epochs=20, learning_rate=0.1, progress=False)
    assert fitted.report.test_error < 0.2 < fitted.report.test_guessing


def test_a_run_knows_the_constants_of_its_model(tmp_path):
    """A folder has the arrays alone; other constants make another network of them."""
    arrays = waves()
    settings = {"lengths": arrays["lengths"], "out": tmp_path / "run", "epochs": 2,
                "batch_size": 41, "progress": False}  # fmt: skip

    def layer(**constants):
        given = {"recurrent": "identity", "dt_tau_max_y": 0.5, "dtype": np.float32} | constants
        return nn.ORGaNICs(2, 3, key=jr.key(0), **given)

    fitted = fit(layer(), arrays["x"], arrays["y"], **settings)
    same = organics.load_run(tmp_path / "run", layer(backend="scan"))
    x = np.nan_to_num(arrays["x"], nan=100.0)
    np.testing.assert_allclose(same.probabilities(x), fitted.probabilities(x), rtol=1e-4)
    for wrong, words in (
        (layer(sigma=0.5), "`cells.0.sigma` is 0.5, in the run 1.0"),
        (layer(rectified=False), "`options.rectified` is False, in the run True"),
        (Linear(jnp.zeros((2, 2))), r"its class is .*Linear, in the run .*ORGaNICs"),
    ):
        with pytest.raises(ValueError, match=f"`model` is another one than that of .*: {words}"):
            organics.load_run(tmp_path / "run", wrong)
    with pytest.raises(ValueError, match="constants"):
        fit(layer(sigma=0.5), arrays["x"], arrays["y"], resume=True, **settings)


class Always(eqx.Module):
    """Says the first class at every step."""

    scores: jax.Array

    def __call__(self, x, steps):
        del steps
        return jnp.broadcast_to(self.scores, (len(x), 2))


def test_guessing_is_measured_as_the_accuracy_is():
    """A model that always says the commonest class is as right as guessing, although that has most
    of the steps, and half of the sequences."""
    long = np.arange(100) % 2 == 0
    lengths, words = np.where(long, 20, 1), np.where(long, "a long one", "short")
    x, y = np.zeros((100, 20, 1)), np.repeat(words[:, None], 20, axis=1)
    settings = {"epochs": 1, "learning_rate": 1e-9, "progress": False}
    fitted = fit(Always(jnp.array([1.0, 0.0])), x, y, lengths=lengths, **settings)
    assert fitted.report.test_accuracy == pytest.approx(fitted.report.test_guessing)
    assert fitted.report.test_guessing < 0.7


def test_a_module_that_cannot_take_an_input_is_refused():
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    with pytest.raises(ValueError, match=r"`model` must take an input of shape \(3,\).*TypeError"):
        fit(Linear(jnp.zeros((2, 4), jnp.float32)), x, y, progress=False)
    with_key = eqx.nn.Sequential([eqx.nn.Linear(3, 2, key=jr.key(0)), eqx.nn.Dropout(0.5)])
    with pytest.raises(ValueError, match=r"without a key or a state; it raised RuntimeError"):
        fit(with_key, x, y, progress=False)


def test_scores_that_are_not_finite_are_no_class():
    x, y = np.random.default_rng(0).normal(size=(24, 2)), np.arange(24) % 2
    settings = {"epochs": 1, "batch_size": 6, "target": "classes", "progress": False}
    huge = np.where(np.arange(4)[:, None] == 2, 3e37, x[:4])
    made = {"x_test": huge, "y_test": np.zeros(4, int)}
    found = fit(Overflowing(jnp.ones((2, 2), jnp.float32)), x, y, **made, **settings)
    assert np.isnan(found.probabilities(huge)[2]).all()
    with pytest.raises(ValueError, match=r"`x`, row 2: .* not finite \(1 of 4 rows\)"):
        found.predict(huge)
    assert found.predict(huge[:2]).shape == (2,)
    assert found.report.test_accuracy <= 0.75 and found.report.classes["0"] <= 0.75


def test_what_does_not_fit_is_refused_by_fit():
    x, y = np.eye(6), np.arange(6) % 3
    model = models.build("mlp", 6, layers=(3,), encoder=(4,), key=jr.key(0), dtype=np.float32)
    for wrong, words in (
        ({}, "`model` is for 10 classes at the last step, but `y` holds 3 classes"),
        ({"x_test": x}, "`x_test` and `y_test` must be given together"),
        ({"lengths_test": [1]}, "`lengths_test` must be given with `x_test`"),
        ({"x_test": x, "y_test": y, "lengths": [1] * 6}, "`lengths_test` must be given, as"),
        ({"x_test": x, "y_test": y, "test_share": 0.5}, "`test_share` must not be given"),
        ({"model": jnp.sum}, "`model` must be an Equinox module"),
        ({"model": Linear(jnp.zeros(1, jnp.complex64))}, "`model`: `weight` is complex; keep"),
        ({"model": Linear(jnp.zeros(1, jnp.float8_e4m3fn))}, "`model`: `weight` is of type float8"),
        ({"model": Linear(jnp.zeros(1, jnp.int32))}, "`model` has no parameters"),
        ({"model": Named({"a.b": jnp.zeros(1), "a": {"b": jnp.ones(1)}})}, "the name `p.a.b`"),
        ({"outputs": 3, "model": Linear(jnp.zeros(1))}, "`outputs` must not be given"),
        ({"lengths": [1] * 6}, "`lengths` is of sequences"),
        ({"epoch": 3, "model": Linear(jnp.zeros(1))}, "no setting `epoch`; did you mean 'epochs'"),
        ({"learning_rate": float("nan"), "model": Linear(jnp.zeros(1))}, "`learning_rate`"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(**({"model": model, "x": x, "y": y, "progress": False} | wrong))


def test_settings_are_chosen_by_size_and_can_be_given(tmp_path):
    chosen = {}
    for count in (40, 4_000):
        x, y = np.zeros((count, 3)), np.arange(count) % 2
        x[:, 0] = y
        np.savez(tmp_path / "a.npz", x=x, y=y)
        chosen[count] = file_config(tmp_path / "a.npz")
    few, many = chosen.values()
    assert few.batch_size < many.batch_size and few.epochs > many.epochs
    assert isinstance(few, FileConfig) and few.encoder and not few.steps
    given = file_config(tmp_path / "a.npz", units=7, epochs=2, encoder=(5,))
    assert (given.units, given.epochs, given.encoder) == (7, 2, (5,))
    with pytest.raises(ValueError, match="`encoder` must have at least one width"):
        file_config(tmp_path / "a.npz", encoder=())
    with pytest.raises(ValueError, match="`dt_tau_max_y` must only be given for sequences"):
        file_config(tmp_path / "a.npz", dt_tau_max_y=0.5)


def test_the_test_set_of_an_archive_lies_beside_it(tmp_path):
    head = "@timeStamps false\n@classLabel true a b\n@data\n"
    for name in ("toy_TRAIN.ts", "toy_TEST.ts"):
        (tmp_path / name).write_text(head + "1,2,3:a\n3,2,1:b\n" * 10)
    config = file_config(tmp_path / "toy_TRAIN.ts")
    assert config.test_data.endswith("toy_TEST.ts") and config.steps == 3
    (tmp_path / "toy_TEST.ts").write_text(head + "1,2,4:a\n3,2,1:b\n" * 10)
    assert file_config(tmp_path / "toy_TRAIN.ts").data_sha256 != config.data_sha256
    (tmp_path / "toy_TEST.ts").unlink()
    assert file_config(tmp_path / "toy_TRAIN.ts").test_data == ""


def test_the_study_of_the_defaults_at_toy_size(tmp_path, monkeypatch):
    small = {"model": "mlp", "units": 3, "encoder": (4,)}  # quick to compile
    monkeypatch.setattr("organics.training.choices._network", lambda _: small)
    sample = own_data.Sample(("iris",), seeds=(0,), epochs=1)
    found = own_data.measure(sample, Job(tmp_path, runs=(tmp_path,)))
    [row] = found["rows"]
    assert row["set"] == "iris" and row["mean_of_guessing"] == pytest.approx(1 / 3)
    assert row["mean_of_linear_model"] > 0.8 and row["epochs"] == 1
    for accuracy, verdict in ((row["mean_of_linear_model"], "holds"), (0.5, "does not hold")):
        row["mean_test_accuracy"] = accuracy
        assert own_data.conclude(found).verdict == verdict
    sequences = {"set": "waves", "mean_of_linear_model": None, "steps": 9, "features": 1}
    row |= sequences | {"mean_test_error": 2.0, "mean_of_guessing": 1.0}
    del row["mean_test_accuracy"]
    assert own_data.conclude(found).verdict == "does not hold"
    for make, steps in (
        (own_data._waves, 60),
        (own_data._means, 40),
        (own_data._running_means, 40),
    ):
        arrays = make()
        assert arrays["x"].shape[:2] == (len(arrays["y"]), steps) == (len(arrays["lengths"]), steps)


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (2,)])
def test_a_module_with_another_number_of_outputs_is_refused(shape):
    x = np.random.default_rng(0).normal(size=(60, 2))
    model = Pair(jnp.zeros(shape, jnp.float32))
    for y, what in (
        (np.arange(60) % 2, "2 scores, one for each class,"),
        (x @ x[:2].T, "2 numbers,"),
    ):
        with pytest.raises(ValueError, match=f"`model` must return {what} of shape"):
            fit(model, x, y, epochs=1, progress=False)


def test_classes_are_told_apart_however_large_and_features_however_far_from_0(tmp_path):
    large = ["18446744073709551615", "18446744073709551614", "1"]
    file = tmp_path / "large.csv"
    file.write_text("u,y\n" + "".join(f"{i},{large[i % 3]}\n" for i in range(60)))
    assert set(task_of_file(file).load().preparation.classes) == set(large)
    rng = np.random.default_rng(0)
    x = np.stack([1.7e9 + 1e-3 * rng.normal(size=80), np.full(80, 0.1 + 0.2)], axis=1)
    np.savez(tmp_path / "far.npz", x=x, y=np.arange(80) % 2)
    dataset = task_of_file(tmp_path / "far.npz").load()
    np.testing.assert_allclose(dataset.training.x.std(axis=0), [1, 0], atol=0.02)
