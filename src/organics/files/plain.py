"""Values in a form that JSON can hold."""

import math
from pathlib import Path
from typing import Any

import numpy as np


def as_plain(value: Any) -> Any:
    """`value` with arrays as lists, complex numbers as [re, im], and null for numbers that are not
    finite."""
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, Path):
        return str(value)
    array = np.asarray(value)
    if array.dtype.kind in "biu" or (array.dtype.kind == "f" and np.all(np.isfinite(array))):
        return array.tolist()
    if array.ndim:
        return [as_plain(item) for item in array]
    item = array.item()
    if isinstance(item, complex):
        return [as_plain(item.real), as_plain(item.imag)]
    return None if isinstance(item, float) and not math.isfinite(item) else item


def rounded(value: Any, digits: int = 6) -> Any:
    """`as_plain(value)` with numbers rounded to so many significant digits."""
    plain = as_plain(value)
    if isinstance(plain, dict):
        return {name: rounded(item, digits) for name, item in plain.items()}
    if isinstance(plain, list):
        return [rounded(item, digits) for item in plain]
    return float(f"{plain:.{digits}g}") if isinstance(plain, float) else plain


def as_number(plain: float | None) -> float:
    """A number from `as_plain`; null counts as infinite."""
    return math.inf if plain is None else plain
