"""Results as text: a verdict, then names with rounded numbers and units."""

from html import escape
from typing import Any, NamedTuple

import numpy as np


class Lines(NamedTuple):
    """A verdict and further values by name. `str` gives text, `html` a table for notebooks."""

    verdict: str
    rows: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.rows), default=0)
        said = (
            f"  {name:<{width}}  {words.replace(chr(10), chr(10) + ' ' * (width + 4))}"
            for name, words in self.rows
        )
        return "\n".join([self.verdict, *said])

    def html(self) -> str:
        """A table under the verdict."""
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(words)}</td></tr>"
            for name, words in self.rows
        )
        return f"<div><b>{escape(self.verdict)}</b><table>{cells}</table></div>"


def numbers(values: Any, unit: str = "") -> str:
    """Numbers, rounded: of long vectors only the ends, of batches the range."""
    array = np.asarray(values)
    if array.ndim == 0:
        words = f"{array.item():.6g}"
    elif array.ndim == 1:
        words = np.array2string(array, precision=6, threshold=12, max_line_width=90)
    else:
        kind = "complex numbers" if np.iscomplexobj(array) else ""
        low_high = "" if kind else f" from {np.nanmin(array):.6g} to {np.nanmax(array):.6g}"
        words = f"{kind or 'numbers'} of shape {array.shape}{low_high}"
    return f"{words} {unit}".rstrip()


def verdict(holds: Any, yes: str, no: str) -> str:
    """`yes` or `no`; for a batch, how many are `yes`."""
    array = np.asarray(holds)
    if array.ndim == 0:
        return yes if array else no
    return f"{np.sum(array)} of {array.size} {yes}"


def model_in_words(rectified: bool) -> str:
    """The name of the model: "rectified" or "main"."""
    return "rectified" if rectified else "main"


def in_words(result: Any) -> str:
    """The text of `result.lines()`, or its `repr` while JAX traces and there are no numbers."""
    return repr(result) if _traced(result) else str(result.lines())


def in_html(result: Any) -> str:
    """`in_words`, for a notebook."""
    return f"<pre>{escape(repr(result))}</pre>" if _traced(result) else result.lines().html()


def _traced(value: Any) -> bool:
    import jax
    from jax.core import Tracer

    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
