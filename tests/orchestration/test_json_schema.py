"""Schemas of callers, moved and checked."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.errors import InvalidGuide
from orchestration.json_schema import (
    MAX_DEPTH,
    check_references,
    relocate,
    without_free_names,
    without_patterns,
)


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("#", "#/$defs/0"),
        ("#/properties/a", "#/$defs/0/properties/a"),
        ("#/$defs/x~1y", "#/$defs/0/$defs/x~1y"),
        ("#name", "#/$defs/0/$defs/x~1y"),
        ("https://example.com/s", "#/$defs/0"),
        ("https://example.com/s#/properties/a", "#/$defs/0/properties/a"),
    ],
)
def test_references_follow_a_schema_to_its_new_place(reference: str, place: str) -> None:
    schema = {
        "$id": "https://example.com/s",
        "properties": {"a": {"type": "string"}, "b": {"anyOf": [{"$ref": reference}, {"type": "null"}]}},
        "$defs": {"x/y": {"$anchor": "name", "type": "integer"}},
    }
    made = relocate(schema, "#/$defs/0")
    assert made["properties"]["b"]["anyOf"][0] == {"$ref": place}
    assert "$id" not in made
    assert "$anchor" not in made["$defs"]["x/y"]


def test_data_that_looks_like_a_reference_stays() -> None:
    schema = {"properties": {"$ref": {"const": {"$ref": "#"}}, "id": {"enum": [{"$id": "x"}]}}}
    assert relocate(schema, "#/$defs/0") == schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#"}, "leads back to itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "leads back to itself"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "leads to nothing"),
    ],
)
def test_endless_references_are_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidGuide, match=words):
        check_references(schema)


def test_a_schema_that_refers_to_itself_below_a_property_is_good() -> None:
    check_references({"properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}})


def test_a_reference_to_another_document_is_refused() -> None:
    with pytest.raises(InvalidGuide, match="leads out of the schema"):
        relocate({"properties": {"a": {"$ref": "https://example.com/other.json"}}}, "#/$defs/0")


def test_a_deep_schema_is_refused_before_it_is_walked() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_DEPTH * 4):
        schema = {"items": schema}
    for call in (lambda: relocate(schema, "#/a"), lambda: check_references(schema)):
        with pytest.raises(InvalidGuide, match="levels deep"):
            call()


def test_property_names_that_accept_any_name_are_removed_and_others_stay() -> None:
    free = {"type": "object", "propertyNames": {"type": "string"}}
    assert without_free_names({"properties": {"a": free}}) == {"properties": {"a": {"type": "object"}}}
    held = {"type": "object", "propertyNames": {"pattern": "^a"}}
    assert without_free_names(held) == held


def test_names_that_are_listed_become_properties_that_may_be_missing() -> None:
    record = {
        "type": "object",
        "propertyNames": {"$ref": "#/$defs/C"},
        "additionalProperties": {"type": "null"},
    }
    schema = {"properties": {"m": record}, "$defs": {"C": {"type": "string", "enum": ["r", "g"]}}}
    assert without_free_names(schema)["properties"]["m"] == {
        "type": "object",
        "properties": {"r": {"type": "null"}, "g": {"type": "null"}},
        "additionalProperties": False,
    }
    fixed = {"propertyNames": {"enum": ["a"]}, "properties": {"a": {"type": "null"}}}
    assert without_free_names(fixed) == fixed


def test_unusable_patterns_are_removed_and_returned() -> None:
    schema = {
        "properties": {"a": {"type": "string", "pattern": "^(?!b)"}, "b": {"pattern": "^b"}},
        "patternProperties": {"(?=x)": {"type": "string"}, "^y": {"type": "number"}},
    }
    made, removed = without_patterns(schema, lambda pattern: "(?" not in pattern)
    assert removed == ["(?=x)", "^(?!b)"]
    assert made == {
        "properties": {"a": {"type": "string"}, "b": {"pattern": "^b"}},
        "patternProperties": {"^y": {"type": "number"}},
    }
