"""Checks the links of the repository's Markdown files: `python -m tests.docs.links`, part of `make check`.

A link to a file must name a file that exists, a link to a heading a heading of that file. Links to other
sites are not followed: this check works without a network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
_HTML_LINK = re.compile(r"""(?:src|srcset|href)=["']([^"']+)["']""")


def pages(root: Path = ROOT) -> list[Path]:
    """The Markdown files that people read: those at the top, in docs, in nats and in triton_models."""
    folders = [root / name for name in ("docs", "deploy", "nats", "triton_models")]
    return sorted([*root.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def broken_links(page: Path) -> list[str]:
    """What is wrong with the links of one page: `file:line: reason`."""
    found = []
    for line, target in _links(page):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / unquote(name)).resolve() if name else page
        if not file.exists():
            found.append(f"{page}:{line}: no file {name!r}")
        elif anchor and file.suffix == ".md" and unquote(anchor) not in _anchors(file):
            found.append(f"{page}:{line}: {file.name} has no heading for #{anchor}")
    return found


def _links(page: Path) -> Iterator[tuple[int, str]]:
    for block in _tokens(page):
        line = (block.map or [0])[0] + 1
        for token in block.children or [block]:
            for name in ("href", "src"):
                target = token.attrGet(name)
                if isinstance(target, str):
                    yield line, target
            if token.type in ("html_inline", "html_block"):
                for target in _HTML_LINK.findall(token.content):
                    yield line, target


def _anchors(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    found: dict[str, int] = {}
    anchors = set()
    tokens = _tokens(page)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            count = found.get(slug, 0)
            found[slug] = count + 1
            anchors.add(f"{slug}-{count}" if count else slug)
    return anchors


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def main() -> int:
    """Print every broken link; 1 if there is one."""
    broken = [problem for page in pages() for problem in broken_links(page)]
    print("\n".join(broken) or f"links: {len(pages())} pages checked")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
