"""The stimuli of a recording: the input drive of each."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from organics.data.own.text import finite
from organics.data.recordings.rows import table

MASK = "mask"
"""Name of the neuron that stands for those that a mask drives."""


class Stimuli(NamedTuple):
    """Attributes
    names: of the k stimuli.
    neurons: names of the n neurons; `None` if all recorded ones have the drive in the first column.
    drives: shape (k, n); or, without names of neurons, (k, 1), or (k, 2) where there are masks.
    """

    names: tuple
    neurons: tuple | None
    drives: Float[np.ndarray, "k n"]


def read_stimuli(path: Path) -> Stimuli:
    """A table `stimulus, neuron, z`, with the drive of each neuron, or `stimulus, contrast` with or
    without `mask_contrast`, from 0 to 1.

    Raises `ValueError`, naming file, line and column, for a row that cannot be right.
    """
    rows = list(table(path, ("stimulus",), ("neuron", "z", "contrast", "mask_contrast")))
    columns = set(rows[0][1])
    if columns == {"stimulus", "neuron", "z"}:
        return _by_neuron(path, rows)
    if "contrast" in columns and not columns & {"neuron", "z"}:
        return _by_contrast(path, rows)
    raise ValueError(
        f"{path} must have the columns stimulus, neuron, z, or stimulus, contrast, mask_contrast; "
        f"it has {', '.join(rows[0][1])}."
    )


def _by_neuron(path: Path, rows: list) -> Stimuli:
    found: dict[tuple[str, str], float] = {}
    for line, row in rows:
        key = row["stimulus"], row["neuron"]
        if key in found or not all(key):
            raise ValueError(f"{path}, line {line}: a stimulus must give each neuron one `z`.")
        found[key] = finite(row["z"], f"{path}, line {line}: `z`")
    names = tuple(dict.fromkeys(stimulus for stimulus, _ in found))
    neurons = tuple(dict.fromkeys(neuron for _, neuron in found))
    for key in ((stimulus, neuron) for stimulus in names for neuron in neurons):
        if key not in found:
            raise ValueError(
                f"{path}: stimulus {key[0]!r} lacks neuron {key[1]!r}; its z may be 0."
            )
    drives = [[found[stimulus, neuron] for neuron in neurons] for stimulus in names]
    return Stimuli(names, neurons, np.array(drives))


def _by_contrast(path: Path, rows: list) -> Stimuli:
    found: dict[str, list[float]] = {}
    columns = [name for name in ("contrast", "mask_contrast") if name in rows[0][1]]
    for line, row in rows:
        if row["stimulus"] in found or not row["stimulus"]:
            raise ValueError(f"{path}, line {line}: a stimulus must have one name and one row.")
        contrasts = [finite(row[name], f"{path}, line {line}: `{name}`") for name in columns]
        for name, contrast in zip(columns, contrasts, strict=True):
            if not 0 <= contrast <= 1:
                raise ValueError(
                    f"{path}, line {line}: `{name}` must be from 0 to 1 (50 % is 0.5), not "
                    f"{contrast:g}."
                )
        found[row["stimulus"]] = contrasts
    return Stimuli(tuple(found), None, np.array(list(found.values())))
