"""JSON documents, strictly checked when read, and with a check sum."""

import hashlib
import json
import reprlib
from typing import Any, NoReturn

_SUM = "sha256"


def parse_object(data: bytes | str, *, only_floats: bool = False) -> dict[str, Any]:
    """The object in a JSON document; with `only_floats` all its numbers are floats.

    Raises `ValueError` if `data` is not UTF-8, not JSON, nested too deeply or not an object, if a
    key occurs twice in an object, or for NaN, Infinity or whole numbers of thousands of digits.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        document = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_int=float if only_floats else None,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}.") from None
    except RecursionError:
        raise ValueError("is nested too deeply.") from None
    if not isinstance(document, dict):
        raise ValueError(f"must hold one JSON object, not {reprlib.repr(document)}.")
    return document


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """`document`, made of JSON values, with a check sum for `unsealed`."""
    return document | {_SUM: _sum_of(document)}


def unsealed(document: dict[str, Any]) -> dict[str, Any]:
    """`document` without its check sum. Documents of earlier versions have none and are returned as
    they are.

    Raises `ValueError` if the document was changed since it was `sealed`.
    """
    content = {key: value for key, value in document.items() if key != _SUM}
    if _SUM in document and document[_SUM] != _sum_of(content):
        raise ValueError("was changed since it was written: its check sum is another.")
    return content


def canonical(value: Any) -> bytes:
    """A unique text of a JSON value, for check sums. Raises `ValueError` if it is nested too
    deeply."""
    try:
        return json.dumps(value, sort_keys=True).encode()
    except RecursionError:
        raise ValueError("is nested too deeply.") from None


def _sum_of(document: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(document)).hexdigest()


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"has the key {reprlib.repr(key)} more than once.")
        document[key] = value
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"has the value {name}; every number must be finite.")
