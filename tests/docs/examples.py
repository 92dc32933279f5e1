"""Puts code of the repository into the docs: `python -m tests.docs.examples`, part of `make docs`.

In a page, the line `<!-- example: PATH -->` is followed by a block of code that is the whole file PATH.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.links import ROOT, pages

_EXAMPLE = re.compile(r"(?P<mark><!-- example: (?P<path>\S+) -->\n)(?:\n```python\n.*?\n```\n)?", re.DOTALL)


def with_examples(text: str, root: Path = ROOT) -> str:
    """The text of a page with its examples as they are in the repository now."""

    def fill(match: re.Match[str]) -> str:
        code = (root / match["path"]).read_text(encoding="utf-8").strip()
        return f"{match['mark']}\n```python\n{code}\n```\n"

    return _EXAMPLE.sub(fill, text)


def main() -> None:
    """Rewrite the pages whose examples have changed."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (filled := with_examples(text)) != text:
            page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
