"""Images read as sequences, pixel by pixel or row by row: the sequence tasks.

Pure functions of the images. Pixels stay whole numbers, so nothing is lost before the model divides
by the data set's `max_value`.

Source: Rawat et al. 2024, sequential and permuted sequential MNIST.
"""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt, UInt8

from organics.arguments import require_among
from organics.data.datasets import Dataset, image_shape, load
from organics.data.order import torch_randperm
from organics.names import TaskName


class Task(NamedTuple):
    """A data set, and whether its pixels come in permuted order."""

    dataset: str
    permuted: bool


TASKS: dict[str, Task] = {
    "smnist": Task("mnist", False),
    "psmnist": Task("mnist", True),
    "sdigits": Task("digits", False),
    "scifar": Task("cifar-10", False),
}


def sequence_shape(task: str, resize: int | None = None, rows: bool = False) -> tuple[int, int]:
    """Number of steps, and of values at each step, in the sequences of a task.

    Raises `ValueError` as `load_sequences` does.
    """
    require_among("task", task, TaskName)
    side, _, *colours = image_shape(TASKS[task].dataset)
    if resize is not None:
        _block(side, resize)
        side = resize
    each = math.prod(colours)
    return (side, side * each) if rows else (side * side, each)


def pixel_order(task: str, resize: int | None = None) -> Int[np.ndarray, " pixels"]:
    """The number of the pixel, row by row, at each place of the sequences of a task. With rows,
    several places are one step.

    Raises `ValueError` as `load_sequences` does.
    """
    pixels, _ = sequence_shape(task, resize)
    return torch_randperm(pixels) if TASKS[task].permuted else np.arange(pixels)


def load_sequences(
    task: str, resize: int | None = None, rows: bool = False, root: str | Path | None = None
) -> Dataset:
    """The data set of a task, its images as sequences, (count, steps, m) in place of (count, h, w).

    "smnist": MNIST in raster order, one pixel a step, 784 steps. "psmnist": the same in one fixed
    random order, `torch_randperm(784)` (seed 73), for all images. "sdigits": the embedded digits in
    raster order, 64 steps. "scifar": CIFAR-10 in raster order, 1,024 steps of three colours.

    `resize` first shrinks the images to so many pixels a side, see `pool`. `rows` gives a row of
    the image at each step, 28 steps of 28 pixels (of the permuted image for "psmnist"), or for
    "scifar" 32 steps of 96 numbers, pixel by pixel. `root` is as in `load`.

    Raises `ValueError` for another task, or if `resize` is below 2 or does not divide the side of
    the images; and as `load` does.
    """
    shape = sequence_shape(task, resize, rows)
    name, permuted = TASKS[task]
    source = load(name, root)
    side = source.train_images.shape[1]
    block = 1 if resize is None else _block(side, resize)

    def convert(images):
        small = images if block == 1 else pool(images, side // block)
        return to_sequences(small, permuted).reshape(-1, *shape)

    return dataclasses.replace(
        source,
        name=task,
        train_images=convert(source.train_images),
        test_images=convert(source.test_images),
        max_value=source.max_value * block**2,
    )


def pool(
    images: UInt8[np.ndarray, "count h h *colours"], size: int
) -> UInt[np.ndarray, "count size size *colours"]:
    """Images shrunk by summing over square blocks of pixels.

    Divided by the new largest value, `max_value` times the number of pixels in a block, it is the
    mean from 0 to 1.
    """
    count, side, _, *colours = images.shape
    block = _block(side, size)
    blocks = images.reshape(count, size, block, size, block, *colours)
    return blocks.sum(axis=(2, 4), dtype=np.uint16)


def to_sequences(
    images: UInt[np.ndarray, "count h w *colours"], permuted: bool = False
) -> UInt[np.ndarray, "count pixels *colours"]:
    """The pixels of each image in the order of the sequence.

    Row-major, or with `permuted` in the order `torch_randperm(h w)`.
    """
    count, height, width, *colours = images.shape
    pixels = images.reshape(count, height * width, *colours)
    return pixels[:, torch_randperm(pixels.shape[1])] if permuted else pixels


def _block(side: int, size: int) -> int:
    if not (2 <= size <= side and side % size == 0):
        divisors = [str(n) for n in range(2, side + 1) if side % n == 0]
        raise ValueError(f"`resize` must be one of {', '.join(divisors)}, not {size}.")
    return side // size
