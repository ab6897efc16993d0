"""Words and numbers in text files."""

import math

_SURELY = ("", "?", "nan", "na", "n/a", "#n/a", "<na>")
_MISSING = (*_SURELY, "nat", "null", "none", "missing", "\\n")


def finite(text: str, what: str) -> float:
    """The number in `text`. Raises `ValueError`, beginning with `what`, if it is missing or not
    finite."""
    try:
        value = math.nan if "_" in text else float(text)  # Python's own digits grouping
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    if is_missing(text):
        raise ValueError(f"{what} is missing; fill in or leave out what is missing.")
    raise ValueError(f"{what} must be a finite number, not {text.strip()[:50]!r}.")


def is_missing(text: str) -> bool:
    """Whether a value is not there, or a word says so."""
    return text.strip().lower() in _MISSING


def is_surely_missing(text: str) -> bool:
    """Whether a value is not there, or a word says so that is no name of a class, as "none" may
    be."""
    return text.strip().lower() in _SURELY


def word(text: str, what: str) -> str:
    """`text` without blanks around it. Raises `ValueError`, beginning with `what`, if it held bytes
    that are not UTF-8: different words could become the same."""
    if "\ufffd" in text:
        raise ValueError(f"{what} is not in UTF-8: {text.strip()[:50]!r}. Save the file as UTF-8.")
    return text.strip()
