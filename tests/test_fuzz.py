"""A damaged file gives the same numbers, or a refusal that names it; never a traceback.

Each kind of file is damaged for a few seconds, in the same ways every time.
`ORGANICS_FUZZ_SECONDS` sets the seconds in all.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import time
import warnings
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from organics import cli, data
from organics.circuit.circuit import Circuit
from organics.circuit.file import load_circuit, save_circuit
from organics.data import catalog, idx
from organics.data.own.meaning import meaning
from organics.data.own.prepared import Shares, prepared
from organics.data.own.read import read
from organics.files.documents import sealed
from organics.training import TrainConfig, train

SECONDS = float(os.environ.get("ORGANICS_FUZZ_SECONDS", "8")) / 5  # for each of the tests below
CONFIG = TrainConfig(
    dataset="digits", layers=(6,), encoder=(16, 8), epochs=3, batch_size=450, learning_rate=0.01
)


@pytest.fixture(scope="module", autouse=True)
def _promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


def examples(seed):
    """A source of randomness for each example: at least five, and more until time is up."""
    end = time.monotonic() + SECONDS
    index = 0
    while index < 5 or time.monotonic() < end:
        yield np.random.default_rng([seed, index])
        index += 1


# --- what is done to a file -----------------------------------------------------------------------


def flipped(content, rng):
    found = bytearray(content or b"\0")
    for _ in range(rng.integers(1, 4)):
        found[rng.integers(len(found))] ^= 1 << rng.integers(8)
    return bytes(found)


def cut(content, rng):
    return content[: rng.integers(len(content) + 1)]


def longer(content, rng):
    return content + [b"\0" * 100, content, b"\n", b"{}\n", rng.bytes(40)][rng.integers(5)]


def zeroed(content, rng):
    first, last = sorted(rng.integers(len(content) + 1, size=2).tolist())
    return content[:first] + bytes(last - first) + content[last:]


def shuffled(content, rng):
    first, middle, last = sorted(rng.integers(len(content) + 1, size=3).tolist())
    return content[:first] + content[middle:last] + content[first:middle] + content[last:]


def emptied(content, rng):
    del content, rng
    return b""


VALUES = [
    None, True, -1, 0, 1e300, 10**30, "", "x" * 1000, "\ud800", [], {}, [[1.0]], [None], {"a": {}},
]  # fmt: skip


def another_value(document, rng):
    """The document with one value replaced, added or removed somewhere."""
    if isinstance(document, dict) and document and rng.random() < 0.9:
        key = list(document)[rng.integers(len(document))]
        rest = {name: value for name, value in document.items() if name != key}
        kind = rng.integers(4)
        if kind == 0:
            return rest
        if kind == 1:
            return document | {"more": VALUES[rng.integers(len(VALUES))]}
        return {**rest, key: another_value(document[key], rng)}
    if isinstance(document, list) and document and rng.random() < 0.7:
        i = rng.integers(len(document))
        return [*document[:i], another_value(document[i], rng), *document[i + 1 :]]
    return VALUES[rng.integers(len(VALUES))]


TEXTS = [
    b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b'{"a": 1e999}', b'{"a": ' + b"9" * 9000 + b"}",
    b"\xff\xfe", b"null", b'"x"', b"{}",
]  # fmt: skip


def edited(content, rng):
    """The document changed, as a whole or in some lines; its check sum may be right."""
    if rng.random() < 0.2:
        return TEXTS[rng.integers(len(TEXTS))] + b"\n"
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    i = rng.integers(len(lines))
    try:
        document = another_value(json.loads(lines[i]), rng)
    except ValueError:
        return flipped(content, rng)
    if isinstance(document, dict) and rng.random() < 0.5:
        document.pop("sha256", None)
        if rng.random() < 0.5:
            document = sealed(document)
    lines[i] = json.dumps(document).encode()
    return b"\n".join(lines)


BYTES = (flipped, cut, longer, zeroed, shuffled, emptied)


def damage(path, rng, ways=BYTES):
    """Damage a file; returns whether it may now be a different valid file."""
    way = ways[rng.integers(len(ways))]
    path.write_bytes(way(path.read_bytes(), rng))
    return way is edited


# --- the folder of a run --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a complete run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with warnings.catch_warnings():
        train(CONFIG, folder, progress=False)
    return folder


def answer(capsys, *arguments):
    """A command's answer, or None if it refused, with its message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it goes back to the checkpoint before
        code = cli.run([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert code in (0, 2), f"{arguments}: exit code {code}\n{err}"
    return (json.loads(out) if code == 0 else None), err


def test_files_of_a_run(run, tmp_path, capsys):
    evaluation = ("--no-stability",)
    training = (
        "--layers", 6, "--encoder", 16, 8, "--epochs", 3, "--batch-size", 450, "--learning-rate",
        0.01, "--resume", "--quiet",
    )  # fmt: skip
    evaluated, _ = answer(capsys, "evaluate", run, *evaluation)
    trained, _ = answer(capsys, "train", "digits", "--out", run, *training)
    names = sorted(path.name for path in run.iterdir())
    for i, rng in enumerate(examples(seed=1)):
        folder = tmp_path / str(i)
        shutil.copytree(run, folder)
        if rng.random() < 0.5:  # as if it had been killed in the last epoch
            (folder / "report.json").unlink()
            (folder / "checkpoint-000003.safetensors").unlink()
        path = folder / names[rng.integers(len(names))]
        believed = False
        if path.exists():
            kind = rng.random()
            if kind < 0.1:
                path.unlink()
            elif kind < 0.2:
                path.write_bytes((folder / "model.safetensors").read_bytes())
            else:
                text = path.suffix in (".json", ".jsonl")
                believed = damage(path, rng, (*BYTES, edited, edited, edited) if text else BYTES)
        for found, expected, err in (
            compared(answer(capsys, "evaluate", folder, *evaluation), evaluated),
            compared(answer(capsys, "train", "digits", "--out", folder, *training), trained),
        ):
            assert str(folder) in err or found is not None, (i, path.name, err)
            assert found in (None, expected) or believed, (i, path.name, found, expected)
        shutil.rmtree(folder)


def compared(answered, expected):
    """An answer and the expected one, without what depends on folder or time."""
    found, err = answered

    def cleaned(document):
        timed = ("run", "seconds_per_epoch", "platform")
        return document and {k: v for k, v in document.items() if k not in timed}

    return cleaned(found), cleaned(expected), err


# --- circuit files --------------------------------------------------------------------------------


def test_circuit_files(tmp_path):
    rng = np.random.default_rng(0)
    circuit = Circuit(rng.uniform(size=(3, 3)), rng.normal(size=(3, 3)), b=rng.uniform(1, 2, 3))
    drives = rng.normal(size=(2, 3))
    originals = {suffix: tmp_path / f"original{suffix}" for suffix in (".json", ".npz")}
    for original in originals.values():
        save_circuit(original, circuit, drives)
    np.savez_compressed(originals[".npz"], **np.load(originals[".npz"]))
    for i, rng in enumerate(examples(seed=2)):
        suffix = list(originals)[i % 2]
        path = tmp_path / f"circuit{suffix}"
        shutil.copy(originals[suffix], path)
        damage(path, rng, (*BYTES, edited, edited) if suffix == ".json" else BYTES)
        try:
            loaded, z = load_circuit(path)
        except ValueError as error:
            assert str(path) in str(error), (i, error)
            assert len(str(error)) < 1000, i
            continue
        if suffix == ".npz":  # which has check sums
            pairs = zip(
                jax.tree.leaves((loaded, z)), jax.tree.leaves((circuit, drives)), strict=True
            )
            assert all(np.array_equal(one, other) for one, other in pairs), i
        assert loaded.n == z.shape[1] and np.all(np.isfinite(z)), i


# --- data sets ------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
SHAPES = {"images": (6, 5, 3), "labels": (6,), "test images": (4, 5, 3), "test labels": (4,)}
ARRAYS = {name: RNG.integers(0, 10, shape, np.uint8) for name, shape in SHAPES.items()}
FILES = {name: idx.encode(array) for name, array in ARRAYS.items()}


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def arrays():
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name.replace(" ", "_"): ARRAYS[name] for name in ARRAYS})
    return stream.getvalue()


def table():
    rows = [
        np.column_stack([ARRAYS[f"{kind}labels"], ARRAYS[f"{kind}images"].reshape(-1, 15)])
        for kind in ("", "test ")
    ]
    lines = [",".join(map(str, row)) for row in np.concatenate(rows).tolist()]
    return ("\n".join(lines) + "\n").encode()


SOURCES = {
    "tar": tarred(),
    "tgz": gzip.compress(tarred()),
    "zip": zipped(FILES),
    "zip of gz": zipped({name: gzip.compress(content) for name, content in FILES.items()}),
    "npz": arrays(),
    "csv": table(),
    "csv.gz.gz": gzip.compress(gzip.compress(table())),
}


@pytest.fixture
def toy(monkeypatch):
    files = tuple(
        catalog.IdxFile(name, SHAPES[name], hashlib.sha256(content).hexdigest())
        for name, content in FILES.items()
    )
    dataset = catalog.FileDataset("mnist", files, (), 2)
    monkeypatch.setitem(catalog.FILE_DATASETS, "mnist", dataset)
    monkeypatch.delenv("ORGANICS_DATA", raising=False)


@pytest.mark.usefixtures("toy")
def test_files_of_data(tmp_path):
    for name, content in SOURCES.items():
        (tmp_path / "source").write_bytes(content)
        assert_is_toy(data.add("mnist", tmp_path / "source", tmp_path / name))
    for i, rng in enumerate(examples(seed=3)):
        source, root = tmp_path / "source", tmp_path / "root"
        source.write_bytes(list(SOURCES.values())[i % len(SOURCES)])
        damage(source, rng)
        try:
            found = data.add("mnist", source, root)
        except ValueError as error:
            assert str(source) in str(error), (i, error)
            assert not root.exists()
        else:
            assert_is_toy(found)
            shutil.rmtree(root)


def assert_is_toy(folder: Path):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


@pytest.mark.usefixtures("toy")
def test_files_in_the_folder_of_a_data_set(tmp_path):
    folder = tmp_path / "mnist"
    for i, rng in enumerate(examples(seed=4)):
        folder.mkdir()
        for name, content in FILES.items():
            if rng.random() < 0.5:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
        harmed = sorted(folder.iterdir())[rng.integers(4)]
        damage(harmed, rng)
        try:
            loaded = data.load("mnist", tmp_path)
        except data.DataUnavailable as error:
            assert str(harmed) in str(error), (i, error)
        else:
            found = (
                loaded.train_images,
                loaded.train_labels,
                loaded.test_images,
                loaded.test_labels,
            )
            assert all(map(np.array_equal, found, ARRAYS.values())), i
        shutil.rmtree(folder)


# --- a user's own data ----------------------------------------------------------------------------


def own_files():
    """A small data set in each format."""
    x, y = np.arange(48.0).reshape(8, 3, 2), np.arange(8) % 2
    stream = io.BytesIO()
    np.savez_compressed(stream, x=x, y=y, lengths=np.arange(8) % 3 + 1)
    rows = [f"{i},{t},{x[i, t, 0]},{x[i, t, 1]},{y[i]}" for i in range(8) for t in range(3)]
    lines = [
        ":".join([*(",".join(map(str, x[i, :, d])) for d in range(2)), "ab"[y[i]]])
        for i in range(8)
    ]
    head = "@timeStamps false\n@equalLength true\n@classLabel true a b\n@data\n"
    return {
        "a.npz": stream.getvalue(),
        "a.csv": "\n".join(["id,t,u,v,y", *rows]).encode(),
        "a.ts": (head + "\n".join(lines)).encode(),
    }


def test_files_of_a_user(tmp_path):
    """What is read after a damage is finite and of fitting shapes; what is not read is named."""
    for i, rng in enumerate(examples(seed=5)):
        name, content = list(own_files().items())[i % 3]
        path = tmp_path / name
        path.write_bytes(content)
        damage(path, rng)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = read(path)
                meant = meaning(found)
                ready = prepared("a", found.source, meant, Shares(0.25, 0.25, 0), True)
        except ValueError as error:
            assert str(path) in str(error), (i, error)
            continue
        for part in ready[2:]:
            assert np.all(np.isfinite(part.x)) and len(part.x) == len(part.y)
