"""Reads the constraints of an answer (`GuidedDecoding`) under all names that servers use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import from_json

from orchestration.errors import InvalidGuide, InvalidRequest
from orchestration.messages import GuidedDecoding

ANY_OBJECT = {"type": "object"}
MAX_CHOICES = 1_024
MAX_BYTES = 65_536
"""Maximum size of a regular expression, a grammar, or all choices of a request, as UTF-8."""
MAX_RULES = 512
"""Maximum rules of a GBNF grammar: reading a chain of n rules takes n² steps, 0.3 s for 512."""


def _schema_of(schema: Any) -> Any:
    """A JSON schema, as an object or as text (vLLM)."""
    if isinstance(schema, str):
        try:
            schema = from_json(schema)
        except ValueError as error:
            raise ValueError(f"invalid JSON: {error}") from None
    if schema is not None and not isinstance(schema, dict):
        raise ValueError("a JSON schema must be an object, or the text of one")
    return schema


def _choice_of(choice: Any) -> Any:
    if isinstance(choice, list) and not 1 <= len(choice) <= MAX_CHOICES:
        raise ValueError(f"{len(choice)} choices; 1 to {MAX_CHOICES} are allowed")
    if isinstance(choice, list) and "" in choice:
        raise ValueError("a choice must not be empty")
    return choice


Schema = Annotated[dict[str, Any] | None, BeforeValidator(_schema_of)]
Choice = Annotated[tuple[str, ...] | None, BeforeValidator(_choice_of)]


class JsonSchemaFormat(BaseModel):
    """The `json_schema` object of a `response_format`. Its name, description and strictness are for
    upstreams: a local model is always held to the schema."""

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    """Name of the schema, for upstreams."""
    description: str | None = None
    """Description of the schema, for upstreams."""
    strict: bool | None = None
    """Whether an upstream must follow the schema exactly. Local models always do."""
    schema_: dict[str, Any] = Field(alias="schema")
    """The JSON schema."""


class ResponseFormat(BaseModel):
    """`schema` is llama.cpp's place for what OpenAI has in `json_schema`."""

    model_config = ConfigDict(frozen=True)

    type: Literal["text", "json_object", "json_schema"]
    """`json_schema` needs the schema; `json_object` is any JSON object."""
    json_schema: JsonSchemaFormat | None = None
    """The schema, with a name."""
    schema_: Schema = Field(default=None, alias="schema")
    """The schema where llama.cpp expects it."""

    def guide(self) -> GuidedDecoding | None:
        if self.type == "text":
            return None
        schema = self.json_schema
        if schema is not None:
            return GuidedDecoding(
                json_schema=schema.schema_,
                name=schema.name or "answer",
                description=schema.description or "",
                strict=schema.strict,
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
    """JSON schema of the answer, as an object or as text."""
    regex: str | None = None
    """Regular expression that the whole answer matches."""
    choice: Choice = None
    """Texts of which the answer is one, at most 1,024."""
    grammar: str | None = None
    """Grammar of the answer, in GBNF."""
    json_object: bool | None = None
    """Whether the answer is any JSON object."""
    disable_any_whitespace: bool | None = None
    """For upstreams; local models write JSON without extra white space anyway."""

    @property
    def foreign(self) -> list[str]:
        """The fields with a value that a local model cannot follow."""
        return [name for name, value in (self.model_extra or {}).items() if value not in (None, False)]


class GuideFields(BaseModel):
    """The fields of a body that guide its answer. `structured_outputs` is not one of them if it has what a
    local model cannot follow."""

    response_format: ResponseFormat | None = None
    """Form of the answer, as in OpenAI's API: text, any JSON object, or a JSON schema."""
    regex: str | None = None
    """Regular expression that the whole answer matches (SGLang)."""
    guided_regex: str | None = None
    """The same, as vLLM named it."""
    guided_json: Schema = None
    """JSON schema of the answer, as an object or as text (vLLM)."""
    guided_choice: Choice = None
    """Texts of which the answer is one, at most 1,024 (vLLM)."""
    guided_grammar: str | None = None
    """Grammar of the answer, in GBNF (vLLM)."""
    structured_outputs: StructuredOutputs | None = None
    """Form of the answer, as vLLM names it now."""
    json_schema: Schema = None
    """JSON schema of the answer (llama.cpp)."""
    grammar: str | None = None
    """Grammar of the answer, in GBNF (llama.cpp)."""

    def guide(self) -> GuidedDecoding | None:
        """Return the constraint of the answer, or None. Raises `InvalidRequest` and `InvalidGuide`."""
        if not self.model_fields_set & GuideFields.model_fields.keys():
            return None
        guides = [guide for field, values in self._fields() if (guide := _guide(field, values)) is not None]
        form = None if self.response_format is None else self.response_format.guide()
        if form is not None:
            guides.append(form.model_copy(update={"field": "response_format"}))
        for guide in guides[1:]:
            if _content(guide) != _content(guides[0]):
                raise InvalidRequest(
                    f"{guide.field}: cannot be combined with {guides[0].field}: an answer has one constraint",
                    param=guide.field,
                )
        return guides[-1] if guides else None

    def _fields(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the name of each field, and its value as a field of `Guide`."""
        fields: list[tuple[str, dict[str, Any]]] = [
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
            fields += [
                ("structured_outputs.json", {"json_schema": outputs.json_}),
                ("structured_outputs.regex", {"regex": outputs.regex}),
                ("structured_outputs.choice", {"choice": outputs.choice}),
                ("structured_outputs.grammar", {"grammar": outputs.grammar}),
            ]
            if outputs.json_object:
                fields.append(("structured_outputs.json_object", {"json_schema": dict(ANY_OBJECT)}))
        return fields


def _guide(field: str, fields: dict[str, Any]) -> GuidedDecoding | None:
    (value,) = fields.values()
    if value is None:
        return None
    if value == "":
        raise InvalidGuide(f"{field}: must not be empty", param=field)
    texts = (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()
    size = sum(len(text.encode(errors="replace")) for text in texts)
    if size > MAX_BYTES:
        raise InvalidGuide(f"{field}: {size} bytes; the limit is {MAX_BYTES}", param=field)
    rules = fields.get("grammar", "").count("::=")
    if rules > MAX_RULES:
        raise InvalidGuide(f"{field}: {rules} rules; the limit is {MAX_RULES}", param=field)
    named = fields.get("json_schema") not in (None, ANY_OBJECT)  # the caller's own schema has a name
    return GuidedDecoding(field=field, name="answer" if named else "", **fields)


def _content(guide: GuidedDecoding) -> tuple[Any, ...]:
    return guide.json_schema, guide.regex, guide.choice, guide.grammar
