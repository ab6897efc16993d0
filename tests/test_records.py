"""Colour images: the binary version of CIFAR-10, and what is learned from it."""

import gzip
import hashlib
import io
import pickle
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest

import organics.data as data
from organics.data import catalog
from organics.data.sequences import pool
from organics.studies.ours import images
from organics.training.config import SequenceConfig, TrainConfig
from organics.training.task import task_of

rng = np.random.default_rng(0)
COUNTS = {f"data_batch_{i}.bin": 3 for i in range(1, 6)} | {"test_batch.bin": 2}
IMAGES = {name: rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for name, n in COUNTS.items()}
LABELS = {name: rng.integers(0, 10, n, np.uint8) for name, n in COUNTS.items()}


def records(name):
    """The format, written out pixel by pixel."""
    content = bytearray()
    for image, label in zip(IMAGES[name], LABELS[name], strict=True):
        content.append(label)
        for colour in range(3):
            for row in range(32):
                content += bytes(image[row, :, colour].tolist())
    return bytes(content)


FILES = {name: records(name) for name in COUNTS}


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    """A few images in the place of `cifar-10`, an empty cache, no `ORGANICS_DATA`."""
    files = tuple(
        catalog.RecordFile(name, COUNTS[name], hashlib.sha256(content).hexdigest())
        for name, content in FILES.items()
    )
    real = catalog.FILE_DATASETS["cifar-10"]
    dataset = catalog.RecordDataset("cifar-10", files, 2, real.example)
    monkeypatch.setitem(catalog.FILE_DATASETS, "cifar-10", dataset)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    monkeypatch.delenv("ORGANICS_DATA", raising=False)


def folder(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


MORE = {"batches.meta.txt": b"airplane\nautomobile\n", "readme.html": b"<html>a, b\n</html>"}


@pytest.mark.parametrize(
    "source",
    [
        lambda path: folder(path / "files", FILES),
        lambda path: tar(path / "cifar-10-binary.tar.gz", MORE | FILES),
        lambda path: folder(path / "z", {f"{k}.gz": gzip.compress(v) for k, v in FILES.items()}),
        lambda path: folder(
            path / "renamed", {f"{9 - i}.bin": x for i, x in enumerate(FILES.values())}
        ),
    ],
)
def test_the_images_are_those_of_the_files_in_their_order(tmp_path, source):
    added = data.add("cifar-10", source(tmp_path))
    assert data.path("cifar-10") == added
    found = data.load("cifar-10")
    *train, test = IMAGES
    np.testing.assert_array_equal(found.train_images, np.concatenate([IMAGES[x] for x in train]))
    np.testing.assert_array_equal(found.train_labels, np.concatenate([LABELS[x] for x in train]))
    np.testing.assert_array_equal(found.test_images, IMAGES[test])
    np.testing.assert_array_equal(found.test_labels, LABELS[test])
    assert not found.train_images.flags.writeable and found.max_value == 255
    (listed,) = [one for one in data.list_datasets() if one.name == "cifar-10"]
    assert listed[:7] == ("cifar-10", "cache", added.parent / "cifar-10", (32, 32, 3), 15, 2, 2)


def changed(name, content):
    return FILES | {name: content}


LAST = FILES["test_batch.bin"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (changed("test_batch.bin", LAST[:-1]), ["test_batch.bin", "has 6145 bytes, not 6146"]),
        (changed("test_batch.bin", LAST + b"\0" * 3074), ["has more than 9219 bytes"]),
        (changed("test_batch.bin", b""), ["has 0 bytes"]),
        (
            changed("test_batch.bin", LAST[:3073] + b"\x0a" + LAST[3074:]),
            ["test_batch.bin", "record 1 has the label 10, not one from 0 to 9"],
        ),
        (
            changed("test_batch.bin", LAST[:3074] + b"\x00" + LAST[3075:]),
            ["has other images or labels than test_batch.bin"],
        ),
        ({k: v for k, v in FILES.items() if k != "data_batch_3.bin"}, ["lacks 1 of the 6 files"]),
        (
            {"data_batch_1": pickle.dumps({"data": [1]}, protocol=2)},
            ["a Python pickle, which is never opened", "get cifar-10-binary.tar.gz"],
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_refused_by_name(tmp_path, files, words, packed):
    given = tar(tmp_path / "a.tar.gz", files) if packed else folder(tmp_path / "a", files)
    if packed and files.get("test_batch.bin") == b"":
        words = ["lacks 1 of the 6 files"]  # a member without content holds nothing
    with pytest.raises(ValueError) as caught:
        data.add("cifar-10", given)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [pickle.dumps([1]), b"<html>", b"hello"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="What is read is the binary version"):
        data.add("cifar-10", tmp_path / "file")


def test_a_damaged_file_in_its_place_is_named(tmp_path):
    folder(tmp_path / "cifar-10", changed("data_batch_2.bin", b"\0" * 9219))
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("cifar-10", tmp_path)
    assert "data_batch_2.bin` has the SHA-256" in str(caught.value)
    assert "go online" not in str(caught.value)  # it is not downloaded


def test_sequences_of_pixels_and_of_rows(tmp_path):
    folder(tmp_path / "cifar-10", FILES)
    image = IMAGES["test_batch.bin"][1]
    pixels = data.load_sequences("scifar", root=tmp_path).test_images[1]
    assert pixels.shape == data.sequence_shape("scifar") == (1024, 3)
    np.testing.assert_array_equal(pixels[32 * 5 + 7], image[5, 7])
    rows = data.load_sequences("scifar", rows=True, root=tmp_path).test_images[1]
    assert rows.shape == data.sequence_shape("scifar", rows=True) == (32, 96)
    np.testing.assert_array_equal(rows[5], image[5].ravel())
    small = data.load_sequences("scifar", resize=8, root=tmp_path)
    blocks = image[8:12, 4:8].astype(int).sum(axis=(0, 1))
    np.testing.assert_array_equal(small.test_images[1, 8 * 2 + 1], blocks)
    assert small.max_value == 255 * 16
    np.testing.assert_array_equal(pool(image[None], 8)[0, 2, 1], blocks)


@pytest.mark.parametrize("noise", ["once", "fresh"])
def test_the_noise_padded_task(tmp_path, monkeypatch, noise):
    """32 rows of 96 numbers, then 968 steps of noise."""
    monkeypatch.setenv("ORGANICS_DATA", str(tmp_path))
    folder(tmp_path / "cifar-10", FILES)
    task = task_of(SequenceConfig(task="scifar", rows=True, pad_to=1000, noise=noise))
    assert task.input_shape() == (1000, 96)
    sets = task.sets(task.load())
    inputs, labels = map(np.asarray, sets.test.take(jnp.arange(2, dtype=jnp.int32), np.float32))
    assert inputs.shape == (2, 1000, 96)
    expected = IMAGES["test_batch.bin"].reshape(2, 32, 96) / np.float32(255)
    np.testing.assert_allclose(inputs[:, :32], expected, rtol=1e-6)
    np.testing.assert_array_equal(labels, LABELS["test_batch.bin"])
    rest = inputs[:, 32:]
    assert abs(rest.mean()) < 0.02 and abs(rest.std() - 1) < 0.02
    assert np.array_equal(rest[0], rest[1]) == (noise == "once")


def test_all_pixels_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ORGANICS_DATA", str(tmp_path))
    folder(tmp_path / "cifar-10", FILES)
    task = task_of(TrainConfig(dataset="cifar-10", encoder=(4,), layers=(2,)))
    assert task.input_shape() == (3072,)
    inputs, *_ = task.sets(task.load()).test.take(jnp.arange(2, dtype=jnp.int32), np.float32)
    expected = IMAGES["test_batch.bin"].reshape(2, -1) / np.float32(255)
    np.testing.assert_allclose(np.asarray(inputs), expected, rtol=1e-6)
    assert task.build()(inputs[0]).logits.shape == (10,)


def test_a_study_of_grey_images_refuses_colour(tmp_path, monkeypatch):
    monkeypatch.setenv("ORGANICS_DATA", str(tmp_path))
    folder(tmp_path / "cifar-10", FILES)
    with pytest.raises(ValueError, match="`datasets` must be of grey images, not 'cifar-10'"):
        images._images("cifar-10", images.Sample())
