"""Problems of pydantic in words, and texts of a form."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, ValidationError

from orchestration.validation import TextForm, first_problem

Name = Annotated[str, TextForm(r"^[a-z]{1,4}$", "a name of 1 to 4 small letters")]


class Named(BaseModel):
    name: Name
    labels: dict[Name, str] = {}


@pytest.mark.parametrize("text", ["", "A", "a b", "abcde", "a\n", "x" * 10_000])
def test_a_text_of_another_form_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Named(name=text)
    problem = first_problem(raised.value)
    assert str(problem) == f"name: {text[:80]!r} is not a name of 1 to 4 small letters"


def test_keys_of_a_table_have_a_form_too() -> None:
    assert Named(name="abcd", labels={"a": ""}).labels == {"a": ""}
    with pytest.raises(ValidationError) as raised:
        Named(name="a", labels={"A": ""})
    assert str(first_problem(raised.value)) == "labels.A: 'A' is not a name of 1 to 4 small letters"


def test_the_schema_has_the_pattern() -> None:
    schema = Named.model_json_schema()["properties"]
    assert schema["name"]["pattern"] == r"^[a-z]{1,4}$"
