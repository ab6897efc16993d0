"""Data sets by name, and the order of training examples."""

from organics.data.datasets import Dataset, Listing, add, image_shape, list_datasets, load, path
from organics.data.order import epoch_order, split, torch_randperm
from organics.data.sequences import load_sequences, pixel_order, sequence_shape
from organics.errors import DataUnavailable

__all__ = [
    "DataUnavailable",
    "Dataset",
    "Listing",
    "add",
    "epoch_order",
    "image_shape",
    "list_datasets",
    "load",
    "load_sequences",
    "path",
    "pixel_order",
    "sequence_shape",
    "split",
    "torch_randperm",
]


def __dir__() -> list[str]:
    return __all__
