"""Systems that differ in one or two parameters, each a straight line in the space of parameters."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, ScalarLike

from organics.arguments import nearest
from organics.rest.system import System

Parameter = str | Mapping[str, Any]
"""A drive's name (`z`: a factor on it), an entry (`W_r[0,1]`), an array whose entries are all equal
(`tau_a`), or a direction: arrays by name, of which the parameter's multiple is added."""

NAMES = "parameter", "second"
_INDEX = r"(?:\[\s*(\d+)\s*(?:,\s*(\d+)\s*)?\])?"


class Family(eqx.Module):
    """The systems `base + value_1 slopes[0] + value_2 slopes[1] + ...`.

    Attributes
        positive: the signs of the numbers with kinks, of whose piece the systems are; `None` for
            the systems themselves.
    """

    base: System
    slopes: tuple[System, ...]
    positive: Bool[Array | np.ndarray, "*batch kinks"] | None = None

    def whole(self, *values: ScalarLike) -> System:
        """The system at these values of the parameters."""

        def moved(base, *slopes):
            return base + sum(v * s for v, s in zip(values, slopes, strict=True))

        return jax.tree.map(moved, self.base, *self.slopes)

    def at(self, *values: ScalarLike) -> System:
        """The system at these values of the parameters, or its smooth piece."""
        system = self.whole(*values)
        return system if self.positive is None else system.piece(jnp.asarray(self.positive))

    def piece(self, positive: Bool[Array | np.ndarray, "*batch kinks"]) -> "Family":
        """The smooth pieces where the numbers with kinks have these signs."""
        return Family(self.base, self.slopes, positive)


class Line(NamedTuple):
    """One parameter of a system.

    Attributes
        name: of the parameter.
        base, slope: the system at `value` is `base + value * slope`.
        value: the value that the system itself has.
    """

    name: str
    base: System
    slope: System
    value: float


def as_line(system: System, parameter: Parameter, said: str = NAMES[0]) -> Line:
    """The line of systems that a parameter makes of one, whose arrays are NumPy's. Errors name it
    `said`.

    Raises `ValueError` if the system has no such parameter.
    """
    nothing = jax.tree.map(np.zeros_like, system)
    if isinstance(parameter, Mapping):
        return _direction(system, nothing, parameter, said)
    name, index = _name_and_index(parameter, list(system.parameters()), said)
    where = system.parameters()[name]
    array = where(system)
    if index:
        _require_entry(parameter, array, index, said)
        unit, rest = np.zeros_like(array), array.copy()
        unit[index], rest[index], value = 1, 0, float(array[index])
        base = eqx.tree_at(where, system, rest)
        return Line(f"{name}[{','.join(map(str, index))}]", base, _at(where, nothing, unit), value)
    base = eqx.tree_at(where, system, np.zeros_like(array))
    if name == system.drive:
        if not np.any(np.asarray(array)):
            raise ValueError(
                f"`{said}` {name!r} is a factor on the drive, which is 0 here: give another "
                f"drive, or an entry, such as {name}[0]."
            )
        return Line(name, base, _at(where, nothing, array), 1.0)
    value = float(array.reshape(-1)[0])
    if not np.all(np.asarray(array) == value):
        raise ValueError(
            f"`{said}` {name!r} has entries of different values: name one of them, such as "
            f"{name}[{','.join('0' * array.ndim)}], or give a direction."
        )
    return Line(name, base, _at(where, nothing, np.ones_like(array)), value)


def require_parameter(said: str, parameter: Any) -> None:
    """Refuse what is neither a word nor arrays by name."""
    if not isinstance(parameter, str | Mapping):
        raise ValueError(f"`{said}` must be a name, or arrays by name, not {parameter!r}.")


def _name_and_index(parameter: Any, names: list[str], said: str) -> tuple[str, tuple[int, ...]]:
    """The array that a parameter names, whose own name may end in a bracket, and the entry."""
    words = parameter.strip() if isinstance(parameter, str) else ""
    for name in names:
        found = re.fullmatch(re.escape(name) + _INDEX, words)
        if found is not None:
            return name, tuple(int(i) for i in found.groups() if i is not None)
    word = re.match(r"[\w.]+", words)
    like = nearest(word[0], names) if word else ""
    raise ValueError(
        f"`{said}` must name an array of the system ({', '.join(names)}) or an entry, such "
        f"as {names[0]}[0], not {parameter!r}{like or '.'}"
    )


def as_family(system: System, parameters: tuple[Parameter, ...]) -> tuple[Family, list[Line]]:
    """The family of systems with these parameters, which must not touch the same numbers.

    Raises `ValueError` as `as_line` does, and if two parameters change the same numbers.
    """
    lines = [as_line(system, one, name) for one, name in zip(parameters, NAMES, strict=False)]
    if len(lines) == 2:
        touched = (
            jax.tree.map(lambda a, b: np.any(np.asarray(a) * np.asarray(b)), *(
                line.slope for line in lines))
        )  # fmt: skip
        if any(jax.tree.leaves(touched)):
            raise ValueError(
                f"`second` must change other numbers than `parameter`, not {lines[1].name!r} as "
                f"well as {lines[0].name!r}."
            )
    base = system
    for line in lines:  # subtract what this line replaces; the others' bases keep it
        base = jax.tree.map(lambda b, all, rest: b - (all - rest), base, system, line.base)
    return Family(base, tuple(line.slope for line in lines)), lines


def _direction(system: System, nothing: System, parameter: Mapping[str, Any], said: str) -> Line:
    arrays = system.parameters()
    unknown = [name for name in parameter if name not in arrays]
    if unknown or not parameter:
        raise ValueError(
            f"`{said}` must be a direction by names of {', '.join(arrays)}, not {list(parameter)}."
        )
    slope = nothing
    for name, value in parameter.items():
        array = arrays[name](system)
        try:
            value = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"`{said}[{name!r}]` must be numbers, not {value!r}.") from None
        if value.shape not in ((), array.shape) or not np.all(np.isfinite(value)):
            raise ValueError(
                f"`{said}[{name!r}]` must be finite and of shape {array.shape}, not {value.shape}."
            )
        slope = _at(arrays[name], slope, np.array(np.broadcast_to(value, array.shape)))
    if not any(map(np.any, jax.tree.leaves(slope))):
        raise ValueError(f"`{said}` must be a direction that is not 0, not {dict(parameter)!r}.")
    return Line("+".join(parameter), system, slope, 0.0)


def _at(where, tree: System, value: np.ndarray) -> System:
    return eqx.tree_at(where, tree, value)


def _require_entry(parameter: str, array: np.ndarray, index: tuple, said: str) -> None:
    if len(index) != array.ndim or any(i >= n for i, n in zip(index, array.shape, strict=True)):
        raise ValueError(
            f"`{said}` must be an entry of an array of shape {array.shape}, counted from 0, not "
            f"{parameter!r}."
        )
