"""Columns of numbers, as .csv or .npz files."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from organics.files.atomic import write_atomically


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write named columns of equal length, as `.csv` with a line of names or as `.npz`.

    In a `.csv`, a column of shape (k, n) becomes n columns `name1`, `name2`, ... Nothing is
    rounded.
    """
    if path.suffix.lower() == ".npz":
        archive = io.BytesIO()
        np.savez(archive, **columns)
        write_atomically(path, archive.getvalue())
        return
    names, table = [], []
    for name, values in columns.items():
        wide = np.ndim(values) == 2
        names += [f"{name}{i + 1}" for i in range(values.shape[1])] if wide else [name]
        table.append(values if wide else values[:, None])
    stream = io.StringIO()
    np.savetxt(stream, np.hstack(table), "%.17g", ",", header=",".join(names), comments="")
    write_atomically(path, stream.getvalue().encode())
