import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
from programs import simulated

from organics import cli
from organics.circuit.circuit import Circuit
from organics.circuit.file import load_circuit, save_circuit
from organics.cli import compiled, simulate
from organics.cli.answer import Answer, show
from organics.cli.reproduce import _BRIEF
from organics.data.store import places
from organics.linear_stability.dispersion import dispersion
from organics.rest.search import steady_state
from organics.simulation.noise import Noise
from organics.spectra import coherence, power_spectrum
from organics.studies.catalog import TARGETS
from organics.studies.harness import runner
from organics.studies.harness.runner import Result
from organics.training import SequenceConfig, TrainConfig
from organics.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("standard_promotion")

SUBCOMMANDS = (
    "data list",
    "data add",
    "data path",
    "data tasks",
    "train adding",
    "train mnist",
    "train smnist",
)
EXAMPLES = Path(__file__).parents[1] / "examples"


def call(capsys, *arguments):
    """Exit code, standard output and standard error of a command, in this process."""
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def document(capsys, *arguments):
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))


def analyzed(capsys, file, *options):
    (found,) = document(capsys, "analyze", file, *options)["circuits"]
    return found


def process(*arguments, **options):
    command = [sys.executable, "-m", "organics", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def test_help_names_every_command_and_does_not_import_jax():
    code = (
        "import sys, organics.cli\n"
        "assert organics.cli.run(['--help']) == 0\n"
        "heavy = {'jax', 'numpy', 'matplotlib', 'tyro', 'equinox'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", [*cli.COMMANDS, *SUBCOMMANDS])
def test_every_command_has_help_with_an_example(capsys, name):
    code, out, _ = call(capsys, *name.split(), "--help")
    assert code == 0
    words = " ".join(out.replace("│", " ").split())
    if name not in ("data", "train"):
        assert f"Example: organics {name}" in words
        assert "--json" in words


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["usage"]),
        (["dance"], ["'dance'", "analyze"]),
        (["analyze"], ["`files`"]),
        (["analyze", "nowhere.json"], ["nowhere.json"]),
        (["analyze", EXAMPLES / "figure1a.json", "--out", "picture.bmp"], ["`out`", ".svg"]),
        (["analyze", EXAMPLES / "figure1a.json", "--out", "no/such/p.png"], ["`out`", "no/such"]),
        (["portrait", EXAMPLES / "orientation_ring.json"], ["n"]),
        (["simulate", EXAMPLES / "figure1a.json", "--duration", "-1"], ["`duration`", "-1.0"]),
        (["simulate", EXAMPLES / "figure1a.json", "--drive", "7"], ["`drive`", "7"]),
        (["stability", "--trials", "0"], ["`trials`", "0"]),
        (["stability", "--n", "two"], ["two"]),
        (["train", "mnist", "--epochs", "0"], ["organics: `epochs`", "0"]),
        (["train", "smnist", "--clip-norm", "1"], ["`clip_norm`", "organics"]),
        (["train", "psmnist", "--resize", "5"], ["`resize`", "14", "5"]),
        (["train", "sdigits", "--devices", "0"], ["`devices`", "0"]),
        (["train", "digits", "--devices", "3", "--batch-size", "3"], ["`devices`", "3"]),
        (["train", "sdigits", "--coordinator", "auto"], ["`coordinator` auto"]),
        (["train", "sdigits", "--process-id", "0"], ["`process_id`", "`coordinator`"]),
        (
            ["train", "sdigits", "--coordinator", "here", "--processes", "2", "--process-id", "0"],
            ["HOST:PORT", "'here'"],
        ),
        (["train", "sdigits", "--coordinator", "here:1"], ["`processes`", "`coordinator`"]),
        (
            ["train", "sdigits", "--coordinator", "a:1", "--processes", "2", "--process-id", "2"],
            ["`process_id`", "2"],
        ),
        (["train", "digits", "--layers"], ["`layers`", "1 to 100 sizes"]),
        (["train", "digits", "--encoder"], ["`encoder`", "1 to 100 sizes"]),
        (["train", "digits", "--layers", "200000"], ["`layers`", "memory"]),
        (["train", "sdigits", "--units", "200000"], ["`units`", "memory"]),
        (["train", "sdigits", "--layers", "200000"], ["`layers`", "200000"]),
        (["train", "digits", "--learning-rate", "nan"], ["organics: `learning_rate`", "nan"]),
        (["train", "digits", "--learning-rate", "1e400"], ["`learning_rate`", "inf"]),
        (
            ["train", "sdigits", "--model", "cornn", "--hyperparameters", "dt", "nan"],
            ["`hyperparameters`", "nan"],
        ),
        (["stability", "--n", "200000"], ["`n`", "memory"]),
        (["stability", "--trials", "9" * 13], ["`trials`", "memory"]),
        (["stability", "--spectral-norm", "inf"], ["`spectral_norm`", "finite", "inf"]),
        (["stability", "--seed", "9" * 30], ["`seed`", "64 bits"]),
        (
            ["simulate", EXAMPLES / "figure1a.json", "--samples", "9" * 8],
            ["`samples`", "10,000,000"],
        ),
        (
            ["simulate", EXAMPLES / "figure1a.json", "--initial", "1e200", "1", "--out", "x.csv"],
            ["first step overflows", "`initial`"],
        ),
        (["spectrum", EXAMPLES / "figure3a.json", "--noise", "1e200"], ["`noise`", "square"]),
        (["spectrum", EXAMPLES / "figure3a.json", "--noise", "1e-200"], ["`noise`", "square"]),
        (
            ["simulate", EXAMPLES / "figure1a.json", "--noise", "1", "--dt", "1e-300"],
            ["`dt`", "memory"],
        ),
        (["simulate", EXAMPLES / "figure1a.json", "--duration", "nan"], ["`duration`", "nan"]),
        (
            ["simulate", EXAMPLES / "figure1a.json", "--noise", "1", "--method", "implicit"],
            ["`method`", "left out with noise"],
        ),
        (["stability", "--identity", "--spectral-norm", "2"], ["`spectral_norm`", "identity"]),
        (["simulate", EXAMPLES / "figure1a.json", "--step", "5"], ["`step`", "TIME:FACTOR", "'5'"]),
        (["simulate", EXAMPLES / "figure1a.json", "--step", "101:2"], ["`step`", "100 ms"]),
        (["simulate", EXAMPLES / "figure1a.json", "--initial", "1"], ["`initial`", "2 numbers"]),
        (["simulate", EXAMPLES / "figure1a.json", "--out", "x.txt"], ["`out`", ".csv", "x.txt"]),
        (
            ["simulate", EXAMPLES / "figure1a.json", "--drive-table", EXAMPLES / "figure1b.json"],
            ["figure1b.json"],
        ),
        (["spectrum", EXAMPLES / "figure3a.json", "--noise", "0"], ["`noise`", "above 0"]),
        (["continue", EXAMPLES / "figure1b.json", "--from", "0", "--to", "inf"], ["`to`", "inf"]),
        (["spectrum", EXAMPLES / "figure3a.json", "--neurons", "y2"], ["y1 to y1", "'y2'"]),
        (["spectrum", EXAMPLES / "figure3a.json", "--low", "0"], ["`low`", "0.0"]),
        (["spectrum", EXAMPLES / "figure3a.json", "--coherence", "--neurons", "a1"], ["two"]),
        (["reproduce", "fig1", "--runs"], ["`runs`"]),
        (["evaluate", "no-run"], ["no-run"]),
        (["data", "path", "imagenet"], ["imagenet"]),
        (["data", "add", "mnist", "no-archive.tgz"], ["no-archive.tgz"]),
    ],
)
def test_bad_usage_and_input_exit_with_2_and_say_why(capsys, arguments, words):
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    for word in words:
        assert word in err
    assert "Traceback" not in err


@pytest.mark.parametrize("wanted", [["--check"], ["--out", "picture.png"]])
def test_what_has_no_circuits_at_rest_cannot_be_asked_for_them(capsys, tmp_path, wanted):
    for config in (TrainConfig(dataset="digits", model="mlp"), SequenceConfig(task="sdigits")):
        RunFolder.create(tmp_path / config.model, config)
        code, _, err = call(capsys, "evaluate", tmp_path / config.model, *wanted)
        assert code == 2 and f"`{wanted[0].strip('-')}`" in err and "no circuits at rest" in err


def test_a_check_of_claims_that_were_not_put_to_the_test_is_not_passed(
    capsys, tmp_path, monkeypatch
):
    def results(*verdicts):
        made = [Result(TARGETS[0], dict.fromkeys((*_BRIEF, "checks"), "") | {"verdict": verdict})
                for verdict in verdicts]  # fmt: skip
        monkeypatch.setattr(runner, "reproduce", lambda *_, **__: made)
        return call(capsys, "reproduce", "fig1", "--check", "--quiet", "--out", tmp_path)[0]

    assert results("not run") == 1
    assert results("not run", "holds") == 0
    assert results("holds", "partly") == 1


def test_a_corrupted_circuit_file_is_refused_by_name(capsys, tmp_path):
    file = tmp_path / "broken.json"
    file.write_text('{"W": [[1, -2')
    code, _, err = call(capsys, "analyze", file)
    assert code == 2 and "broken.json" in err and "Traceback" not in err


def test_analyze_reproduces_the_reference_values(capsys):
    (drive,) = analyzed(capsys, EXAMPLES / "figure3b.json")["drives"]
    assert set(drive) >= {
        "z", "y", "a", "residual", "converged", "method", "eigenvalues", "spectral_abscissa",
        "stable", "certificate",
    }  # fmt: skip
    np.testing.assert_allclose(drive["y"], [0.995037], atol=1e-6)
    np.testing.assert_allclose(drive["a"], [0.2525], atol=1e-12)
    got = sorted(drive["eigenvalues"])
    np.testing.assert_allclose(got, [[-0.126118, -0.096015], [-0.126118, 0.096015]], atol=1e-6)
    assert drive["stable"] is True and drive["converged"] is True
    np.testing.assert_allclose(drive["spectral_abscissa"], -0.126118, atol=1e-6)
    certificate = drive["certificate"]
    assert certificate["kind"] == "diagonal Lyapunov"
    assert certificate["holds"] and certificate["verified"] and 0 < certificate["margin"] <= 1


def test_analyze_of_very_many_neurons_forms_no_matrix(capsys, tmp_path):
    """With weights that the file holds as a kernel; other states and certificates are left out."""
    kernel = {"kernel": [[0.1, 0.2, 0.1]], "height": 1, "width": 1100, "border": "periodic"}
    (tmp_path / "c.json").write_text(json.dumps({"W": kernel, "z": 0.6}))
    (drive,) = analyzed(capsys, tmp_path / "c.json")["drives"]
    assert drive["stable"] and drive["certificate"] is None and drive["largest_euler_step"] is None
    assert drive["eigenvalue_residual"] < 1e-5 and len(drive["eigenvalues"]) < 20
    circuit, z = load_circuit(tmp_path / "c.json")
    known = dispersion(circuit, z[0]).spectral_abscissa
    assert drive["spectral_abscissa"] == pytest.approx(known, abs=1e-6)
    _, out, _ = call(capsys, "analyze", tmp_path / "c.json")
    assert "matrix-free" in out and "not searched for" in out


def test_analyze_many_drives_and_general_recurrence(capsys, tmp_path):
    rng = np.random.default_rng(0)
    W_r = rng.normal(size=(4, 4))
    circuit = Circuit(rng.uniform(size=(4, 4)), W_r / np.linalg.norm(W_r, 2))
    save_circuit(tmp_path / "c.npz", circuit, rng.normal(size=(3, 4)) / 4)
    found = analyzed(capsys, tmp_path / "c.npz", "--out", tmp_path / "plane.svg")
    assert len(found["drives"]) == 3 and found["n"] == 4
    for drive in found["drives"]:
        assert drive["certificate"]["kind"] == "spectral" and "T" not in drive["certificate"]
        assert drive["residual"] < 1e-10
    assert (tmp_path / "plane.svg").read_text().startswith("<?xml")
    code, out, _ = call(capsys, "analyze", tmp_path / "c.npz", "--check")
    assert code == 0 and "no structural certificate" in out


def test_several_files_in_one_call(capsys, tmp_path):
    files = [EXAMPLES / "figure1a.json", EXAMPLES / "orientation_ring.json"]
    plane = tmp_path / "plane.svg"
    found = document(capsys, "analyze", *files, "--out", plane)
    assert [one["file"] for one in found["circuits"]] == [str(file) for file in files]
    assert [len(one["drives"]) for one in found["circuits"]] == [1, 4]
    assert found["wrote"] == [str(plane)]
    assert "figure1a, drive 0" in plane.read_text() and "ring, drive 3" in plane.read_text()
    code, out, _ = call(capsys, "certify", *files, "--check")
    assert code == 0 and all(f"{file}: " in out for file in files)
    (tmp_path / "bad.json").write_text("{}")
    code, out, err = call(capsys, "analyze", files[0], tmp_path / "bad.json")
    assert code == 2 and out == "" and "bad.json" in err


def test_a_figure_shows_every_file_and_leaves_out_what_has_no_steady_state(capsys, tmp_path):
    for folder, name in (("a", "figure1a"), ("b", "figure1b")):
        (tmp_path / folder).mkdir()
        shutil.copy(EXAMPLES / f"{name}.json", tmp_path / folder / "c.json")
    files = [tmp_path / "a" / "c.json", tmp_path / "b" / "c.json"]
    document(capsys, "analyze", *files, "--out", tmp_path / "both.svg")
    drawn = (tmp_path / "both.svg").read_text()
    assert "c (file 1), drive 0" in drawn and "c (file 2), drive 0" in drawn
    none = EXAMPLES / "no_steady_state.json"
    found = document(capsys, "analyze", files[0], none, "--out", tmp_path / "one.svg")
    assert not found["circuits"][1]["drives"][0]["converged"]
    code, _, err = call(capsys, "analyze", none, "--out", tmp_path / "no.svg")
    assert code == 2 and "`out` must not be given here" in err


def test_an_identity_that_is_written_out_is_the_identity(capsys, tmp_path):
    save_circuit(tmp_path / "c.json", Circuit(np.ones((2, 2)), np.eye(2)), np.array([1.0, -0.3]))
    found = analyzed(capsys, tmp_path / "c.json")
    assert found["identity_recurrence"] is True
    assert found["drives"][0]["method"] == "closed form"
    assert found["drives"][0]["certificate"]["verified"]


def test_check_turns_a_negative_answer_into_1(capsys):
    file = EXAMPLES / "no_steady_state.json"
    found = analyzed(capsys, file)  # without --check, an answer like any other
    assert found["drives"][0]["converged"] is False
    for name in ("certificate", "eigenvalues", "spectral_abscissa", "largest_euler_step"):
        assert found["drives"][0][name] is None
    code, out, _ = call(capsys, "analyze", file, "--check")
    assert code == 1 and "none found" in out


def test_no_euler_step_is_short_enough_for_an_unstable_state(capsys):
    (drive,) = analyzed(capsys, EXAMPLES / "no_stable_state_semidefinite.json")["drives"]
    assert drive["converged"] and not drive["stable"] and drive["spectral_abscissa"] > 0
    assert drive["largest_euler_step"] is None


def test_portrait_finds_all_fixed_points(capsys, tmp_path):
    picture = tmp_path / "portrait.png"
    points = document(capsys, "portrait", EXAMPLES / "figure1b.json", "--out", picture)
    points = points["fixed_points"]
    np.testing.assert_allclose(
        [p["y"] for p in points], [-0.978886, -0.569235, 0.997779], atol=1e-6
    )
    assert [p["stable"] for p in points] == [False, False, True]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_simulate_ends_at_the_steady_state(capsys, tmp_path):
    file = EXAMPLES / "figure3a.json"
    out = tmp_path / "t.pdf"
    found = document(capsys, "simulate", file, "--duration", 150, "--samples", 31, "--out", out)
    assert len(found["t"]) == len(found["y"]) == 31 and found["t"][-1] == 150
    np.testing.assert_allclose(found["y"][-1], [0.995037], atol=1e-5)
    assert found["at_rest"] is True and out.read_bytes().startswith(b"%PDF")
    noisy = document(capsys, "simulate", file, "--noise", 0.01, "--duration", 20, "--samples", 5)
    again = document(capsys, "simulate", file, "--noise", 0.01, "--duration", 20, "--samples", 5)
    other = document(
        capsys, "simulate", file, "--noise", 0.01, "--duration", 20, "--samples", 5, "--seed", 1
    )
    assert noisy == again and noisy["y"] != other["y"]
    arguments = ("simulate", file, "--noise", 0.01, "--duration", 20, "--samples", 5)
    code, out, err = call(capsys, *arguments, "--dt", 1, "--json")
    assert code == 0 and json.loads(out) and "`dt` = 1 ms change the variance" in err
    code, _, err = call(capsys, *arguments, "--dt", 5)
    assert code == 2 and "`dt` must be at most" in err and "not 5" in err
    code, _, err = call(capsys, "simulate", file, "--dt", 0.1)
    assert code == 2 and "`dt` must be left out without noise, not 0.1" in err
    code, _, _ = call(capsys, "simulate", file, "--duration", 1, "--samples", 31, "--check")
    assert code == 1


def test_stability_of_random_circuits(capsys):
    found = document(capsys, "stability", "--n", 4, "--trials", 50, "--seed", 3)
    assert found["stable"] == found["trials"] == 50
    assert found["interval_95"][1] == 1 and 0.9 < found["interval_95"][0] < 0.95
    assert found["largest_spectral_abscissa"] < 0
    assert sum(found["methods"].values()) == 50
    verdicts = document(capsys, "stability", "--n", 4, "--trials", 50, "--seed", 3, "--verdicts")
    assert verdicts.keys() == found.keys() and verdicts["largest_spectral_abscissa"] is None
    assert verdicts["stable"] == 50 and verdicts["largest_residual"] == found["largest_residual"]
    code, _, err = call(capsys, "stability", "--verdicts", "--out", "histogram.svg")
    assert code == 2 and "`--verdicts`" in err and "`--out`" in err
    code, out, _ = call(capsys, "stability", "--identity", "--n", 3, "--trials", 20, "--check")
    assert code == 0 and "20 of 20" in out and "20 by closed form" in out
    assert "largest real part -" in out and "largest residual" in out


def test_train_then_evaluate(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # the settings of `test_training`, so that nothing else is compiled
    run = ("train", "digits", "--layers", 6, "--encoder", 16, 8, "--epochs", 2,
           "--batch-size", 450, "--learning-rate", 0.01, "--quiet")  # fmt: skip
    trained = document(capsys, *run, "--figure", "curves.png")
    assert trained["run"] == str(Path("runs") / "digits-organics-6-seed0")
    assert Path("curves.png").exists() and trained.pop("wrote") == ["curves.png"]
    code, _, err = call(capsys, *run)
    assert code == 2 and "not empty" in err
    assert document(capsys, *run, "--resume") == trained
    found = document(capsys, "evaluate", trained["run"], "--out", "histogram.svg")
    assert found["accuracy"] == pytest.approx(trained["test_accuracy"], abs=1e-6)
    assert found["stability"][0]["stable"] == 1 and Path("histogram.svg").exists()
    assert found["wrote"] == ["histogram.svg"]
    assert "stability" not in document(capsys, "evaluate", trained["run"], "--no-stability")
    for wanted in (["--check"], ["--out", "histogram.png"]):
        code, _, err = call(capsys, "evaluate", trained["run"], "--no-stability", *wanted)
        assert code == 2 and f"`{wanted[0].strip('-')}`" in err and "--no-stability" in err


def test_train_on_sequences_then_evaluate(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # the settings of `test_sequences`, so that nothing else is compiled
    run = ("train", "sdigits", "--rows", "--units", 8, "--epochs", 3, "--batch-size", 450,
           "--schedule", "warmup-cosine", "--quiet")  # fmt: skip
    trained = document(capsys, *run)
    assert trained["run"] == str(Path("runs") / "sdigits-rows-organics-8-seed0")
    assert trained["parameters"] == 6 * 64 + 3 * 64 + 4 * 8 + 10 * 8 + 10
    assert document(capsys, *run, "--resume") == trained
    found = document(capsys, "evaluate", trained["run"])
    assert found["accuracy"] == pytest.approx(trained["test_accuracy"], abs=1e-6)
    _, out, _ = call(capsys, "evaluate", trained["run"])
    assert (
        f"largest real part along the way {found['dynamics']['largest_spectral_abscissa']:.4g}"
        in out
    )


def test_data_commands(capsys):
    names = [row["name"] for row in document(capsys, "data", "list")["datasets"]]
    assert names == ["digits", "mnist", "fashion-mnist", "cifar-10"]
    code, out, _ = call(capsys, "data", "list")
    assert code == 0 and "digits" in out


def test_info(capsys):
    found = document(capsys, "info")
    assert found["devices"] and found["packages"]["jax"]


def test_as_a_process(tmp_path):
    """Exit codes, the two streams and double precision are those of a real process."""
    done = process("analyze", EXAMPLES / "figure1a.json", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (drive,) = json.loads(done.stdout)["circuits"][0]["drives"]
    np.testing.assert_allclose(drive["y"], [0.897971], atol=1e-6)
    assert drive["residual"] < 1e-10  # not reached in single precision
    done = process("analyze", "missing.json", "--json", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and "missing.json" in done.stderr


COMMANDS = ("--version", "--help", "data list --help", "data list")


@pytest.mark.parametrize("words", COMMANDS)
def test_the_reader_may_leave_early(words):
    """A closed pipe is not an error of the program."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m organics {words} | true"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert "Traceback" not in done.stderr and done.returncode == 0


def test_a_negative_answer_is_not_lost_with_the_reader(tmp_path):
    file = EXAMPLES / "no_steady_state.json"
    shell = f"{sys.executable} -m organics analyze {file} --check | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["simulate", "continue", "spectrum"])
def test_an_input_is_not_overwritten(command, tmp_path, capsys):
    file = tmp_path / "one.npz"
    save_circuit(file, Circuit(np.ones((1, 1))), np.ones(1))
    before = file.read_bytes()
    (tmp_path / "folder").mkdir()
    other = tmp_path / "folder" / ".." / "one.npz"
    options = ["--parameter", "z", "--from", "0", "--to", "1"] if command == "continue" else []
    code, _, err = call(capsys, command, file, *options, "--out", other)
    assert code == 2 and "`out` must not be an input" in err
    assert file.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is full")
@pytest.mark.parametrize("words", COMMANDS)
def test_standard_output_that_takes_no_more_is_named(words):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m organics {words} > /dev/full"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # it is known only when it is flushed
    )
    message = "organics: cannot write standard output: No space left on device\n"
    assert (done.stderr, done.returncode) == (message, 2)


def test_programs_are_kept_for_the_next_call_unless_jax_is_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    compiled.keep()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "" and not any(tmp_path.iterdir())
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    with warnings.catch_warnings():
        compiled.keep()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder == compiled.place() and folder.is_dir()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(folder / "taken" / name))
    (folder / "taken").write_text("a file where the folder would be")
    compiled.keep()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_the_oldest_programs_go_when_there_are_too_many(tmp_path):
    for age in range(10):
        path = tmp_path / f"program{age}"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    compiled.prune(tmp_path, 1000)
    assert len(list(tmp_path.iterdir())) == 10
    compiled.prune(tmp_path, 999)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"program{i}" for i in range(4)]


def test_the_nearest_command_is_suggested(capsys):
    assert cli.run(["analyse", "file.json"]) == 2
    assert "no command 'analyse'; did you mean 'analyze'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train digist", "no `organics train digist`; did you mean 'digits'? There are: digits,"),
        ("data", "Missing subcommand"),
        ("data lst", "did you mean 'list'?"),
        ("train digits --lr 1", "no option '--lr'; did you mean '--learning-rate'?"),
        ("train digits --epoch=1", "no option '--epoch'; did you mean '--epochs'?"),
        ("train smnist --rectified", "did you mean '--no-rectified'?"),
        ("train digits --xyz", "no option '--xyz'. See `organics train digits --help`."),
        ("train digits --device 2", "did you mean '--devices'?"),
        ("evaluate runs --chek", "did you mean '--check'? See `organics evaluate --help`."),
        ("evaluate runs more", "'more' is a word too many; see `organics evaluate --help`."),
        ("reproduce fgi1", "not 'fgi1'; did you mean 'fig1'?"),
        ("reproduce xyz", "not 'xyz'."),
    ],
)
def test_a_word_that_is_not_known_is_refused_with_the_nearest(words, said, capsys):
    assert cli.run(words.split()) == 2
    shown = capsys.readouterr()
    assert said in shown.err and not shown.out


def test_a_wrong_file_is_refused_before_jax_is_imported(tmp_path):
    (tmp_path / "bad.json").write_text('{"W": [[1.0, 0.5], [0.5, -1.0]], "z": [1.0, 1.0]}')
    program = (
        "import sys\nfrom organics import cli\n"
        "code = cli.run(['analyze', sys.argv[1]])\n"
        "sys.exit(0 if code == 2 and 'jax' not in sys.modules else 1)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "bad.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "`W` must be >= 0; entry [1, 1] is -1.0" in done.stderr


def test_a_drive_that_is_multiplied(capsys, tmp_path):
    """From the steady state under the drive to that under three times the drive."""
    file, table = EXAMPLES / "figure3a.json", tmp_path / "values.csv"
    options = ("--initial", "steady", "--step", "60:3", "20:1", "--duration", 200)
    found = document(capsys, "simulate", file, *options, "--out", table, tmp_path / "values.npz")
    t, y, a = (np.array(found[name]) for name in "tya")
    assert found["comes_to"] == "rests" and found["at_rest"] and found["z"] == [3.0]
    before = t < 60
    np.testing.assert_allclose(y[before, 0], y[0, 0], rtol=1e-4)
    np.testing.assert_allclose(a[0], 0.0025 + 0.25, rtol=1e-6)
    np.testing.assert_allclose(a[-1], 0.0025 + 9 * 0.25, rtol=1e-3)
    names, *lines = table.read_text().splitlines()
    assert names == "t,y1,a1"
    np.testing.assert_array_equal(
        np.array([line.split(",") for line in lines], float), np.column_stack([t, y, a])
    )
    with np.load(tmp_path / "values.npz") as archive:
        np.testing.assert_array_equal(archive["y"], y)
    # what was written is read as a drive, here of two neurons' worth of columns too many
    code, _, err = call(capsys, "simulate", file, "--drive-table", table)
    assert code == 2 and "2 columns" in err


def test_a_drive_from_a_table(capsys, tmp_path):
    """A ramp gives what it gives by hand; a file that is no table is refused."""
    table = tmp_path / "drive.csv"
    table.write_text("t,z\n0,0\n50,2\n")
    options = ("--duration", 100, "--samples", 11, "--step", "90:0.5")
    found = document(
        capsys, "simulate", EXAMPLES / "figure3a.json", "--drive-table", table, *options
    )
    circuit, _ = load_circuit(EXAMPLES / "figure3a.json")
    drive = lambda t: min(t / 25, 2) * (1 if t < 90 else 0.5)  # noqa: E731
    expected, _ = simulated(circuit, drive, np.linspace(0, 100, 11))
    np.testing.assert_allclose(found["y"], expected, rtol=1e-4, atol=1e-6)
    # what follows a slow drive is not at rest, and a table may go on as it was
    after_it = "t,z\n0,0.5\n190,0.5\n200,3\n"  # the change is later than the end
    same = [f"t,z\n0,0.5\n20,0.5\n200,{0.5 + last}\n" for last in (0.00001, 0.0)]
    for text, rests in zip((*same, after_it), (False, True, True), strict=True):
        table.write_text(text)
        words = ("--drive-table", table, "--duration", 180, "--samples", 11)
        found = document(capsys, "simulate", EXAMPLES / "figure3a.json", *words)
        assert found["residual"] < 1e-4 and found["at_rest"] is rests
    refused = {
        "t,z\n": "no line", "t,z\n# of a day\n": "no line", "0,1\n0,2": "increase",
        "0,1,2\n1,2": "as many columns", "0,nan": "finite", "0,1O\n50,2\n60,2\n": "1O",
    }  # fmt: skip
    for text, words in refused.items():
        table.write_text(text)
        code, _, err = call(capsys, "simulate", EXAMPLES / "figure3a.json", "--drive-table", table)
        assert code == 2 and words in err and "drive.csv" in err
        assert len(err.splitlines()) == 1
    table.write_bytes(b"t,z\r0,0.5\r20,0.5\r")
    assert call(capsys, "simulate", EXAMPLES / "figure3a.json", "--drive-table", table)[0] == 0


@pytest.mark.parametrize("way", ["steps", "table", "noise"])
def test_a_brief_pulse_is_not_missed(capsys, tmp_path, way):
    """Of 0.3 ms, by solving the equations of one neuron piece by piece."""
    file, table = tmp_path / "one.json", tmp_path / "pulse.csv"
    one = {"W": [[1.0]], "z": [1.0], "b": 0.5, "b0": 0.5, "sigma": 0.1, "tau_y": 2, "tau_a": 10}
    file.write_text(json.dumps(one))
    table.write_text("0,1\n50.1,1\n50.1001,50\n50.4,50\n50.4001,1\n")
    pulse = ("--step", "50.1:50", "50.4:1")
    options = {"steps": pulse, "table": ("--drive-table", table),
               "noise": (*pulse, "--noise", 1e-9, "--dt", 1.0)}[way]  # fmt: skip
    given = ("--initial", "steady", "--duration", 60, "--samples", 3)
    found = document(capsys, "simulate", file, *given, *options)

    def slope(_, x, z):
        y, a = x
        return [(-y + 0.5 * z + (1 - np.sqrt(a)) * y) / 2, (-a + 0.0025 + y * y * a) / 10]

    state = [found["y"][0][0], found["a"][0][0]]
    np.testing.assert_allclose(slope(0, state, 1.0), 0, atol=1e-6)
    for begin, end, z in ((50.1, 50.4, 50.0), (50.4, 60.0, 1.0)):
        solved = scipy.integrate.solve_ivp(slope, (begin, end), state, args=(z,), rtol=1e-9)
        state = solved.y[:, -1]
    tolerance = 0.1 if way == "noise" else 1e-3  # Euler's method
    np.testing.assert_allclose([found["y"][-1][0], found["a"][-1][0]], state, rtol=tolerance)
    assert not found["at_rest"]


def test_a_rhythm_is_not_aliased_in_a_long_simulation(capsys, tmp_path, monkeypatch):
    """Two neurons that rotate by exactly 0.5 rad/ms, at times 12 ms apart."""
    monkeypatch.setattr(simulate, "_FINEST", 501)
    file = tmp_path / "ring.json"
    ring = {"W": [[1, 1], [1, 1]], "W_r": [[2, -2], [2, 2]], "z": [0, 0], "b": 1, "b0": 0.5,
            "sigma": 0.1, "tau_y": 2, "tau_a": 2}  # fmt: skip
    file.write_text(json.dumps(ring))
    start = ("--initial", 0.1, 0, 0.0025, 0.0025)
    for samples in (2, 61, 501):
        found = document(capsys, "simulate", file, *start, "--duration", 6000, "--samples", samples)
        assert found["comes_to"] == "oscillates"
        np.testing.assert_allclose(found["frequency_hz"], 1000 * 0.5 / (2 * np.pi), rtol=1e-3)
        np.testing.assert_allclose(found["t"], np.linspace(0, 6000, samples), rtol=1e-12)


def test_simulate_says_what_it_comes_to(capsys):
    rhythm = EXAMPLES / "no_stable_state_semidefinite.json"
    code, out, _ = call(capsys, "simulate", rhythm, "--duration", 2000, "--check")
    assert code == 1 and "after 2000 ms: oscillating, 16.9 Hz" in out
    code, out, _ = call(capsys, "simulate", EXAMPLES / "no_stable_state.json")
    assert code == 0 and "diverging: beyond all bounds by 13.5 ms" in out
    few = ("simulate", EXAMPLES / "no_stable_state.json", "--samples", 3)
    assert "by 50 ms; the sample at 0 ms is" in call(capsys, *few)[1]
    found = document(capsys, *few)
    assert (found["diverges_by_ms"], found["frequency_hz"]) == (50, None)


@pytest.mark.parametrize("options", [(), ("--step", "399:1")])
def test_a_simulation_that_diverges_is_said_to(capsys, tmp_path, options):
    """Of a hierarchy, too, and soon after a change of the drive."""
    area = {"W": [[5.0]], "W_r": [[0.0]], "b": [1.0], "b0": [0.5], "sigma": [0.1]}
    area |= {"tau_y": [2.0], "tau_a": [2.0]}
    file = tmp_path / "grows.json"
    text = {"areas": [area], "z": [[1.0]]} if not options else area | {"z": [1.0]}
    file.write_text(json.dumps(text))
    command = ("simulate", file, "--duration", 400, *options)
    code, said, _ = call(capsys, *command)
    assert code == 0 and "diverging" in said
    assert document(capsys, *command)["comes_to"] == "diverges"


def test_a_spectrum_of_a_neuron_at_a_kink_is_null(capsys, tmp_path):
    silent = Circuit(np.ones((2, 2)), sigma=0.1, rectified=True)
    save_circuit(tmp_path / "c.json", silent, np.array([1.0, 0.0]))
    options = ("spectrum", tmp_path / "c.json", "--points", 3)
    found = document(capsys, *options)
    assert found["power_per_hz"]["y2"] == [None] * 3 and None not in found["power_per_hz"]["y1"]
    _, out, _ = call(capsys, *options)
    assert "y2: no linear theory, as a neuron is at y = 0" in out
    code, _, err = call(capsys, *options, "--neurons", "y2", "--out", tmp_path / "p.svg")
    assert code == 2 and "there is no power of y2" in err


def test_spectrum(capsys, tmp_path):
    """Equal to `power_spectrum`; the power between two frequencies equals that by hand."""
    ring = EXAMPLES / "orientation_ring.json"
    figure, table = tmp_path / "spectrum.svg", tmp_path / "spectrum.npz"
    options = ("--drive", 2, "--neurons", "a6", "y1", "--noise-a", 0.01, "--out", figure, table)
    found = document(capsys, "spectrum", ring, *options)
    circuit, drives = load_circuit(ring)
    hertz = np.array(found["frequencies_hz"])
    assert hertz[0] == 1 and hertz[-1] == 200 and list(found["power_per_hz"]) == ["a6", "y1"]
    expected = power_spectrum(steady_state(circuit, drives[2]), hertz / 1000, Noise(0.1, 0.01))
    np.testing.assert_allclose(found["power_per_hz"]["a6"], expected[:, 15] / 1000, rtol=1e-9)
    peak = hertz[np.argmax(expected[:, 15])]  # of the grid, and of a finer one around it
    close = np.linspace(0.98 * peak, 1.02 * peak, 2001)
    power = power_spectrum(steady_state(circuit, drives[2]), close / 1000, Noise(0.1, 0.01))[:, 15]
    np.testing.assert_allclose(found["peaks_hz"]["a6"], close[np.argmax(power)], rtol=3e-5)
    assert found["peaks_hz"]["y1"] is None and "frequency (Hz)" in figure.read_text()
    with np.load(table) as archive:
        assert archive.files == ["frequency_hz", "a6", "y1"]
    options = ("--drive", 2, "--coherence", "--points", 50, "--out", figure)
    found = document(capsys, "spectrum", ring, *options)
    hertz = np.array(found["frequencies_hz"])
    both = coherence(steady_state(circuit, drives[2]), hertz / 1000, Noise(0.1))[:, 0, 11]
    assert len(found["coherence"]) == 15
    np.testing.assert_allclose(found["coherence"]["y1 and a2"], both, rtol=1e-9)
    n, levels = circuit.n, np.linspace(0.05, 0.2, circuit.n)
    options = ("--drive", 2, "--neurons", "y3", "--points", 2, "--noise", *levels, "--noise-a", 0)
    found = document(capsys, "spectrum", ring, *options)
    hertz = np.array(found["frequencies_hz"])
    each = power_spectrum(steady_state(circuit, drives[2]), hertz / 1000, Noise(levels))[:, 2]
    np.testing.assert_allclose(found["power_per_hz"]["y3"], each / 1000, rtol=1e-9)
    code, _, said = call(capsys, "spectrum", ring, "--noise", 1, 2)
    assert code == 2 and f"`noise` must be one number, or one for each of {n}, not 2" in said
    # without drive no noise of y reaches a, and a logarithmic axis cannot show that
    still = tmp_path / "still.json"
    still.write_text('{"W": [[1.0]], "z": [0.0]}')
    code, said, _ = call(capsys, "spectrum", still, "--out", figure)
    assert code == 0 and "a1: no noise reaches it" in said and "y1" in figure.read_text()
    code, _, said = call(capsys, "spectrum", still, "--neurons", "a1", "--out", figure)
    assert code == 2 and "`out` must not be a figure here" in said
    for again in (("--coherence",), ()):
        code, _, said = call(capsys, "spectrum", ring, "--neurons", "y1", "y1", *again)
        assert code == 2 and "`neurons` must be different" in said


def test_an_answer_is_printed_as_it_is_however_narrow_the_terminal(capsys, monkeypatch):
    """Paths are not markup, no digit is lost, a letter that the output lacks is escaped."""
    from rich.table import Table

    table = Table("value", box=None)
    table.add_row("0.123456 [bold]")
    for width in ("1", "0"):
        monkeypatch.setenv("COLUMNS", width)
        show(Answer({}, ["/data[bold]/x:dog:[/red]/mnist", table]), as_json=False)
        out = capsys.readouterr().out
        assert "/data[bold]/x:dog:[/red]/mnist" in out and "0.123456 [bold]" in out
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    show(Answer({}, ["1.0 ± 0.1"]), as_json=False)
    assert b"1.0 \\xb1 0.1" in ascii_only.buffer.getvalue()


def test_a_user_without_a_home_has_no_cache_and_no_other_trouble(tmp_path, monkeypatch):
    def refuse(_):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_dir", refuse)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    compiled.keep()
    assert compiled.place() is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv("ORGANICS_DATA", str(tmp_path))
    assert [place.kind for place in places(None)] == ["environment"]
    monkeypatch.delenv("ORGANICS_DATA")
    with pytest.raises(ValueError, match="no folder for data.*: set ORGANICS_DATA"):
        places(None)
    monkeypatch.setenv("ORGANICS_DATA", "~nobody-of-this-name/data")
    with pytest.raises(ValueError, match="~nobody-of-this-name/data: no such user"):
        places(None)


def test_where_the_search_from_rest_fails_the_other_states_are_listed(tmp_path, capsys):
    circuit = {
        "W": [[0.0467, 0.0167], [0.2467, 0.8613]], "W_r": [[-0.5696, -0.4026], [0.6727, -0.126]],
        "b": [0.331, 0.7517], "b0": [0.3995, 0.2525], "sigma": [0.1559, 0.4229],
        "tau_y": [6.518, 7.039], "tau_a": [5.985, 4.018], "rectified": True,
        "z": [0.2499, 1.8769],
    }  # fmt: skip
    file = tmp_path / "two_unstable.json"
    file.write_text(json.dumps(circuit))
    for command in ("analyze", "certify"):
        code, text, _ = call(capsys, command, file, "--check")
        assert code == 1 and "none found from rest" in text and "2, 0 of them stable" in text
    (one,) = document(capsys, "analyze", file)["circuits"][0]["drives"]
    assert not one["converged"] and len(one["others"]["states"]) == 2
