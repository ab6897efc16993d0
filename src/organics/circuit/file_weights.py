"""Structured weights in circuit files: `Convolution`, `LowRank` and `Diagonal` as plain values."""

from typing import Any

import numpy as np

from organics.arguments import require_among, require_entries
from organics.names import Border

MAX_NEURONS = 1_000_000  # a few numbers may declare as many as they like
KEYS = ("kernel", "height", "width", "border", "left", "right", "own")
_OF = {"kernel": ("kernel", "height", "width", "border"), "left": ("left", "right", "own")}

Plain = dict[str, Any]


def as_plain(weights: Any) -> "Plain | np.ndarray":
    """Weights as arrays, numbers and words by name; the matrix of any others. Raises `ValueError`
    as they do."""
    from organics.circuit.weights import Convolution, Diagonal, LowRank

    if isinstance(weights, Convolution):
        names = _OF["kernel"]
    elif isinstance(weights, LowRank):
        names = ("left", "right") if weights.own is None else _OF["left"]
    elif isinstance(weights, Diagonal):
        names = ("own",)
    else:
        return np.asarray(weights)
    values = {name: getattr(weights, name) for name in names}
    plain = {k: v if isinstance(v, int | str) else np.asarray(v) for k, v in values.items()}
    as_weights(plain)  # else they could not be read back, as after an array was replaced
    return plain


def checked(values: Plain) -> Plain:
    """The values, of which the sizes that they declare are checked.

    Raises `ValueError` if they are not those of one kind of weights.
    """
    first = next((name for name in ("kernel", "left") if name in values), "own")
    names = _OF.get(first, ("own",))
    missing = [name for name in names if name not in values and name not in ("border", "own")]
    unknown = sorted(set(values) - set(names))
    if missing or unknown or first not in values:
        raise ValueError(
            "must be a matrix, or an object with `kernel`, `height`, `width` and perhaps `border`, "
            "with `left`, `right` and perhaps `own`, or with `own` alone, not with "
            f"{', '.join(sorted(values)) or 'nothing'}."
        )
    found = dict(values)
    for name in ("height", "width"):
        if name in found:
            size = found[name]
            number = isinstance(size, float | int) and not isinstance(size, bool)
            if not number or not 1 <= size < np.inf or size != int(size):
                raise ValueError(f"`{name}` must be a whole number of at least 1, not {size!r}.")
            found[name] = int(size)
    for name, axes in (("kernel", (2, 4)), ("left", (2,)), ("right", (2,)), ("own", (1,))):
        if name in found and (found[name].ndim not in axes or not found[name].size):
            words = " or ".join(map(str, axes))
            raise ValueError(f"`{name}` must have {words} axes, not shape {found[name].shape}.")
        if name in found:
            require_entries(name, found[name], np.isfinite, "be finite")
    require_among("border", found.get("border", "zeros"), Border)
    if first == "kernel" and found["kernel"].ndim == 2:
        found["kernel"] = found["kernel"][None, None]
    if neurons(found) > MAX_NEURONS:
        raise ValueError(f"must be among at most {MAX_NEURONS:,} neurons, not {neurons(found):,}.")
    return found


def neurons(values: "Plain | np.ndarray") -> int:
    """Among how many neurons weights are."""
    if isinstance(values, np.ndarray):
        return len(values)
    if "kernel" in values:
        return len(values["kernel"]) * values["height"] * values["width"]
    return len(values["left"] if "left" in values else values["own"])


def arrays(values: Plain) -> dict[str, np.ndarray]:
    """The arrays that define them, by name."""
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def as_weights(values: Plain) -> Any:
    """The weights. Raises `ValueError` as they do."""
    from organics.circuit.weights import Convolution, Diagonal, LowRank

    kind = Convolution if "kernel" in values else LowRank if "left" in values else Diagonal
    return kind(**values)
