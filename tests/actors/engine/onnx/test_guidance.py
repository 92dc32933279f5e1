from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from actors.backends.base import Output
from actors.engine.conformance import SchemaCheck, checked_outputs
from actors.engine.onnx_backend import OnnxBackend
from orchestration.errors import InvalidGuide
from orchestration.messages import Finish, GuidedDecoding, TextDelta, Usage
from tests.actors.engine.onnx.asking import ask, chat


class Town(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=30)
    inhabitants: int = Field(ge=0, le=10_000_000)
    rivers: list[Annotated[str, StringConstraints(max_length=20)]] = Field(max_length=2)


PLAN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "steps": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "agent": {"enum": ["research", "reasoning", "creative", "code", "critic"]},
                    "task": {"type": "string", "maxLength": 60},
                    "after": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
                },
                "required": ["agent", "task", "after"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["steps"],
    "additionalProperties": False,
}


async def test_a_plan_of_agents_is_always_valid(backend: OnnxBackend) -> None:
    for seed in range(3):
        answer = await ask(
            backend,
            chat(
                "Plan how to write a poem about rain.",
                guide=GuidedDecoding(json_schema=PLAN),
                temperature=1.0,
                seed=seed,
                max_tokens=300,
            ),
        )
        assert answer.finish.reason == "stop"
        steps = json.loads(answer.text)["steps"]
        assert 1 <= len(steps) <= 3
        for step in steps:
            assert step["agent"] in {"research", "reasoning", "creative", "code", "critic"}
            assert len(step["task"]) <= 60
            assert all(isinstance(each, int) for each in step["after"])
            assert set(step) == {"agent", "task", "after"}


async def test_a_pydantic_schema_gives_an_object_of_that_class(backend: OnnxBackend) -> None:
    guide = GuidedDecoding(json_schema=Town.model_json_schema())
    answer = await ask(backend, chat("Describe the town of Bern.", guide=guide, max_tokens=200))
    assert answer.finish.reason == "stop"
    assert Town.model_validate_json(answer.text).name


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "boolean"}, bool),
        ({"type": "integer", "minimum": 3, "maximum": 12}, int),
        ({"enum": ["yes", "no"]}, str),
        ({"type": "array", "items": {"enum": [1.5, 2]}, "minItems": 2, "maxItems": 2}, list),
        ({"anyOf": [{"type": "null"}, {"const": "x"}]}, str | None),
    ],
)
async def test_small_schemas_hold(backend: OnnxBackend, schema: dict[str, Any], kind: type) -> None:
    answer = await ask(backend, chat("Answer.", guide=GuidedDecoding(json_schema=schema), max_tokens=60))
    value = json.loads(answer.text)
    assert isinstance(value, kind)
    if isinstance(value, int) and not isinstance(value, bool):
        assert 3 <= value <= 12


async def test_any_object_can_be_asked_for(backend: OnnxBackend) -> None:
    guide = GuidedDecoding(json_schema={"type": "object"})
    answer = await ask(backend, chat('Give {"a": 1}.', guide=guide, max_tokens=100))
    if answer.finish.reason == "stop":
        assert isinstance(json.loads(answer.text), dict)
    assert answer.text.startswith("{")


async def test_a_regular_expression_holds(backend: OnnxBackend) -> None:
    pattern = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    answer = await ask(
        backend, chat("When did the war end?", guide=GuidedDecoding(regex=pattern), max_tokens=40)
    )
    assert re.fullmatch(pattern, answer.text)
    assert answer.finish.reason == "stop"


async def test_a_guide_that_runs_out_of_tokens_ends_with_length(backend: OnnxBackend) -> None:
    answer = await ask(backend, chat("Plan.", guide=GuidedDecoding(json_schema=PLAN), max_tokens=4))
    assert answer.finish.reason == "length"
    assert answer.finish.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("guide", "words"),
    [
        (GuidedDecoding(json_schema={"type": "wat"}), "wat"),
        (GuidedDecoding(json_schema={"$ref": "#/nowhere"}), "nowhere"),
        (GuidedDecoding(json_schema={"$ref": "http://host/other.json"}), "leads out of the schema"),
        (GuidedDecoding(json_schema={"$dynamicRef": "#nowhere"}), "leads out of the schema"),
        (
            GuidedDecoding(json_schema={"uniqueItems": True, "dependentRequired": {"a": "b"}}),
            "dependentRequired",
        ),
        (GuidedDecoding(regex="("), "unclosed group"),
        (GuidedDecoding(), "exactly one"),
        (GuidedDecoding(json_schema={}, regex="a"), "exactly one"),
    ],
)
async def test_a_guide_that_cannot_be_used_is_refused_with_the_reason(
    backend: OnnxBackend, guide: GuidedDecoding, words: str
) -> None:
    with pytest.raises(InvalidGuide, match=words):
        await ask(backend, chat("Hi", guide=guide))
    assert backend.stats[0].healthy


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"A[int]": {"type": "boolean"}}, "$ref": "#/$defs/A[int]"},
        {"$defs": {"a/b": {"$dynamicAnchor": "it", "type": "boolean"}}, "$dynamicRef": "#it"},
        {"$id": "urn:x", "$defs": {"a": {"type": "boolean"}}, "$ref": "urn:x#/$defs/a"},
        {"$defs": {"a": {"type": "boolean", "dependentRequired": {}}}, "allOf": [{"$ref": "#/$defs/a"}]},
    ],
)
async def test_references_are_followed_however_they_are_written(
    backend: OnnxBackend, schema: dict[str, Any]
) -> None:
    answer = await ask(backend, chat("Yes or no?", guide=GuidedDecoding(json_schema=schema), max_tokens=20))
    assert answer.text in ("true", "false")


def test_a_tuple_of_older_drafts_is_checked_by_them() -> None:
    check = SchemaCheck({"items": [{"type": "integer"}], "additionalItems": False, "uniqueItems": True})
    assert not check.corrected("[1]")[1]
    assert check.corrected("[1, 2]")[1]


async def test_log_probabilities_of_an_answer_that_is_checked_afterwards_come_too(
    backend: OnnxBackend,
) -> None:
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 1, "uniqueItems": True}
    asked = chat("Some JSON, please.", guide=GuidedDecoding(json_schema=schema), max_tokens=20, logprobs=True)
    answer = await ask(backend, asked)
    assert answer.logprobs
    assert "".join(token.token for token in answer.logprobs).startswith(answer.text)


@pytest.mark.parametrize(
    ("schema", "relaxed"),
    [
        (
            {
                "type": "object",
                "propertyNames": {"type": "string"},
                "additionalProperties": {"type": "number"},
            },
            "",
        ),
        (
            {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"enum": [1]}, "type": "object"},
            "",
        ),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 3, "maxItems": 3}, ""),
        (
            {
                "type": "array",
                "items": {"enum": ["a", "b"]},
                "minItems": 2,
                "maxItems": 4,
                "uniqueItems": True,
            },
            "uniqueItems",
        ),
        (
            {
                "oneOf": [
                    {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
                    {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]},
                ]
            },
            "oneOf",
        ),
        (
            {
                "type": "object",
                "properties": {"m": {"type": "string", "pattern": "^(?!x)[a-z]{1,5}$"}},
                "required": ["m"],
            },
            "pattern",
        ),
    ],
)
async def test_what_a_grammar_cannot_hold_is_checked_afterwards_and_told(
    backend: OnnxBackend, schema: dict[str, Any], relaxed: str
) -> None:
    answer = await ask(
        backend, chat("Some JSON, please.", guide=GuidedDecoding(json_schema=schema), max_tokens=60)
    )
    told = [note for note in answer.finish.notes if "checked afterwards" in note]
    assert len(told) == bool(relaxed)
    assert all(relaxed in note for note in told)
    if answer.finish.reason == "stop" and not any("does not conform" in note for note in answer.finish.notes):
        assert Draft202012Validator(schema).is_valid(json.loads(answer.text))


def test_what_is_wrong_is_told_and_duplicates_go() -> None:
    check = SchemaCheck(
        {
            "type": "object",
            "properties": {"tags": {"type": "array", "uniqueItems": True}, "to": {"pattern": "^(?!x)"}},
            "not": {"required": ["bad"]},
        }
    )
    assert check.corrected('{"tags": [1, 1, {"a": 1}, {"a": 1}, 2]}') == ('{"tags": [1, {"a": 1}, 2]}', "")
    assert check.corrected('{"to": "xy"}')[1].startswith("$.to: ")
    assert check.corrected('{"bad": 1}')[1]
    assert check.corrected('{"bad"')[1].startswith("it is not valid JSON")
    slow = SchemaCheck({"pattern": "^(?=(a+)+$)b"})
    assert slow.corrected(json.dumps("a" * 64))[0]


async def test_an_answer_that_is_wrong_is_asked_for_once_more() -> None:
    async def written(text: str) -> AsyncGenerator[Output, None]:
        yield TextDelta(text=text, tokens=1)
        yield Finish(reason="stop", usage=Usage(completion_tokens=1))

    asked: list[str] = []

    def again(answer: str, wrong: str) -> AsyncGenerator[Output, None]:
        asked.append(f"{answer} {wrong}")
        return written('{"a": 2}')

    check = SchemaCheck({"properties": {"a": {"not": {"const": 1}}}})
    outputs = [item async for item in checked_outputs(written('{"a": 1}'), check, ("not",), again)]
    assert "".join(item.text for item in outputs if isinstance(item, TextDelta)) == '{"a": 2}'
    assert len(asked) == 1
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    assert finish.usage.completion_tokens == 2
    assert not any("does not conform" in note for note in finish.notes)
