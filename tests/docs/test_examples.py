import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.examples import with_examples
from tests.docs.links import ROOT, pages

PAGES = [page for page in pages() if "```" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_in_the_docs_are_those_of_the_repository_and_can_be_read(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert with_examples(text) == text, "run `make docs`"
    for language, code in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            ast.parse(code)
        elif language == "toml":
            tomllib.loads(code)
