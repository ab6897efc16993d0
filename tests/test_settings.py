"""Settings are checked by the type of each field."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from organics.files.documents import parse_object, sealed, unsealed
from organics.settings import Needs, Settings, check, fields_of
from organics.studies.networks.static import Networks


@dataclass(frozen=True)
class Example(Settings):
    name: str = "a"
    kind: Literal["one", "two"] = "one"
    flag: bool = False
    count: int = 1
    size: Annotated[int, Needs(">= 1", lambda value: value >= 1)] = 1
    rate: float = 0.5
    share: Annotated[float, Needs("<= 1", lambda value: value <= 1)] | None = None
    sizes: tuple[int, ...] = ()
    pairs: tuple[tuple[str, float], ...] = ()
    folder: Path | None = None


VALUES = {field: getattr(Example(), field) for field in Example.__dataclass_fields__}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", 1, "a text, not 1"),
        ("kind", "three", "one of one, two, not 'three'"),
        ("kind", ["one"], "one of one, two"),
        ("flag", 1, "true or false, not 1"),
        ("count", True, "a whole number of 64 bits, not True"),
        ("count", 1.0, "a whole number of 64 bits, not 1.0"),
        ("count", 2**63, "a whole number of 64 bits"),
        pytest.param("count", 10**5000, "not a number of thousands of digits", id="10^5000"),
        ("size", 0, "a whole number >= 1, not 0"),
        ("size", None, "a whole number >= 1, not None"),
        ("rate", float("nan"), "a finite number, not nan"),
        ("rate", float("-inf"), "a finite number, not -inf"),
        pytest.param("rate", 10**400, "a finite number", id="10^400"),
        ("rate", "0.5", "a finite number, not '0.5'"),
        ("rate", 1 + 0j, "a finite number"),
        ("share", float("nan"), "a number <= 1, not nan"),
        ("share", 1.5, "a number <= 1, not 1.5"),
        ("sizes", (1, 2.0), r"a list of values, not \(1, 2.0\)"),
        ("sizes", 1, "a list of values, not 1"),
        ("pairs", (("a", float("inf")),), "a list of values"),
        ("pairs", (("a", 1.0, 2.0),), "a list of values"),
        ("folder", 3, "a path, not 3"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(field, value, words):
    with pytest.raises(ValueError, match=f"`{field}` must be .*{words}"):
        check(Example, VALUES | {field: value})


def test_values_of_their_types_are_accepted():
    check(Example, VALUES)
    whole = {"rate": 2, "share": 1, "sizes": (3, -4), "pairs": (("a", 1),), "folder": Path()}
    check(Example, VALUES | whole)


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(ValueError, match="`share` must be a number <= 1, not nan"):
        Example(share=float("nan"))


def test_an_object_must_have_the_keys_and_no_others():
    document = {"name": "a", "kind": "two"}
    with pytest.raises(ValueError, match="lacks flag, count, .* and has the unknown 'x'; its keys"):
        fields_of(Example, document | {"x": 1})
    made = Example(sizes=(1, 2), pairs=(("a", 1.5),), share=0.25)
    assert Example.from_json(made.to_json()) == made


DOCUMENT = {"a": 1, "b": [1.5, None, {"c": "é"}]}


def test_what_was_sealed_is_the_same_or_refused():
    document = sealed(DOCUMENT)
    assert unsealed(document) == unsealed(DOCUMENT) == DOCUMENT
    for other in ({"a": 2}, {"sha256": ""}, {"sha256": None}, {"d": 1}):
        with pytest.raises(ValueError, match="was changed since it was written"):
            unsealed(document | other)


def test_a_list_that_is_not_empty_by_default_never_is():
    for field in dataclasses.fields(Networks):
        if isinstance(field.default, tuple):
            with pytest.raises(ValueError, match=f"`{field.name}` must be at least one value"):
                Networks(**{field.name: ()})


def test_no_number_of_a_setting_may_be_infinite_or_without_end():
    for field in dataclasses.fields(Networks):
        if type(field.default) in (int, float):
            wrong = 2**63 if field.type is int else float("inf")
            with pytest.raises(ValueError, match=f"`{field.name}` must be a"):
                Networks(**{field.name: wrong})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        ("[1]", "one JSON object"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1, "a": 2}', "'a' more than once"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 10_000 + "}", "digits"),
    ],
)
def test_what_is_no_document_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_object(text)


def test_no_depth_is_a_fault_of_the_program():
    """At some depth a document can be read, but is too deep for the check sum."""
    for depth in range(1, 1000, 3):
        try:
            unsealed(parse_object('{"sha256": "", "a": ' + "[" * depth + "]" * depth + "}"))
        except ValueError as error:
            assert "nested too deeply" in str(error) or "changed since" in str(error)
