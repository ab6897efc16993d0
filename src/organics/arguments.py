"""Checks of arguments, in NumPy alone. Errors name the argument, its value and what is expected."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from numbers import Real
from typing import Any, TypeGuard, get_args

import numpy as np

from organics.names import ProductType

_FLOAT_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


def float_type(dtype: Any) -> np.dtype:
    """The floating-point type to compute in: JAX's default if none, or `float`, is given.

    Raises `ValueError` for all but float32 and float64, and for float64 where JAX is set to 32
    bits.
    """
    import jax

    if dtype is None or dtype is float:
        return np.dtype(jax.dtypes.canonicalize_dtype(float))
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"`dtype` must be float32 or float64, not {dtype!r}.") from None
    require_float_type("dtype", wanted)
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            "`dtype` must be float32, not float64, unless `jax_enable_x64` is set: "
            "`jax.config.update('jax_enable_x64', True)`."
        )
    return wanted


def require_float_type(name: str, dtype: Any) -> None:
    """Refuse types that are not real, or have fewer than 24 bits of precision and so lose small
    steps."""
    if dtype not in _FLOAT_TYPES:
        raise ValueError(f"`{name}` must be float32 or float64, not {dtype}.")


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse anything but a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"`{name}` must be a whole number, not {value!r}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, not {value}.")


def require_sizes(**values: Any) -> None:
    """Refuse, by name, anything but whole numbers above 0."""
    for name, value in values.items():
        require_whole(name, value)


def require_positive(**values: Any) -> None:
    """Refuse, by name, anything but positive finite numbers."""
    for name, value in values.items():
        _require_number(name, value)
        if not value > 0:
            raise ValueError(f"`{name}` must be > 0, not {value}.")
        _require_finite(name, value)


def require_squares(dtype: Any, **values: Any) -> None:
    """Refuse, by name, numbers whose square would be infinite or 0 in numbers of this type."""
    limits = np.finfo(dtype)
    for name, value in values.items():
        if not float(limits.tiny) <= float(value) ** 2 <= float(limits.max):
            raise ValueError(f"`{name}` must have a square that {dtype} can hold, not {value}.")


def require_share(**values: Any) -> None:
    """Refuse, by name, anything but numbers above 0 and at most 1."""
    for name, value in values.items():
        _require_number(name, value)
        if not 0 < value <= 1:
            raise ValueError(f"`{name}` must be in (0, 1], not {value}.")


def fixed_gain(gain: Any) -> float:
    """`gain`, of a layer whose other gains follow the input, as a number in (0, 1]."""
    if not is_number(gain) or not 0 < gain <= 1:
        raise ValueError(f"`gain` must be 'input' or a number in (0, 1], not {gain!r}.")
    return float(gain)


def require_not_negative(**values: Any) -> None:
    """Refuse, by name, anything but finite numbers >= 0."""
    for name, value in values.items():
        _require_number(name, value)
        if not value >= 0:
            raise ValueError(f"`{name}` must be >= 0, not {value}.")
        _require_finite(name, value)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is one real number, of Python or an array without axes, traced or not."""
    return isinstance(value, Real) or (hasattr(value, "dtype") and not np.ndim(value))


def _require_number(name: str, value: Any) -> None:
    if not is_number(value):
        raise ValueError(f"`{name}` must be one number, not {value!r}.")


def _require_finite(name: str, value: Any) -> None:
    if not np.isfinite(value):
        raise ValueError(f"`{name}` must be finite, not {value}.")


def require_flag(name: str, value: Any) -> None:
    """Refuse anything but True and False: any non-empty text would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False, not {value!r}.")


def require_among(name: str, value: Any, words: Any) -> None:
    """Refuse a value that is not one of the words of a `Literal`."""
    choices = get_args(words)
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {known}, not {value!r}.")


# `tuple` alone, of no element type: where types are checked, an element is drawn at random, which
# Hypothesis forbids while it draws circuits


def require_square(name: str, shape: tuple, n: int | None = None) -> None:
    """Refuse anything but a square matrix, of size `n` if that is given."""
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"`{name}` must be a square matrix (n, n), not of shape {shape}.")
    if n is not None and shape[0] != n:
        raise ValueError(f"`{name}` must have shape ({n}, {n}) like `W`, not {shape}.")


def require_vector(name: str, shape: tuple, n: int) -> None:
    """Refuse anything but one number or `n` of them."""
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
            f"({len(bad)} of {entries.size} entries invalid)."
        )


def is_positive(entries: np.ndarray) -> np.ndarray | np.bool_:
    """Which entries are finite and above 0."""
    return np.isfinite(entries) & (entries > 0)


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean ...?` if one of the words is similar or has these initials; else nothing.
    Leading dashes do not count."""
    plain = {other.lstrip("-"): other for other in words}
    word = word.lstrip("-")
    close = [other for other in plain if "-" in other and _initials(other) == word]
    close = [plain[like] for like in close or get_close_matches(word, plain, n=1)]
    return f"; did you mean {close[0]!r}?" if close else ""


def _initials(words: str) -> str:
    return "".join(word[:1] for word in words.split("-"))


def require_rounded(products: ProductType, dtype: Any) -> None:
    """Refuse products of numbers in bfloat16 where the others are not in float32; `dtype` is that
    of NumPy or PyTorch."""
    if products != "full" and str(dtype).removeprefix("torch.") != "float32":
        raise ValueError(
            f"`products` must be 'full' for numbers of type {dtype}, not {products!r}: products "
            "of numbers in bfloat16 are summed in float32."
        )
