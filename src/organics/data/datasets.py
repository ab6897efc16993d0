"""Data sets by name: loading them, importing them, and saying where they are."""

import hashlib
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt

from organics.data.archive import Candidate, candidates
from organics.data.catalog import (
    DIGITS,
    FILE_DATASETS,
    KnownDataset,
    file_dataset,
    unavailable,
)
from organics.data.order import torch_randperm
from organics.data.store import Place, expanded, places

_DIGITS_SHAPE = (1_500, 297, 8, 8)
_DIGITS_VALIDATION = 150


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their classes, in memory; the arrays are read-only.

    Images hold integers from 0 to `max_value`, row-major, colours last: grey ones have no axis for
    them. Labels are from 0 to 9. `n_validation` is the usual number of training images to hold out:
    `split(len(d.train_labels), d.n_validation)`.
    For images read as sequences, h and w are the number of steps and of values at each step.
    """

    name: str
    train_images: UInt[np.ndarray, "n_train h w *colours"]
    train_labels: Int32[np.ndarray, " n_train"]
    test_images: UInt[np.ndarray, "n_test h w *colours"]
    test_labels: Int32[np.ndarray, " n_test"]
    max_value: int
    n_validation: int

    def pixels(self, images: UInt[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """`images` of this data set with values from 0 to 1."""
        return images.astype(np.float32) / np.float32(self.max_value)


class Listing(NamedTuple):
    """Where a data set is and how large it is.

    `where` is "embedded", "environment" (the folder `ORGANICS_DATA`), "cache", "root" or
    "not here"; `n_validation` of the `n_train` training images are usually held out; `problems` are
    files that exist but were refused.
    """

    name: str
    where: str
    folder: Path | None
    image_shape: tuple[int, ...]
    n_train: int
    n_validation: int
    n_test: int
    problems: tuple[str, ...]


def load(name: str, root: str | Path | None = None) -> Dataset:
    """The data set called `name`.

    `digits`: 8 x 8 images, 0 to 16, embedded in scikit-learn. Of its 1,797 images, the first 1,500
    of `torch_randperm(1797)` train (150 of them usually validate) and the last 297 test. Unlike in
    the original split, the same writers are in both parts, so test accuracy is higher than for
    unseen writers (3 nearest neighbours: 99.3 %; with the last 297 images in the file's order as
    test set: 96.0 %).

    `mnist`, `fashion-mnist`: 28 x 28 images, 0 to 255, 60,000 to train and 10,000 to test, from
    the first of these places that has them: the folder `ORGANICS_DATA` (as `<folder>/<name>/` with
    the four IDX files, plain or gzipped), the user's cache, the public mirrors (they are then kept
    in the cache). `root` takes the place of both folders. The content is verified by SHA-256.

    `cifar-10`: 32 x 32 images in three colours, 0 to 255, 50,000 to train and 10,000 to test, from
    the same folders (six files of the binary version, `data_batch_1.bin` ... `test_batch.bin`, put
    there by hand or by `add`); it is not downloaded.

    Raises `ValueError` for another name, and `DataUnavailable`, with ways to get them, if there are
    no data. Warns of damaged files and reads them from the next place instead.
    """
    if name == DIGITS:
        return _digits()
    dataset = file_dataset(name)
    search = _search(dataset, root)
    files = search.files if search.complete else _download(dataset, search)
    for reason in search.damaged:
        warnings.warn(reason, stacklevel=2)
    return _assemble(dataset, files)


def add(name: str, path: str | Path, root: str | Path | None = None) -> Path:
    """Import the files of the data set `name` from `path`, and return their new folder.

    `path` is a folder, searched with all folders in it, an archive (.zip, .tar, .tgz, .tar.xz), or
    one file that holds everything (.npz, .csv). The numbers may be in IDX files, in NumPy's (.npy,
    .npz), or in tables with a row for each example: the label and the pixels (.csv), or the label
    and a PNG image (.parquet); each compressed or not. They are recognised by the SHA-256 of the
    resulting IDX file, so their order matters but names do not. Of `cifar-10` only the binary
    version is read, `cifar-10-binary.tar.gz` or its files, never the one of Python pickles. The
    files are written to `root`, by default the user's cache.

    Raises `ValueError` if the name is unknown, or if `path` cannot be read or lacks one of the
    files, with what is needed, and `DataUnavailable` if the folder cannot be written.
    """
    dataset = file_dataset(name)
    by_sum = {file.sha256: file for file in dataset.files}
    found: dict[str, bytes] = {}
    refused: list[str] = []
    path = expanded(path)
    with closing(candidates(path, dataset.wanted)) as offered:
        for candidate in offered:
            content = candidate.content
            file = None if content is None else by_sum.get(hashlib.sha256(content).hexdigest())
            if content is None or file is None:
                refused.append(candidate.problem or _difference(dataset, candidate))
                continue
            found[file.name] = content
            if len(found) == len(by_sum):
                break
    lacking = [file for file in dataset.files if file.name not in found]
    if lacking:
        where = "" if path.is_dir() else " (name a folder or an archive that has all of them)"
        raise ValueError(
            f"`{path}` lacks {len(lacking)} of the {len(dataset.files)} files of {name}{where}:"
            + "".join(
                f"\n  - {file.name} ({file.size} bytes, SHA-256 {file.sha256} uncompressed)"
                for file in lacking
            )
            + "".join(f"\n  - refused: {reason}" for reason in refused[:10])
        )
    place = places(_as_path(root))[-1]
    place.tidy(dataset)
    for file in dataset.files:
        place.write(dataset, file, found[file.name])
    return place.of(dataset)


def _difference(dataset: KnownDataset, candidate: Candidate) -> str:
    """Why a candidate is none of the files."""
    assert candidate.content is not None
    file = next(file for file in dataset.files if file.size == len(candidate.content))
    return f"`{candidate.name}` {file.difference(candidate.content)}"


def path(name: str, root: str | Path | None = None) -> Path:
    """The folder of the data set `name`; downloads nothing.

    Raises `ValueError` for an unknown name and for `digits`, which has no folder of its own, and
    `DataUnavailable` if the data are not on this machine.
    """
    dataset = file_dataset(name)
    search = _search(dataset, root)
    if not search.complete:
        raise unavailable(dataset, search.reasons)
    return search.place.of(dataset)


def image_shape(name: str) -> tuple[int, ...]:
    """Height and width of the images of the data set `name`, and 3 for three colours, even if it is
    not on this machine.

    Raises `ValueError` for an unknown name.
    """
    return _DIGITS_SHAPE[2:] if name == DIGITS else file_dataset(name).image_shape


def list_datasets(root: str | Path | None = None) -> list[Listing]:
    """Every data set known by name, with the place where it was found; downloads nothing."""
    n_train, n_test, *_ = _DIGITS_SHAPE
    shape = image_shape(DIGITS)
    listings = [Listing(DIGITS, "embedded", None, shape, n_train, _DIGITS_VALIDATION, n_test, ())]
    for dataset in FILE_DATASETS.values():
        search = _search(dataset, root)
        listings.append(
            Listing(
                name=dataset.name,
                where=search.place.kind if search.complete else "not here",
                folder=search.place.of(dataset) if search.complete else None,
                image_shape=image_shape(dataset.name),
                n_train=dataset.counts[0],
                n_validation=dataset.n_validation,
                n_test=dataset.counts[1],
                problems=tuple(search.damaged),
            )
        )
    return listings


class _Search(NamedTuple):
    """Where a data set was found, or else where to put it; its files there; why each earlier place
    (or every place) was rejected; and which of these reasons are damaged files."""

    place: Place
    files: dict[str, bytes]
    complete: bool
    reasons: list[str]
    damaged: list[str]


def _search(dataset: KnownDataset, root: str | Path | None) -> _Search:
    looked_in = places(_as_path(root))
    looked_in[-1].tidy(dataset)
    files, reasons, damaged = {}, [], []
    for place in looked_in:
        files, refused, missing = place.read(dataset)
        if len(files) == len(dataset.files):
            return _Search(place, files, True, reasons, damaged)
        if missing:
            lacking = ", ".join(missing) if len(missing) < len(dataset.files) else "all files"
            reasons.append(f"{place.kind} `{place.of(dataset)}` lacks {lacking}.")
        reasons.extend(refused)
        damaged.extend(refused)
    return _Search(looked_in[-1], files, False, reasons, damaged)


def _download(dataset: KnownDataset, search: _Search) -> dict[str, bytes]:
    """All files of `dataset`: those found in the last place, and the others from the mirrors, which
    are written there."""
    from organics.data.download import fetch

    search.place.prepare(dataset)
    files = dict(search.files)
    try:
        for file, content in fetch(
            [file for file in dataset.files if file.name not in files], dataset.mirrors
        ):
            search.place.write(dataset, file, content)
            files[file.name] = content
    except ConnectionError as error:
        raise unavailable(dataset, [*search.reasons, *str(error).splitlines()]) from None
    return files


def _assemble(dataset: KnownDataset, contents: dict[str, bytes]) -> Dataset:
    arrays = dataset.arrays(contents)
    return Dataset(
        name=dataset.name,
        train_images=arrays.train_images,
        train_labels=_read_only(arrays.train_labels.astype(np.int32)),
        test_images=arrays.test_images,
        test_labels=_read_only(arrays.test_labels.astype(np.int32)),
        max_value=255,
        n_validation=dataset.n_validation,
    )


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    order = torch_randperm(len(target))
    n_train, _, height, width = _DIGITS_SHAPE
    images = data[order].astype(np.uint8).reshape(-1, height, width)
    labels = target[order].astype(np.int32)
    return Dataset(
        name=DIGITS,
        train_images=_read_only(images[:n_train]),
        train_labels=_read_only(labels[:n_train]),
        test_images=_read_only(images[n_train:]),
        test_labels=_read_only(labels[n_train:]),
        max_value=16,
        n_validation=_DIGITS_VALIDATION,
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _as_path(root: str | Path | None) -> Path | None:
    return None if root is None else expanded(root)
