"""What is required of arguments, in NumPy alone: each is refused by name, value and expectation."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np


def require_square(name: str, shape: tuple[int, ...], n: int | None = None) -> None:
    """Refuse what is no square matrix, or one of another size than `n`."""
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"`{name}` must be a square matrix (n, n), not of shape {shape}.")
    if n is not None and shape[0] != n:
        raise ValueError(f"`{name}` must have shape ({n}, {n}) like `W`, not {shape}.")


def require_vector(name: str, shape: tuple[int, ...], n: int) -> None:
    """Refuse what is neither one number nor `n` of them."""
    if shape not in ((), (n,)):
        raise ValueError(f"`{name}` must be a scalar or have shape ({n},), not {shape}.")


def require_entries(
    name: str, entries: np.ndarray, valid: Callable[[np.ndarray], Any], what: str
) -> None:
    """Refuse an array unless each of its entries is `valid`."""
    bad = np.argwhere(~valid(entries))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        entry = f"entry {list(where)}" if where else "it"
        raise ValueError(
            f"`{name}` must {what}; {entry} is {float(entries[where])} "
            f"({len(bad)} of {entries.size} entries are refused)."
        )


def is_positive(entries: np.ndarray) -> np.ndarray | np.bool_:
    """Which entries are finite and above 0."""
    return np.isfinite(entries) & (entries > 0)


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean ...?` if one of the words is like this one, else nothing."""
    close = get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
