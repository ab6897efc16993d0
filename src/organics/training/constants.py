"""What a module computes with besides its arrays, in words."""

import dataclasses
import functools
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import equinox as eqx
import numpy as np

_HOW = ("backend", "memory")  # how a layer computes, not what


def constants(part: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The path and the value of each constant of a module, by which two modules with arrays of the
    same shapes differ: classes, functions, text, numbers and NumPy arrays, which are not learned.
    """
    if eqx.is_array(part):
        return
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield name, _qualified(type(part))
        for field in dataclasses.fields(part):
            if field.name not in _HOW:
                yield from constants(getattr(part, field.name, None), _below(name, field.name))
    elif isinstance(part, list | tuple):
        for i, one in enumerate(part):
            yield from constants(one, _below(name, str(i)))
    elif isinstance(part, dict):
        for key, one in part.items():
            yield from constants(one, _below(name, str(key)))
    elif isinstance(part, functools.partial):
        yield from constants((part.func, part.args, part.keywords), name)
    elif isinstance(part, np.ndarray):
        total = sha256(np.ascontiguousarray(part).data).hexdigest()
        yield name, f"{part.dtype} {part.shape} {total[:16]}"
    elif part is None or isinstance(part, str | bool | int | float | complex | np.generic):
        yield name, repr(part)
    else:
        yield name, _qualified(part if callable(part) else type(part))


def _below(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _qualified(part: Any) -> str:
    """Where a class or a function is defined."""
    if not hasattr(part, "__qualname__"):
        part = getattr(part, "__wrapped__", type(part))
    return f"{part.__module__}.{part.__qualname__}"
