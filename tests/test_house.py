"""What holds for the product as a whole: its names, its imports, its packages."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("actors", "orchestration")
FORBIDDEN = {
    *("ballot", "chronicle", "clerk", "crew", "desk", "errands", "flights", "graveyard", "hands"),
    *("happenings", "leash", "outlet", "said", "shelf", "teller", "told", "urn", "whoever"),
}
"""Words of an earlier vocabulary. docs/concepts.md has the terms that took their places."""


@cache
def modules() -> dict[str, Path]:
    """The files of the product by the name of their module."""
    files = [file for package in PRODUCT for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """Every node of a module: walking through the tree takes longer than to parse it."""
    return tuple(ast.walk(parsed(file)))


def test_no_public_class_name_is_used_twice() -> None:
    defined: dict[str, list[str]] = defaultdict(list)
    for name, file in modules().items():
        for node in nodes(file):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                defined[node.name].append(name)
    shared = {name: places for name, places in defined.items() if len(places) > 1}
    assert shared == {}


def identifiers(name: str, file: Path) -> Iterator[str]:
    yield name
    for node in nodes(file):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def words(identifier: str) -> set[str]:
    """`StepRequest` and `step_request` both have the words step and request."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def test_words_of_the_earlier_vocabulary_do_not_come_back() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for name, file in modules().items():
        for identifier in set(identifiers(name, file)):
            for word in words(identifier) & FORBIDDEN:
                found[word].add(name)
    assert found == {}


def imported(tree: ast.Module) -> set[str]:
    """The modules of the product that are imported when this one is."""
    found: set[str] = set()
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            inside = {name: f"{node.module}.{name}" for name in names}
            names = [full if full in modules() else str(node.module) for full in inside.values()]
        found |= {name if name in modules() else f"{name}.__init__" for name in names}
    return found & modules().keys()


def test_no_file_imports_itself_through_others() -> None:
    graph = {name: imported(parsed(file)) for name, file in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_every_package_lists_what_it_offers() -> None:
    wrong: dict[str, set[str]] = {}
    for name, file in modules().items():
        if file.name != "__init__.py":
            continue
        body = parsed(file).body
        offered = {
            alias.asname or alias.name
            for node in body
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
        }
        if not offered:
            continue
        offered |= {
            node.name
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }
        listed: set[str] = set()
        for node in body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                listed = set(ast.literal_eval(node.value))
        if listed != offered:
            wrong[name] = listed ^ offered
    assert wrong == {}
