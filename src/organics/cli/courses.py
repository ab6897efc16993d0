"""Time-varying drives from the command line, read and checked without JAX."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from organics.circuit.file import CircuitFileError
from organics.files.atomic import read_whole

_MOST_BYTES = 32 * 2**20  # of a table
_BRIEFEST = 1e-4  # ms: of events; what is shorter may be an error of rounding


class Course(NamedTuple):
    """The drive as a function of the time in ms.

    Attributes
        times, values: times, shape (k,), and drives at them, shape (k, n), linear in between.
        steps, factors: the drive is multiplied by each factor from its time on; times increase.
    """

    times: Float[np.ndarray, " k"]
    values: Float[np.ndarray, "k n"]
    steps: Float[np.ndarray, " s"]
    factors: Float[np.ndarray, " s"]

    @property
    def constant(self) -> bool:
        """Whether the drive never changes."""
        return len(self.times) == 1 and not len(self.steps)

    def last_change(self, until: float) -> float:
        """The time from which on the drive is constant up to the time `until`, in ms; above that if
        the drive is changing then."""
        changes = np.any(np.diff(self.values, axis=0) != 0, axis=1) & (self.times[:-1] < until)
        jumps = self.steps[np.diff(self.factors, prepend=1.0) != 0]
        return float(max([*self.times[1:][changes], *jumps[jumps <= until], 0.0]))

    @property
    def shortest(self) -> float:
        """How long, in ms, the shortest event lasts after which the drive may be what it was, such
        as a pulse or a peak; infinite if there is none. A jump is two changes of slope at once."""
        times = self.times if len(self.times) > 1 else ()
        jumps = np.unique(self.steps)
        changes = np.sort(np.concatenate([np.setdiff1d(times, jumps), jumps, jumps]))
        return max(_BRIEFEST, float(np.min(changes[2:] - changes[:-2], initial=np.inf)))

    def __call__(self, t: Any) -> Any:
        """The drive at a time, which JAX may trace."""
        import jax.numpy as jnp

        value = jnp.stack([jnp.interp(t, self.times, column) for column in self.values.T])
        factors = jnp.concatenate([jnp.ones(1), jnp.asarray(self.factors)])
        return value * factors[jnp.sum(t >= jnp.asarray(self.steps))]


def steps(words: tuple[str, ...], duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and factors from `TIME:FACTOR` words, sorted by time.

    Raises `ValueError` if one has another form, or is not within the duration.
    """
    found = []
    for word in words:
        time, colon, factor = word.partition(":")
        try:
            pair = float(time), float(factor)
        except ValueError:
            pair = np.nan, np.nan
        if not (colon and np.all(np.isfinite(pair)) and 0 <= pair[0] <= duration):
            raise ValueError(
                f"`step` must be TIME:FACTOR with a time from 0 to {duration:g} ms, as 50:2, "
                f"not {word!r}."
            )
        found.append(pair)
    found.sort(key=lambda pair: pair[0])
    array = np.array(found, float).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def table(path: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Times in ms and drives, shapes (k,) and (k, n), from a .csv file, which may begin with a line
    of names.

    Raises `CircuitFileError` if it is not such a table, `OSError` if it cannot be read.
    """
    try:
        text = "\n".join(read_whole(path, _MOST_BYTES).decode("utf-8-sig").splitlines())
        head, _, rest = text.lstrip().partition("\n")
        # where the time is a number, so should be the rest
        lines = rest if _is_word(head.split(",")[0]) else text
        if not any(line.partition("#")[0].strip() for line in lines.splitlines()):
            raise ValueError("has no line of numbers.")
        rows = [line.partition("#")[0] for line in lines.splitlines()]
        if len({row.count(",") for row in rows if row.strip()}) > 1:
            raise ValueError("must have as many columns in every line.")
        values = np.loadtxt(io.StringIO(lines), delimiter=",", ndmin=2)
        if values.shape[1] != n + 1:
            raise ValueError(
                f"must have {n + 1} columns, the time in ms and {n} drives, not {values.shape[1]}."
            )
        if not np.all(np.isfinite(values)):
            raise ValueError("has a number that is not finite.")
        if np.any(np.diff(values[:, 0]) <= 0):
            raise ValueError("must have times that increase from line to line.")
    except ValueError as error:
        raise CircuitFileError(f"{path}: {error}") from None
    return values[:, 0], values[:, 1:]


def _is_word(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return bool(cell.strip())
    return False
