"""Data sets by name, and the order in which they are visited."""

from organics.data.catalog import DataUnavailable as DataUnavailable
from organics.data.datasets import Dataset as Dataset
from organics.data.datasets import Listing as Listing
from organics.data.datasets import add as add
from organics.data.datasets import image_shape as image_shape
from organics.data.datasets import list_datasets as list_datasets
from organics.data.datasets import load as load
from organics.data.datasets import path as path
from organics.data.order import epoch_order as epoch_order
from organics.data.order import split as split
from organics.data.order import torch_randperm as torch_randperm
from organics.data.sequences import load_sequences as load_sequences
from organics.data.sequences import sequence_shape as sequence_shape
