"""`__all__` of each package; ruff keeps it sorted (RUF022)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    *sorted((ROOT / "actors").rglob("__init__.py")),
    *sorted((ROOT / "orchestration").rglob("__init__.py")),
]


def public_names(module: ast.Module) -> Iterator[str]:
    """The names that imports, definitions and assignments bind, without those that begin with `_`."""
    for node in module.body:
        bound: list[str] = []
        match node:
            case ast.ImportFrom(module="__future__"):
                pass
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                bound = [(alias.asname or alias.name).split(".")[0] for alias in names]
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound = [name]
            case ast.Assign(targets=targets):
                bound = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                bound = [name]
        yield from (name for name in bound if not name.startswith("_"))


def offered(module: ast.Module) -> list[str]:
    """`__all__`; empty where there is none."""
    for node in module.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            return list(ast.literal_eval(node.value))
    return []


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_a_package_lists_in_all_just_the_names_that_it_has(path: Path) -> None:
    module = ast.parse(path.read_text())
    listed = offered(module)
    assert len(set(listed)) == len(listed)
    assert {name for name in listed if not name.startswith("__")} == set(public_names(module))
