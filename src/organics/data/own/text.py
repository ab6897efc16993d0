"""Numbers in text files."""

import math

_MISSING = ("", "?", "nan", "na")


def finite(text: str, what: str) -> float:
    """The number in `text`. Raises `ValueError`, beginning with `what`, if it is missing or not
    finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    if text.strip().lower() in _MISSING:
        raise ValueError(f"{what} is missing; fill in or leave out what is missing.")
    raise ValueError(f"{what} must be a finite number, not {text.strip()[:50]!r}.")
