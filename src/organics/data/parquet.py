"""Parquet tables of images, as data set hubs have them: a column of PNG files, and the labels."""

import io
from importlib import import_module
from typing import Any

import numpy as np

from organics.data.convert import Shapes, contents, fitting

_MOST_BYTES = 1 << 29


def from_parquet(content: bytes, name: str, shapes: Shapes) -> list[bytes]:
    """The contents of the IDX files whose numbers are in a table with a column of labels, whole
    numbers, and one of images, PNG files of grey pixels.

    Raises `ValueError`, with a description of the table, for another one, and if the libraries that
    read it, pyarrow and Pillow, are not installed.
    """
    try:
        pa, pq, pillow = map(import_module, ("pyarrow", "pyarrow.parquet", "PIL.Image"))
    except ImportError:
        raise ValueError(
            f"`{name}` is a Parquet file; to read it, install pyarrow and Pillow: "
            "pip install 'organics[parquet]'."
        ) from None
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        about = file.metadata
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        if size > _MOST_BYTES:
            raise ValueError(f"it holds {size} bytes, more than {_MOST_BYTES}")
        if not fitting(about.num_rows, [shape[:1] for shape in shapes]):
            raise ValueError(f"it has {about.num_rows} rows, which no part of the data set has")
        table = file.read()
        images, labels = _images(pa, table), _labels(pa, table)
        pixels = np.stack([_decoded(pillow, image, shapes[0][1:]) for image in images])
    except (ValueError, OSError, SyntaxError, pa.ArrowException) as error:
        raise ValueError(f"`{name}` is a Parquet file that is not read: {error}.") from None
    return [*contents(labels, name, shapes), *contents(pixels, name, shapes)]


def _labels(pa: Any, table: Any) -> np.ndarray:
    found = [c for c, field in zip(table.columns, table.schema, strict=True)
             if pa.types.is_integer(field.type)]  # fmt: skip
    if len(found) != 1 or found[0].null_count:
        raise ValueError(f"it must have one column of labels; its columns are {table.schema.names}")
    return found[0].to_numpy()


def _images(pa: Any, table: Any) -> list[bytes]:
    """The bytes of the images: of a column, or of the part `bytes` of one."""
    found = []
    for column, field in zip(table.columns, table.schema, strict=True):
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            column = import_module("pyarrow.compute").struct_field(column, "bytes")
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            found.append(column)
    if len(found) != 1 or found[0].null_count:
        raise ValueError(f"it must have one column of images; its columns are {table.schema.names}")
    return found[0].to_pylist()


def _decoded(pillow: Any, image: bytes, shape: tuple[int, ...]) -> np.ndarray:
    with pillow.open(io.BytesIO(image), formats=["PNG"]) as opened:
        if opened.mode != "L" or opened.size != shape[::-1]:  # before it is decoded
            raise ValueError(
                f"an image is {opened.mode} of {opened.size} pixels, not grey of {shape[::-1]}"
            )
        return np.asarray(opened)
