"""`response_format` and its neighbours as a `Guide`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestration.errors import InvalidGuide, InvalidRequest
from orchestration.messages import Guide


class JsonSchemaFormat(BaseModel):
    """The `json_schema` object of a `response_format`. Its name, description and strictness are for
    upstreams: a local model is always held to the schema."""

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    model_config = ConfigDict(frozen=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


def guide_of(response_format: ResponseFormat | None, regex: str | None) -> Guide | None:
    """What the answer must conform to, or None. Raises `InvalidRequest` and `InvalidGuide`."""
    asked = response_format is not None and response_format.type != "text"
    if regex is not None:
        if asked:
            raise InvalidRequest(
                "response_format: cannot be combined with a regular expression", param="response_format"
            )
        if not regex:
            raise InvalidGuide("regex: the regular expression is empty", param="regex")
        return Guide(regex=regex)
    if response_format is None or not asked:
        return None
    if response_format.type == "json_object":
        return Guide(json_schema={"type": "object"})
    if response_format.json_schema is None:
        raise InvalidRequest(
            "response_format.json_schema: needed with type json_schema", param="response_format.json_schema"
        )
    said = response_format.json_schema
    return Guide(
        json_schema=said.schema_,
        name=said.name or "answer",
        description=said.description or "",
        strict=said.strict,
    )
