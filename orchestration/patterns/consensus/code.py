"""Compares programs: those that differ only in names, comments and layout are one answer."""

from __future__ import annotations

import ast
import re
import warnings

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_COMMENT = re.compile(r"(?://|#|--)[^\n]*")
_MAX_CHARS = 20_000


def code_in(text: str) -> str:
    """The program in an answer: its longest fenced block, else the whole text."""
    blocks = _FENCE.findall(text)
    return max(blocks, key=len).strip("\n") if blocks else text.strip()


def code_key(text: str) -> str | None:
    """A key that is the same for programs that differ only in names, comments, docstrings, types and layout.
    Code in other languages than Python is compared without comments and spaces. None when there is no
    program."""
    code = code_in(text)
    if not code.strip() or len(code) > _MAX_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            tree = ast.parse(code)
        return ast.unparse(_Canonical().visit(tree)) or None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "".join(_COMMENT.sub("", code).split()) or None


class _Canonical(ast.NodeTransformer):
    """Renames what the program itself binds to v0, v1, …, in the order of first appearance."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def visit_Module(self, node: ast.Module) -> ast.AST:
        for each in ast.walk(node):
            if isinstance(each, ast.arg):
                self._bind(each.arg)
            elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                self._bind(each.id)
        return self._without_docstring(node)

    def _bind(self, name: str) -> None:
        self.names.setdefault(name, f"v{len(self.names)}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def _without_docstring(self, node: ast.Module | ast.FunctionDef | ast.ClassDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(arg=self.names[node.arg], annotation=None)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is None or not isinstance(node.target, ast.Name):
            return node
        return ast.Assign(targets=[node.target], value=node.value, lineno=node.lineno)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(id=self.names.get(node.id, node.id), ctx=node.ctx)
