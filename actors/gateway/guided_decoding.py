"""Reads `GuidedDecoding` from a body, by every name that servers of the OpenAI API have for its fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import from_json

from orchestration.errors import InvalidGuide, InvalidRequest
from orchestration.messages import GuidedDecoding

ANY_OBJECT = {"type": "object"}
MAX_CHOICES = 1_024
MAX_BYTES = 65_536
"""Of a regular expression, a grammar, or all choices of a request, as UTF-8."""
MAX_RULES = 512
"""Of a GBNF grammar: to read a chain of n rules takes n² steps, 0.3 s for so many."""


def _schema_of(schema: Any) -> Any:
    """A JSON schema; vLLM takes its text too."""
    if isinstance(schema, str):
        try:
            schema = from_json(schema)
        except ValueError as error:
            raise ValueError(f"the text is no JSON: {error}") from None
    if schema is not None and not isinstance(schema, dict):
        raise ValueError("a JSON schema is an object, or the text of one")
    return schema


def _choice_of(choice: Any) -> Any:
    if isinstance(choice, list) and not 1 <= len(choice) <= MAX_CHOICES:
        raise ValueError(f"{len(choice)} texts to choose from; 1 to {MAX_CHOICES} are taken")
    if isinstance(choice, list) and "" in choice:
        raise ValueError("no text to choose from may be empty")
    return choice


Schema = Annotated[dict[str, Any] | None, BeforeValidator(_schema_of)]
Choice = Annotated[tuple[str, ...] | None, BeforeValidator(_choice_of)]


class JsonSchemaFormat(BaseModel):
    """The `json_schema` object of a `response_format`. Its name, description and strictness are for
    upstreams: a local model is always held to the schema."""

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """`schema` is llama.cpp's place for what OpenAI has in `json_schema`."""

    model_config = ConfigDict(frozen=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: Schema = Field(default=None, alias="schema")

    def guide(self) -> GuidedDecoding | None:
        if self.type == "text":
            return None
        said = self.json_schema
        if said is not None:
            return GuidedDecoding(
                json_schema=said.schema_,
                name=said.name or "answer",
                description=said.description or "",
                strict=said.strict,
            )
        if self.schema_ is not None:
            return GuidedDecoding(json_schema=self.schema_, name="answer")
        if self.type == "json_object":
            return GuidedDecoding(json_schema=dict(ANY_OBJECT))
        field = "response_format.json_schema"
        raise InvalidRequest(f"{field}: needed with type json_schema", param=field)


class StructuredOutputs(BaseModel):
    """vLLM's `structured_outputs`. What it has beside these fields is for upstreams alone."""

    model_config = ConfigDict(frozen=True, extra="allow")

    json_: Schema = Field(default=None, alias="json")
    regex: str | None = None
    choice: Choice = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool | None = None
    """A local model writes JSON in one layout anyway."""

    @property
    def foreign(self) -> list[str]:
        """The fields with a value that a local model cannot follow."""
        return [name for name, value in (self.model_extra or {}).items() if value not in (None, False)]


class GuideFields(BaseModel):
    """The fields of a body that guide its answer. `structured_outputs` is none of them where it has what a
    local model cannot follow."""

    response_format: ResponseFormat | None = None
    regex: str | None = None
    guided_regex: str | None = None
    guided_json: Schema = None
    guided_choice: Choice = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    json_schema: Schema = None
    grammar: str | None = None

    def guide(self) -> GuidedDecoding | None:
        """What the answer must conform to, or None. Raises `InvalidRequest` and `InvalidGuide`."""
        if not self.model_fields_set & GuideFields.model_fields.keys():
            return None
        guides = [guide for field, said in self._said() if (guide := _guide(field, said)) is not None]
        form = None if self.response_format is None else self.response_format.guide()
        if form is not None:
            guides.append(form.model_copy(update={"field": "response_format"}))
        for guide in guides[1:]:
            if _content(guide) != _content(guides[0]):
                raise InvalidRequest(
                    f"{guide.field}: cannot be combined with {guides[0].field}: an answer has one guide",
                    param=guide.field,
                )
        return guides[-1] if guides else None

    def _said(self) -> list[tuple[str, dict[str, Any]]]:
        """By the name of its field, what each of them says as a part of a guide."""
        said: list[tuple[str, dict[str, Any]]] = [
            ("regex", {"regex": self.regex}),
            ("guided_regex", {"regex": self.guided_regex}),
            ("guided_json", {"json_schema": self.guided_json}),
            ("guided_choice", {"choice": self.guided_choice}),
            ("guided_grammar", {"grammar": self.guided_grammar}),
            ("json_schema", {"json_schema": self.json_schema}),
            ("grammar", {"grammar": self.grammar or None}),  # llama.cpp: '' is none
        ]
        outputs = self.structured_outputs
        if outputs is not None and not outputs.foreign:
            said += [
                ("structured_outputs.json", {"json_schema": outputs.json_}),
                ("structured_outputs.regex", {"regex": outputs.regex}),
                ("structured_outputs.choice", {"choice": outputs.choice}),
                ("structured_outputs.grammar", {"grammar": outputs.grammar}),
            ]
            if outputs.json_object:
                said.append(("structured_outputs.json_object", {"json_schema": dict(ANY_OBJECT)}))
        return said


def _guide(field: str, said: dict[str, Any]) -> GuidedDecoding | None:
    (value,) = said.values()
    if value is None:
        return None
    if value == "":
        raise InvalidGuide(f"{field}: it is empty", param=field)
    texts = (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()
    size = sum(len(text.encode(errors="replace")) for text in texts)
    if size > MAX_BYTES:
        raise InvalidGuide(f"{field}: {size} bytes, and up to {MAX_BYTES} are taken", param=field)
    rules = said.get("grammar", "").count("::=")
    if rules > MAX_RULES:
        raise InvalidGuide(f"{field}: {rules} rules, and up to {MAX_RULES} are taken", param=field)
    named = said.get("json_schema") not in (None, ANY_OBJECT)  # the caller's own schema has a name
    return GuidedDecoding(field=field, name="answer" if named else "", **said)


def _content(guide: GuidedDecoding) -> tuple[Any, ...]:
    return guide.json_schema, guide.regex, guide.choice, guide.grammar
