"""Settings as dataclasses; the type of each field decides which values are valid."""

import dataclasses
import functools
import json
import math
import reprlib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from organics.files.documents import parse_object, unsealed

_Kind = TypeVar("_Kind", bound="Settings")


class Needs(NamedTuple):
    """A condition on the values of a field, besides its type: `Annotated[int, Needs(">= 1", ...)]`.

    Attributes
        words: the condition in words; for numbers, what follows "a number".
        holds: whether a value of the type satisfies it.
    """

    words: str
    holds: Callable[[Any], bool] = lambda _: True

    def __repr__(self) -> str:
        return repr(self.words)  # as `help` shows the settings


@dataclass(frozen=True)
class Settings:
    """Base class of settings.

    Raises `ValueError`, naming the field, for a value that is not of its field's type, for a number
    that is not finite or beyond 64 bits, and for an empty list unless that is the default.
    """

    def __post_init__(self):
        check(type(self), self._values())

    def to_json(self) -> str:
        """The settings as a JSON document."""
        return json.dumps(self._values(), indent=2) + "\n"

    @classmethod
    def from_json(cls: type[_Kind], text: str) -> _Kind:
        """The settings from a JSON document, such as the file of a run.

        Raises `ValueError` for invalid settings.
        """
        return cls(**fields_of(cls, unsealed(parse_object(text))))

    def differing(self, other: "Settings") -> dict[str, tuple[object, object]]:
        """The settings in which two runs differ, with both values; `None` if a run of another kind
        lacks the setting."""
        here, there = self._values(), other._values()
        pairs = {name: (here.get(name), there.get(name)) for name in here | there}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def fields_of(kind: type, document: dict[str, Any]) -> dict[str, Any]:
    """The values of a dataclass's fields from a JSON object with exactly these keys.

    Raises `ValueError` for a key that is missing or unknown, or a value of another type.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    lacking = [name for name in names if name not in document]
    unknown = sorted(document.keys() - set(names))
    if lacking or unknown:
        faults = [f"lacks {', '.join(lacking)}"] if lacking else []
        faults += [f"has the unknown {reprlib.repr(unknown)[1:-1]}"] if unknown else []
        raise ValueError(f"{' and '.join(faults)}; its keys must be {', '.join(names)}.")
    values = {name: _tuples(value) for name, value in document.items()}
    check(kind, values)
    return values


def check(kind: type, values: dict[str, Any], names: Mapping[str, str] = {}) -> None:
    """Refuse a value that does not have the type of its field in `kind`, by its name, or the one
    in `names`."""
    for name, needs in _needs_of(kind).items():
        for words, holds in needs:
            if not holds(values[name]):
                said = names.get(name, name)
                raise ValueError(f"`{said}` must be {words}, not {_shown(values[name])}.")


@functools.cache
def _needs_of(kind: type) -> dict[str, list[Needs]]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: _needs(hints[field.name]) + _as_default(field)
        for field in dataclasses.fields(kind)
    }


def _as_default(field: dataclasses.Field) -> list[Needs]:
    """A list whose default is not empty must not be empty: a flag without values is an error."""
    some = isinstance(field.default, tuple) and field.default
    return [Needs("at least one value", _or_none(bool))] if some else []


def _needs(hint: Any) -> list[Needs]:
    """The conditions on a value of this type, in order."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _narrowed(inner[0], [extra for extra in inner[1:] if isinstance(extra, Needs)])
    if origin is Literal:
        return [Needs(f"one of {', '.join(inner)}", lambda x: isinstance(x, str) and x in inner)]
    if origin in (Union, types.UnionType):  # X | None
        needs = _needs(next(one for one in inner if one is not types.NoneType))
        return [Needs(need.words, _or_none(need.holds)) for need in needs]
    if origin is tuple and inner[-1] is Ellipsis:
        each = _test(inner[0])
        return [Needs("a list of values", lambda x: isinstance(x, tuple) and all(map(each, x)))]
    if origin is tuple:
        tests = [_test(one) for one in inner]
        words = f"{len(tests)} values"
        if len(set(inner)) == 1 and (each := [need.words for need in _needs(inner[0])]):
            words += f", each {' and '.join(each)}"
        return [Needs(words, lambda value: _fits(tests, value))]
    if origin is dict:
        each = _test(inner[1])
        return [
            Needs("names with values", lambda x: isinstance(x, dict) and all(map(each, x.values())))
        ]
    return [_PLAIN[hint]] if hint in _PLAIN else []  # dataclasses check themselves


def _narrowed(hint: Any, extras: list[Needs]) -> list[Needs]:
    noun = _NOUNS.get(hint)
    if noun is None:
        first = [Needs(extras[0].words, _test(hint))] if extras else _needs(hint)
        return first + extras
    return [
        Needs(f"{noun} {extra.words}", _both(_test(hint), extra.holds)) for extra in extras
    ] or _needs(hint)


def _test(hint: Any) -> Callable[[Any], bool]:
    """The test whether a value satisfies all conditions of a type."""
    needs = _needs(hint)
    return lambda value: all(need.holds(value) for need in needs)


def _both(one: Callable[[Any], bool], other: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: one(value) and other(value)


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _fits(tests: list[Callable[[Any], bool]], value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == len(tests)
        and all(test(item) for test, item in zip(tests, value, strict=True))
    )


def is_whole(value: Any) -> bool:
    """Whether it is a whole number of at most 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_real(value: Any) -> bool:
    """Whether it is a finite number."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


_PLAIN: dict[Any, Needs] = {
    bool: Needs("true or false", lambda value: isinstance(value, bool)),
    int: Needs("a whole number of 64 bits", is_whole),
    float: Needs("a finite number", is_real),
    str: Needs("a text", lambda value: isinstance(value, str)),
    Path: Needs("a path", lambda value: isinstance(value, Path)),
}
_NOUNS = {int: "a whole number", float: "a number"}
"""Words for types with further conditions."""


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def _tuples(value: Any, levels: int = 2) -> Any:
    """Lists as tuples, down to the deepest level of any field."""
    if isinstance(value, list) and levels:
        return tuple(_tuples(item, levels - 1) for item in value)
    return value
